"""Where the rows of coarse pixels begin, so that a search begins near its end.

A look-up in 1e9 sorted pixels by halving touches thirty places of the file; with this table it
touches one page. The table also tells which part of the file a field of the sky is in, which is
read ahead when many positions of a batch are there.
"""

import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from broker.catalog.healpix import FINEST_ORDER, Pixels

_ROWS_A_CELL, _FINEST = 256, 9
_FIELD_ORDER, _MANY = 6, 8
"""Cells of 0.8 square degrees with as many positions of one batch are read ahead."""

_Ints = NDArray[np.int64]


@dataclass(frozen=True)
class LayerIndex:
    """The rows of a layer by coarse pixel.

    Parameters
    ----------
    order : int
        HEALPix order of the pixels; -1 for one that holds everything.
    starts : NDArray[np.int64], shape (n_pixels + 1,)
        First row of each, counted from the layer's first; at the end the number of rows.
    """

    order: int
    starts: _Ints

    @property
    def shift(self) -> int:
        """Bits between a pixel of order 29 and one of this order."""
        return 2 * (FINEST_ORDER - self.order) if self.order >= 0 else 62


def no_index(n_rows: int) -> LayerIndex:
    """Return the index that knows nothing."""
    return LayerIndex(-1, np.array([0, n_rows], dtype=np.int64))


def index_order(n_rows: int) -> int:
    """Return the order whose pixels hold some hundred rows of an even sky."""
    wanted = np.ceil(np.log2(max(n_rows, 1) / 12.0 / _ROWS_A_CELL) / 2.0)
    return int(np.clip(wanted, 0, _FINEST))


def index_layer(pixels: Pixels) -> LayerIndex:
    """Return the index of sorted pixels of order 29."""
    order = index_order(pixels.size)
    edges = np.arange(12 * 4**order + 1, dtype=np.uint64) << np.uint64(2 * (FINEST_ORDER - order))
    return LayerIndex(order, np.searchsorted(pixels, edges).astype(np.int64))


def read_index(path: Path, sizes: Sequence[int]) -> tuple[LayerIndex, ...]:
    """Map the indices of layers with so many rows each; without a file they know nothing."""
    if not path.exists():  # written by an early version
        return tuple(no_index(n) for n in sizes)
    values = np.asarray(np.load(path, mmap_mode="r"))
    found, first = [], 0
    for n in sizes:
        order = index_order(n)
        end = first + 12 * 4**order + 1
        found.append(LayerIndex(order, values[first:end]))
        first = end
    if first != values.size:
        raise ValueError(f"{path.name} has {values.size} numbers for {first}")
    return tuple(found)


class ReadAhead:
    """Asks the system to read parts of a mapped file before they are needed.

    Parameters
    ----------
    path : Path
        The file.
    table : pa.Table
        Its columns, mapped, one chunk each.
    base : int
        Address of the file's first byte.
    rarely : sequence of str
        Columns that are not worth it.
    """

    def __init__(
        self, path: Path, table: pa.Table, base: int, *, rarely: Sequence[str] = ()
    ) -> None:
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)
        self._seen: dict[int, NDArray[np.bool_]] = {}
        self._counts: NDArray[np.int32] | None = None
        self._columns: list[tuple[int, float]] = []
        for name, column in zip(table.column_names, table.columns, strict=True):
            if name in rarely:
                continue
            for buffer in column.chunk(0).buffers() if table.num_rows else []:
                if buffer is not None and buffer.size:
                    self._columns.append((buffer.address - base, buffer.size / table.num_rows))

    def fields(self, index: LayerIndex, first_row: int, pixels: Pixels) -> None:
        """Read the cells ahead that have many of these pixels and had not before."""
        if index.order < _FIELD_ORDER or not hasattr(os, "posix_fadvise"):
            return
        from broker.catalog._pairs_search import crowded_cells

        n_cells = 12 * 4**_FIELD_ORDER
        seen = self._seen.setdefault(first_row, np.zeros(n_cells, dtype=bool))
        if self._counts is None:
            self._counts = np.zeros(n_cells, dtype=np.int32)
        shift = 2 * (FINEST_ORDER - _FIELD_ORDER)
        found = crowded_cells(pixels, shift, seen, self._counts, _MANY)
        if not found.size:
            return
        step = 4 ** (index.order - _FIELD_ORDER)
        for a, b in zip(index.starts[found * step], index.starts[(found + 1) * step], strict=True):
            self._advise(first_row + int(a), first_row + int(b))

    def _advise(self, first: int, end: int) -> None:
        advice: Any = os.POSIX_FADV_WILLNEED
        for offset, width in self._columns:
            begin = offset + int(first * width)
            os.posix_fadvise(self._file, begin, int((end - first) * width) + 1, advice)
