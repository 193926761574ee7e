"""The answer of a cone search as rows: VOTable, JSON or CSV; what is none of them is refused."""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from broker.errors import AlertError
from broker.notices.safe_xml import Element, read_xml

_MOST_ELEMENTS = 500_000
_UCDS = {
    "ra": ("pos.eq.ra;meta.main", "pos_eq_ra_main"),
    "dec": ("pos.eq.dec;meta.main", "pos_eq_dec_main"),
    "id": ("meta.id;meta.main", "id_main"),
}


@dataclass(frozen=True)
class Names:
    """What the columns of an answer are called there.

    Parameters
    ----------
    ra, dec, id : str
        Position [deg] and identifier; in a VOTable without them, those with the usual UCDs.
    numbers, texts : mapping of str to str
        What else is wanted, by our name.
    """

    ra: str = "ra"
    dec: str = "dec"
    id: str = "id"
    numbers: Mapping[str, str] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """One row of an answer; position in degrees."""

    ra: float
    dec: float
    id: str
    numbers: dict[str, float | None]
    texts: dict[str, str | None]


def read_answer(body: bytes, names: Names) -> list[Entry]:
    """Return the entries of an answer; none if the service says that there are none.

    Parameters
    ----------
    body : bytes
        The answer, whole.
    names : Names
        What its columns are called.

    Raises
    ------
    AlertError
        If it is no table, lacks a column, has a row without a position, says that it failed, or
        that it is not whole.
    """
    start = body.lstrip()[:1]
    if not start:
        raise AlertError("the answer is empty")
    if start == b"<":
        columns, rows = _votable(body.lstrip(), names)
    elif start in b"[{":
        columns, rows = _json(body)
        if not rows and not columns:
            return []
    else:
        columns, rows = _csv(body)
    return [_entry(row, names) for row in _named(columns, rows, names)]


def _votable(body: bytes, names: Names) -> tuple[list[str], list[list[Any]]]:
    root = read_xml(body, most_elements=_MOST_ELEMENTS)
    if root.name.upper() != "VOTABLE":
        raise AlertError(f"the answer is XML, but {root.name}, no VOTable")
    for info in root.all("INFO"):
        value = info.attributes.get("value", "")
        is_status = info.attributes.get("name", "").upper() in ("QUERY_STATUS", "ERROR")
        if is_status and value.upper() != "OK":
            raise AlertError(f"the service says {value}: {info.text[:200]}")
    table = root.first("TABLE")
    if table is None:
        raise AlertError("the answer is a VOTable without a table")
    fields = [child for child in table.children if child.name == "FIELD"]
    if table.first("BINARY") or table.first("BINARY2") or table.first("FITS"):
        raise AlertError("the answer is a VOTable in binary; only TABLEDATA is read")
    columns = [_field_name(one, names) for one in fields]
    rows = [[td.text for td in row.all("TD")] for row in table.all("TR")]
    return columns, rows


def _field_name(one: Element, names: Names) -> str:
    """Return a field's name, or ours of position and id if its UCD says that it is one."""
    ucd = one.attributes.get("ucd", "").lower()
    ours = next((key for key, ucds in _UCDS.items() if ucd in ucds), None)
    return one.attributes.get("name", "") if ours is None else getattr(names, ours)


def _json(body: bytes) -> tuple[list[str], list[list[Any]]]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise AlertError(f"the answer is no JSON: {error}") from error
    rows = value.get("data") if isinstance(value, dict) else value
    if not isinstance(rows, list):
        raise AlertError("the answer is JSON without a list of rows")
    if isinstance(value, dict) and "metadata" in value:
        described = value["metadata"]
        if not isinstance(described, list) or not all(isinstance(m, dict) for m in described):
            raise AlertError("the answer is JSON with metadata that are no list")
        if not all(isinstance(row, list) for row in rows):
            raise AlertError("the answer is JSON with rows that are no lists")
        return [str(m.get("name")) for m in described], rows
    if not all(isinstance(row, dict) for row in rows):
        raise AlertError("the answer is JSON with rows that are no objects")
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return columns, [[row.get(name) for name in columns] for row in rows]


def _csv(body: bytes) -> tuple[list[str], list[list[Any]]]:
    try:
        text = body.decode("utf-8-sig")
        lines = (line for line in text.splitlines() if line.strip() and line[0] != "#")
        header, *rows = csv.reader(io.StringIO("\n".join(lines)), strict=True)
    except (UnicodeDecodeError, ValueError, csv.Error) as error:
        raise AlertError(f"the answer is no table: {error}") from error
    return [name.strip() for name in header], rows


def _named(
    columns: Sequence[str], rows: Iterable[Sequence[Any]], names: Names
) -> Iterable[dict[str, Any]]:
    places = {name.lower(): i for i, name in reversed(list(enumerate(columns)))}
    wanted = {names.ra, names.dec, names.id, *names.numbers.values(), *names.texts.values()}
    absent = sorted(name for name in wanted if name.lower() not in places)
    if absent:
        raise AlertError(f"the answer has no column {absent[0]}, but {', '.join(columns)[:200]}")
    for row in rows:
        if len(row) != len(columns):
            raise AlertError(f"a row of the answer has {len(row)} values, not {len(columns)}")
        yield {name: row[places[name.lower()]] for name in wanted}


def _entry(row: Mapping[str, Any], names: Names) -> Entry:
    ra, dec = _number(row[names.ra]), _number(row[names.dec])
    if ra is None or dec is None or not (0.0 <= ra <= 360.0 and -90.0 <= dec <= 90.0):
        raise AlertError(f"a row of the answer is at {row[names.ra]!r}, {row[names.dec]!r}")
    return Entry(
        ra,
        dec,
        _text(row[names.id]) or "",
        {ours: _number(row[theirs]) for ours, theirs in names.numbers.items()},
        {ours: _text(row[theirs]) for ours, theirs in names.texts.items()},
    )


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _text(value: Any) -> str | None:
    return None if value is None or value == "" else str(value)
