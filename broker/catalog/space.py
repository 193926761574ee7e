"""Catalogue entries in three dimensions: places on the sky with a distance or a redshift.

Entries are in the order of a k-d tree that is balanced: runs of a few are in boxes, two of these in
a larger one, and searches go down from the box of all. Entries and boxes are files of the
catalogue's version that all processes map.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from broker.catalog.distance import Distance, vectors
from broker.catalog.healpix import Floats, on_sky
from broker.catalog.partition import Rows, open_rows
from broker.errors import AlertError, ConfigError

LEVELS = 21
"""Of the octree: the finest cells have 2**-21 of the side of the cube."""

_Ints = NDArray[np.int64]
_PARTS = ("row", "xyz", "boxes")


@dataclass(frozen=True)
class Space:
    """A catalogue's entries in space, those near each other mostly together.

    Parameters
    ----------
    rows : Rows
        The catalogue.
    distance : Distance
        What their distance is.
    row : NDArray[np.int64], shape (n,)
        Its rows that have a distance.
    xyz : NDArray[np.float64], shape (n, 3)
        Where they are; x to RA 0, z to the north.
    boxes : NDArray[np.float64], shape (n_boxes, 6)
        Boxes around runs of entries, as of `boxes_around`.
    """

    rows: Rows
    distance: Distance
    row: _Ints
    xyz: Floats
    boxes: Floats

    def __len__(self) -> int:
        return int(self.row.size)

    def pairs_within(self, xyz: Floats, radius: float) -> tuple[_Ints, _Ints, Floats]:
        """Return all pairs of a place and an entry within a radius.

        Parameters
        ----------
        xyz : NDArray[np.float64], shape (n_places, 3)
            Places.
        radius : float
            Pairs at exactly this distance are in.

        Returns
        -------
        place, entry : NDArray[np.int64], shape (n_pairs,)
            Pairs: in the order of places, then nearest first, then by id.
        separation : NDArray[np.float64], shape (n_pairs,)
            Their distances.
        """
        from broker.catalog._boxes_search import first_boxes, pairs_in_boxes

        found: tuple[_Ints, _Ints, Floats] = pairs_in_boxes(
            self.boxes,
            first_boxes(len(self)),
            self.xyz,
            self.row,
            self.rows.rank,
            np.ascontiguousarray(xyz, np.float64),
            float(radius),
        )
        return found

    def nearest_to_places(self, xyz: Floats, k: int) -> tuple[_Ints, _Ints, Floats]:
        """Return the k entries nearest to each place; all if there are fewer.

        Returns
        -------
        place, entry, separation
            As of `pairs_within`; `entry` is a place in `row`.
        """
        from broker.catalog._boxes_search import first_boxes, nearest_in_boxes

        if k < 1:
            raise AlertError(f"{k} neighbours were asked for; ask for 1 or more")
        k = min(k, len(self))
        entry, separation = nearest_in_boxes(
            self.boxes,
            first_boxes(len(self)),
            self.xyz,
            self.row,
            self.rows.rank,
            np.ascontiguousarray(xyz, np.float64),
            k,
        )
        return np.repeat(np.arange(len(xyz)), k), entry.ravel(), separation.ravel()

    def nearest(
        self, ra: ArrayLike, dec: ArrayLike, distance: ArrayLike, k: int
    ) -> tuple[_Ints, _Ints, Floats]:
        """Return the k entries nearest to each place in space.

        Parameters
        ----------
        ra, dec : array_like, shape (n,)
            Places. [deg]
        distance : array_like, shape (n,)
            Their distances, in the unit of the column: redshifts for redshifts.
        k : int
            How many for each; all if there are fewer.

        Returns
        -------
        position, row : NDArray[np.int64], shape (n_pairs,)
            Pairs: in the order of places, then nearest first, then by id.
        separation : NDArray[np.float64], shape (n_pairs,)
            Distances in space.

        Raises
        ------
        AlertError
            If a place is not on the sky or has no distance, or k < 1.
        """
        xyz = place_in_space(self.distance, ra, dec, distance)
        place, entry, separation = self.nearest_to_places(xyz, k)
        return place, self.row[entry], separation


def place_in_space(
    distance: Distance, ra: ArrayLike, dec: ArrayLike, value: ArrayLike
) -> NDArray[np.float64]:
    """Return places in space, shape (n, 3), from RA, Dec [deg] and values of a column.

    Raises
    ------
    AlertError
        If one is not on the sky or has no distance.
    """
    ra, dec, value = np.broadcast_arrays(*(np.atleast_1d(x) for x in (ra, dec, value)))
    length = distance.lengths(value)
    if not (on_sky(ra, dec) & np.isfinite(length) & (np.asarray(value) >= 0.0)).all():
        raise AlertError("not on the sky, or no distance of 0 or more: that is no place in space")
    return vectors(ra, dec, length)


def cells_of(xyz: Floats, half: float) -> _Ints:
    """Return the cells of places along each axis at the finest level, also outside the cube."""
    cells = np.floor((xyz / half + 1.0) * 2.0 ** (LEVELS - 1))
    return np.clip(cells, -(2.0 ** (LEVELS + 1)), 2.0 ** (LEVELS + 1)).astype(np.int64)


def codes_of(xyz: Floats, half: float) -> NDArray[np.uint64]:
    """Return the cells of places in the cube along Morton's curve, shape (n,)."""
    from broker.catalog._near_search import interleaved

    return np.asarray(interleaved(np.clip(cells_of(xyz, half), 0, 2**LEVELS - 1), LEVELS))


def half_side(longest: float) -> float:
    """Return half the side of the cube for a largest distance: a power of 2 above it."""
    return float(2.0 ** (np.frexp(longest)[1])) if longest > 0.0 else 1.0


def in_space(rows: Rows, distance: Distance | str) -> Space:
    """Return a catalogue's entries in space.

    Parameters
    ----------
    rows : Rows
        The catalogue.
    distance : Distance or str
        Its distances; a column's name for one that is taken as it is.

    Raises
    ------
    ConfigError
        If there is no such column of numbers, or no entry has a distance.
    """
    from broker.catalog._boxes_search import boxes_around, first_boxes, order_by_halves

    distance = Distance(distance) if isinstance(distance, str) else distance
    value = distance.values(rows)
    row = np.flatnonzero(np.isfinite(value))
    if not row.size:
        raise ConfigError(f"no entry of {rows.name} has a {distance.column}")
    xyz = np.ascontiguousarray(vectors(rows.ra[row], rows.dec[row], distance.lengths(value[row])))
    order = order_by_halves(xyz)
    return Space(rows, distance, row[order], xyz, boxes_around(xyz, first_boxes(row.size)))


def open_space(path: Path, name: str, distance: Distance) -> Space:
    """Return an installed catalogue's entries in space, mapped from files made at the first call.

    Parameters
    ----------
    path : Path
        Folder of all catalogues.
    name : str
        The catalogue.
    distance : Distance
        Its distances.

    Raises
    ------
    ConfigError
        As of `in_space`, or if the files cannot be written.
    """
    folder = path / name
    while True:
        version = (folder / "current").read_text(encoding="utf-8").strip()
        rows = open_rows(folder)
        if version == (folder / "current").read_text(encoding="utf-8").strip():
            break
    files = folder / version / f"boxes-{distance.label}"
    if not files.exists():
        _write(files, in_space(rows, distance))
    # Copied when written to, which nothing does: what is compiled for arrays in memory fits.
    parts = (np.asarray(np.load(files / f"{part}.npy", mmap_mode="c")) for part in _PARTS)
    return Space(rows, distance, *parts)


def _write(files: Path, space: Space) -> None:
    partial = files.with_name(f".{files.name}.{os.getpid()}")
    try:
        partial.mkdir()
        for part in _PARTS:
            np.save(partial / f"{part}.npy", getattr(space, part))
        partial.rename(files)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        if not files.exists():  # another process may have made it meanwhile
            raise ConfigError(f"{files} cannot be written: {error}", path=str(files)) from error
