"""Neighbours at any distance are those that a comparison of all pairs gives."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.catalog._near_search import runs_in_cells
from broker.catalog.neighbours import counts_within, nearest_k, nearest_to, pairs_within
from broker.catalog.partition import Rows, sort_rows
from broker.errors import AlertError
from broker.units import separation_arcsec


def uneven_sky(seed, n=300):
    """Half of the entries all over the sky, half in one arcminute, some at one place."""
    rng = np.random.default_rng(seed)
    ra, dec = rng.uniform(0, 360, n), np.degrees(np.arcsin(rng.uniform(-1, 1, n)))
    ra[: n // 2] = (359.99 + rng.uniform(0, 0.02, n // 2)) % 360.0
    dec[: n // 2] = 41.81 + rng.uniform(0, 0.02, n // 2)
    ra[:5], dec[:5] = 45.0, -90.0
    ids = pa.array([f"s{k}" for k in rng.permutation(n)], pa.large_string())
    radius = rng.choice([0.5, 40.0, 400_000.0], n)
    table, layers = sort_rows(pa.table({"id": ids, "ra": ra, "dec": dec}), radius)
    return Rows("test", "1", table, layers)


def all_pairs(rows, ra, dec):
    """Rows by (separation, id) and separations, for each position."""
    separation = separation_arcsec(ra[:, None], dec[:, None], rows.ra, rows.dec)
    order = [np.lexsort((rows.rank, distances)) for distances in separation]
    return np.array(order), np.take_along_axis(separation, np.array(order), axis=1)


@settings(max_examples=15)
@given(seed=st.integers(0, 1000), k=st.sampled_from([1, 3, 20, 299, 300, 1000]))
def test_the_k_nearest_are_the_first_of_all_pairs(seed, k):
    rows = uneven_sky(seed)
    ra, dec = np.append(rows.ra[::23], [0.0, 12.0]), np.append(rows.dec[::23], [90.0, -41.8])
    order, separation = all_pairs(rows, ra, dec)

    position, row, distance = nearest_k(rows, ra, dec, k)
    one = nearest_to(rows, ra[3], dec[3], k)

    n = min(k, len(rows))
    np.testing.assert_array_equal(position, np.repeat(np.arange(ra.size), n))
    np.testing.assert_array_equal(row, order[:, :n].ravel())
    np.testing.assert_array_equal(distance, separation[:, :n].ravel())
    np.testing.assert_array_equal(one[0], order[3, :n])


@pytest.mark.parametrize("radius", [0.0, 3.0, 50.0, 3600.0, 400_000.0, 648_000.0])
def test_all_within_a_radius_are_the_near_ones_of_all_pairs(radius):
    rows = uneven_sky(1)
    ra, dec = rows.ra[::11].copy(), rows.dec[::11]
    ra[2] = np.nan
    order, separation = all_pairs(rows, ra, dec)
    expected = [(i, order[i, j]) for i, j in np.argwhere(separation <= radius).tolist() if i != 2]

    position, row, _ = pairs_within(rows, ra, dec, radius)

    assert list(zip(position.tolist(), row.tolist(), strict=True)) == expected


@pytest.mark.parametrize("radius", [0.0, 3.0, 50.0, 3600.0, 400_000.0, 648_000.0, "exact"])
@pytest.mark.parametrize("enough", [1, 7, 10_000])
def test_counts_are_those_of_all_pairs_as_far_as_wanted(radius, enough):
    rows = uneven_sky(1)
    ra, dec = rows.ra[::11].copy(), rows.dec[::11]
    separation = all_pairs(rows, ra, dec)[1]
    if radius == "exact":  # as far as a neighbour is, to the last bit
        radius = separation[np.argmax(dec > 41.0), 9]
    ra[2] = np.nan
    expected = (separation <= radius).sum(axis=1)
    expected[2] = 0

    counts = counts_within(rows, ra, dec, radius, enough=enough)

    np.testing.assert_array_equal(np.minimum(counts, enough), np.minimum(expected, enough))


def test_no_neighbours_cannot_be_asked_for():
    with pytest.raises(AlertError, match="ask for 1 or more"):
        nearest_k(uneven_sky(1), [1.0], [1.0], 0)


def test_no_positions_have_no_neighbours():
    assert [part.size for part in nearest_k(uneven_sky(1), [], [], 3)] == [0, 0, 0]


@pytest.mark.parametrize("of_rows", [0, 1, 5000])
@pytest.mark.parametrize("in_order", [True, False])
def test_rows_of_cells_are_found_from_wherever_the_last_ones_were(of_rows, in_order):
    rng = np.random.default_rng(of_rows)
    codes = np.sort(rng.integers(0, 1 << 20, of_rows).astype(np.uint64))
    codes[: of_rows // 3] = codes[: of_rows // 3] >> np.uint64(9)  # many rows in few cells
    codes.sort()
    around = rng.integers(-3, 1 << 14, (200, 9))
    around = np.sort(around, axis=None).reshape(200, 9) if in_order else around

    starts, ends = runs_in_cells(codes, around, 6)

    is_cell = around >= 0
    first = around.clip(0).astype(np.uint64) << np.uint64(6)
    np.testing.assert_array_equal(starts[is_cell], np.searchsorted(codes, first)[is_cell])
    expected = np.searchsorted(codes, first + np.uint64(63), side="right")
    np.testing.assert_array_equal(ends[is_cell], expected[is_cell])
    assert (starts == ends)[~is_cell].all()
