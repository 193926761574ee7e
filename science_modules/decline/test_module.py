"""Peak and rate of a fading source come back, with errors that are honest."""

import numpy as np
import pytest

from broker.science.samples import ascending_times as times
from broker.science.samples import light_curves as curves
from broker.units import mag_to_flux
from science_modules.decline.module import decline


def test_pulls_of_the_rate_are_standard_normal():
    rng = np.random.default_rng(1)
    n, k = 2000, 10
    mjd = times(rng, n, k, 20.0)
    rate = rng.uniform(0.02, 0.5, n)
    flux = mag_to_flux(18.0 + rate[:, None] * (mjd - mjd[:, :1]))
    flux[:, 0] *= 1.5  # the peak stands out, so that it is the one that is chosen
    error = 0.04 * flux
    got = decline(curves(mjd, flux + error * rng.normal(size=flux.shape), error, 2))
    pull = (got["declineRate"] - rate) / got["declineRateErr"]

    assert abs(pull.mean()) < 0.2  # errors follow the measured flux, a bias of second order
    assert pull.std() == pytest.approx(1.0, abs=0.08)
    assert got["daysSincePeak"].to_numpy() == pytest.approx(mjd[:, -1] - mjd[:, 0], abs=1e-4)


def test_noise_about_a_constant_does_not_fade():
    rng = np.random.default_rng(2)
    mjd = times(rng, 3000, 12, 20.0)
    flux = 1000.0 + rng.normal(0.0, 30.0, mjd.shape)
    got = decline(curves(mjd, flux, 30.0, 2)).dropna()
    pull = got["declineRate"] / got["declineRateErr"]

    assert len(pull) > 1500
    assert abs(pull.mean()) < 5.0 / np.sqrt(len(pull)) + 0.03


def test_the_peak_is_the_brightest_detection():
    mjd = np.array([[61000.0, 61001.0, 61003.0, 61004.0]])
    got = decline(curves(mjd, [[100.0, 3630.78, 50.0, 40.0]], 36.3078, 2)).iloc[0]

    assert got["peakMag"] == pytest.approx(22.5, abs=1e-4)
    assert got["peakMagErr"] == pytest.approx(0.010857, rel=1e-3)
    assert got["daysSincePeak"] == 3.0
    assert np.isnan(got["declineRate"])  # two points after the peak


def test_negative_sources_have_no_peak():
    got = decline(curves(np.array([[61000.0, 61001.0]]), -5.0, 1.0, 2))

    assert got.isna().all(axis=None)
