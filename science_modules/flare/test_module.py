"""Two high points in a row are a flare, with the right chance of being noise."""

import numpy as np
import pandas as pd
import pytest

from broker.science.samples import ascending_times as times
from broker.science.samples import light_curves as curves
from science_modules.flare.module import flare

ERROR = 30.0


def quiet(n, seed, *, scatter=0.0, n_old=10):
    """Return times, fluxes and bands: `n_old` epochs of the last month, two of tonight."""
    rng = np.random.default_rng(seed)
    mjd = np.hstack([times(rng, n, n_old, 28.0) - 1.5, np.full((n, 2), 61000.0) - [0.02, 0.0]])
    sigma = np.hypot(ERROR, scatter)
    return mjd, rng.normal(200.0, sigma, mjd.shape), rng.integers(1, 3, mjd.shape)


def asked(mjd, flux, band, *, own=100.0, template=100.0):
    n = len(mjd)
    series = [pd.Series(np.full(n, value, np.float32)) for value in (own, template)]
    return flare(curves(mjd, flux, ERROR, band), *series)


@pytest.mark.parametrize("scatter", [0.0, 60.0])
def test_noise_and_flicker_are_as_rare_as_said(scatter):
    # The quiet level comes from few epochs, so tails are somewhat heavier than the normal's.
    got = asked(*quiet(6000, seed=1, scatter=scatter, n_old=24))["flareSignificance"]

    assert (got > 1.0).mean() == pytest.approx(0.1, abs=0.03)
    assert (got > 2.0).mean() < 0.03


def test_a_flare_is_significant_and_one_high_point_is_not():
    mjd, flux, band = quiet(300, seed=2, n_old=24)
    both, one = flux.copy(), flux.copy()
    both[:, -2:] += 10.0 * ERROR
    one[:, -1] += 10.0 * ERROR

    assert (asked(mjd, both, band)["flareSignificance"] > 6.0).mean() > 0.95
    assert (asked(mjd, one, band)["flareSignificance"] > 6.0).mean() < 0.01


def test_the_amplitude_is_that_of_the_whole_flux():
    mjd, flux, band = quiet(1, seed=3)

    assert asked(mjd, flux, band, own=300.0)["flareAmplitude"][0] == pytest.approx(1.50515)
    assert asked(mjd, flux, band, own=-10.0)["flareAmplitude"].isna().all()
    assert asked(mjd, flux, band, template=np.nan)["flareAmplitude"].isna().all()


def test_points_of_different_nights_are_no_pair():
    mjd, flux, band = quiet(5, seed=4)
    mjd[:, -2] -= 2.0

    assert asked(mjd, flux, band)[["flarePhi", "flareSignificance"]].isna().all(axis=None)
