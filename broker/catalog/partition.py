"""A catalogue on disk: rows sorted by HEALPix pixel, in one flat file that is memory-mapped.

A row has a radius within which a position matches it. Rows are kept in layers by that radius: in
a layer the pixels of one order are large enough for the exact search, so a few large galaxies do
not make the search among a million stars coarse. Within a layer rows are sorted by their pixel of
order 29. All worker processes of a machine share the mapped pages.
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from broker.catalog.healpix import Floats, Pixels, order_for_radius, pixels_of
from broker.errors import ConfigError

PIXEL, RADIUS, RANK = "healpix29", "radiusArcsec", "idRank"
"""Columns that the catalogue adds to its rows: pixel of order 29, radius of the match, and the
place of the id in the order of ids, which decides ties."""

_ROWS, _METADATA, _POINTER = "rows.arrow", "metadata.json", "current"


@dataclass(frozen=True)
class Layer:
    """Rows `first` <= row < `end` whose radius fits the pixels of an order.

    Order -1 is for radii that no pixel fits: every row of it is compared.
    """

    order: int
    first: int
    end: int


@dataclass(frozen=True)
class Rows:
    """One version of a catalogue, opened.

    Parameters
    ----------
    name, version : str
        Which catalogue, and which state of it.
    table : pa.Table
        One memory-mapped chunk a column: `id`, `ra`, `dec`, the attached columns, and `PIXEL`,
        `RADIUS` and `RANK`.
    layers : tuple of Layer
        Its rows by radius.
    """

    name: str
    version: str
    table: pa.Table
    layers: tuple[Layer, ...]

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @cached_property
    def pixels(self) -> Pixels:
        """Pixels of order 29, sorted within each layer."""
        return self.numbers(PIXEL)

    @cached_property
    def ra(self) -> Floats:
        """Right ascension. [deg]"""
        return self.numbers("ra")

    @cached_property
    def dec(self) -> Floats:
        """Declination. [deg]"""
        return self.numbers("dec")

    @cached_property
    def radius(self) -> NDArray[np.float64]:
        """Radius within which a position matches the row. [arcsec]"""
        return self.numbers(RADIUS)

    @cached_property
    def rank(self) -> NDArray[np.int64]:
        """Place of the row's id in the order of ids."""
        return self.numbers(RANK)

    def numbers(self, column: str) -> NDArray[Any]:
        """Return a column without nulls as an array on the mapped file."""
        return self.table.column(column).chunk(0).to_numpy(zero_copy_only=True)


def sort_rows(table: pa.Table, radius: Floats) -> tuple[pa.Table, tuple[Layer, ...]]:
    """Return the rows in the order of the file, with the columns it adds, and their layers.

    Parameters
    ----------
    table : pa.Table
        `id`, `ra`, `dec` and attached columns; at least one row, all on the sky.
    radius : NDArray[np.float64], shape (n_rows,)
        Radius of each row's match. [arcsec]
    """
    distinct, place = np.unique(radius, return_inverse=True)
    order = np.array([order_for_radius(r) for r in distinct], dtype=np.int64)[place]
    # Each layer is searched by itself, so there are few: orders 15 (radii to 3.2 arcsec), 13 (to
    # 12.9 arcsec), 11 and so on.
    order = np.where(order >= 0, np.minimum(order, 15) - (order < 15) * (1 - order % 2), -1)
    ra, dec = (table.column(name).to_numpy() for name in ("ra", "dec"))
    pixels = pixels_of(ra, dec)
    rank = np.empty(table.num_rows, dtype=np.int64)
    rank[np.argsort(table.column("id").to_numpy(zero_copy_only=False), kind="stable")] = np.arange(
        table.num_rows
    )
    sequence = np.lexsort((rank, pixels, -order))
    table = (
        table.append_column(PIXEL, pa.array(pixels))
        .append_column(RADIUS, pa.array(radius))
        .append_column(RANK, pa.array(rank))
        .take(pa.array(sequence))
        .combine_chunks()
    )
    return table, _layers(order[sequence])


def _layers(order: NDArray[np.int64]) -> tuple[Layer, ...]:
    starts = np.flatnonzero(np.diff(order, prepend=-2))
    ends = np.append(starts[1:], order.size)
    return tuple(
        Layer(int(order[first]), int(first), int(end))
        for first, end in zip(starts, ends, strict=True)
    )


def write_rows(
    folder: Path, *, name: str, version: str, table: pa.Table, layers: tuple[Layer, ...]
) -> None:
    """Write one version of a catalogue, then make it the current one.

    A reader sees the old version or the new one, whole: the rows go to a folder of their own,
    and one small file that names the folder is replaced by a rename. The version that was current
    before stays until the next one comes, for readers that still have it open.
    """
    folder.mkdir(parents=True, exist_ok=True)
    serial = 1 + max((_serial(path) for path in folder.iterdir()), default=0)
    target = folder / f"{serial:06d}-{version}"
    partial = folder / f".{target.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    with pa.OSFile(str(partial / _ROWS), "wb") as sink, pa.ipc.new_file(sink, table.schema) as out:
        out.write_table(table)
    about = {"name": name, "version": version, "layers": [asdict(layer) for layer in layers]}
    (partial / _METADATA).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    _flush(partial / _ROWS, partial / _METADATA)
    partial.rename(target)
    pointer = folder / f".{_POINTER}.{os.getpid()}"
    pointer.write_text(target.name + "\n", encoding="utf-8")
    _flush(pointer)
    pointer.replace(folder / _POINTER)
    for old in folder.iterdir():
        if 0 < _serial(old) < serial - 1:
            shutil.rmtree(old, ignore_errors=True)


def _serial(path: Path) -> int:
    head = path.name.partition("-")[0]
    return int(head) if head.isdigit() else 0


def _flush(*paths: Path) -> None:
    for path in paths:
        with path.open("rb") as file:
            os.fsync(file.fileno())


def stamp(folder: Path) -> tuple[int, int] | None:
    """Return what changes when a new version is current; None if there is none."""
    try:
        status = (folder / _POINTER).stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


def open_rows(folder: Path) -> Rows:
    """Open the current version of a catalogue.

    Raises
    ------
    ConfigError
        If the folder holds no readable catalogue.
    """
    try:
        current = folder / (folder / _POINTER).read_text(encoding="utf-8").strip()
        about: Mapping[str, object] = json.loads((current / _METADATA).read_text(encoding="utf-8"))
        mapped = pa.memory_map(str(current / _ROWS))
        table = pa.ipc.open_file(mapped).read_all()
        layers = tuple(Layer(**layer) for layer in about["layers"])  # type: ignore[attr-defined]
    except (OSError, ValueError, KeyError, pa.ArrowInvalid) as error:
        raise ConfigError(
            f"the catalogue in {folder} cannot be read ({error}); add it again with "
            "`broker catalog add`",
            path=str(folder),
        ) from error
    return Rows(str(about["name"]), str(about["version"]), table, layers)
