"""Rows for a query: the public alerts of the index, as Arrow, no more than it can be about."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from broker.api.errors import ApiError
from broker.api.finding import Found, find
from broker.api.sources import Sources
from broker.api.tap.adql import Reference
from broker.api.tap.pushdown import Limits
from broker.api.tap.tables import ALERTS, TapTable
from broker.store.blocks import SOLAR_SYSTEM, Entries, entries_of
from broker.store.search import Wanted
from broker.types import PRIVATE, night_of
from broker.units import flux_to_mag
from broker.watchlists.index import PREFIX

MOST_ROWS = 2_000_000
"""Alerts that a query may be about."""

KEPT_S = 30.0
"""How old the rows may be that a query reads. [s]"""

_MOST_HISTORIES = 1000
"""Objects of a region that are read one by one; of more, all are read."""

_UNTOLD = (f"topic:{PREFIX}", f"topic:{PRIVATE}")
"""Topics of watchlists are their owners' affair."""

_AT_ONCE = 4

Codes = NDArray[np.int64]


def rows_of(sources: Sources, reference: Reference, table: TapTable) -> pa.Table:
    """Return the rows that a query's table must have for its answer to be right.

    Parameters
    ----------
    sources : Sources
    reference : Reference
        A table in a query, and what is known of the rows it needs.
    table : TapTable
        Its columns.

    Raises
    ------
    ApiError
        If they are too many, or the run has no index.
    """
    limits = reference.limits
    if reference.table == ALERTS:
        if limits == Limits():
            return sources.kept("tap-alerts", KEPT_S, lambda: _alerts(sources, limits, table))
        return _alerts(sources, limits, table)
    if limits.region is not None:
        found = _objects_in(sources, limits, table)
        if found is not None:
            return found
    return sources.kept("tap-objects", KEPT_S, lambda: _objects(sources, table))


def _alerts(sources: Sources, limits: Limits, table: TapTable) -> pa.Table:
    return alert_rows(_found(sources, limits).entries, table)


def _objects(sources: Sources, table: TapTable) -> pa.Table:
    return object_rows(_found(sources, Limits()).entries, table)


def _found(sources: Sources, limits: Limits) -> Found:
    low, high = limits.mjd
    wanted = Wanted(
        nights=limits.nights,
        ranges={} if limits.mjd == (None, None) else {"midpointMjdTai": (low, high)},
        region=limits.region,
    )
    if limits.region is None:
        _check_size(sources, limits)
    return find(sources, wanted)


def _check_size(sources: Sources, limits: Limits) -> None:
    """Raise ApiError if a query is about more alerts than are read."""
    sources.check_index()
    first, last = limits.nights
    low, high = (night_of(t) if t and 0.0 < t < 1e5 else None for t in limits.mjd)
    total = 0
    for night in reversed(sources.nights()):
        if any(one is not None and night < one for one in (first, low)):
            continue
        if any(one is not None and night > one for one in (last, high)):
            continue
        total += sources.counts(night)["alerts"]["all"]
        if total > MOST_ROWS:
            raise ApiError(
                400,
                f"the query is about more than {MOST_ROWS} alerts, back to night {night}; say "
                "where or, of broker.alerts, when",
                ("CONTAINS(POINT(ra, dec), CIRCLE(…, 1.0)) = 1", "night >= '20230420'",
                 "midpointMjdTai BETWEEN … AND …"),
            )  # fmt: skip


def _objects_in(sources: Sources, limits: Limits, table: TapTable) -> pa.Table | None:
    """Return the objects with an alert in a region, with all their alerts; None if too many."""
    near = _found(sources, Limits(limits.region)).entries
    names: dict[str, list[str]] = {}
    surveys = words_of(near, "survey").to_pylist()
    for survey, name in zip(surveys, near.texts["objectName"].to_pylist(), strict=True):
        names.setdefault(survey, []).append(name)
    distinct = {survey: list(dict.fromkeys(found)) for survey, found in names.items()}
    if sum(map(len, distinct.values())) > _MOST_HISTORIES:
        return None
    names_of = [(survey, name) for survey, chosen in distinct.items() for name in chosen]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = pool.map(lambda one: sources.find_object(*one), names_of)
        records = [alert for alerts in found for alert in alerts]
    return object_rows(entries_of(records), table)


def alert_rows(entries: Entries, table: TapTable) -> pa.Table:
    """Return alerts as rows of the table of alerts."""
    mjd = entries.numbers["midpointMjdTai"]
    days, code = np.unique(np.floor(mjd - 0.5), return_inverse=True)
    nights = pa.array([night_of(day + 0.75) for day in days.tolist()], pa.string())
    found = _measured(entries, table) | {
        "diaSourceId": entries.texts["diaSourceId"],
        "night": pa.DictionaryArray.from_arrays(pa.array(code.astype(np.int32)), nights),
        "midpointMjdTai": pa.array(mjd),
    }
    return pa.table({column.name: found[column.name] for column in table.columns})


def object_rows(entries: Entries, table: TapTable) -> pa.Table:
    """Return the objects of alerts as rows of the table of objects."""
    mjd = entries.numbers["midpointMjdTai"]
    if not len(entries):
        return alert_free(table)
    order = Found(entries).order  # the newest first
    code = _object_codes(entries)[order]
    _, newest, group, count = np.unique(
        code, return_index=True, return_inverse=True, return_counts=True
    )
    first = np.full(newest.size, np.inf)
    np.minimum.at(first, group, mjd[order])
    chosen = entries.take(order[newest])
    found = _measured(chosen, table) | {
        "nAlerts": pa.array(count.astype(np.int32)),
        "firstMjdTai": pa.array(first),
        "lastMjdTai": pa.array(chosen.numbers["midpointMjdTai"]),
        "newestAlert": chosen.texts["diaSourceId"],
    }
    return pa.table({column.name: found[column.name] for column in table.columns})


def alert_free(table: TapTable) -> pa.Table:
    """Return a table without rows."""
    return table.arrow_schema.empty_table()


def _object_codes(entries: Entries) -> Codes:
    names = pc.dictionary_encode(entries.texts["objectName"]).indices.to_numpy().astype(np.int64)
    surveys = pc.dictionary_encode(words_of(entries, "survey").cast(pa.string()))
    return names * 1000 + surveys.indices.to_numpy().astype(np.int64)


def _measured(entries: Entries, table: TapTable) -> dict[str, pa.Array]:
    numbers = entries.numbers
    flux = numbers["psfFlux"].astype(np.float64)
    mag = np.full(flux.shape, np.nan)
    mag[flux > 0.0] = flux_to_mag(flux[flux > 0.0])
    count = numbers["nDiaSources"]
    found = {
        "objectId": entries.texts["objectName"],
        "survey": words_of(entries, "survey"),
        "ra": pa.array(numbers["ra"]),
        "dec": pa.array(numbers["dec"]),
        "band": words_of(entries, "band"),
        "mag": pa.array(mag.astype(np.float32), from_pandas=True),
        "nDiaSources": pa.array(count, mask=count == 0),
        "isSolarSystem": pa.array(entries.label(SOLAR_SYSTEM).astype(np.int16)),
        "topics": words_of(entries, "topic"),
    }
    for name in ("psfFlux", "snr", "reliability", "limitingMag"):
        found[name] = pa.array(numbers[name], from_pandas=True)
    for column in table.columns:
        if column.name in found:
            continue
        if column.name.endswith("Class"):
            found[column.name] = words_of(entries, "class", f"{column.name}=")
        elif column.name.endswith("Match"):
            has = entries.label(f"catalog:{column.name.removesuffix('Match')}")
            found[column.name] = pa.array(has.astype(np.int16), mask=~has)
    return found


def words_of(entries: Entries, kind: str, prefix: str = "") -> pa.DictionaryArray:
    """Return the values that alerts have of a kind of label, with spaces between; else null."""
    start = f"{kind}:{prefix}"
    chosen = {
        name.removeprefix(start): bits
        for name, bits in entries.labels.items()
        if name.startswith(start) and not name.startswith(_UNTOLD)
    }
    code = np.zeros(len(entries), np.int64)
    words: Sequence[str] = [""]
    for value, bits in sorted(chosen.items()):
        # Sets of values are numbered anew with each value: few sets really occur.
        used, code = np.unique(code * 2 + bits, return_inverse=True)
        words = [f"{words[n // 2]} {value}".strip() if n % 2 else words[n // 2]
                 for n in used.tolist()]  # fmt: skip
    empty = np.array([not word for word in words], bool)
    return pa.DictionaryArray.from_arrays(
        pa.array(code.astype(np.int32), mask=empty[code]), pa.array(list(words), pa.string())
    )
