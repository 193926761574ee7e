"""diaSources to diaObjects: which detections are of one thing in the sky.

A pure function of tables: the same sources and the same past give the same objects, in whatever
order the rows come, and also when a batch is repeated after its own rows were stored.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from broker.errors import AlertError
from broker.imaging.kernels import F64, Bools
from broker.units import ARCSEC_PER_DEG

RADIUS_ARCSEC = 1.0
"""Farthest that a source may be from its object, as Rubin has it. [arcsec]"""

Ids = NDArray[np.int64]

_LEAST_ERR_DEG = 1e-3 / ARCSEC_PER_DEG
"""No error is believed to be less, so that one source cannot outweigh all others. [deg]"""


@dataclass(frozen=True)
class Association:
    """The object of each source, arrays of shape (n_sources,), in the order of the input.

    Parameters
    ----------
    dia_object_id : NDArray[np.int64]
        Of a new object: the identifier of its first source.
    is_new : NDArray[np.bool_]
        The source begins an object.
    is_late : NDArray[np.bool_]
        Its object, or a known source at its place, was seen by a later visit before this one came.
    separation_arcsec : NDArray[np.float64]
        From the object's place as it was then; NaN for a new object. [arcsec]
    """

    dia_object_id: Ids
    is_new: Bools
    is_late: Bools
    separation_arcsec: F64


@dataclass(frozen=True)
class _Sources:
    """Columns of sources, arrays of shape (n_sources,) but for `vectors` (n_sources, 3)."""

    ids: Ids
    visits: Ids
    detectors: Ids
    times: F64
    vectors: F64
    weights: F64


@dataclass
class _Sky:
    """All sources with an object so far, by identifier."""

    sources: _Sources
    objects: Ids


def associate(
    sources: pa.Table, known: pa.Table, *, radius_arcsec: float = RADIUS_ARCSEC
) -> Association:
    """Give every source an object.

    Visit by visit in time order, each source gets the nearest object within the radius, one to
    one: pairs are taken by (separation, source, object), smallest first. An object's place is the
    weighted mean of its sources of visits strictly before. Sources of one image never share an
    object. A source that is already known keeps its object.

    Each detector of a visit is by itself, so it does not matter which of them comes first: where
    two overlap, an object may have a source from each. A new object has then two names, and from
    the next visit on it has one: see `merged_objects`.

    Parameters
    ----------
    sources : pa.Table
        Columns diaSourceId, visit, midpointMjdTai, ra, dec, raErr, decErr, and detector, if there
        is more than one; any visits, any order.
    known : pa.Table
        The same and diaObjectId, of all sources around: at least within twice the radius of any
        member of an object that could match.
    radius_arcsec : float

    Returns
    -------
    Association

    Raises
    ------
    AlertError
        If an identifier is there twice among the sources.

    Notes
    -----
    A late visit, one that comes after a later visit of the same place was processed, joins an
    object that has later sources only, at the place of those, rather than begin a second object.
    """
    new = _columns(sources)
    n = new.ids.size
    if np.unique(new.ids).size != n:
        raise AlertError("a diaSourceId is there twice in one batch")
    result = Association(
        np.zeros(n, np.int64), np.zeros(n, bool), np.zeros(n, bool), np.full(n, np.nan)
    )
    past = _columns(known)
    objects = np.asarray(known["diaObjectId"], dtype=np.int64)
    stored = dict(zip(past.ids.tolist(), objects.tolist(), strict=True))
    own = np.isin(past.ids, new.ids)
    sky = _merge(_Sky(_take(past, ~own), objects[~own]), None)
    images = zip(new.times.tolist(), new.visits.tolist(), new.detectors.tolist(), strict=True)
    for time, visit, detector in sorted(set(images)):
        rows = np.flatnonzero(
            (new.visits == visit) & (new.times == time) & (new.detectors == detector)
        )
        rows = rows[np.argsort(new.ids[rows])]
        _one_image(new, rows, sky, stored, radius_arcsec, result)
        sky = _merge(sky, _Sky(_take(new, rows), result.dia_object_id[rows]))
    return result


def merged_objects(known: pa.Table, *, radius_arcsec: float = RADIUS_ARCSEC) -> Ids:
    """Return the object of each known source, where one object had two names by its first.

    Objects that begin in one visit on different detectors within the radius are one: the one
    with the smallest identifier; the others' identifiers are aliases of it.

    Parameters
    ----------
    known : pa.Table
        As for `associate`.
    radius_arcsec : float

    Returns
    -------
    NDArray[np.int64], shape (n_known,)
    """
    objects = np.asarray(known["diaObjectId"], dtype=np.int64)
    return _without_aliases(_columns(known), objects, radius_arcsec)


def object_places(known: pa.Table, time: float, visit: int) -> tuple[Ids, F64, F64]:
    """Return the objects that a visit knows, and where they are as association sees it.

    Parameters
    ----------
    known : pa.Table
        As for `associate`.
    time : float
        Middle of the visit, MJD, TAI. [d]
    visit : int

    Returns
    -------
    dia_object_id : NDArray[np.int64], shape (n_objects,)
        Sorted; those that only this visit has seen are not among them.
    ra, dec : NDArray[np.float64], shape (n_objects,)
        [deg]
    """
    past = _columns(known)
    sky = _merge(_Sky(past, merged_objects(known)), None)
    objects, places, _ = _objects_as_of(sky, time, visit)
    ra = np.degrees(np.arctan2(places[:, 1], places[:, 0])) % 360.0
    dec = np.degrees(np.arctan2(places[:, 2], np.hypot(places[:, 0], places[:, 1])))
    return objects, ra, dec


def _without_aliases(sources: _Sources, objects: Ids, radius_arcsec: float) -> Ids:
    first = np.flatnonzero(sources.ids == objects)
    first = first[np.argsort(sources.ids[first])]
    if np.unique(sources.detectors[first]).size < 2:
        return objects
    alias: dict[int, int] = {}
    merged: dict[int, set[int]] = {}
    pairs = _pairs(sources.vectors[first], sources.vectors[first], radius_arcsec)
    pairs = pairs[pairs[:, 1] < pairs[:, 0]]
    a, b = first[pairs[:, 0]], first[pairs[:, 1]]
    same = (sources.visits[a] == sources.visits[b]) & (sources.detectors[a] != sources.detectors[b])
    same &= _separations(sources.vectors[a], sources.vectors[b]) <= radius_arcsec
    order = np.lexsort((objects[b[same]], objects[a[same]]))
    for i, j in zip(a[same][order].tolist(), b[same][order].tolist(), strict=True):
        name, other = int(objects[i]), int(objects[j])
        there = merged.setdefault(other, {int(sources.detectors[j])})
        if name in alias or other in alias or int(sources.detectors[i]) in there:
            continue
        alias[name] = other
        there.add(int(sources.detectors[i]))
    if not alias:
        return objects
    return np.array([alias.get(name, name) for name in objects.tolist()], np.int64)


def _columns(table: pa.Table) -> _Sources:
    def floats(name: str) -> F64:
        return np.asarray(table[name], dtype=np.float64)

    return _Sources(
        np.asarray(table["diaSourceId"], dtype=np.int64),
        np.asarray(table["visit"], dtype=np.int64),
        np.asarray(table["detector"], dtype=np.int64)
        if "detector" in table.column_names
        else np.zeros(table.num_rows, np.int64),
        floats("midpointMjdTai"),
        _unit_vectors(floats("ra"), floats("dec")),
        _weights(floats("raErr"), floats("decErr")),
    )


def _take(sources: _Sources, rows: Any) -> _Sources:
    return _Sources(
        sources.ids[rows],
        sources.visits[rows],
        sources.detectors[rows],
        sources.times[rows],
        sources.vectors[rows],
        sources.weights[rows],
    )


def _merge(sky: _Sky, more: _Sky | None) -> _Sky:
    """Return both, by identifier, so that sums do not depend on the order of the rows."""
    parts = [sky] if more is None else [sky, more]
    objects = np.concatenate([part.objects for part in parts])
    every = _Sources(
        np.concatenate([part.sources.ids for part in parts]),
        np.concatenate([part.sources.visits for part in parts]),
        np.concatenate([part.sources.detectors for part in parts]),
        np.concatenate([part.sources.times for part in parts]),
        np.concatenate([part.sources.vectors for part in parts]),
        np.concatenate([part.sources.weights for part in parts]),
    )
    order = np.argsort(every.ids, kind="stable")
    return _Sky(_take(every, order), objects[order])


def _unit_vectors(ra: F64, dec: F64) -> F64:
    ra, dec = np.radians(ra), np.radians(dec)
    parts = [np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)]
    return np.asarray(np.column_stack(parts), np.float64)


def _weights(ra_err: F64, dec_err: F64) -> F64:
    variance = 0.5 * (np.square(ra_err) + np.square(dec_err))
    variance = np.where(np.isfinite(variance), variance, 1.0 / ARCSEC_PER_DEG**2)
    return np.asarray(1.0 / np.maximum(variance, _LEAST_ERR_DEG**2), np.float64)


def _one_image(
    new: _Sources,
    rows: NDArray[np.intp],
    sky: _Sky,
    stored: dict[int, int],
    radius_arcsec: float,
    result: Association,
) -> None:
    """Fill the result for the sources of one image, `rows`, in order of their identifiers."""
    time, visit = float(new.times[rows[0]]), int(new.visits[rows[0]])
    sky = _Sky(sky.sources, _without_aliases(sky.sources, sky.objects, radius_arcsec))
    objects, places, last_time = _objects_as_of(sky, time, visit)
    pairs = _pairs(new.vectors[rows], places, radius_arcsec)
    separation = _separations(new.vectors[rows[pairs[:, 0]]], places[pairs[:, 1]])
    ids = new.ids[rows]
    chosen = {k: stored[int(i)] for k, i in enumerate(ids) if int(i) in stored}
    same = (sky.sources.visits == visit) & (sky.sources.detectors == new.detectors[rows[0]])
    taken = set(chosen.values()) | set(sky.objects[same].tolist())
    for k in np.lexsort((objects[pairs[:, 1]], pairs[:, 0], separation)):
        if separation[k] > radius_arcsec:
            break
        row, thing = int(pairs[k, 0]), int(pairs[k, 1])
        candidate = int(objects[thing])
        result.is_late[rows[row]] |= bool(last_time[thing] > time)
        if row not in chosen and candidate not in taken:
            chosen[row] = candidate
            taken.add(candidate)
        if chosen.get(row) == candidate:
            result.separation_arcsec[rows[row]] = separation[k]
    for row, identifier in enumerate(ids.tolist()):
        result.dia_object_id[rows[row]] = chosen.get(row, identifier)
        result.is_new[rows[row]] = chosen.get(row, identifier) == identifier


def _objects_as_of(sky: _Sky, time: float, visit: int) -> tuple[Ids, F64, F64]:
    """Return identifiers, places (unit vectors) and last times of all objects.

    From sources of visits strictly before (time, visit), or all of other visits where an object
    has none.
    """
    sources = sky.sources
    other = sources.visits != visit
    before = (sources.times < time) | ((sources.times == time) & (sources.visits < visit))
    before &= other
    objects, index = np.unique(sky.objects, return_inverse=True)
    n = objects.size
    has_past = np.bincount(index, before, n) > 0
    weight = np.where(np.where(has_past[index], before, other), sources.weights, 0.0)
    sums = np.column_stack(
        [np.bincount(index, weight * sources.vectors[:, k], n) for k in range(3)]
    )
    length = np.linalg.norm(sums, axis=1)
    last = np.full(n, -np.inf)
    np.maximum.at(last, index, np.where(other, sources.times, -np.inf))
    there = length > 0.0
    return objects[there], sums[there] / length[there, None], last[there]


def _pairs(sources: F64, places: F64, radius_arcsec: float) -> Ids:
    """Return (source, object) of all pairs that may be within the radius, shape (n_pairs, 2)."""
    from scipy.spatial import cKDTree

    if len(places) == 0 or len(sources) == 0:
        return np.zeros((0, 2), np.int64)
    chord = 2.0 * np.sin(np.radians(radius_arcsec / ARCSEC_PER_DEG) / 2.0) * (1.0 + 1e-6) + 1e-12
    near = cKDTree(places).query_ball_point(sources, chord)
    pairs = [(row, thing) for row, things in enumerate(near) for thing in sorted(things)]
    return np.array(pairs, np.int64).reshape(-1, 2)


def _separations(a: F64, b: F64) -> F64:
    """Return angles between unit vectors, exact when small. [arcsec]"""
    cross = np.linalg.norm(np.cross(a, b), axis=1)
    angle = np.arctan2(cross, np.einsum("ij,ij->i", a, b))
    return np.asarray(np.degrees(angle) * ARCSEC_PER_DEG, np.float64)
