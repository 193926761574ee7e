"""Numbers and names as people read them."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from broker.alerts.columns import FOUND, NOT_SEARCHED
from broker.api.rows import iso_utc
from broker.catalog.registry import Definition, match_name

DASH = "–"


def number(value: Any, digits: int = 4) -> str:
    """Return a number with so many significant digits, a dash for null."""
    if value is None:
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return DASH if value != value else f"{value:.{digits}g}"  # NaN
    return str(value)


def fixed(value: Any, places: int = 3) -> str:
    """Return a number with so many places, a dash for null or NaN."""
    if value is None or value != value:  # NaN
        return DASH
    return f"{value:.{places}f}"


def percent(value: float | None) -> str:
    """Return a fraction in percent, a dash for null."""
    return DASH if value is None else f"{100.0 * value:.2g} %"


def moment(value: float | None) -> str:
    """Return an MJD (TAI) as UTC, to a second."""
    text = iso_utc(value)
    return DASH if text is None else text[:19].replace("T", " ")


def clock(milliseconds: int | None) -> str:
    """Return milliseconds since 1970 as UTC, to a second."""
    if milliseconds is None:
        return DASH
    return datetime.fromtimestamp(milliseconds / 1000.0, UTC).strftime("%Y-%m-%d %H:%M:%S")


def night(text: str) -> str:
    """Return a night with dashes."""
    return f"{text[:4]}-{text[4:6]}-{text[6:]}"


def thousands(value: int | None) -> str:
    """Return a count with thin spaces."""
    return DASH if value is None else f"{value:,}".replace(",", "\u202f")


FILTERS: dict[str, Any] = {
    "number": number,
    "fixed": fixed,
    "percent": percent,
    "moment": moment,
    "clock": clock,
    "night": night,
    "thousands": thousands,
}


def matches(alert: Mapping[str, Any], definitions: Sequence[Definition]) -> list[dict[str, Any]]:
    """Return one row a catalogue: what was found, in columns and in a sentence."""
    rows = []
    for definition in definitions:
        name = definition.name
        reading = alert.get(match_name(name, "match"))
        if reading is None:
            continue
        attached = [
            (c.name, c.unit, alert.get(match_name(name, c.name))) for c in definition.columns
        ]
        row = {
            "catalog": name,
            "reading": reading,
            "id": alert.get(match_name(name, "id")),
            "separation": alert.get(match_name(name, "separation")),
            "version": alert.get(match_name(name, "version")),
            "attached": [(n, u, v) for n, u, v in attached if v is not None],
        }
        rows.append({**row, "sentence": _sentence(row, definition)})
    return rows


def _sentence(row: Mapping[str, Any], definition: Definition) -> str:
    if row["reading"] == NOT_SEARCHED:
        return f"{definition.name} was not searched: it is not installed."
    if row["reading"] != FOUND:
        return f"Nothing of {definition.name} lies within its radius of a match."
    values = {n: v for n, _, v in row["attached"]}
    thing = values.pop("class", None) or "entry"
    facts = ", ".join(
        f"{n} {number(v)}" + (f" {u}" if u else "") for n, u, v in row["attached"] if n in values
    )
    article = "An" if str(thing)[0] in "aeiou" else "A"
    return f"{article} {thing} of {definition.name} lies {fixed(row['separation'], 2)}″ away" + (
        f": {facts}." if facts else "."
    )
