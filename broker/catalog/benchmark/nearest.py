"""The nearest 1000 of one place among very many, beside a tree."""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from broker.bench_rows import Row, at_least, at_most
from broker.catalog.benchmark.layout import write_layout
from broker.catalog.benchmark.sizes import Sizes
from broker.catalog.benchmark.stars import NAME, RADIUS_ARCSEC
from broker.catalog.neighbours import nearest_to
from broker.catalog.partition import Rows, open_rows

LONGEST_S, K = 3.0, 1000
_LARGEST_TREE = 10_000_000
_PLACES = ((10.0, 20.0), (123.4, -41.8), (0.0, 89.99), (359.9999, 0.0))


def rows(sizes: Sizes) -> list[Row]:
    """Return the rows of this step."""
    n, k = sizes.points, min(K, sizes.points)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        write_layout(path, NAME, n, radius_arcsec=RADIUS_ARCSEC, share=1.0, seed=1)
        began = time.perf_counter()
        stars = open_rows(path / NAME)
        nearest_to(stars, 200.0, -20.0, k)
        first_s = time.perf_counter() - began
        times, same = [], []
        for ra, dec in _PLACES:
            began = time.perf_counter()
            row, away = nearest_to(stars, ra, dec, k)
            times.append(time.perf_counter() - began)
            same.append(_is_nearest(stars, ra, dec, row, away))
        tree = _tree(stars, k)
    return [
        at_most(
            f"{k} nearest of a place among {n:.0e}, s, catalogue just opened",
            first_s,
            LONGEST_S,
            tree,
        ),
        at_most(f"{k} nearest of other places among {n:.0e}, s", max(times), LONGEST_S),
        at_least(f"places with the {k} of a look at all rows, share", float(np.mean(same)), 1.0),
    ]


def _is_nearest(stars: Rows, ra: float, dec: float, row: Any, away: Any) -> bool:
    """Count rows in the farthest's reach by another formula, over all rows."""
    centre = _vectors(np.array([ra]), np.array([dec]))[0]
    chord = 2.0 * np.sin(np.radians(away[-1] / 3600.0) / 2.0)
    inside = 0
    for first in range(0, len(stars), 1_000_000):
        some = slice(first, first + 1_000_000)
        gap = np.linalg.norm(_vectors(stars.ra[some], stars.dec[some]) - centre, axis=1)
        inside += int((gap <= chord * (1.0 + 1e-9) + 1e-15).sum())
    return np.unique(row).size == row.size == inside


def _tree(stars: Rows, k: int) -> str:
    """Return what a tree of SciPy's takes; of no more rows than a machine easily holds."""
    from scipy.spatial import cKDTree

    step = -(-len(stars) // _LARGEST_TREE)
    vectors = _vectors(stars.ra[::step], stars.dec[::step])
    began = time.process_time()
    tree = cKDTree(vectors)
    built = time.process_time() - began
    began = time.process_time()
    tree.query(_vectors(np.array([10.0]), np.array([20.0]))[0], k=k)
    asked = time.process_time() - began
    return (
        f"SciPy cKDTree of {len(vectors):.0e}: {built:.1f} s to build, {asked:.4f} s to ask, "
        f"{vectors.nbytes / 1e9:.2f} GB of vectors alone"
    )


def _vectors(ra: Any, dec: Any) -> Any:
    a, d = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], axis=1)
