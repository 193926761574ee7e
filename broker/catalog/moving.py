"""Which bodies of a catalogue of orbits were where an alert is, when it was measured.

For each night in question all bodies are placed at its middle, once, with how far each may be from
there within half a day. Only bodies that may be near a position are then placed at its own time.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from broker.catalog.crossmatch import Positions
from broker.catalog.definition import ABSOLUTE_MAG, ELEMENTS, EPOCH, SLOPE
from broker.catalog.healpix import Floats
from broker.catalog.orbits import (
    PREDICTED,
    Elements,
    Ephemeris,
    Site,
    ephemeris,
    predicted_mag,
)
from broker.catalog.partition import Rows
from broker.errors import AlertError
from broker.units import ARCSEC_PER_DEG, separation_arcsec

_NODES = np.array([-0.5, -0.375, -0.25, -0.125, 0.125, 0.25, 0.375, 0.5])
_REACH_CLASSES = (0.1, 0.3, 1.0, 3.0, 10.0, 180.0)
_SAFETY = 1.3
_MARGIN_DEG = 0.01
_NIGHTS_KEPT = 4

_Ints = NDArray[np.int64]


@dataclass(frozen=True)
class _ReachClass:
    """Bodies that move less than a reach within half a day, as a tree of unit vectors."""

    rows: _Ints
    reach_deg: float
    tree: Any


class MovingObjects:
    """A catalogue of orbits, ready to be matched.

    Parameters
    ----------
    rows : Rows
        Of kind `orbits`.
    site : Site, optional
        Where the alerts are observed from; default the middle of the Earth.
    """

    def __init__(self, rows: Rows, site: Site | None = None) -> None:
        self.rows = rows
        self.site = site
        self.elements = Elements(*(rows.numbers(name) for name in ELEMENTS))
        self._nights: OrderedDict[int, tuple[_ReachClass, ...]] = OrderedDict()

    def __len__(self) -> int:
        return len(self.rows)

    def nearest(self, at: Positions) -> tuple[_Ints, Floats]:
        """Return the nearest body of each position, as `crossmatch.nearest_at` does of rows.

        A position without a time has no match, -1.
        """
        best, distance = np.full(at.ra.shape, -1, np.int64), np.full(at.ra.shape, np.nan)
        position, row, separation = self.within(at)
        first = np.flatnonzero(np.diff(position, prepend=-1))
        best[position[first]] = row[first]
        distance[position[first]] = separation[first]
        return best, distance

    def within(self, at: Positions) -> tuple[_Ints, _Ints, Floats]:
        """Return all pairs of a position and a body whose radius reaches it.

        Returns
        -------
        position, row : NDArray[np.int64], shape (n_pairs,)
            In the order of positions, then nearest first, then by id.
        separation : NDArray[np.float64], shape (n_pairs,)
            [arcsec]
        """
        searched = at.place[self.has_time(at)[at.place]]
        if searched.size == 0:
            return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
        assert at.mjd is not None  # noqa: S101 - has_time is false everywhere otherwise
        position, row = self._candidates(at.ra, at.dec, at.mjd, searched)
        seen = ephemeris(self.elements.take(row), at.mjd[position], site=self.site)
        separation = separation_arcsec(at.ra[position], at.dec[position], seen.ra, seen.dec)
        near = separation <= self.rows.radius[row]
        position, row, separation = position[near], row[near], separation[near]
        order = np.lexsort((self.rows.rank[row], separation, position))
        return position[order], row[order], np.asarray(separation[order], np.float64)

    def has_time(self, at: Positions) -> NDArray[np.bool_]:
        """Return which positions have a time, without which nothing is searched, shape (n,)."""
        if at.mjd is None:
            return np.zeros(at.ra.shape, bool)
        return np.isfinite(at.mjd)

    def around(
        self, ra: float, dec: float, radius_arcsec: float, mjd: float
    ) -> tuple[_Ints, Ephemeris]:
        """Return the rows of all bodies in a cone at a time, by distance, and where they are.

        Raises
        ------
        AlertError
            If the cone or the time is none.
        """
        if not (0.0 <= ra <= 360.0 and abs(dec) <= 90.0 and radius_arcsec >= 0.0):
            raise AlertError(f"({ra}, {dec}), {radius_arcsec} arcsec is no cone on the sky")
        if not np.isfinite(mjd):
            raise AlertError(f"{mjd} is no time: give an MJD (TAI)")
        place, when = np.array([[ra], [dec]]), np.array([float(mjd)])
        _, row = self._candidates(place[0], place[1], when, np.zeros(1, np.int64), radius_arcsec)
        seen = ephemeris(self.elements.take(row), mjd, site=self.site)
        away = separation_arcsec(ra, dec, seen.ra, seen.dec)
        order = np.lexsort((self.rows.rank[row], away))
        order = order[away[order] <= radius_arcsec]
        return row[order], _taken(seen, order)

    def _candidates(
        self, ra: Floats, dec: Floats, mjd: Floats, searched: _Ints, radius: float | None = None
    ) -> tuple[_Ints, _Ints]:
        """Return pairs of positions and bodies that may be near each other."""
        widest = float(self.rows.radius.max()) if radius is None else radius
        nights = np.rint(mjd[searched]).astype(np.int64)
        positions, rows = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for night in np.unique(nights).tolist():
            mine = searched[nights == night]
            vectors = _vectors(ra[mine], dec[mine])
            for group in self._night(night):
                reach = group.reach_deg + widest / ARCSEC_PER_DEG
                chord = 2.0 * np.sin(np.radians(min(reach, 180.0)) / 2.0)
                found = group.tree.query_ball_point(vectors, chord + 1e-12)
                counts = np.fromiter((len(one) for one in found), np.int64, len(found))
                positions.append(np.repeat(mine, counts))
                rows.append(group.rows[np.concatenate([np.asarray(f, np.int64) for f in found])])
        return np.concatenate(positions), np.concatenate(rows)

    def _night(self, night: int) -> tuple[_ReachClass, ...]:
        """Return where all bodies are around an MJD, the one that was used longest ago dropped."""
        if night in self._nights:
            self._nights.move_to_end(night)
            return self._nights[night]
        made = _reach_classes(self.elements, float(night), self.site)
        self._nights[night] = made
        if len(self._nights) > _NIGHTS_KEPT:
            self._nights.popitem(last=False)
        return made


def _reach_classes(elements: Elements, mjd: float, site: Site | None) -> tuple[_ReachClass, ...]:
    from scipy.spatial import cKDTree

    middle = ephemeris(elements, mjd, site=site)
    reach = np.zeros(len(elements))
    for step in _NODES:
        there = ephemeris(elements, mjd + step, site=site)
        away = separation_arcsec(middle.ra, middle.dec, there.ra, there.dec) / ARCSEC_PER_DEG
        reach = np.fmax(reach, away)
    reach = _SAFETY * reach + _MARGIN_DEG
    number = np.minimum(np.searchsorted(_REACH_CLASSES, reach), len(_REACH_CLASSES) - 1)
    groups = []
    for k, most in enumerate(_REACH_CLASSES):
        rows = np.flatnonzero(number == k)
        if rows.size:
            tree = cKDTree(_vectors(middle.ra[rows], middle.dec[rows]))
            groups.append(_ReachClass(rows, most, tree))
    return tuple(groups)


def predictions(moving: MovingObjects, row: _Ints, mjd: Floats) -> pa.Table:
    """Return the `PREDICTED` columns of bodies at times.

    Parameters
    ----------
    moving : MovingObjects
    row : NDArray[np.int64], shape (n,)
        Bodies; -1 makes nulls.
    mjd : NDArray[np.float64], shape (n,)
        When (TAI). [d]
    """
    known = np.flatnonzero(row >= 0)
    body = row[known]
    seen = ephemeris(moving.elements.take(body), mjd[known], site=moving.site)
    table = moving.rows.table
    absolute, slope = (_numbers(table, name)[body] for name in (ABSOLUTE_MAG, SLOPE))
    values = (
        predicted_mag(seen, absolute, slope),
        seen.helio_au,
        seen.topo_au,
        seen.phase,
        mjd[known] - moving.rows.numbers(EPOCH)[body],
    )
    columns = {}
    for column, value in zip(PREDICTED, values, strict=True):
        full = np.full(row.shape, np.nan, np.float32)
        full[known] = value
        columns[column.name] = pa.array(full, pa.float32(), from_pandas=True)
    return pa.table(columns)


def _numbers(table: pa.Table, name: str) -> Floats:
    return table.column(name).to_numpy()


def _taken(seen: Ephemeris, order: _Ints) -> Ephemeris:
    return Ephemeris(
        seen.ra[order], seen.dec[order], seen.helio_au[order], seen.topo_au[order],
        seen.phase[order],
    )  # fmt: skip


def _vectors(ra: Floats, dec: Floats) -> Floats:
    a, d = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], axis=1)
