"""A catalogue of up to 1e9 rows on disk, made tile after tile, with holes where it has no values.

The file is what `install_catalog` writes: one flat file, sorted by pixel, memory-mapped. Its index
(pixels of order 29) is there for every row. The other columns are there in a share of the tiles;
elsewhere the file has holes, which take no disk.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from broker.catalog.coverage import all_sky
from broker.catalog.healpix import FINEST_ORDER, Pixels, centres
from broker.catalog.partition import PIXEL, RADIUS, RANK, Layer, Rows, write_rows

TILE_ORDER = 4
"""3072 tiles: 325 000 rows each of 1e9, about as many as catalogues are published with."""

_LAYER_ORDER, _ID_DIGITS, _SMALL = 15, 10, 1 << 16
_NUMBERS = {"ra": np.float64, "dec": np.float64, "gMag": np.float32, "properMotion": np.float32}
_ADDED = {PIXEL: np.uint64, RADIUS: np.float64, RANK: np.int64}


@dataclass(frozen=True)
class Layout:
    """What was written.

    Parameters
    ----------
    file : Path
        The flat file.
    tiles : NDArray[np.int64], shape (n_filled,)
        Pixels of `TILE_ORDER` whose rows have all columns.
    rows : int
        Rows of these tiles.
    disk_gb : float
        What the file takes of the disk. [GB]
    """

    file: Path
    tiles: Any
    rows: int
    disk_gb: float


def write_layout(
    path: Path, name: str, n_rows: int, *, radius_arcsec: float, share: float, seed: int
) -> Layout:
    """Write an even sky of stars as a catalogue, with little memory.

    Parameters
    ----------
    path : Path
        Folder of all catalogues.
    name : str
        Of this one.
    n_rows : int
        Rows over the whole sky.
    radius_arcsec : float
        Radius of every row's match. [arcsec]
    share : float
        Of the tiles that have all columns.
    seed : int
    """
    rng = np.random.default_rng(seed)
    n_tiles = 12 * 4**TILE_ORDER
    counts = rng.multinomial(n_rows, np.full(n_tiles, 1.0 / n_tiles))
    n_filled = max(1, round(share * n_tiles))
    filled = np.sort(rng.choice(n_tiles, n_filled, replace=False))
    is_filled = np.isin(np.arange(n_tiles), filled)

    def write(table: pa.Table, file: Path) -> None:
        _write_holes(table, file)
        at = _offsets(file)
        with file.open("r+b") as out:
            for first, tile, pixels in _tiles(rng, counts):
                columns = (
                    _columns(rng, first, pixels, radius_arcsec)
                    if is_filled[tile]
                    else {PIXEL: pixels}
                )
                for column, values in columns.items():
                    width = values.itemsize * (_ID_DIGITS if column == "id" else 1)
                    _write_at(out.fileno(), values, at[column] + first * width)

    layers = (Layer(_LAYER_ORDER, 0, n_rows),)
    write_rows(
        path / name, Rows(name, "bench", _empty_table(n_rows), layers, all_sky()), write=write
    )
    file = next((path / name).glob("*/rows.arrow"))
    return Layout(file, filled, int(counts[filled].sum()), file.stat().st_blocks * 512 / 1e9)


def _tiles(rng: np.random.Generator, counts: Any) -> Iterator[tuple[int, int, Pixels]]:
    """Yield first row, tile and sorted pixels of order 29, drawn evenly within the tile."""
    size = float(4 ** (FINEST_ORDER - TILE_ORDER))
    first = 0
    for tile, n in enumerate(counts.tolist()):
        steps = np.cumsum(rng.exponential(size=n + 1))  # their ratios are sorted uniform numbers
        inside = (steps[:-1] / steps[-1] * size).astype(np.uint64)
        yield first, tile, inside + np.uint64(tile * int(size))
        first += n


def _columns(
    rng: np.random.Generator, first: int, pixels: Pixels, radius_arcsec: float
) -> dict[str, Any]:
    n = pixels.size
    row = np.arange(first, first + n)
    ra, dec = centres(pixels, FINEST_ORDER)
    powers = 10 ** np.arange(_ID_DIGITS - 1, -1, -1)
    return {
        "ra": ra,
        "dec": dec,
        "gMag": rng.uniform(10.0, 21.0, n).astype(np.float32),
        "properMotion": rng.exponential(5.0, n).astype(np.float32),
        PIXEL: pixels,
        RADIUS: np.full(n, radius_arcsec),
        RANK: row,
        "id": (row[:, None] // powers % 10 + ord("0")).astype(np.uint8),
        "idStarts": np.arange(first, first + n + 1) * _ID_DIGITS,
    }


def _empty_table(n_rows: int) -> pa.Table:
    """Return a table of zeros that take no memory, as nothing ever touches them."""
    zeros = pa.py_buffer(np.zeros(n_rows * _ID_DIGITS, np.uint8))
    starts = np.zeros(n_rows + 1, np.int64)
    starts[-1] = n_rows * _ID_DIGITS
    ids = pa.Array.from_buffers(pa.large_string(), n_rows, [None, pa.py_buffer(starts), zeros])
    columns = {"id": ids}
    for name, kind in (_NUMBERS | _ADDED).items():
        columns[name] = pa.Array.from_buffers(pa.from_numpy_dtype(kind), n_rows, [None, zeros])
    return pa.table(columns)


class _Holes:
    """A file that does not write large buffers, and is as long as if it had."""

    def __init__(self, path: Path) -> None:
        self._file, self._at, self.closed = path.open("wb"), 0, False

    def write(self, data: Any) -> int:
        n = len(data) if isinstance(data, bytes) else int(data.size)
        if n < _SMALL:
            self._file.seek(self._at)
            self._file.write(data)
        self._at += n
        return n

    def tell(self) -> int:
        return self._at

    def flush(self) -> None:
        self._file.flush()

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        self._file.truncate(self._at)
        self._file.close()
        self.closed = True


def _write_holes(table: pa.Table, file: Path) -> None:
    holes = _Holes(file)
    with pa.ipc.new_file(pa.PythonFile(holes, mode="w"), table.schema) as out:
        out.write_table(table)
    holes.close()


def _offsets(file: Path) -> dict[str, int]:
    """Return where in the file the values of each column begin."""
    mapped = pa.memory_map(str(file))
    table = pa.ipc.open_file(mapped).read_all()
    mapped.seek(0)
    base = mapped.read_buffer(1).address
    at = {}
    for name in table.column_names:
        buffers = table.column(name).chunk(0).buffers()
        at[name] = buffers[-1].address - base
        if name == "id":
            at["idStarts"] = buffers[1].address - base
    return at


def _write_at(file: int, values: Any, offset: int) -> None:
    data = memoryview(np.ascontiguousarray(values).view(np.uint8).ravel().data)
    while data:
        written = os.pwrite(file, data, offset)
        data, offset = data[written:], offset + written


def drop_from_memory(file: Path) -> None:
    """Make the system forget what it has read of a file, so that it is read from disk again."""
    opened = os.open(file, os.O_RDONLY)
    try:
        os.fsync(opened)
        os.posix_fadvise(opened, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(opened)
