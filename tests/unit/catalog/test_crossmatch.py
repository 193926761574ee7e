"""The nearest entry is the nearest, wherever on the sky, and however the batch is cut."""

import astropy.units as u
import numpy as np
import pyarrow as pa
import pytest
from astropy.coordinates import SkyCoord, match_coordinates_sky
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.catalog.crossmatch import nearest, within
from broker.catalog.partition import Rows, sort_rows
from broker.units import separation_arcsec

# Where a search by pixels goes wrong first: poles, RA 0, the rims of the polar caps
# (sin dec = 2/3, at 41.81 deg), and points where three or four base pixels meet.
AWKWARD = [
    *[(ra, dec) for ra in (0.0, 45.0, 137.0, 359.9999) for dec in (-90.0, 90.0, 89.9995)],
    *[(45.0 * k, dec) for k in range(8) for dec in (0.0, 41.8103149, -41.8103149)],
    *[(ra, 0.0) for ra in (0.0, 359.99999, 360.0)],
]


def rows_of(ra, dec, radius, ids=None):
    ids = [f"c{k}" for k in range(len(ra))] if ids is None else ids
    table = pa.table({"id": pa.array(ids, pa.large_string()), "ra": ra, "dec": dec})
    table, layers = sort_rows(table, np.broadcast_to(np.asarray(radius, float), len(ra)).copy())
    return Rows("test", "1", table, layers)


def around(centres, rng, n, scale_arcsec):
    """Positions scattered by a Gaussian on the tangent plane of each of n random centres."""
    ra, dec = np.array(centres)[rng.integers(len(centres), size=n)].T
    centre = SkyCoord(ra * u.deg, dec * u.deg)
    moved = centre.directional_offset_by(
        rng.uniform(0.0, 360.0, n) * u.deg, np.abs(rng.normal(0.0, scale_arcsec, n)) * u.arcsec
    )
    return moved.ra.deg, moved.dec.deg


def brute_force(rows, ra, dec):
    """All pairs; of the entries that reach a position the first by (separation, id)."""
    separation = separation_arcsec(ra[:, None], dec[:, None], rows.ra, rows.dec)
    ids = np.asarray(rows.table.column("id"))
    answer = []
    for distances in separation:
        reach = np.flatnonzero(distances <= rows.radius)
        answer.append(min(((distances[k], ids[k]) for k in reach), default=(np.nan, None)))
    return answer


def same_answer(rows, ra, dec):
    row, separation = nearest(rows, ra, dec)
    expected = brute_force(rows, ra, dec)
    ids = np.asarray(rows.table.column("id"))
    assert [ids[k] if k >= 0 else None for k in row] == [name for _, name in expected]
    np.testing.assert_array_equal(separation, [distance for distance, _ in expected])


@pytest.mark.parametrize("radius", [0.5, 2.0, 3.3, 11.0, 70.0, 900.0])
def test_awkward_places_match_as_all_pairs_do(radius):
    rng = np.random.default_rng(7)
    rows = rows_of(*around(AWKWARD, rng, 900, radius), radius)

    ra, dec = around(AWKWARD, rng, 400, radius)

    same_answer(rows, ra, dec)


def test_entries_of_many_radii_match_as_all_pairs_do():
    rng = np.random.default_rng(8)
    radius = rng.choice([0.3, 2.0, 5.0, 40.0, 4000.0, 400_000.0], 800)
    rows = rows_of(*around(AWKWARD, rng, 800, 20.0), radius)
    assert [layer.order for layer in rows.layers] == [15, 13, 11, 3, -1]

    ra, dec = around(AWKWARD, rng, 200, 20.0)

    same_answer(rows, ra, dec)


def test_astropy_finds_the_same_entries_and_separations():
    rng = np.random.default_rng(9)
    ra, dec = rng.uniform(0, 360, 20_000), np.degrees(np.arcsin(rng.uniform(-1, 1, 20_000)))
    rows = rows_of(ra, dec, 1800.0)
    ra, dec = rng.uniform(0, 360, 500), np.degrees(np.arcsin(rng.uniform(-1, 1, 500)))

    row, separation = nearest(rows, ra, dec)

    index, distance, _ = match_coordinates_sky(
        SkyCoord(ra * u.deg, dec * u.deg), SkyCoord(rows.ra * u.deg, rows.dec * u.deg)
    )
    near = distance.arcsec <= 1800.0
    assert 100 < near.sum() < 400
    np.testing.assert_array_equal(row, np.where(near, index, -1))
    # astropy's own separation has rounding of 1e-13 rad and less.
    np.testing.assert_allclose(separation[near], distance.arcsec[near], atol=1e-7)


@settings(max_examples=60)
@given(
    centre=st.sampled_from(AWKWARD),
    seed=st.integers(0, 2**32 - 1),
    radius=st.floats(0.01, 200.0),
)
def test_any_field_matches_as_all_pairs_do(centre, seed, radius):
    rng = np.random.default_rng(seed)
    rows = rows_of(*around([centre], rng, 40, radius), radius)

    same_answer(rows, *around([centre], rng, 20, radius))


@settings(max_examples=30)
@given(cuts=st.lists(st.integers(0, 200), max_size=5), seed=st.integers(0, 1000))
def test_the_answer_does_not_depend_on_how_a_batch_is_cut(cuts, seed):
    rng = np.random.default_rng(seed)
    rows = rows_of(*around(AWKWARD, rng, 300, 2.0), 2.0)
    ra, dec = around(AWKWARD, rng, 200, 2.0)

    whole = nearest(rows, ra, dec)
    parts = [
        nearest(rows, a, d)
        for a, d in zip(np.split(ra, sorted(cuts)), np.split(dec, sorted(cuts)), strict=True)
    ]

    for k in range(2):
        np.testing.assert_array_equal(whole[k], np.concatenate([part[k] for part in parts]))


def test_of_entries_at_one_place_the_smallest_id_is_the_match():
    rows = rows_of(np.full(3, 10.0), np.full(3, -5.0), 1.0, ids=["b", "a10", "a2"])

    row, separation = nearest(rows, [10.0], [-5.0])

    assert rows.table.column("id")[int(row[0])].as_py() == "a10"
    assert separation[0] == 0.0


def test_a_position_that_is_not_on_the_sky_has_no_match_and_disturbs_no_other():
    rows = rows_of(np.array([10.0]), np.array([-5.0]), 1.0)

    row, separation = nearest(
        rows, [np.nan, 10.0, np.inf, 370.0, -1.0], [-5.0, -5.0, -5.0, 95.0, -5.0]
    )

    assert row.tolist() == [-1, 0, -1, -1, -1]
    assert np.isnan(separation).tolist() == [True, False, True, True, True]


def test_no_positions_have_no_matches():
    rows = rows_of(np.array([10.0]), np.array([-5.0]), 1.0)

    row, separation = nearest(rows, [], [])

    assert row.size == separation.size == 0


def test_an_entry_at_exactly_its_radius_matches():
    rows = rows_of(np.array([0.0]), np.array([0.0]), separation_arcsec(0.0, 0.0, 0.0, 1 / 1800.0))

    assert nearest(rows, [0.0], [1 / 1800.0])[0].tolist() == [0]
    assert nearest(rows, [0.0], [1 / 1799.99])[0].tolist() == [-1]


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), k=st.one_of(st.none(), st.integers(1, 5)))
def test_all_and_the_k_nearest_are_what_all_pairs_give(seed, k):
    rng = np.random.default_rng(seed)
    radius = rng.choice([2.0, 8.0, 100.0], 150)
    rows = rows_of(*around(AWKWARD[:6], rng, 150, 5.0), radius)
    ra, dec = around(AWKWARD[:6], rng, 60, 5.0)
    ra[5] = np.nan
    separation = separation_arcsec(ra[:, None], dec[:, None], rows.ra, rows.dec)
    expected = []
    for i, distances in enumerate(separation):
        reach = np.flatnonzero(distances <= rows.radius)
        reach = reach[np.lexsort((rows.rank[reach], distances[reach]))][:k]
        expected += [(i, row, distances[row]) for row in reach]

    found = within(rows, ra, dec, k=k)

    assert list(zip(*(part.tolist() for part in found), strict=True)) == expected
