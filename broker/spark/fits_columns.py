"""Columns of FITS binary tables as Arrow arrays, a range of rows at a time.

Exact where other readers are not: whole numbers with a TNULL or a TZERO stay whole numbers, with
nulls. Without Spark: `fits_source` is the part that knows it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from broker.errors import AlertError

_FORM = re.compile(r"^(\d*)([LXBIJKAEDCMPQ])(?:([LXBIJKAEDCM])\((\d*)\))?(.*)$")
_TYPES = {
    "L": "u1",
    "X": "u1",
    "B": "u1",
    "I": ">i2",
    "J": ">i4",
    "K": ">i8",
    "A": "S",
    "E": ">f4",
    "D": ">f8",
    "C": ">f4",
    "M": ">f8",
    "P": ">i4",
    "Q": ">i8",
}
_UNSIGNED = {
    ("B", -128.0): np.int8,
    ("I", 2.0**15): np.uint16,
    ("J", 2.0**31): np.uint32,
    ("K", 2.0**63): np.uint64,
}
_WIDER = {
    pa.uint8(): pa.int16(),
    pa.uint16(): pa.int32(),
    pa.uint32(): pa.int64(),
    pa.uint64(): pa.decimal128(20, 0),
}
"""Spark has no unsigned numbers: each goes to the next type that holds it."""

_COMPLEX = pa.struct([("re", pa.float64()), ("im", pa.float64())])


@dataclass(frozen=True)
class TableColumn:
    """One column of a binary table, as the header has it.

    Parameters
    ----------
    name : str
    code : str
        Letter of its type; for an array in the heap that of its elements.
    repeat : int
        Elements of a cell; characters of a string.
    offset : int
        Where it starts in a row. [bytes]
    heap : str
        `P` or `Q` if cells stand in the heap, else empty.
    scale, zero : float
    null : int, optional
        The number that stands for no value.
    """

    name: str
    code: str
    repeat: int
    offset: int
    heap: str = ""
    scale: float = 1.0
    zero: float = 0.0
    null: int | None = None

    @property
    def width(self) -> int:
        """Length of a cell. [bytes]"""
        if self.heap:
            return 2 * (4 if self.heap == "P" else 8)
        return _cell_bytes(self.code, self.repeat)

    @property
    def element(self) -> pa.DataType:
        """Arrow type of an element."""
        if self.code in "LX":
            return pa.bool_()
        if self.code == "A":
            return pa.string()
        if self.code in "CM":
            return _COMPLEX
        own = self.own_type
        return pa.float64() if own is None else _WIDER.get(own, own)

    @property
    def own_type(self) -> pa.DataType | None:
        """Arrow type of the numbers as they stand; None if they are scaled to others."""
        if self.scale == 1.0 and self.zero == 0.0:
            return pa.from_numpy_dtype(np.dtype(_TYPES[self.code]).newbyteorder("="))
        if self.scale == 1.0 and (self.code, self.zero) in _UNSIGNED:
            return pa.from_numpy_dtype(_UNSIGNED[self.code, self.zero])
        return None

    @property
    def arrow_type(self) -> pa.DataType:
        """Arrow type of a cell: a list unless it is one element or a string."""
        one = self.code == "A" or (self.repeat == 1 and not self.heap)
        return self.element if one else pa.list_(self.element)


@dataclass(frozen=True)
class TableLayout:
    """Where the rows of a binary table are in a file.

    Parameters
    ----------
    columns : tuple of TableColumn
    n_rows, row_bytes : int
    data : int
        Where the rows start in the file. [bytes]
    heap : int
        Where the heap starts. [bytes]
    """

    columns: tuple[TableColumn, ...]
    n_rows: int
    row_bytes: int
    data: int
    heap: int


def layout_of(header: Mapping[str, Any], data: int) -> TableLayout:
    """Return the layout of a binary table from its header and the start of its data.

    Raises
    ------
    AlertError
        If the header is of no binary table that can be read.
    """
    if header.get("ZTABLE"):
        raise AlertError("it is a compressed table: uncompress it first (funpack)")
    row_bytes, n_rows = int(header["NAXIS1"]), int(header["NAXIS2"])
    columns, offset = [], 0
    for k in range(1, int(header["TFIELDS"]) + 1):
        column = _column(header, k, offset)
        columns.append(column)
        offset += column.width
    if offset != row_bytes:
        raise AlertError(f"its columns have {offset} bytes, its rows {row_bytes}")
    heap = data + int(header.get("THEAP", row_bytes * n_rows))
    return TableLayout(tuple(columns), n_rows, row_bytes, data, heap)


def _column(header: Mapping[str, Any], k: int, offset: int) -> TableColumn:
    form = str(header[f"TFORM{k}"]).strip()
    found = _FORM.match(form)
    if not found:
        raise AlertError(f"its column {k} has the form {form!r}, which is not known")
    repeat = int(found[1]) if found[1] else 1
    code, heap = found[2], ""
    if code in "PQ":
        code, heap = found[3] or "", code
        if not code:
            raise AlertError(f"its column {k} has the form {form!r}, which is not known")
    null = header.get(f"TNULL{k}")
    return TableColumn(
        str(header.get(f"TTYPE{k}", f"col{k}")).strip(),
        code,
        repeat,
        offset,
        heap,
        float(header.get(f"TSCAL{k}", 1.0)) if code not in "ALX" else 1.0,
        float(header.get(f"TZERO{k}", 0.0)) if code not in "ALX" else 0.0,
        int(null) if null is not None and code in "BIJK" else None,
    )


def read_rows(
    path: Path, layout: TableLayout, names: list[str], first: int, end: int
) -> list[pa.Array]:
    """Return some columns of rows first <= row < end.

    Parameters
    ----------
    path : Path
        An uncompressed file.
    layout : TableLayout
    names : list of str
        Of columns, in the order wanted.
    first, end : int

    Raises
    ------
    AlertError
        If the file ends before the rows do.
    """
    with path.open("rb") as file:
        file.seek(layout.data + first * layout.row_bytes)
        body = file.read((end - first) * layout.row_bytes)
        if len(body) < (end - first) * layout.row_bytes:
            raise AlertError(f"{path.name}: the table is cut short")
        rows = np.frombuffer(body, np.uint8).reshape(end - first, layout.row_bytes)
        by_name = {c.name: c for c in layout.columns}
        return [_read_column(rows, by_name[name], file, layout.heap) for name in names]


def _read_column(rows: Any, column: TableColumn, file: Any, heap: int) -> pa.Array:
    cells = np.ascontiguousarray(rows[:, column.offset : column.offset + column.width])
    if column.heap:
        return _from_heap(cells, column, file, heap)
    if column.code == "A":
        return pa.array(_strings(cells, column.repeat), pa.string())
    values = _values(cells.reshape(-1), column, column.repeat)
    if column.repeat == 1:
        return values
    offsets = np.arange(len(rows) + 1, dtype=np.int32) * column.repeat
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def _from_heap(cells: Any, column: TableColumn, file: Any, heap: int) -> pa.Array:
    """Return cells whose elements stand in the heap."""
    kind = ">i4" if column.heap == "P" else ">i8"
    pointers = cells.reshape(-1).view(kind).reshape(-1, 2).astype(np.int64)
    parts = []
    for count, at in pointers.tolist():
        file.seek(heap + at)
        size = _cell_bytes(column.code, count)
        part = file.read(size)
        if len(part) < size:
            raise AlertError("the table's heap is cut short")
        parts.append(part)
    if column.code == "A":
        return pa.array([_text(part) for part in parts], pa.string())
    if column.code == "X":
        bits = [_bits(np.frombuffer(p, np.uint8), int(n)) for p, n in zip(parts, pointers[:, 0])]  # noqa: B905
        return pa.array([b.tolist() for b in bits], pa.list_(pa.bool_()))
    values = _values(np.frombuffer(b"".join(parts), np.uint8), column, 1)
    offsets = np.concatenate([[0], np.cumsum(pointers[:, 0])]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def _values(body: Any, column: TableColumn, repeat: int) -> pa.Array:
    """Return elements that follow each other as one array."""
    code = column.code
    if code == "L":
        return pa.array(body == ord("T"), mask=(body != ord("T")) & (body != ord("F")))
    if code == "X":
        width = -(-repeat // 8)
        return pa.array(_bits(body.reshape(-1, width), repeat).reshape(-1))
    raw = body.view(_TYPES[code])
    raw = raw.astype(raw.dtype.newbyteorder("="))
    if code in "CM":
        real, imaginary = (
            pa.array(raw[k::2].astype(np.float64) * column.scale + (0 if k else column.zero))
            for k in (0, 1)
        )
        return pa.StructArray.from_arrays([real, imaginary], ["re", "im"])
    mask = None if column.null is None else raw == column.null
    if code in "BIJK" and column.own_type is not None:
        kind = column.own_type.to_pandas_dtype()
        # Two's complement: adding the zero in the unsigned type wraps to the right number.
        zero = np.array(int(column.zero) % 2**64, np.uint64).astype(kind)
        with np.errstate(over="ignore"):
            return pa.array(raw.astype(kind) + zero, mask=mask).cast(column.element)
    if column.scale != 1.0 or column.zero != 0.0:
        raw = raw.astype(np.float64) * column.scale + column.zero
    return pa.array(raw, mask=mask)


def _bits(body: Any, count: int) -> Any:
    return np.unpackbits(body, axis=-1)[..., :count].astype(bool)


def _strings(cells: Any, width: int) -> list[str]:
    if width == 0:
        return [""] * len(cells)
    return [_text(cell) for cell in cells.reshape(-1).view(f"S{width}").tolist()]


def _text(cell: bytes) -> str:
    return cell.split(b"\0")[0].decode("latin-1").rstrip(" ")


def _cell_bytes(code: str, count: int) -> int:
    if code == "X":
        return -(-count // 8)
    if code == "A":
        return count
    return count * np.dtype(_TYPES[code]).itemsize * (2 if code in "CM" else 1)
