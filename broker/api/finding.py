"""How alerts are found: by the index of their nights and topics, or by their places."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from broker.api.errors import ApiError
from broker.api.pages import Page, decode_cursor, encode_cursor
from broker.api.sources import Alert, Sources
from broker.catalog.healpix import FINEST_ORDER
from broker.catalog.regions import Region
from broker.store import keys
from broker.store.alerts import AlertStore
from broker.store.blocks import Entries, entries_of, joined_entries
from broker.store.search import Wanted, matching
from broker.types import night_of

MOST_READ = 3_000_000
"""Alerts that one search looks at, of those its nights and topic have."""

_SMALL_SKY = 4.0 / 41_253.0
"""A region below this share of the sky is searched by place: 4 deg²."""

_MOST_SIGHTINGS = 20_000

Order = NDArray[np.int64]


@dataclass(frozen=True)
class Found:
    """What a search found: the newest first, of the same time by the number of the alert."""

    entries: Entries

    @property
    def order(self) -> Order:
        """Numbers of the entries in the order of the answer, shape (n,)."""
        numbers = self.entries.numbers
        return np.lexsort((numbers["number"], -numbers["midpointMjdTai"]))


def find(sources: Sources, wanted: Wanted) -> Found:
    """Return the public alerts that are as they are wanted, each once.

    Raises
    ------
    ApiError
        If too many alerts would have to be looked at, or the run has no index.
    """
    sources.check_index()
    first, last = wanted.nights
    if wanted.region is not None and wanted.topic is None and _share(wanted.region) < _SMALL_SKY:
        near = _near(sources, wanted.region, wanted)
        if near is not None:
            return Found(near.take(matching(near, wanted)))
    nights = [
        night
        for night in reversed(sources.index.nights(topic=wanted.topic))
        if (first is None or night >= first) and (last is None or night <= last)
    ]
    nights = _in_time(nights, wanted)
    parts, read = [], 0
    for night in nights:
        entries = sources.shelf.entries(night, wanted.topic)
        parts.append(entries.take(matching(entries, wanted)))
        read += len(entries)
        if read > MOST_READ:
            raise ApiError(
                400,
                f"more than {MOST_READ} alerts would be looked at, back to night {night}; narrow "
                "the search",
                ("firstNight", "night", "topic", "a region of less than 4 deg²"),
            )
    return Found(joined_entries(parts))


def _in_time(nights: Sequence[str], wanted: Wanted) -> list[str]:
    """Return the nights that a range of times touches."""
    low, high = wanted.ranges.get("midpointMjdTai", (None, None))
    ends = [night_of(t) if t is not None and 0.0 < t < 1e5 else None for t in (low, high)]
    return [
        night
        for night in nights
        if (ends[0] is None or night >= ends[0]) and (ends[1] is None or night <= ends[1])
    ]


def _share(region: Region) -> float:
    size = (region.end - region.first).astype(np.float64).sum()
    return float(size / (12 << (2 * FINEST_ORDER)))


def _near(sources: Sources, region: Region, wanted: Wanted) -> Entries | None:
    """Return the alerts in a small region by their places; None if they are too many."""
    low, high = wanted.ranges.get("midpointMjdTai", (None, None))
    ranges = keys.merged_ranges(region.first, region.end, keys.SKY_ORDER)
    store, found = sources.store, []
    for sighting in store.sightings(ranges, low or 0.0, 1e5 if high is None else high):
        found.append(sighting)
        if len(found) > _MOST_SIGHTINGS:
            return None
    if not found:
        return entries_of([])
    inside = region.contains(
        np.array([one.ra for one in found]), np.array([one.dec for one in found])
    )
    chosen = [one.key for one, is_in in zip(found, inside, strict=True) if is_in]
    entries = entries_of(store.alerts(list(dict.fromkeys(chosen))))
    if wanted.nights == (None, None) or not len(entries):
        return entries
    return entries.take(_in_nights(entries, wanted.nights))


def _in_nights(entries: Entries, nights: tuple[str | None, str | None]) -> NDArray[np.bool_]:
    days = np.floor(entries.numbers["midpointMjdTai"] - 0.5)
    names = {day: night_of(day + 0.75) for day in np.unique(days).tolist()}
    first, last = nights
    is_in = {
        day: (first is None or name >= first) and (last is None or name <= last)
        for day, name in names.items()
    }
    return np.array([is_in[day] for day in days.tolist()], bool)


def newest_of_objects(found: Found) -> Order:
    """Return the entry of each object that is its newest, in the order of the answer."""
    order, entries = found.order, found.entries
    if not order.size:
        return order
    names = entries.texts["objectName"].take(pa.array(order))
    code = pc.dictionary_encode(names).indices.to_numpy().astype(np.int64)
    code = code * 1000 + _survey_codes(entries)[order]
    _, first = np.unique(code, return_index=True)
    return order[np.sort(first)]


def _survey_codes(entries: Entries) -> Order:
    codes = np.zeros(len(entries), np.int64)
    for code, survey in enumerate(_surveys(entries)):
        codes[entries.label(f"survey:{survey}")] = code
    return codes


def _surveys(entries: Entries) -> list[str]:
    kinds = (label.partition(":") for label in entries.labels)
    return sorted(value for kind, _, value in kinds if kind == "survey")


def page_of_found(
    found: Found, order: Order, store: AlertStore, *, limit: int, cursor: str | None
) -> Page[Alert]:
    """Return the part of an answer after a cursor, as stored alerts.

    Parameters
    ----------
    found : Found
    order : NDArray[np.int64], shape (n,)
        Entries of the whole answer, in its order.
    store : AlertStore
        Where their rows are.
    limit : int
        Alerts of the part.
    cursor : str or None
        The last alert that was seen.
    """
    mjd, number = (found.entries.numbers[name] for name in ("midpointMjdTai", "number"))
    start = 0
    if cursor is not None:
        try:
            last_mjd, last_number = decode_cursor(cursor)
            after = (mjd[order] < float(last_mjd)) | (
                (mjd[order] == float(last_mjd)) & (number[order] > np.uint64(int(last_number)))
            )
        except (TypeError, ValueError, OverflowError) as error:
            raise ApiError(400, "the cursor belongs to another question") from error
        start = int(np.argmax(after)) if after.any() else order.size
    part = order[start : start + limit]
    more = start + limit < order.size
    place = [float(mjd[part[-1]]), str(number[part[-1]])] if part.size and more else None
    alerts = [one for one in store.alerts(alert_keys(found.entries, part)) if one["isPublic"]]
    return Page(alerts, int(order.size), encode_cursor(place) if place else None)


def alert_keys(entries: Entries, rows: Order) -> list[bytes]:
    """Return the keys of the rows of some entries in the table of alerts."""
    chosen = entries.take(rows)
    surveys, codes = _surveys(chosen), _survey_codes(chosen)
    times = keys.time_us(chosen.numbers["midpointMjdTai"]).tolist()
    texts = (chosen.texts[name].to_pylist() for name in ("objectName", "diaSourceId"))
    return [
        keys.alert_key(surveys[code], name, at, dia_source_id)
        for code, at, name, dia_source_id in zip(codes, times, *texts, strict=True)
    ]
