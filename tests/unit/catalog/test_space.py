"""Neighbours and windows in space are what a comparison of all entries gives."""

import numpy as np
import pyarrow as pa
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.catalog._boxes_search import (
    boxes_around,
    first_boxes,
    nearest_in_boxes,
    order_by_halves,
    pairs_in_boxes,
)
from broker.catalog.distance import Distance, comoving_mpc
from broker.catalog.partition import Rows, sort_rows, write_rows
from broker.catalog.space import in_space, open_space
from broker.catalog.windows import cone, cube, on_the_sky, rows_in_window, shell, sphere
from broker.errors import AlertError, ConfigError

N = 600


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(1)
    redshift = rng.uniform(0.0, 2.0, N)
    redshift[:3] = np.nan, -1.0, np.inf
    ra, dec = rng.uniform(0, 360, N), np.degrees(np.arcsin(rng.uniform(-1, 1, N)))
    ra[10:14], dec[10:14], redshift[10:14] = 20.0, -30.0, 0.5  # at one place
    columns = {
        "id": pa.array([f"g{k}" for k in range(N)], pa.large_string()),
        "ra": ra,
        "dec": dec,
        "redshift": pa.array(redshift, mask=np.arange(N) == 3),
        "kind": ["galaxy"] * N,
    }
    table, layers = sort_rows(pa.table(columns), rng.choice([0.5, 30.0], N))
    return Rows("test", "1", table, layers)


def by_hand(rows):
    """Positions of all entries by astropy; NaN where there is no distance."""
    away = np.asarray(rows.table.column("redshift").to_numpy(), dtype=float)
    known = np.isfinite(away) & (away >= 0.0)
    xyz = np.full((N, 3), np.nan)
    there = SkyCoord(rows.ra[known] * u.deg, rows.dec[known] * u.deg, distance=away[known])
    xyz[known] = there.cartesian.xyz.value.T
    return xyz


@pytest.mark.parametrize("k", [1, 3, 50, 10_000])
def test_the_nearest_in_space_are_the_first_of_all_entries(rows, k):
    places = (np.array([20.0, 0.0, 200.0]), np.array([-30.0, 90.0, 10.0]), np.array([0.5, 0.1, 3]))
    xyz = by_hand(rows)

    position, row, separation = in_space(rows, "redshift").nearest(*places, k)

    for i, place in enumerate(SkyCoord(*places[:2], unit="deg", distance=places[2])):
        away = np.linalg.norm(xyz - place.cartesian.xyz.value, axis=1).round(12)
        known = np.flatnonzero(np.isfinite(away))
        expected = known[np.lexsort((rows.rank[known], away[known]))][:k]
        mine = position == i
        np.testing.assert_array_equal(row[mine], expected)
        np.testing.assert_allclose(separation[mine], away[expected], atol=1e-11)


def test_a_sphere_a_shell_and_a_box_hold_their_entries(rows):
    xyz, by = by_hand(rows), Distance("redshift")
    away = np.asarray(rows.table.column("redshift").to_numpy(), dtype=float)
    centre = SkyCoord(20 * u.deg, -30 * u.deg, distance=0.5).cartesian.xyz.value
    far = SkyCoord(200 * u.deg, 40 * u.deg, distance=1.5).cartesian.xyz.value
    lower, upper = (-0.5, -0.2, -1.0), (0.9, 1.2, 0.3)
    inside = [
        (sphere(by, 20.0, -30.0, 0.5, 0.6), np.linalg.norm(xyz - centre, axis=1) <= 0.6),
        (sphere(by, 200.0, 40.0, 1.5, 0.7), np.linalg.norm(xyz - far, axis=1) <= 0.7),
        (shell(by, 0.5, 1.0), (away >= 0.5) & (away < 1.0) & np.isfinite(xyz[:, 0])),
        (cube(by, lower, upper), ((xyz >= lower) & (xyz <= upper)).all(axis=1)),
    ]
    for window, mask in inside:
        np.testing.assert_array_equal(rows_in_window(rows, [window]), np.flatnonzero(mask))
        assert 3 < mask.sum() < N
    # Blocks of rows together give all, and two windows what is in both.
    (first, in_first), (second, in_second) = inside[:2]
    blocks = [rows_in_window(rows, [second], a, min(a + 77, N)) for a in range(0, N, 77)]
    np.testing.assert_array_equal(np.concatenate(blocks), np.flatnonzero(in_second))
    near = on_the_sky(cone(20.0, -30.0, 200_000.0))
    separation = SkyCoord(20 * u.deg, -30 * u.deg).separation(
        SkyCoord(rows.ra, rows.dec, unit="deg")
    )
    both = in_first & (separation.arcsec <= 200_000.0)
    np.testing.assert_array_equal(rows_in_window(rows, [first, near]), np.flatnonzero(both))


@pytest.mark.parametrize("radius", [0.0, 1e-9, 0.03, 0.4, 1.9, 5.0, 1e6])
def test_pairs_in_space_are_those_of_all_entries(rows, radius):
    space, rng = in_space(rows, "redshift"), np.random.default_rng(3)
    # entries themselves, some right at a cell's corner, and places far outside the cube
    places = np.concatenate([space.xyz[::9], np.zeros((1, 3)), rng.uniform(-9, 9, (5, 3))])
    away = np.sqrt(((places[:, None] - space.xyz[None]) ** 2).sum(axis=2))
    expected = [
        (i, j)
        for i in range(len(places))
        for j in np.lexsort((space.rows.rank[space.row], away[i]))
        if away[i, j] <= radius
    ]

    place, entry, _ = space.pairs_within(places, radius)

    assert list(zip(place.tolist(), entry.tolist(), strict=True)) == expected


@settings(max_examples=80)
@given(
    n=st.integers(1, 400),
    side=st.integers(1, 5),
    k=st.integers(1, 60),
    squared=st.integers(0, 12),
    seed=st.integers(0, 2**31),
)
def test_ties_on_a_grid_go_by_id(n, side, k, squared, seed):
    rng = np.random.default_rng(seed)
    there, rank = rng.integers(0, side, (n, 3)).astype(float), rng.permutation(n)
    rank.flags.writeable = False  # as that of a catalogue, so that loops are compiled once
    places = rng.integers(-1, side + 1, (12, 3)).astype(float)
    away = np.linalg.norm(places[:, None] - there[None], axis=2)
    k, radius = min(k, n), float(np.sqrt(squared))
    nearest_first = [np.lexsort((rank, one)) for one in away]

    tree = there.copy()
    row = order_by_halves(tree)
    levels = first_boxes(n)
    made = boxes_around(tree, levels), levels, tree, row, rank
    near, distance = nearest_in_boxes(*made, places, k)
    place, entry, separation = pairs_in_boxes(*made, places, radius)

    np.testing.assert_array_equal(tree, there[row])
    np.testing.assert_array_equal(row[near], [order[:k] for order in nearest_first])
    np.testing.assert_array_equal(distance, np.sort(away, axis=1)[:, :k])
    inside = [order[one[order] <= radius] for one, order in zip(away, nearest_first, strict=True)]
    np.testing.assert_array_equal(row[entry], np.concatenate(inside))
    np.testing.assert_array_equal(place, np.repeat(np.arange(12), [len(one) for one in inside]))
    np.testing.assert_array_equal(separation, away[place, row[entry]])


def test_comoving_distances_are_those_of_astropy():
    from astropy.cosmology import Planck18

    redshift = np.concatenate([[1e-6, 1e-3], np.random.default_rng(1).uniform(0, 12, 200), [900.0]])

    np.testing.assert_allclose(
        comoving_mpc(redshift), Planck18.comoving_distance(redshift).value, rtol=1e-8
    )
    assert comoving_mpc(0.0) == 0.0


def test_neighbours_at_comoving_distances_are_those_of_astropy(rows):
    from astropy.cosmology import Planck18

    space = in_space(rows, Distance("redshift", comoving=True))
    redshift = np.asarray(rows.table.column("redshift").to_numpy(), dtype=float)[space.row]
    there = SkyCoord(
        rows.ra[space.row],
        rows.dec[space.row],
        unit=("deg", "deg", "Mpc"),
        distance=Planck18.comoving_distance(redshift).value,
    )
    place = SkyCoord(
        300.0, 20.0, unit=("deg", "deg", "Mpc"), distance=Planck18.comoving_distance(0.7).value
    )
    away = place.separation_3d(there).value

    _, row, separation = space.nearest(300.0, 20.0, 0.7, 20)

    np.testing.assert_array_equal(row, space.row[np.argsort(away)[:20]])
    np.testing.assert_allclose(separation, np.sort(away)[:20], rtol=1e-7)


def test_the_index_is_written_once_for_a_version(tmp_path, rows):
    (tmp_path / "galaxies").mkdir()
    write_rows(tmp_path / "galaxies", rows)
    by = Distance("redshift", comoving=True)

    made = open_space(tmp_path, "galaxies", by)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")}
    again = open_space(tmp_path, "galaxies", by)

    memory = in_space(rows, by)
    for part in ("row", "xyz", "boxes"):
        np.testing.assert_array_equal(getattr(made, part), getattr(memory, part))
        np.testing.assert_array_equal(getattr(again, part), getattr(memory, part))
    assert {path: path.stat().st_mtime_ns for path in files} == files


def test_what_has_no_distance_is_refused(rows):
    with pytest.raises(ConfigError, match="no column z"):
        in_space(rows, "z")
    with pytest.raises(ConfigError, match="not a number"):
        in_space(rows, "kind")
    with pytest.raises(AlertError, match="no distance"):
        in_space(rows, "redshift").nearest(1.0, 2.0, np.nan, 3)
    with pytest.raises(AlertError, match="1 or more"):
        in_space(rows, "redshift").nearest(1.0, 2.0, 0.1, 0)
