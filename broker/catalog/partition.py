"""A catalogue on disk: rows sorted by HEALPix pixel, in one flat file that is memory-mapped.

A row has a radius within which a position matches it. Rows are kept in layers by that radius: in
a layer the pixels of one order are large enough for the exact search, so a few large galaxies do
not make the search among a million stars coarse. Within a layer rows are sorted by their pixel of
order 29. All worker processes of a machine share the mapped pages.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from broker.catalog.coverage import Coverage, all_sky, coverage_of_rows
from broker.catalog.healpix import Floats, Pixels, orders_for_radii, pixels_of
from broker.catalog.layer_index import LayerIndex, ReadAhead, index_layer, read_index
from broker.catalog.motion import LONGEST_YEARS
from broker.errors import ConfigError

PIXEL, RADIUS, RANK = "healpix29", "radiusArcsec", "idRank"
"""Columns that the catalogue adds to its rows: pixel of order 29, radius of the match, and the
place of the id in the order of ids, which decides ties."""

MOTION_RA, MOTION_DEC = "motionRa", "motionDec"
"""And those of a catalogue with proper motion, in mas/yr."""

INDEX = (PIXEL, RADIUS, RANK, MOTION_RA, MOTION_DEC)

_ROWS, _METADATA, _COVERAGE, _POINTER = "rows.arrow", "metadata.json", "coverage.npy", "current"
_LAYER_INDEX = "index.npy"


@dataclass(frozen=True)
class Layer:
    """Rows `first` <= row < `end` whose radius fits the pixels of an order.

    Order -1 is for radii that no pixel fits: every row of it is compared.
    """

    order: int
    first: int
    end: int


@dataclass(frozen=True)
class Motion:
    """Proper motions of all rows, from one epoch.

    Parameters
    ----------
    epoch_mjd : float
        When the rows are at their `ra` and `dec`. [d]
    ra, dec : NDArray[np.float64], shape (n_rows,)
        Proper motion, that in right ascension times cos(dec); 0 where not known. [mas / yr]
    """

    epoch_mjd: float
    ra: Floats
    dec: Floats


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
    coverage : Coverage
        Where it has looked.
    epoch_mjd : float or None
        When its entries are where it says; None if they have no proper motion. [d]
    kind : str
        `positions`; `orbits` and `map` have neither places nor layers.
    index : tuple of LayerIndex
        Of each layer; none if the rows are not on disk.
    read_ahead : ReadAhead or None
        Of the mapped file.
    """

    name: str
    version: str
    table: pa.Table
    layers: tuple[Layer, ...]
    coverage: Coverage = field(default_factory=all_sky)
    epoch_mjd: float | None = None
    kind: str = "positions"
    index: tuple[LayerIndex, ...] = ()
    read_ahead: ReadAhead | None = None

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @cached_property
    def pixels(self) -> Pixels:
        """Pixels of order 29, sorted within each layer; ConfigError as of `ra`."""
        self._check_places()
        return self.numbers(PIXEL)

    @cached_property
    def ra(self) -> Floats:
        """Right ascension. [deg]

        Raises
        ------
        ConfigError
            If it is a catalogue of orbits or a map, whose entries have no fixed place.
        """
        self._check_places()
        return self.numbers("ra")

    @cached_property
    def dec(self) -> Floats:
        """Declination; ConfigError as of `ra`. [deg]"""
        self._check_places()
        return self.numbers("dec")

    def _check_places(self) -> None:
        if self.kind != "positions":
            raise ConfigError(
                f"{self.name} is of kind {self.kind}: its entries have no fixed place",
                catalog=self.name,
            )

    @cached_property
    def radius(self) -> NDArray[np.float64]:
        """Radius within which a position matches the row. [arcsec]"""
        return self.numbers(RADIUS)

    @cached_property
    def rank(self) -> NDArray[np.int64]:
        """Place of the row's id in the order of ids."""
        return self.numbers(RANK)

    @cached_property
    def motion(self) -> Motion | None:
        """Proper motions; None if it has none."""
        if self.epoch_mjd is None:
            return None
        return Motion(self.epoch_mjd, self.numbers(MOTION_RA), self.numbers(MOTION_DEC))

    @cached_property
    def whole_numbers(self) -> Mapping[str, NDArray[Any]]:
        """The columns of numbers without nulls, as arrays on the mapped file, by name."""
        return {
            name: self.numbers(name)
            for name, column in zip(self.table.column_names, self.table.columns, strict=True)
            if len(self)
            and column.null_count == 0
            and (pa.types.is_integer(column.type) or pa.types.is_floating(column.type))
        }

    @property
    def entries(self) -> pa.Table:
        """The rows without the columns that the catalogue adds."""
        return self.table.drop_columns([c for c in INDEX if c in self.table.column_names])

    def numbers(self, column: str) -> NDArray[Any]:
        """Return a column without nulls as an array on the mapped file."""
        return self.table.column(column).chunk(0).to_numpy(zero_copy_only=True)


def sort_rows(table: pa.Table, radius: Floats) -> tuple[pa.Table, tuple[Layer, ...]]:
    """Return the rows in the order of the file, with the columns it adds, and their layers.

    Parameters
    ----------
    table : pa.Table
        `id`, `ra`, `dec`, attached columns, and proper motions or not; at least one row, all on
        the sky.
    radius : NDArray[np.float64], shape (n_rows,)
        Radius of each row's match. [arcsec]
    """
    reach = radius
    if MOTION_RA in table.column_names:
        speed = np.hypot(*(table.column(c).to_numpy() for c in (MOTION_RA, MOTION_DEC)))
        reach = radius + np.ceil(speed * LONGEST_YEARS / 1000.0)
    ra, dec = (table.column(name).to_numpy() for name in ("ra", "dec"))
    pixels = pixels_of(ra, dec)
    rank = id_rank(table)
    table = table.drop_columns([RANK]) if RANK in table.column_names else table
    sequence = _sequence(pixels, rank)
    farthest, nearest = _layer_orders(np.array([reach.max(), reach.min()])).tolist()
    if farthest == nearest >= 0:
        layers: tuple[Layer, ...] = (Layer(nearest, 0, sequence.size),)
    else:
        order = _layer_orders(reach)[sequence]
        of_layers = np.argsort((-order).astype(np.int8), kind="stable")
        sequence, layers = sequence[of_layers], _layers(order[of_layers])
    table = (
        table.append_column(PIXEL, pa.array(pixels))
        .append_column(RADIUS, pa.array(radius))
        .append_column(RANK, pa.array(rank))
        .take(pa.array(sequence))
        .combine_chunks()
    )
    return table, layers


def _layer_orders(reach: Floats) -> NDArray[np.int64]:
    """Return the order of the layer in which rows of so far a reach are. [arcsec]

    Each layer is searched by itself, so there are few: orders 15 (radii to 3.2 arcsec), 13 (to
    12.9 arcsec), 11 and so on.
    """
    order = orders_for_radii(reach)
    return np.where(order >= 0, np.minimum(order, 15) - (order < 15) * (1 - order % 2), -1)


def id_rank(table: pa.Table) -> NDArray[np.int64]:
    """Return the place of each row's id in the order of ids; rows of one id share a place."""
    if RANK in table.column_names:
        return table.column(RANK).to_numpy()
    return pc.rank(table.column("id"), tiebreaker="min").to_numpy().astype(np.int64) - 1


def _sequence(pixels: Pixels, rank: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return rows by pixel and id, as one sort with two keys would.

    Few rows share a pixel of order 29, so only those are sorted by a second key.
    """
    sequence = np.argsort(pixels)
    in_order = pixels[sequence]
    same = np.flatnonzero(in_order[1:] == in_order[:-1])
    if same.size:
        tied = np.unique(np.concatenate([same, same + 1]))
        rows = sequence[tied]
        sequence[tied] = rows[np.lexsort((rank[rows], pixels[rows]))]
    return sequence


def _layers(order: NDArray[np.int64]) -> tuple[Layer, ...]:
    starts = np.flatnonzero(np.diff(order, prepend=-2))
    ends = np.append(starts[1:], order.size)
    return tuple(
        Layer(int(order[first]), int(first), int(end))
        for first, end in zip(starts, ends, strict=True)
    )


def write_table(table: pa.Table, path: Path) -> None:
    """Write rows as the one flat file that `open_rows` maps."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as out:
        out.write_table(table)


def write_rows(
    folder: Path, rows: Rows, *, write: Callable[[pa.Table, Path], None] = write_table
) -> None:
    """Write one version of a catalogue, then make it the current one.

    A reader sees the old version or the new one, whole: the rows go to a folder of their own,
    and one small file that names the folder is replaced by a rename. The version that was current
    before stays until the next one comes, for readers that still have it open.

    Parameters
    ----------
    folder : Path
        Of this catalogue.
    rows : Rows
    write : callable
        How the table becomes a file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    serial = 1 + max((_serial(path) for path in folder.iterdir()), default=0)
    target = folder / f"{serial:06d}-{rows.version}"
    partial = folder / f".{target.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    write(rows.table, partial / _ROWS)
    _write_index(partial, rows.layers)
    layers = [asdict(layer) for layer in rows.layers]
    about: dict[str, Any] = {"name": rows.name, "version": rows.version, "layers": layers}
    about |= {"epochMjd": rows.epoch_mjd, "kind": rows.kind}
    (partial / _METADATA).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    np.save(partial / _COVERAGE, np.stack([rows.coverage.first, rows.coverage.end]))
    _flush(*partial.iterdir())
    partial.rename(target)
    pointer = folder / f".{_POINTER}.{os.getpid()}"
    pointer.write_text(target.name + "\n", encoding="utf-8")
    _flush(pointer)
    pointer.replace(folder / _POINTER)
    for old in folder.iterdir():
        if 0 < _serial(old) < serial - 1:
            shutil.rmtree(old, ignore_errors=True)


def _write_index(folder: Path, layers: tuple[Layer, ...]) -> None:
    """Write the index of the rows that are in the file: it may have more than was in memory."""
    if not layers:
        return
    with pa.memory_map(str(folder / _ROWS)) as mapped:
        pixels = pa.ipc.open_file(mapped).read_all().column(PIXEL).to_numpy()
        starts = [index_layer(pixels[layer.first : layer.end]).starts for layer in layers]
    np.save(folder / _LAYER_INDEX, np.concatenate(starts))


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
        about: Mapping[str, Any] = json.loads((current / _METADATA).read_text(encoding="utf-8"))
        mapped = pa.memory_map(str(current / _ROWS))
        table = pa.ipc.open_file(mapped).read_all()
        layers = tuple(Layer(**layer) for layer in about["layers"])
        coverage = _read_coverage(current / _COVERAGE, table)
        index = read_index(current / _LAYER_INDEX, [layer.end - layer.first for layer in layers])
        mapped.seek(0)
        # Ranks are only looked at where two entries are at the same distance.
        base = mapped.read_buffer(1).address
        ahead = ReadAhead(current / _ROWS, table, base, rarely=(RANK,))
    except (OSError, ValueError, KeyError, pa.ArrowInvalid) as error:
        raise ConfigError(
            f"the catalogue in {folder} cannot be read ({error}); add it again with "
            "`broker catalog add`",
            path=str(folder),
        ) from error
    return Rows(
        about["name"],
        about["version"],
        table,
        layers,
        coverage,
        about.get("epochMjd"),
        about.get("kind", "positions"),
        index,
        ahead,
    )


def _read_coverage(path: Path, table: pa.Table) -> Coverage:
    if not path.exists():  # written by an early version
        return coverage_of_rows(np.sort(table.column(PIXEL).to_numpy()))
    first, end = np.load(path)
    return Coverage(first, end)
