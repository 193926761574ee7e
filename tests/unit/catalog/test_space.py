"""Neighbours and windows in space are what a comparison of all entries gives."""

import numpy as np
import pyarrow as pa
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord

from broker.catalog.partition import Rows, sort_rows
from broker.catalog.space import in_space
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


def ids(table):
    return table.column("id").to_pylist()


def expected_ids(rows, inside):
    return sorted(np.asarray(rows.table.column("id"))[inside])


def test_a_sphere_a_shell_and_a_box_hold_their_entries(rows):
    space, xyz = in_space(rows, "redshift"), by_hand(rows)
    away = np.linalg.norm(xyz, axis=1)
    centre = SkyCoord(20 * u.deg, -30 * u.deg, distance=0.5).cartesian.xyz.value

    assert ids(space.sphere(20.0, -30.0, 0.5, 0.6)) == expected_ids(
        rows, np.linalg.norm(xyz - centre, axis=1) <= 0.6
    )
    assert ids(space.shell(0.5, 1.0)) == expected_ids(rows, (away >= 0.5) & (away < 1.0))
    lower, upper = (-0.5, -0.2, -1.0), (0.9, 1.2, 0.3)
    assert ids(space.box(lower, upper)) == expected_ids(
        rows, ((xyz >= lower) & (xyz <= upper)).all(axis=1)
    )


def test_what_has_no_distance_is_refused(rows):
    with pytest.raises(ConfigError, match="no column z"):
        in_space(rows, "z")
    with pytest.raises(ConfigError, match="not a number"):
        in_space(rows, "kind")
    with pytest.raises(AlertError, match="no distance"):
        in_space(rows, "redshift").nearest(1.0, 2.0, np.nan, 3)
    with pytest.raises(AlertError, match="1 or more"):
        in_space(rows, "redshift").nearest(1.0, 2.0, 0.1, 0)
