"""Association of crowded diaSources at 1 arcsec, visit by visit, against what was put in."""

import time

import numpy as np
import pyarrow as pa

from broker.bench_rows import Row, at_least
from broker.detection.associate import associate
from broker.imaging.kernels import F64
from broker.units import ARCSEC_PER_DEG

_THINGS = 2000
_VISITS = 6
_FIELD_ARCSEC = 200.0
"""650,000 things in a square degree: one in five has another within 1.7 arcsec."""

_LEAST_APART_ARCSEC = 1.2
"""Closer ones are one detection in seeing of an arcsec."""

_ERROR_ARCSEC = 0.1
"""1-sigma error of a position: a source of S/N 5 in seeing of an arcsec."""

_FOUND = 0.8
"""Share of visits in which a thing is found."""


def rows(side: int, repeats: int) -> list[Row]:
    """Associate crowded skies at the equator, across RA 0 and at a pole."""
    del side, repeats
    correct, complete, per_s = zip(*(_one(dec, seed) for seed, dec in _SKIES), strict=True)
    anchor = "LSST: KD-tree, 1 arcsec"
    return [
        at_least("association, crowded, correct", min(correct), 0.999, anchor),
        at_least("association, crowded, complete", min(complete), 0.999, anchor),
        Row("association, 1000 diaSources/s", float(np.median(per_s)) / 1e3, "", "", None),
    ]


_SKIES = ((1, 0.0), (2, 45.0), (3, 89.99))
"""Seed and declination of fields around RA 0."""


def _one(dec: float, seed: int) -> tuple[float, float, float]:
    """Return correct share, complete share and sources a second of processor time of one field.

    Correct: of pairs of successive sources in one object, those that are of one thing. Complete:
    of pairs of successive sources of one thing, those that are in one object.
    """
    rng = np.random.default_rng(seed)
    east, north = _apart(rng)
    table, thing = _sources(rng, east, north, dec)
    start = time.process_time()
    known = table.slice(0, 0).append_column("diaObjectId", pa.array([], pa.int64()))
    for visit in range(1, _VISITS + 1):
        new = table.filter(pa.array(table["visit"].to_numpy() == visit))
        got = associate(new, known).dia_object_id
        known = pa.concat_tables([known, new.append_column("diaObjectId", pa.array(got))])
    seconds = max(time.process_time() - start, 1e-9)
    objects = known["diaObjectId"].to_numpy()
    truth = thing[known["diaSourceId"].to_numpy()]
    return _kept(objects, truth), _kept(truth, objects), objects.size / seconds


def _kept(groups: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of neighbours in a group that have one label; rows are in time order."""
    order = np.argsort(groups, kind="stable")
    same_group = np.diff(groups[order]) == 0
    same_label = np.diff(labels[order]) == 0
    return float(np.mean(same_label[same_group]))


def _apart(rng: np.random.Generator) -> tuple[F64, F64]:
    """Return places that are at least so far apart. [arcsec]"""
    from scipy.spatial import cKDTree

    places = rng.uniform(-0.5, 0.5, (2 * _THINGS, 2)) * _FIELD_ARCSEC
    close = cKDTree(places).query_pairs(_LEAST_APART_ARCSEC, output_type="ndarray")
    kept = np.setdiff1d(np.arange(len(places)), close[:, 1])[:_THINGS]
    return places[kept, 0], places[kept, 1]


def _sources(
    rng: np.random.Generator, east: F64, north: F64, dec: float
) -> tuple[pa.Table, np.ndarray]:
    """Return the sources of all visits, in the order of time, and the thing of each."""
    parts = []
    for visit in range(1, _VISITS + 1):
        found = np.flatnonzero(rng.random(east.size) < _FOUND)
        noise = rng.normal(0.0, _ERROR_ARCSEC, (2, found.size))
        parts.append(
            (found, np.full(found.size, visit), east[found] + noise[0], north[found] + noise[1])
        )
    thing, visit_of, x, y = (np.concatenate(part) for part in zip(*parts, strict=True))
    ra, at_dec = _on_sky(x, y, dec)
    n, error = thing.size, np.full(thing.size, _ERROR_ARCSEC / ARCSEC_PER_DEG)
    columns = {
        "diaSourceId": np.arange(n),
        "visit": visit_of,
        "midpointMjdTai": 61_000.0 + visit_of,
        "ra": ra,
        "dec": at_dec,
        "raErr": error,
        "decErr": error,
    }
    return pa.table(columns), thing


def _on_sky(x: F64, y: F64, dec: float) -> tuple[F64, F64]:
    from broker.imaging.wcs import Wcs

    return Wcs.from_scale(0.0, dec, scale_arcsec=1.0, crpix=(0.0, 0.0)).pixel_to_sky(x, y)
