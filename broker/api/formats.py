"""One table in four formats: JSON, CSV, VOTable, Parquet."""

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import pyarrow as pa
import pyarrow.parquet as pq
from fastapi import Response
from fastapi.responses import JSONResponse

from broker.api.errors import ApiError
from broker.api.rows import Row, chosen_columns, units

MEDIA_TYPES = {
    "json": "application/json",
    "csv": "text/csv",
    "votable": "application/x-votable+xml",
    "parquet": "application/vnd.apache.parquet",
}
"""Formats and the media types by which `Accept` asks for them."""

FORMATS = tuple(MEDIA_TYPES)
_ANY = ("*/*", "application/*", "text/html", "application/xhtml+xml")


def choose_format(name: str | None, accept: str) -> str:
    """Return the format that is asked for: by name, else by the header `Accept`, else JSON.

    Raises
    ------
    ApiError
        If there is no such format: 400 for a name, 406 for a header.
    """
    if name is not None:
        if name not in MEDIA_TYPES:
            raise ApiError(400, f"there is no format {name!r}", FORMATS)
        return name
    asked = [part.split(";")[0].strip().lower() for part in accept.split(",") if part.strip()]
    for one in asked:
        if one in _ANY:
            return "json"
        for known, media_type in MEDIA_TYPES.items():
            if one in (media_type, "application/x-parquet" if known == "parquet" else media_type):
                return known
    if asked:
        raise ApiError(406, f"no answer is of {accept!r}", MEDIA_TYPES.values())
    return "json"


def plain(value: Any) -> Any:
    """Return a value as JSON has it: null for what is not a number."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v) for v in value]
    return plain(value.item()) if hasattr(value, "item") else value


def json_response(value: Any, headers: Mapping[str, str] | None = None) -> Response:
    """Return a JSON answer."""
    return JSONResponse(plain(value), headers=dict(headers or {}))


def table_response(
    rows: Sequence[Row],
    *,
    name: str,
    form: str,
    columns: Sequence[str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return rows as a table: CSV, VOTable or Parquet.

    Parameters
    ----------
    rows : sequence of dict
        Rows; a value that a row lacks is null.
    name : str
        Of the file that a browser would store.
    form : str
        `csv`, `votable` or `parquet`.
    columns : sequence of str, optional
        Which, in which order; default all.
    headers : mapping, optional
        More headers.
    """
    names = chosen_columns(rows, columns)
    flat = [{n: _scalar(row.get(n)) for n in names} for row in rows]
    body = {"csv": _csv, "votable": _votable, "parquet": _parquet}[form](flat, names)
    suffix = {"votable": "vot"}.get(form, form)
    disposition = f'attachment; filename="{_file_name(name)}.{suffix}"'
    all_headers = {"Content-Disposition": disposition, **(headers or {})}
    return Response(body, media_type=MEDIA_TYPES[form], headers=all_headers)


def _file_name(name: str) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "-" for c in name)


def _scalar(value: Any) -> Any:
    value = plain(value)
    if isinstance(value, list):
        return " ".join(str(v) for v in value)
    return str(value) if isinstance(value, dict) else value


def _csv(rows: Sequence[Row], names: Sequence[str]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        writer.writerow(["" if row[n] is None else _csv_value(row[n]) for n in names])
    return text.getvalue().encode()


def _csv_value(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value


def _arrow(rows: Sequence[Row], names: Sequence[str]) -> pa.Table:
    by_unit = units()
    arrays, fields = [], []
    for name in names:
        values = [row[name] for row in rows]
        if len({type(v) for v in values if v is not None} - {int, float}) > 0 and any(
            isinstance(v, int | float) and not isinstance(v, bool) for v in values
        ):
            values = [None if v is None else str(v) for v in values]
        array = pa.array(values)
        if pa.types.is_null(array.type):
            array = array.cast(pa.string())
        metadata = {"unit": by_unit[name]} if name in by_unit else None
        arrays.append(array)
        fields.append(pa.field(name, array.type, metadata=metadata))
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def _parquet(rows: Sequence[Row], names: Sequence[str]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(_arrow(rows, names), sink, compression="zstd")
    return sink.getvalue()


_VO_TYPES = {
    "bool": 'datatype="boolean"',
    "int16": 'datatype="short"',
    "int32": 'datatype="int"',
    "int64": 'datatype="long"',
    "float": 'datatype="float"',
    "double": 'datatype="double"',
    "string": 'datatype="char" arraysize="*"',
}


def _votable(rows: Sequence[Row], names: Sequence[str]) -> bytes:
    return votable(_arrow(rows, names))


@dataclass(frozen=True)
class Info:
    """What a VOTable says of itself: `QUERY_STATUS`, `OK`, and a sentence."""

    name: str
    value: str
    text: str = ""

    def __str__(self) -> str:
        named = f"name={quoteattr(self.name)} value={quoteattr(_said(self.value))}"
        return f"<INFO {named}>{escape(_said(self.text))}</INFO>"


def votable(
    table: pa.Table,
    *,
    meanings: Mapping[str, str] | None = None,
    units_of: Mapping[str, str] | None = None,
    descriptions: Mapping[str, str] | None = None,
    infos: Sequence[Info] = (),
    last_infos: Sequence[Info] = (),
) -> bytes:
    """Return a VOTable 1.3 with its data as XML; an empty cell is null.

    Parameters
    ----------
    table : pa.Table
        Columns of booleans, numbers and texts.
    meanings : mapping, optional
        UCDs by column.
    units_of : mapping, optional
        Units by column; default those of the canonical columns.
    descriptions : mapping, optional
        Sentences by column.
    infos, last_infos : sequence of Info
        What stands before the table, and behind it.
    """
    by_unit, ucds, names = units_of, meanings or {}, table.column_names
    by_unit = units() if by_unit is None else by_unit
    fields = []
    for field, identity in zip(table.schema, _vo_ids(names), strict=True):
        unit = f" unit={quoteattr(by_unit[field.name])}" if by_unit.get(field.name) else ""
        if ucds.get(field.name):
            unit += f" ucd={quoteattr(ucds[field.name])}"
        kind, words = _VO_TYPES[str(field.type)], (descriptions or {}).get(field.name)
        end = f"><DESCRIPTION>{escape(words)}</DESCRIPTION></FIELD>" if words else "/>"
        fields.append(
            f'<FIELD ID="{identity}" name={quoteattr(_said(field.name))} {kind}{unit}{end}'
        )
    columns = [column.to_pylist() for column in table.columns]
    lines = [
        "<TR>" + "".join(f"<TD>{_vo_cell(value)}</TD>" for value in row) + "</TR>"
        for row in zip(*columns, strict=True)
    ]
    document = [
        _VO_START,
        '<RESOURCE type="results">',
        *map(str, infos),
        "<TABLE>",
        *fields,
        "<DATA><TABLEDATA>",
        *lines,
        "</TABLEDATA></DATA></TABLE>",
        *map(str, last_infos),
        "</RESOURCE></VOTABLE>",
    ]
    return "\n".join(document).encode()


def votable_error(words: str) -> bytes:
    """Return a VOTable that says what is wrong, as services of the Virtual Observatory do."""
    info = Info("QUERY_STATUS", "ERROR", words)
    return f'{_VO_START}\n<RESOURCE type="results">{info}</RESOURCE></VOTABLE>'.encode()


_VO_START = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<VOTABLE version="1.3" xmlns="http://www.ivoa.net/xml/VOTable/v1.3">'
)


def _vo_ids(names: Sequence[str]) -> list[str]:
    """Return names as XML identifiers: most readers call columns by these."""
    found: dict[str, None] = {}
    for name in names:
        identity = re.sub(r"[^A-Za-z0-9_.]", "_", name)
        if not identity[:1].isalpha():
            identity = f"_{identity}"
        while identity in found:
            identity += "_"
        found[identity] = None
    return list(found)


_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _vo_cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else f"{value:+}".replace("inf", "Inf")
    return escape(_said(str(value)))


def _said(text: str) -> str:
    """Return a text without what no XML can say."""
    return _NOT_XML.sub("\ufffd", text)
