"""Catalogue entries in three dimensions: places on the sky with a distance or a redshift.

Entries are sorted along Morton's curve through a cube around the origin, so those in any cell of
an octree are one run, as those in a pixel are for the sky. The sorted entries are files of the
catalogue's version that all processes map.
"""

import json
import os
import shutil
from dataclasses import dataclass
from functools import cached_property
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
_PLACES_AT_ONCE = 20_000
_PAIRS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Space:
    """A catalogue's entries in space, along Morton's curve and then by id.

    Parameters
    ----------
    rows : Rows
        The catalogue.
    distance : Distance
        What their distance is.
    row : NDArray[np.int64], shape (n,)
        Its rows that have a distance.
    code : NDArray[np.uint64], shape (n,)
        The cells of the finest level that they are in, sorted.
    xyz : NDArray[np.float64], shape (n, 3)
        Where they are; x to RA 0, z to the north.
    half : float
        Half the side of the cube, a power of 2.
    """

    rows: Rows
    distance: Distance
    row: _Ints
    code: NDArray[np.uint64]
    xyz: Floats
    half: float

    def __len__(self) -> int:
        return int(self.row.size)

    @cached_property
    def rank(self) -> _Ints:
        """Place of each entry's id in the order of ids."""
        return self.rows.rank[self.row]

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
        found = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))]
        for a in range(0, len(xyz), _PLACES_AT_ONCE):
            some = xyz[a : a + _PLACES_AT_ONCE]
            place, entry, separation = self._pairs(some, np.full(len(some), radius))
            found.append((place + a, entry, separation))
        place, entry, separation = (np.concatenate(part) for part in zip(*found, strict=True))
        return place, entry, separation

    def _pairs(self, xyz: Floats, radius: Floats) -> tuple[_Ints, _Ints, Floats]:
        """Return pairs as of `pairs_within`, with a radius for each place."""
        from broker.catalog._near_search import cells_around, runs_in_cells, space_pairs

        level = self._levels(radius)
        cells = cells_of(xyz, self.half)
        found = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))]
        for one in np.unique(level).tolist():
            some = np.flatnonzero(level == one)
            if one < 0:
                starts = np.zeros((some.size, 1), np.int64)
                ends = np.full((some.size, 1), len(self))
            else:
                around = cells_around(cells[some] >> (LEVELS - one), one)
                starts, ends = runs_in_cells(self.code, around, 3 * (LEVELS - one))
            place, entry, away = space_pairs(starts, ends, self.xyz, xyz[some], radius[some])
            found.append((some[place], entry, away))
        place, entry, separation = (np.concatenate(part) for part in zip(*found, strict=True))
        order = np.lexsort((self.rank[entry], separation, place))
        return place[order], entry[order], separation[order]

    def _levels(self, radius: Floats) -> _Ints:
        """Return the finest level whose cells are wider than a radius, -1 if none is."""
        with np.errstate(divide="ignore"):
            level = np.floor(np.log2(2.0 * self.half / (radius * (1.0 + 1e-8))))
        return np.clip(level, -1, LEVELS - 1).astype(np.int64)

    def nearest_to_places(self, xyz: Floats, k: int) -> tuple[_Ints, _Ints, Floats]:
        """Return the k entries nearest to each place; all if there are fewer.

        Returns
        -------
        place, entry, separation
            As of `pairs_within`; `entry` is a place in `row`.
        """
        from broker.catalog._near_search import farthest_of_k, interleaved

        if k < 1:
            raise AlertError(f"{k} neighbours were asked for; ask for 1 or more")
        k = min(k, len(self))
        found = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))]
        step = max(1, min(_PLACES_AT_ONCE, _PAIRS_AT_ONCE // (8 * k)))
        for a in range(0, len(xyz), step):
            some = np.ascontiguousarray(xyz[a : a + step])
            own = interleaved(np.clip(cells_of(some, self.half), 0, 2**LEVELS - 1), LEVELS)
            bound = farthest_of_k(self.code, self.xyz, own, some, k)
            place, entry, separation = self._pairs(some, bound * (1.0 + 1e-12))
            counts = np.bincount(place, minlength=len(some))
            number = np.arange(place.size) - np.repeat(np.cumsum(counts) - counts, counts)
            kept = number < k
            found.append((place[kept] + a, entry[kept], separation[kept]))
        place, entry, separation = (np.concatenate(part) for part in zip(*found, strict=True))
        return place, entry, separation

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
    distance = Distance(distance) if isinstance(distance, str) else distance
    value = distance.values(rows)
    row = np.flatnonzero(np.isfinite(value))
    if not row.size:
        raise ConfigError(f"no entry of {rows.name} has a {distance.column}")
    length = distance.lengths(value[row])
    xyz = vectors(rows.ra[row], rows.dec[row], length)
    half = half_side(float(length.max()))
    code = codes_of(xyz, half)
    order = np.lexsort((rows.rank[row], code))
    return Space(rows, distance, row[order], code[order], xyz[order], half)


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
    files = folder / version / f"space-{distance.label}"
    if not files.exists():
        _write(files, in_space(rows, distance))
    about = json.loads((files / "metadata.json").read_text(encoding="utf-8"))
    code, xyz, row = (
        np.asarray(np.load(files / f"{part}.npy", mmap_mode="r")) for part in ("code", "xyz", "row")
    )
    return Space(rows, distance, row, code, xyz, about["half"])


def _write(files: Path, space: Space) -> None:
    partial = files.with_name(f".{files.name}.{os.getpid()}")
    try:
        partial.mkdir()
        for part in ("code", "xyz", "row"):
            np.save(partial / f"{part}.npy", getattr(space, part))
        about = json.dumps({"half": space.half}) + "\n"
        (partial / "metadata.json").write_text(about, encoding="utf-8")
        partial.rename(files)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        if not files.exists():  # another process may have made it meanwhile
            raise ConfigError(f"{files} cannot be written: {error}", path=str(files)) from error
