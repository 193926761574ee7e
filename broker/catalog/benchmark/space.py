"""Neighbours in three dimensions, beside a tree."""

import time
from typing import Any

import numpy as np
import pyarrow as pa

from broker.bench_rows import Row, at_least
from broker.catalog.benchmark.sizes import Sizes
from broker.catalog.benchmark.stars import even_sky
from broker.catalog.distance import vectors
from broker.catalog.partition import Rows, sort_rows
from broker.catalog.space import in_space

_MOST, _PLACES, _K, _MEAN_NEIGHBOURS = 1_000_000, 20_000, 5, 4.0


def rows(sizes: Sizes) -> list[Row]:
    """Return the rows of this step: of at most 1e6 entries, evenly in a ball."""
    n = min(sizes.rows, _MOST)
    rng = np.random.default_rng(9)
    ra, dec = even_sky(rng, n)
    away = np.cbrt(rng.uniform(0.0, 1.0, n))
    ids = pa.array(np.arange(n)).cast(pa.large_string())
    table = pa.table({"id": ids, "ra": ra, "dec": dec, "redshift": away})
    table, layers = sort_rows(table, np.full(n, 1.0))
    catalog = Rows("bench", "bench", table, layers)
    in_space(Rows("bench", "bench", table.slice(0, 100), ()), "redshift").nearest(0.0, 0.0, 0.5, 1)
    began = time.process_time()
    space = in_space(catalog, "redshift")
    made_s = time.process_time() - began
    place = rng.integers(n, size=min(_PLACES, n))
    xyz = vectors(catalog.ra[place], catalog.dec[place], catalog.numbers("redshift")[place])
    radius = float(np.cbrt(_MEAN_NEIGHBOURS / n))
    space.nearest_to_places(xyz[:10], _K)  # compiles
    space.pairs_within(xyz[:10], radius)
    near_s, near = _timed(lambda: space.nearest_to_places(xyz, _K))
    pairs_s, pairs = _timed(lambda: space.pairs_within(xyz, radius))
    tree_s, tree_near_s, tree_pairs_s, distances, number = _tree(catalog, xyz, radius)
    same = np.isclose(near[2].reshape(-1, _K), distances, rtol=0.0, atol=1e-12).mean()
    is_all = np.mean(np.bincount(pairs[0], minlength=len(xyz)) == number)
    what = f"in space, {n:.0e} entries"
    return [
        Row(f"octree {what}, us/entry", 1e6 * made_s / n, anchor=f"cKDTree: {tree_s:.2f} s"),
        Row(
            f"{_K} nearest {what}, us/place",
            1e6 * near_s / len(xyz),
            anchor=f"cKDTree: {1e6 * tree_near_s / len(xyz):.1f}",
        ),
        Row(
            f"all within a radius {what}, us/place",
            1e6 * pairs_s / len(xyz),
            anchor=f"cKDTree: {1e6 * tree_pairs_s / len(xyz):.1f}",
        ),
        at_least("nearest in space at the distances of cKDTree, share", float(same), 1.0),
        at_least("places with as many pairs as of cKDTree, share", float(is_all), 1.0),
    ]


def _timed(call: Any) -> tuple[float, Any]:
    began = time.process_time()
    found = call()
    return time.process_time() - began, found


def _tree(catalog: Rows, xyz: Any, radius: float) -> tuple[float, float, float, Any, Any]:
    from scipy.spatial import cKDTree

    all_of = vectors(catalog.ra, catalog.dec, catalog.numbers("redshift"))
    made_s, tree = _timed(lambda: cKDTree(all_of))
    near_s, (distances, _) = _timed(lambda: tree.query(xyz, k=_K))
    pairs_s, found = _timed(lambda: tree.query_ball_point(xyz, radius))
    return made_s, near_s, pairs_s, distances, np.array([len(one) for one in found])
