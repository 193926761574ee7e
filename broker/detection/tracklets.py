"""Detections of one night to tracklets: straight ways that chance does not explain.

Two detections propose a motion; those of other visits that lie on it support it. How many such sets
chance makes follows from the density of detections and the area in which each was looked for, so
pairs of a crowded night are left alone, and a pair a minute apart on an empty sky is not. What
a tracklet of few detections needs is what Kubica et al. 2007, Icarus 189 151, call its quality.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb, log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from broker.imaging.kernels import F64
from broker.units import ARCSEC_PER_DEG, SECONDS_PER_DAY

Ints = NDArray[np.int64]

_NEAREST = 10
"""Neighbours that the density is measured by."""

_CHUNK = 4096
_PROPOSALS = 200
"""At most so many detections propose a motion with one before them: the soonest ones."""

_SAME_S = 1.0
"""Closer in time than this is the same moment. [s]"""

_MOVED_SIGMAS = 5.0
"""A way shorter than this many of its errors is no motion."""


@dataclass(frozen=True)
class Limits:
    """What is taken for a motion.

    Parameters
    ----------
    max_rate : float
        Fastest motion. [deg/d]
    max_gap_days : float
        The two detections that propose a motion are not further apart than this. [d]
    max_span_days : float
        Nor is the last detection from the first. [d]
    max_chance : float
        Number of tracklets like this one that chance may make in the whole night.
    sigmas : float
        How far from its place a detection may lie, in errors.
    floor_arcsec : float
        Added to the errors of places, in quadrature. [arcsec]
    bend_arcsec_per_d2 : float
        Spread of accelerations; the turning Earth bends the way of a body at 1.5 au by up to 240
        times the square of a day's part, a few tens over hours. [arcsec/d²]
    """

    max_rate: float = 1.0
    max_gap_days: float = 0.1
    max_span_days: float = 0.4
    max_chance: float = 0.1
    sigmas: float = 4.0
    floor_arcsec: float = 0.05
    bend_arcsec_per_d2: float = 60.0


@dataclass(frozen=True)
class Detections:
    """Single detections of one night, arrays of shape (n,).

    Parameters
    ----------
    mjd : NDArray[np.float64]
        [d]
    ra, dec : NDArray[np.float64]
        [deg]
    err_arcsec : NDArray[np.float64]
        1-sigma error of a coordinate. [arcsec]
    visit : NDArray[np.int64]
        A tracklet has at most one detection of a visit.
    """

    mjd: F64
    ra: F64
    dec: F64
    err_arcsec: F64
    visit: Ints


@dataclass(frozen=True)
class Tracklet:
    """Detections of one night on one straight way.

    Parameters
    ----------
    rows : tuple of int
        Of the detections, in the order of time.
    mjd, ra, dec : float
        The middle of the way. [d], [deg]
    rate, rate_err : float
        [deg/d]
    position_angle : float
        Of the motion, from north to east. [deg]
    chi2_per_dof : float
        Of the fit of place, motion and a small acceleration; NaN for a pair.
    chance : float
        How many such tracklets chance makes in this night.
    """

    rows: tuple[int, ...]
    mjd: float
    ra: float
    dec: float
    rate: float
    rate_err: float
    position_angle: float
    chi2_per_dof: float
    chance: float


def find_tracklets(found: Detections, limits: Limits | None = None) -> list[Tracklet]:
    """Link detections of one night into tracklets, each detection into at most one.

    Parameters
    ----------
    found : Detections
        Not those of things that stand still: what was there an hour before.
    limits : Limits, optional

    Returns
    -------
    list of Tracklet
        The surest first. The same for any order of the rows but for ties.
    """
    from scipy.spatial import cKDTree

    limits = limits or Limits()
    n = found.mjd.size
    if n < 2:
        return []
    vectors = _vectors(found.ra, found.dec)
    tree = cKDTree(vectors)
    distance: Any = tree.query(vectors, k=min(_NEAREST + 1, n))[0]
    far = distance[:, -1] * _ARCSEC_PER_RAD
    around = (min(_NEAREST + 1, n) - 1) / (np.pi * np.maximum(far, 1.0) ** 2)
    sky = _Sky(found, limits, vectors, around, np.hypot(found.err_arcsec, limits.floor_arcsec))
    reach = np.radians(min(limits.max_rate * limits.max_span_days + 0.001, 60.0))
    chord = 2.0 * np.sin(reach / 2.0)
    proposed: dict[tuple[int, ...], Tracklet] = {}
    for low in range(0, n, _CHUNK):
        nearby: Any = tree.query_ball_point(vectors[low : low + _CHUNK], chord)
        for anchor, near in enumerate(nearby):
            made = sky.best_from(low + anchor, np.sort(np.asarray(near, np.int64)))
            if made is not None and made.chance <= limits.max_chance:
                proposed[made.rows] = made
    return _without_sharing(list(proposed.values()), found)


def _without_sharing(made: Sequence[Tracklet], found: Detections) -> list[Tracklet]:
    """Return the surest tracklets that have no detection in common."""
    taken: set[int] = set()
    kept = []
    for one in sorted(made, key=lambda t: (t.chance, float(found.mjd[t.rows[0]]), t.rows)):
        if taken.isdisjoint(one.rows):
            taken.update(one.rows)
            kept.append(one)
    return kept


_ARCSEC_PER_RAD = float(np.degrees(1.0) * ARCSEC_PER_DEG)


@dataclass(frozen=True)
class _Plane:
    """Later detections around an anchor on the tangent plane there: arrays of shape (n,).

    The anchor is the first row. Great circles are straight lines on it.
    """

    rows: Ints
    days: F64
    x: F64
    y: F64
    err: F64
    visit: Ints


@dataclass(frozen=True)
class _Sky:
    found: Detections
    limits: Limits
    vectors: F64
    around: F64
    err: F64

    def best_from(self, anchor: int, near: Ints) -> Tracklet | None:
        """Return the tracklet with most detections that begins with one, or None."""
        plane = self._plane(anchor, near)
        members = self._most_supported(plane) if plane.rows.size > 1 else None
        if members is None:
            return None
        for _ in range(5):
            again = self._on_the_way(plane, _fit(plane, members, self.limits))
            if again.size < 2 or again.tolist() == members.tolist():
                break
            members = again
        members = self._without_outliers(plane, members)
        if members.size < 2 or members[0] != 0:
            return None
        return self._tracklet(plane, members)

    def _without_outliers(self, plane: _Plane, members: Ints) -> Ints:
        """Leave out the worst one after the other, until none is off the way of the rest."""
        while members.size > 2:
            way = _fit(plane, members, self.limits)
            x, y, _ = way.at(plane.days[members])
            ratio = np.hypot(plane.x[members] - x, plane.y[members] - y) / plane.err[members]
            worst = int(ratio.argmax())
            if ratio[worst] <= self.limits.sigmas:
                break
            members = np.delete(members, worst)
        return members

    def _plane(self, anchor: int, near: Ints) -> _Plane:
        found, limits = self.found, self.limits
        days = found.mjd[near] - found.mjd[anchor]
        later = (days > _SAME_S / SECONDS_PER_DAY) & (days <= limits.max_span_days)
        later &= found.visit[near] != found.visit[anchor]
        near, days = near[later], days[later]
        x, y = _tangent(self.vectors[near], found.ra[anchor], found.dec[anchor])
        reach = limits.max_rate * ARCSEC_PER_DEG * days + limits.sigmas * np.hypot(
            self.err[near], self.err[anchor]
        )
        inside = np.hypot(x, y) <= reach
        rows = np.concatenate([[anchor], near[inside]])
        return _Plane(
            rows,
            np.concatenate([[0.0], days[inside]]),
            np.concatenate([[0.0], x[inside]]),
            np.concatenate([[0.0], y[inside]]),
            self.err[rows],
            found.visit[rows],
        )

    def _most_supported(self, plane: _Plane) -> Ints | None:
        """Return those on the motion that most visits support."""
        limits = self.limits
        second = np.flatnonzero((plane.days > 0.0) & (plane.days <= limits.max_gap_days))
        if not second.size:
            return None
        second = second[np.argsort(plane.days[second], kind="stable")[:_PROPOSALS]]
        share = plane.days[None, :] / plane.days[second, None]
        off = np.hypot(
            plane.x - share * plane.x[second, None], plane.y - share * plane.y[second, None]
        )
        between = plane.days[None, :] * (plane.days[None, :] - plane.days[second, None])
        spread = np.sqrt(
            plane.err**2
            + ((1.0 - share) * plane.err[0]) ** 2
            + (share * plane.err[second, None]) ** 2
            + (0.5 * limits.bend_arcsec_per_d2 * between) ** 2
        )
        ratio = off / spread
        ratio[:, 0] = 0.0
        ratio[np.arange(second.size), second] = 0.0
        on_way = ratio <= limits.sigmas
        order = np.argsort(plane.visit, kind="stable")
        first = np.flatnonzero(np.diff(plane.visit[order], prepend=plane.visit[order][0] - 1))
        visits = np.logical_or.reduceat(on_way[:, order], first, axis=1).sum(axis=1)
        # Of as many visits the longest way says most about the motion.
        best = int(np.lexsort((-plane.days[second], -visits))[0])
        return _one_a_visit(plane, np.flatnonzero(on_way[best]), ratio[best])

    def _on_the_way(self, plane: _Plane, way: "_Way") -> Ints:
        """Return those that lie on a fitted way, one a visit."""
        x, y, spread = way.at(plane.days)
        ratio = np.hypot(plane.x - x, plane.y - y) / np.hypot(plane.err, spread)
        return _one_a_visit(plane, np.flatnonzero(ratio <= self.limits.sigmas), ratio)

    def _tracklet(self, plane: _Plane, members: Ints) -> Tracklet | None:
        way = _fit(plane, members, self.limits)
        speed, speed_err = float(np.hypot(*way.values[1])), float(np.sqrt(way.covariance[1, 1]))
        too_fast = speed > self.limits.max_rate * ARCSEC_PER_DEG + self.limits.sigmas * speed_err
        if too_fast or speed < _MOVED_SIGMAS * speed_err:
            return None
        x, y, _ = way.at(plane.days[members])
        residual = (plane.x[members] - x) ** 2 + (plane.y[members] - y) ** 2
        chi2 = float((residual / plane.err[members] ** 2).sum())
        dof = 2 * members.size - 4
        anchor = int(plane.rows[0])
        ra, dec = _untangent(way.values[0], self.found.ra[anchor], self.found.dec[anchor])
        return Tracklet(
            tuple(int(row) for row in plane.rows[members]),
            float(self.found.mjd[anchor] + way.days),
            ra,
            dec,
            speed / ARCSEC_PER_DEG,
            speed_err / ARCSEC_PER_DEG,
            float(np.degrees(np.arctan2(*way.values[1])) % 360.0),
            chi2 / dof if dof else float("nan"),
            self._chance(plane, members),
        )

    def _chance(self, plane: _Plane, members: Ints) -> float:
        """Return how many sets like this chance makes: the product of densities and areas.

        The area in which each detection was looked for follows from those before it, the first
        one's from the fastest motion; which of the visits have one can be chosen in many ways.
        """
        limits = self.limits
        visits = np.unique(plane.visit).size
        density = self.around[plane.rows[members]] / visits
        fastest = limits.max_rate * ARCSEC_PER_DEG / limits.sigmas
        inverse = np.diag([0.0, fastest**-2, limits.bend_arcsec_per_d2**-2])
        row = np.array([1.0, 0.0, 0.0])
        inverse += np.outer(row, row) / plane.err[members[0]] ** 2
        chance = log(self.found.mjd.size) + log(comb(visits - 1, members.size - 1))
        for one, dense in zip(members[1:], density[1:], strict=True):
            row = _powers(plane.days[one])
            spread = plane.err[one] ** 2 + row @ np.linalg.solve(inverse, row)
            chance += log(dense * np.pi * limits.sigmas**2 * spread)
            inverse += np.outer(row, row) / plane.err[one] ** 2
        return float(np.exp(min(chance, 700.0)))


@dataclass(frozen=True)
class _Way:
    """A fit about a moment: rows place [arcsec], motion [arcsec/d], acceleration; columns x, y."""

    days: float
    values: F64
    covariance: F64

    def at(self, days: F64) -> tuple[F64, F64, F64]:
        """Return x, y and the error of either."""
        design = _powers(days - self.days)
        x, y = (design @ self.values).T
        spread = np.einsum("ki,ij,kj->k", design, self.covariance, design)
        return x, y, np.sqrt(np.maximum(spread, 0.0))


def _powers(days: Any) -> F64:
    days = np.asarray(days, np.float64)
    return np.stack([np.ones_like(days), days, 0.5 * days**2], axis=-1)


def _fit(plane: _Plane, members: Ints, limits: Limits) -> _Way:
    """Fit place, motion and an acceleration of known spread to detections."""
    days = plane.days[members]
    middle = float(0.5 * (days.min() + days.max()))
    design = _powers(days - middle) / plane.err[members, None]
    inverse = design.T @ design
    inverse[2, 2] += limits.bend_arcsec_per_d2**-2
    covariance = np.linalg.inv(inverse)
    seen = np.stack([plane.x[members], plane.y[members]], axis=1) / plane.err[members, None]
    return _Way(middle, covariance @ (design.T @ seen), np.asarray(covariance, np.float64))


def _one_a_visit(plane: _Plane, chosen: Ints, ratio: F64) -> Ints:
    """Return the nearest of each visit, in the order of time."""
    chosen = chosen[np.lexsort((ratio[chosen], plane.visit[chosen]))]
    _, first = np.unique(plane.visit[chosen], return_index=True)
    chosen = chosen[first]
    return np.asarray(chosen[np.argsort(plane.days[chosen], kind="stable")])


def _vectors(ra: F64, dec: F64) -> F64:
    lon, lat = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)


def _axes(ra: float, dec: float) -> tuple[F64, F64, F64]:
    """Return unit vectors to a place, and from there to the east and to the north."""
    lon, lat = np.radians(ra), np.radians(dec)
    east = np.array([-np.sin(lon), np.cos(lon), 0.0])
    north = np.array([-np.sin(lat) * np.cos(lon), -np.sin(lat) * np.sin(lon), np.cos(lat)])
    return np.cross(east, north), east, north


def _tangent(vectors: F64, ra: float, dec: float) -> tuple[F64, F64]:
    """Return places on the tangent plane: x to the east, y to the north. [arcsec]"""
    centre, east, north = _axes(ra, dec)
    scale = _ARCSEC_PER_RAD / (vectors @ centre)
    return vectors @ east * scale, vectors @ north * scale


def _untangent(place: F64, ra: float, dec: float) -> tuple[float, float]:
    centre, east, north = _axes(ra, dec)
    x, y = place / _ARCSEC_PER_RAD
    v = centre + x * east + y * north
    v /= np.linalg.norm(v)
    return float(np.degrees(np.arctan2(v[1], v[0])) % 360.0), float(np.degrees(np.arcsin(v[2])))
