"""Moving objects: great circles, a night at a time, in the truth and in no template."""

import dataclasses

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from scipy.stats import kstest

from broker.simulation.cadence import detector_wcs
from broker.simulation.exposure import draw_exposure
from broker.simulation.moving import NAME, _draw_cell, movers_seen, visible_share
from broker.simulation.observatory import simulate_night
from broker.simulation.settings import TEST
from broker.simulation.truth import truth_of

BUSY = dataclasses.replace(TEST, moving_density=40_000.0, transient_density=0.0)
NIGHT = simulate_night(seed=3, settings=BUSY)


@pytest.fixture(scope="module")
def movers():
    return _draw_cell(1, BUSY, 60_990, 3_000)


def test_objects_go_along_great_circles_at_their_rates(movers):
    few = movers.chosen(np.arange(movers.rate.size) < 200)
    places = [SkyCoord(*few.at(days) * u.deg) for days in (-0.15, 0.0, 0.15)]

    way = [places[k].separation(places[k + 1]).deg for k in range(2)]
    np.testing.assert_allclose(way, [0.15 * few.rate] * 2, rtol=1e-6)
    # Three places of one great circle: the outer ones lie opposite from the middle one.
    turn = places[1].position_angle(places[0]) - places[1].position_angle(places[2])
    np.testing.assert_allclose(np.cos(turn.rad), -1.0, atol=1e-6)


def test_rates_are_those_of_asteroids_and_most_go_along_the_ecliptic(movers):
    slow = movers.rate < 0.5
    assert 0.8 < slow.mean() < 0.95
    assert np.median(movers.rate[slow]) == pytest.approx(0.2, rel=0.05)
    assert movers.rate.max() < 4.0

    before, after = (
        SkyCoord(*movers.at(days) * u.deg).barycentrictrueecliptic for days in (-0.1, 0.1)
    )
    slope = np.abs(after.lat - before.lat).deg / (0.2 * movers.rate)
    assert np.median(slope[slow]) < 0.15
    retrograde = (after.lon - before.lon).wrap_at(180 * u.deg)[slow] < 0.0
    assert retrograde.mean() > 0.9


def test_magnitudes_grow_in_number_as_they_should(movers):
    low, high = (10.0 ** (0.4 * m) for m in BUSY.moving_mags)

    assert kstest(movers.mag, lambda m: (10.0 ** (0.4 * m) - low) / (high - low)).pvalue > 0.01


def test_the_same_object_is_seen_further_along_at_the_next_visit():
    seen = [movers_seen(3, BUSY, v, detector_wcs(BUSY, v, 0)) for v in NIGHT.visits]
    first, second = (dict(zip(s.name, zip(s.ra, s.dec, strict=True), strict=True)) for s in seen)

    both = sorted(set(first) & set(second))
    gap = NIGHT.visits[1].midpoint_mjd_tai - NIGHT.visits[0].midpoint_mjd_tai
    assert gap > 0.1
    for name in both:
        away = SkyCoord(*first[name] * u.deg).separation(SkyCoord(*second[name] * u.deg)).deg
        assert away > 0.01 * gap


def test_they_are_in_the_pixels_and_the_truth_but_in_no_template():
    visit = NIGHT.visits[0]
    drawn = NIGHT.draw(visit, 0)
    quiet = draw_exposure(3, BUSY, visit, 0, quiescent=True)
    rows = truth_of(3, BUSY, drawn).to_pandas()

    assert quiet.movers is None
    # 12.6 are to be expected.
    assert 2 < len(rows) < 30
    assert set(rows["class"]) == {NAME}
    assert rows["templateFlux"].eq(0.0).all()
    bright = rows[(rows["snr"] > 50.0) & rows["isVisible"]]
    assert len(bright) > 0
    change = drawn.raw.pixels.astype(float) - quiet.raw.pixels
    for _, row in bright.iterrows():
        x, y = round(row["x"]), round(row["y"])
        assert change[max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3].max() > 50.0


def test_long_trails_are_not_called_visible_or_isolated():
    drawn = NIGHT.draw(NIGHT.visits[0], 0)
    rows = truth_of(3, BUSY, drawn).to_pandas().set_index("transientId")
    trail = np.hypot(drawn.movers.dx, drawn.movers.dy) / drawn.raw.psf.sigma
    lengths = {f"{NAME}-{n}": t for n, t in zip(drawn.movers.name, trail, strict=True)}

    for name, row in rows.iterrows():
        assert not (row["isVisible"] and lengths[name] > 2.0)
        assert not (row["isIsolated"] and lengths[name] > 0.5)


def test_a_survey_without_them_is_as_it_was():
    visit = NIGHT.visits[0]
    none = dataclasses.replace(BUSY, moving_density=0.0)

    assert draw_exposure(3, none, visit, 0).movers is None


def test_what_a_filter_sees_of_a_trail_is_the_overlap_of_the_two():
    sigma, length = 1.9, 7.0
    x = np.linspace(-60.0, 60.0, 24_001)
    point = np.exp(-(x**2) / 2 / sigma**2)
    steps = ((np.arange(100) + 0.5) / 100 - 0.5) * length
    trail = np.mean([np.exp(-((x - s) ** 2) / 2 / sigma**2) for s in steps], axis=0)

    wanted = np.sum(point * trail) / np.sum(point**2)
    assert visible_share(np.array([length]), sigma)[0] == pytest.approx(wanted, rel=2e-3)
    assert visible_share(np.array([0.0]), sigma)[0] == pytest.approx(1.0)
