"""Injected magnification curves are found; noise, supernovae and variables are told apart."""

import numpy as np
import pytest

from broker.science.samples import ascending_times as times
from broker.science.samples import light_curves as curves
from science_modules.microlensing.module import microlensing

N, K = 400, 40
ERROR = 100.0


def events(seed):
    rng = np.random.default_rng(seed)
    mjd, band = times(rng, N, K, 60.0), rng.integers(1, 3, (N, K))
    peak = rng.uniform(-25.0, 0.0, N)
    impact, einstein = 10.0 ** rng.uniform(-1.0, -0.3, N), rng.uniform(15.0, 40.0, N)
    u = np.hypot(impact[:, None], (mjd - 61000.0 - peak[:, None]) / einstein[:, None])
    magnification = (u**2 + 2.0) / (u * np.sqrt(u**2 + 4.0))  # Paczynski 1986, eq. 1
    source = rng.uniform(1000.0, 3000.0, (N, 1)) * np.where(band == 1, 1.0, 1.5)
    flux = source * (magnification - 1.0) + rng.normal(0.0, ERROR, (N, K))
    return curves(mjd, flux, ERROR, band), peak, impact * einstein


def test_events_are_found_with_their_peak_and_time_scale():
    history, peak, effective = events(seed=1)
    got = microlensing(history)

    assert (got["microlensingDeltaChi2"] > 60.0).mean() > 0.97
    assert 0.8 < got["microlensingChi2PerDof"].median() < 2.5
    is_sampled = effective > 3.0
    miss = np.abs(got["microlensingPeakTime"] - peak)[is_sampled] / effective[is_sampled]
    assert miss.median() < 0.25
    ratio = (got["microlensingEffectiveTime"] / effective)[is_sampled]
    assert ratio.median() == pytest.approx(1.0, abs=0.2)


def test_noise_hardly_ever_looks_like_an_event():
    rng = np.random.default_rng(2)
    mjd, band = times(rng, 2000, K, 60.0), rng.integers(1, 3, (2000, K))
    got = microlensing(curves(mjd, rng.normal(500.0, ERROR, mjd.shape), ERROR, band))

    assert (got["microlensingDeltaChi2"] > 30.0).mean() < 0.002
    assert got["microlensingChi2PerDof"].median() == pytest.approx(1.0, abs=0.15)


def test_one_band_that_falls_while_another_rises_is_no_event():
    """One magnification holds for all bands: colour does not change, signs do not differ."""
    rng = np.random.default_rng(3)
    mjd, band = times(rng, N, K, 60.0), rng.integers(1, 3, (N, K))
    bump = 3000.0 * np.exp(-0.5 * ((mjd - 60980.0) / 5.0) ** 2)
    noise = rng.normal(0.0, ERROR, mjd.shape)
    same, opposite = (
        microlensing(curves(mjd, bump * sign + noise, ERROR, band))["microlensingDeltaChi2"]
        for sign in (1.0, np.where(band == 1, 1.0, -1.0))
    )

    assert opposite.median() < 0.2 * same.median()


def test_periodic_sources_fit_badly():
    rng = np.random.default_rng(4)
    mjd, band = times(rng, N, K, 60.0), rng.integers(1, 3, (N, K))
    flux = 2000.0 * np.sin(2.0 * np.pi * mjd / rng.uniform(0.3, 5.0, (N, 1)))
    got = microlensing(curves(mjd, flux + rng.normal(0.0, ERROR, mjd.shape), ERROR, band))

    assert (got["microlensingChi2PerDof"] > 5.0).mean() > 0.99


def test_few_epochs_and_fading_sources_give_null():
    rng = np.random.default_rng(5)
    mjd = times(rng, 1, 7, 30.0)
    assert microlensing(curves(mjd, mjd - 60900.0, 1.0, 1)).isna().all(axis=None)
    mjd = times(rng, 1, 8, 30.0)
    got = microlensing(curves(mjd, 0.0 * mjd + 5.0, 1.0, 1))
    assert got.isna().all(axis=None)
