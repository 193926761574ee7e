"""A map of the sky keeps areas, counts everything once, and has every place inside its edge."""

import numpy as np
import pytest

from broker.portal.sky_map import mollweide, sky_map, wedge


def random_sky(n, seed=5):
    rng = np.random.default_rng(seed)
    return rng.uniform(0.0, 360.0, n), np.degrees(np.arcsin(rng.uniform(-1.0, 1.0, n)))


def test_places_on_the_map_solve_mollweides_equation():
    ra, dec = random_sky(500)

    x, y = mollweide(ra, dec)

    theta = np.arcsin(y)
    np.testing.assert_allclose(
        2 * theta + np.sin(2 * theta), np.pi * np.sin(np.radians(dec)), atol=1e-9
    )
    np.testing.assert_allclose(x, -(ra - 180.0) / 90.0 * np.cos(theta), atol=1e-9)
    assert ((x / 2.0) ** 2 + y**2 <= 1.0 + 1e-12).all()


def test_poles_and_the_middle_stand_where_they_must():
    x, y = mollweide([180.0, 0.0, 77.0, 90.0], [0.0, 90.0, -90.0, 0.0])

    np.testing.assert_allclose(x, [0.0, 0.0, 0.0, 1.0], atol=1e-6)
    np.testing.assert_allclose(y, [0.0, 1.0, -1.0, 0.0], atol=1e-9)


@pytest.mark.parametrize("n", [0, 1, 300, 20_000])
def test_everything_is_counted_once(n):
    drawn = sky_map(*random_sky(n), "alerts")

    assert sum(cell["count"] for cell in drawn["cells"]) == n == drawn["total"]
    assert len(drawn["cells"]) <= 2500
    assert all(1 <= cell["shade"] <= 5 for cell in drawn["cells"])


def area(path):
    x, y = np.array([p.split() for p in path[1:-1].split("L")], np.float64).T
    return 0.5 * abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))


def test_cells_have_one_area_wherever_they_are():
    """The projection keeps areas; straight sides and tenths of pixels cost some percent."""
    drawn = sky_map(*random_sky(4000), "alerts")

    inside = [area(cell["path"]) for cell in drawn["cells"]]
    whole = np.pi * 350.0 * 175.0 / 12 / 4**4  # order 4: of 4000 places most cells have one
    assert np.median(inside) == pytest.approx(whole, rel=0.02)
    # A cell that the edge cuts is smaller; none is larger than a cell.
    assert max(inside) < 1.25 * whole


def test_hosts_stand_as_far_out_as_their_redshift_says():
    drawn = wedge([0.0, 90.0, 180.0], [0.1, 0.2, 0.05])

    middle = drawn["size"] / 2.0
    per_z = drawn["rings"][-1]["r"] / drawn["rings"][-1]["redshift"]
    places = [(p["x"] - middle, p["y"] - middle) for p in drawn["points"]]
    expected = [(0.0, -0.1 * per_z), (-0.2 * per_z, 0.0), (0.0, 0.05 * per_z)]
    np.testing.assert_allclose(places, expected, atol=0.11)
    assert max(np.hypot(*place) for place in places) <= middle
    assert wedge([], []) is None
