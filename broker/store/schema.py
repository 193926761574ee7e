"""Values of many columns in one cell, and the layouts that say how to read them.

What HBase costs is counted in cells, so all canonical columns of an alert are one cell, and so
are all outputs of one version of a module. Such a value is a *packed row*:

====================  ==========================================================================
4 bytes               id of the layout: a hash of the columns' names and types
(columns + 7) / 8     one bit a column, the first is the highest of the first byte: 1 is null
fixed width           each column in order, big-endian: booleans as one byte, numbers as they
                      are, texts and bytes as their length in four bytes; zeros for null
the rest              the texts (UTF-8) and bytes, one after the other
====================  ==========================================================================

The round trip is exact: NaN is not null, and 64-bit integers keep every digit. Layouts are kept
in the table `meta` before the first row that uses them, so old rows stay readable when columns
come or go.
"""

import functools
import hashlib
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from broker.errors import ConfigError, ServiceError

_FORMATS = {
    "bool": "u1",
    "int8": ">i1",
    "int16": ">i2",
    "int32": ">i4",
    "int64": ">i8",
    "uint8": ">u1",
    "uint16": ">u2",
    "uint32": ">u4",
    "uint64": ">u8",
    "float32": ">f4",
    "float64": ">f8",
    "string": ">u4",
    "binary": ">u4",
}
_STRUCT_CODES = {
    "bool": "?",
    "int8": "b",
    "int16": "h",
    "int32": "i",
    "int64": "q",
    "uint8": "B",
    "uint16": "H",
    "uint32": "I",
    "uint64": "Q",
    "float32": "f",
    "float64": "d",
    "string": "I",
    "binary": "I",
}
_VARIABLE = ("string", "binary")
_ARROW = {"string": pa.string(), "binary": pa.binary(), "float32": pa.float32()}
_ID_BYTES = 4

Column = tuple[str, str]
"""Name and type of a packed column."""


@dataclass(frozen=True)
class Layout:
    """How the columns of a packed row stand in it.

    Parameters
    ----------
    columns : tuple of (str, str)
        Name and type of each, in order; a type is one of `bool`, `int8` … `uint64`, `float32`,
        `float64`, `string`, `binary`.
    """

    columns: tuple[Column, ...]

    @functools.cached_property
    def text(self) -> bytes:
        """The layout as JSON, as it stands in the table `meta`."""
        return json.dumps({"columns": self.columns}, separators=(",", ":")).encode()

    @functools.cached_property
    def id(self) -> bytes:
        """First four bytes of the SHA-256 of `text`."""
        return hashlib.sha256(self.text).digest()[:_ID_BYTES]

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(name for name, _ in self.columns)

    @functools.cached_property
    def dtype(self) -> np.dtype[Any]:
        """The part of fixed width, as a structured type: id, nulls, then `f0`, `f1`…"""
        nulls = (len(self.columns) + 7) // 8
        fields: list[Any] = [("id", f"S{_ID_BYTES}"), ("nulls", "u1", (nulls,))]
        fields += [(f"f{i}", _FORMATS[kind]) for i, (_, kind) in enumerate(self.columns)]
        return np.dtype(fields)

    @functools.cached_property
    def fixed(self) -> struct.Struct:
        """The columns of fixed width, behind id and nulls."""
        return struct.Struct(">" + "".join(_STRUCT_CODES[kind] for _, kind in self.columns))

    @classmethod
    def parse(cls, text: bytes) -> "Layout":
        """Return the layout of a `text`."""
        return cls(tuple((name, kind) for name, kind in json.loads(text)["columns"]))


def layout_of(table: pa.Table) -> Layout:
    """Return the layout of a table's columns.

    Raises
    ------
    ConfigError
        If a column has a type that is not packed: a list, a struct, a time.
    """
    return Layout(tuple((field.name, _kind(field)) for field in table.schema))


def pack(table: pa.Table, layout: Layout) -> list[bytes]:
    """Return each row of a table as a packed row, all at once.

    Parameters
    ----------
    table : pa.Table
        Rows with the columns of `layout`.
    layout : Layout
        From `layout_of(table)`.
    """
    fixed = np.zeros(table.num_rows, dtype=layout.dtype)
    if table.num_rows == 0:
        return []
    fixed["id"] = layout.id
    nulls = np.zeros((table.num_rows, len(layout.columns)), dtype=np.bool_)
    tails: list[Any] = []
    for i, (name, kind) in enumerate(layout.columns):
        array = _one_chunk(table[name])
        if array.null_count:
            nulls[:, i] = array.is_null().to_numpy(zero_copy_only=False)
        if kind in _VARIABLE:
            array = array.cast(pa.large_binary()).fill_null(b"")
            fixed[f"f{i}"] = pc.binary_length(array).to_numpy(zero_copy_only=False)
            tails.append(array)
        else:
            filled = array.fill_null(False if kind == "bool" else 0) if array.null_count else array
            fixed[f"f{i}"] = filled.to_numpy(zero_copy_only=False)
    fixed["nulls"] = np.packbits(nulls, axis=1)
    return _rows(fixed, tails)


def unpack(value: bytes, layout: Layout) -> dict[str, Any]:
    """Return a packed row by column name; None for null.

    Raises
    ------
    ServiceError
        If the value is not of this layout.
    """
    n_nulls = (len(layout.columns) + 7) // 8
    start = _ID_BYTES + n_nulls
    at = start + layout.fixed.size
    if value[:_ID_BYTES] != layout.id or len(value) < at:
        raise ServiceError("a packed row is damaged: it is not of its layout")
    nulls = int.from_bytes(value[_ID_BYTES:start], "big") >> (8 * n_nulls - len(layout.columns))
    numbers = layout.fixed.unpack_from(value, start)
    record: dict[str, Any] = {}
    bit = 1 << len(layout.columns)
    for (name, kind), number in zip(layout.columns, numbers, strict=True):
        bit >>= 1
        if kind in _VARIABLE:
            raw = value[at : at + number]
            at += number
            number = raw.decode() if kind == "string" else raw
        record[name] = None if nulls & bit else number
    if at != len(value):
        raise ServiceError("a packed row is damaged: it has another length than its layout says")
    return record


def unpack_many(values: Sequence[bytes], layout: Layout) -> pa.Table:
    """Return packed rows of one layout as a table, with the columns' own types."""
    width = layout.dtype.itemsize
    fixed = np.frombuffer(b"".join(value[:width] for value in values), dtype=layout.dtype)
    nulls = np.unpackbits(fixed["nulls"], axis=1).astype(np.bool_)
    ends = np.full(len(values), width, dtype=np.int64)
    columns = []
    for i, (_, kind) in enumerate(layout.columns):
        numbers = fixed[f"f{i}"]
        if kind in _VARIABLE:
            starts, ends = ends, ends + numbers.astype(np.int64)
            columns.append(_texts(values, starts, ends, nulls[:, i], kind))
        else:
            native = numbers.astype("?" if kind == "bool" else numbers.dtype.newbyteorder("="))
            columns.append(pa.array(native, mask=nulls[:, i], from_pandas=False))
    return pa.Table.from_arrays(columns, names=list(layout.names))


def arrow_type(kind: str) -> pa.DataType:
    """Return the Arrow type of a packed column."""
    return pa.bool_() if kind == "bool" else _ARROW.get(kind) or pa.type_for_alias(kind)


def _texts(
    values: Sequence[bytes],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    nulls: NDArray[np.bool_],
    kind: str,
) -> pa.Array:
    parts = [
        None if null else value[start:end]
        for value, start, end, null in zip(
            values, starts.tolist(), ends.tolist(), nulls.tolist(), strict=True
        )
    ]
    return pa.array(parts, pa.binary()).cast(_ARROW[kind])


def _rows(fixed: NDArray[Any], tails: list[Any]) -> list[bytes]:
    width, body = fixed.dtype.itemsize, fixed.tobytes()
    heads = [body[at : at + width] for at in range(0, len(body), width)]
    if not tails:
        return heads
    separator = pa.scalar(b"", pa.large_binary())
    joined = pc.binary_join_element_wise(*tails, separator).to_pylist()
    return [head + tail for head, tail in zip(heads, joined, strict=True)]


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):  # some versions return one for zero chunks
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _kind(field: pa.Field) -> str:
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "string"
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return "binary"
    name = {"float": "float32", "double": "float64"}.get(str(kind), str(kind))
    if name not in _FORMATS:
        raise ConfigError(
            f"column {field.name} has type {field.type}, which a table does not hold; allowed "
            f"are {', '.join(_FORMATS)}",
            column=field.name,
        )
    return name
