"""Catalogue entries in three dimensions: places on the sky with a distance or a redshift."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray

from broker.catalog.healpix import Floats
from broker.catalog.partition import Rows
from broker.errors import AlertError, ConfigError

_Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Space:
    """A catalogue's entries in space.

    Parameters
    ----------
    rows : Rows
        The catalogue.
    row : NDArray[np.int64], shape (n,)
        Its rows that have a distance.
    xyz : NDArray[np.float64], shape (n, 3)
        Where they are, in the unit of the distance; x to RA 0, z to the north.
    """

    rows: Rows
    row: _Ints
    xyz: Floats

    @cached_property
    def _tree(self) -> Any:
        from scipy.spatial import cKDTree

        return cKDTree(self.xyz)

    @cached_property
    def _rank(self) -> _Ints:
        return self.rows.rank[self.row]

    def nearest(
        self, ra: ArrayLike, dec: ArrayLike, distance: ArrayLike, k: int
    ) -> tuple[_Ints, _Ints, Floats]:
        """Return the k entries nearest to each place in space.

        Parameters
        ----------
        ra, dec : array_like, shape (n,)
            Places. [deg]
        distance : array_like, shape (n,)
            Their distances, in the unit of the entries'.
        k : int
            How many for each; all if there are fewer.

        Returns
        -------
        position, row : NDArray[np.int64], shape (n_pairs,)
            Pairs: in the order of places, then nearest first, then by id.
        separation : NDArray[np.float64], shape (n_pairs,)
            Distances in space.
        """
        if k < 1:
            raise AlertError(f"{k} neighbours were asked for; ask for 1 or more")
        places = _xyz(
            *(np.atleast_1d(np.asarray(x, dtype=np.float64)) for x in (ra, dec, distance))
        )
        if not np.isfinite(places).all():
            raise AlertError("a place has no position or no distance")
        wanted = min(k, self.row.size)
        parts = [self._nearest(i, place, wanted) for i, place in enumerate(places)]
        if not parts:
            return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
        position, row, separation = (np.concatenate(part) for part in zip(*parts, strict=True))
        return position, row, separation

    def _nearest(self, i: int, place: Floats, k: int) -> tuple[_Ints, _Ints, Floats]:
        reach = np.max(self._tree.query(place, k)[0]) if k else 0.0
        # All at the distance of the last one, so that ids decide among them.
        found = np.array(self._tree.query_ball_point(place, reach * (1.0 + 1e-12)), dtype=np.int64)
        away = np.linalg.norm(self.xyz[found] - place, axis=1)
        order = np.lexsort((self._rank[found], away))[:k]
        return np.full(order.size, i), self.row[found[order]], away[order]

    def sphere(self, ra: float, dec: float, distance: float, radius: float) -> pa.Table:
        """Return the entries within a radius of a place in space, by id."""
        place = _xyz(*(np.array([x]) for x in (ra, dec, distance)))[0]
        return self._taken(np.linalg.norm(self.xyz - place, axis=1) <= radius)

    def shell(self, inner: float, outer: float) -> pa.Table:
        """Return the entries at distances from `inner` to below `outer`, by id."""
        away = np.linalg.norm(self.xyz, axis=1)
        return self._taken((away >= inner) & (away < outer))

    def box(self, lower: ArrayLike, upper: ArrayLike) -> pa.Table:
        """Return the entries between two corners (x, y, z), corners in, by id."""
        inside = (self.xyz >= np.asarray(lower)) & (self.xyz <= np.asarray(upper))
        return self._taken(np.logical_and.reduce(inside, axis=1))

    def _taken(self, inside: NDArray[np.bool_]) -> pa.Table:
        place = np.flatnonzero(inside)
        place = place[np.argsort(self._rank[place])]
        return self.rows.entries.take(pa.array(self.row[place]))


def in_space(rows: Rows, distance: str) -> Space:
    """Return a catalogue's entries in space.

    Parameters
    ----------
    rows : Rows
        The catalogue.
    distance : str
        An attached column: a distance, or a redshift for one. Entries where it is null, negative
        or infinite are left out.

    Raises
    ------
    ConfigError
        If there is no such column of numbers, or no entry has a distance.
    """
    if distance not in rows.entries.column_names:
        raise ConfigError(f"{rows.name} has no column {distance}")
    column = rows.table.column(distance)
    if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        raise ConfigError(f"{distance} of {rows.name} is {column.type}, not a number")
    away = pc.fill_null(column.cast(pa.float64()), np.nan).to_numpy()
    row = np.flatnonzero(np.isfinite(away) & (away >= 0.0))
    if not row.size:
        raise ConfigError(f"no entry of {rows.name} has a {distance}")
    return Space(rows, row, _xyz(rows.ra[row], rows.dec[row], away[row]))


def _xyz(ra: Floats, dec: Floats, distance: Floats) -> Floats:
    a, d = np.radians(ra), np.radians(dec)
    unit = np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], axis=-1)
    return unit * distance[..., None]
