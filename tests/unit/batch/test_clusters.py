"""Clusters are DBSCAN's, however the rows are cut into blocks."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import connected_components

from broker.batch.clusters import NOISE, block_clusters, core_rows, join_parts
from broker.catalog.partition import Rows, sort_rows
from broker.units import separation_arcsec

RADIUS = 30.0


def clumpy_sky(seed, n=250):
    """Filaments and clumps at RA 0 and the pole, and single entries around."""
    rng = np.random.default_rng(seed)
    along = rng.uniform(-300, 300, n)
    ra = (along + rng.normal(0, 5, n)) / 3600.0 % 360.0
    dec = 41.81 + (rng.choice([0, 80, 200], n) + rng.normal(0, 15, n)) / 3600.0
    ra[-60:], dec[-60:] = rng.uniform(0, 360, 60), 90.0 - np.abs(rng.normal(0, 40, 60)) / 3600.0
    ids = pa.array([f"s{k}" for k in rng.permutation(n)], pa.large_string())
    radius = rng.choice([0.5, 5.0], n)
    table, layers = sort_rows(pa.table({"id": ids, "ra": ra, "dec": dec}), radius)
    return Rows("test", "1", table, layers)


def in_blocks(rows, cuts, min_points):
    edges = sorted({0, len(rows), *cuts})
    blocks = list(pairwise(edges))
    core = np.concatenate(
        [core_rows(rows, *b, radius=RADIUS, min_points=min_points) for b in blocks]
    )
    found = [block_clusters(rows, *b, core, radius=RADIUS) for b in blocks]
    part = np.concatenate([one.part for one in found])
    return core, join_parts(part, np.concatenate([one.links for one in found]))


def by_definition(rows, min_points):
    """Core entries joined by all pairs; a border entry with its nearest core entry."""
    separation = separation_arcsec(rows.ra[:, None], rows.dec[:, None], rows.ra, rows.dec)
    near = separation <= RADIUS
    core = near.sum(axis=1) >= min_points
    _, label = connected_components(near & core & core[:, None], directed=False)
    label = np.where(core, label, NOISE)
    for i in np.flatnonzero(~core):
        reach = np.flatnonzero(near[i] & core)
        if reach.size:
            label[i] = label[reach[np.lexsort((rows.rank[reach], separation[i, reach]))[0]]]
    return core, label


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10_000),
    cuts=st.lists(st.integers(1, 249), max_size=12),
    min_points=st.sampled_from([1, 2, 4, 8, 400]),
)
def test_clusters_are_those_of_the_definition_in_any_blocks(seed, cuts, min_points):
    rows = clumpy_sky(seed)

    core, found = in_blocks(rows, cuts, min_points)

    expected_core, expected = by_definition(rows, min_points)
    np.testing.assert_array_equal(core, expected_core)
    np.testing.assert_array_equal(found == NOISE, expected == NOISE)
    pairs = {(a, b) for a, b in zip(found.tolist(), expected.tolist(), strict=True)}
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    # numbered by their first core entry, whatever the blocks
    firsts = [np.flatnonzero((found == c) & core)[0] for c in range(found.max() + 1)]
    assert firsts == sorted(firsts)


def test_there_is_something_to_find():
    _, found = in_blocks(clumpy_sky(3), [40, 90], 8)

    assert found.max() >= 5
    assert 0.1 < np.mean(found == NOISE) < 0.9


@pytest.mark.parametrize("cuts", [[], [1], range(1, 250)])
def test_the_numbers_do_not_depend_on_the_blocks(cuts):
    rows = clumpy_sky(5)

    np.testing.assert_array_equal(in_blocks(rows, cuts, 4)[1], in_blocks(rows, [99], 4)[1])
