"""Stored alerts as flat rows: one name a value, ids as text, times as MJD and ISO."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from broker.alerts.columns import SCALARS
from broker.api.errors import ApiError
from broker.store.keys import object_part
from broker.units import AB_ZERO_POINT_NJY, flux_err_to_mag_err, flux_to_mag, mjd_tai_to_unix_s

Row = dict[str, Any]

_NESTED = ("outputs", "topics", "provenance", "origins")
_IDS = ("visit",)
"""Identifiers that surveys number with more digits than a JSON number keeps."""

DERIVED = {
    "objectId": "Name that the object is asked for by: its diaObjectId, or ss: and its ssObjectId.",
    "midpointUtc": "midpointMjdTai as ISO 8601, UTC.",
    "mag": "AB magnitude of psfFlux; null where it is not positive.",
    "magErr": "1-sigma error of mag.",
}


def object_name(alert: Mapping[str, Any]) -> str:
    """Return the name by which an alert's object is asked for."""
    return object_part(alert["diaObjectId"], alert["ssObjectId"], alert["diaSourceId"])


def iso_utc(mjd_tai: float | None) -> str | None:
    """Return an MJD (TAI) as ISO 8601, UTC, to a millisecond; None for a time that is none."""
    if mjd_tai is None or not 0.0 < mjd_tai < 1e6:
        return None
    moment = datetime.fromtimestamp(float(mjd_tai_to_unix_s(mjd_tai)), UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def magnitude(flux: float | None, flux_err: float | None) -> tuple[float | None, float | None]:
    """Return AB magnitude and error of a flux in nJy; null where it is not positive."""
    if flux is None or flux_err is None or not flux > 0.0:
        return None, None
    return float(flux_to_mag(flux)), float(flux_err_to_mag_err(flux_err, flux))


def limit_magnitude(flux_err: float | None, sigma: float = 5.0) -> float | None:
    """Return the AB magnitude that is `sigma` times an error. [mag]"""
    if flux_err is None or not flux_err > 0.0:
        return None
    return float(flux_to_mag(sigma * flux_err))


def flat_row(alert: Mapping[str, Any]) -> Row:
    """Return a stored alert as one row: outputs as `module@version:column`, topics as a list."""
    row: Row = {"objectId": object_name(alert)}
    for name, value in alert.items():
        if name in _NESTED:
            continue
        row[name] = str(value) if name in _IDS and value is not None else value
        if name == "midpointMjdTai":
            row["midpointUtc"] = iso_utc(value)
        elif name == "psfFluxErr":
            row["mag"], row["magErr"] = magnitude(alert["psfFlux"], value)
    for module, outputs in alert["outputs"].items():
        row |= {f"{module}:{name}": value for name, value in outputs.items()}
    row["topics"] = list(alert["topics"])
    return row


def nested_row(alert: Mapping[str, Any]) -> Row:
    """Return a stored alert as JSON has it: outputs by module, provenance and origins kept."""
    row = {name: value for name, value in flat_row(alert).items() if ":" not in name}
    return row | {name: alert[name] for name in ("outputs", "provenance", "origins")}


def chosen_columns(rows: Sequence[Row], columns: Sequence[str] | None) -> list[str]:
    """Return the columns of a table: those asked for, or all that rows have, in their order.

    Raises
    ------
    ApiError
        If a column is unknown to every row; it says which there are.
    """
    present: dict[str, None] = {}
    for row in rows:
        present |= dict.fromkeys(row)
    if columns is None:
        return list(present)
    known = present if rows else None
    unknown = [name for name in columns if known is not None and name not in known]
    if unknown:
        raise ApiError(400, f"there is no column {unknown[0]!r}", present)
    return list(columns)


def projected(rows: Iterable[Row], columns: Sequence[str] | None) -> list[Row]:
    """Return rows with the chosen columns only; all if none are chosen."""
    rows = list(rows)
    names = chosen_columns(rows, columns)
    return rows if columns is None else [{name: row.get(name) for name in names} for row in rows]


def units() -> dict[str, str]:
    """Return the unit of each canonical column that has one."""
    known = {column.name: column.unit for column in SCALARS if column.unit}
    return known | {"mag": "mag", "magErr": "mag", "separation": "arcsec"}


ZERO_POINT = AB_ZERO_POINT_NJY
