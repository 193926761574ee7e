"""The rise rate recovers slopes it was not told, and says when it cannot."""

import numpy as np
import pandas as pd
import pytest

from broker.science import LightCurves
from science_modules.rise_rate.module import fast_transient, rise_rate, young_supernova


def linear_rise(*, slope, n_alerts, n_detections, flux_err, seed):
    """Noisy straight-line light curves, all with the same true slope."""
    rng = np.random.default_rng(seed)
    alert = np.repeat(np.arange(n_alerts), n_detections)
    mjd = 61000.0 + rng.uniform(0.0, 4.0, alert.size)
    flux = slope * (mjd - 61000.0) + rng.normal(0.0, flux_err, alert.size)
    return LightCurves(alert, mjd, flux, np.full(alert.size, flux_err), n_alerts)


@pytest.mark.parametrize("slope", [-300.0, 0.0, 300.0])
def test_slope_is_recovered_without_bias_and_with_honest_errors(slope):
    history = linear_rise(slope=slope, n_alerts=2000, n_detections=6, flux_err=50.0, seed=7)

    got = rise_rate(history)

    pull = (got["riseRate"] - slope) / got["riseRateErr"]
    assert abs(pull.mean()) < 4 / np.sqrt(2000)  # 4 sigma on the mean of 2000 pulls
    assert pull.std() == pytest.approx(1.0, abs=4 / np.sqrt(2 * 2000))


def test_too_few_detections_give_null_and_never_zero():
    history = linear_rise(slope=1.0, n_alerts=3, n_detections=2, flux_err=1.0, seed=7)

    got = rise_rate(history, min_detections=3)

    assert got.isna().all(axis=None)


def test_detections_at_one_time_give_null():
    history = LightCurves(np.zeros(3, int), np.full(3, 61000.0), np.ones(3), np.ones(3), 1)

    assert rise_rate(history).isna().all(axis=None)


def test_old_detections_and_other_bands_are_left_out():
    mjd = np.array([60000.0, 61000.0, 61001.0, 61002.0, 61002.5])
    flux = np.array([1e6, 100.0, 200.0, 300.0, 1e6])
    band = np.array([2, 2, 2, 2, 1], np.int8)
    history = LightCurves(np.zeros(5, int), mjd, flux, np.ones(5), 1, band)

    assert rise_rate(history)["riseRate"].iloc[0] == pytest.approx(100.0, rel=1e-6)


def judged(function, **changed):
    """Ask a filter about one alert that it would choose, but for what is changed."""
    good = {
        "psf_flux": 1000.0,
        "age_days": 2.0,
        "reliability": 0.9,
        "is_negative": False,
        "rise_rate": 500.0,
        "rise_rate_err": 50.0,
        "context_class": "hosted",
    }
    values = [{**good, **changed}[name] for name in function.inputs]
    return bool(function(*(pd.Series([value]) for value in values)).iloc[0])


@pytest.mark.parametrize("function", [young_supernova, fast_transient])
def test_a_young_fast_riser_in_a_galaxy_is_chosen(function):
    assert judged(function)
    assert judged(function, context_class="hostless")


@pytest.mark.parametrize("function", [young_supernova, fast_transient])
@pytest.mark.parametrize(
    "changed",
    [
        {"age_days": 20.0},
        {"reliability": 0.2},
        {"reliability": np.nan},
        {"rise_rate": 100.0},
        {"rise_rate": np.nan},
        {"rise_rate_err": np.nan},
        {"context_class": "variable-star"},
        {"context_class": "unknown"},
        {"context_class": None},
    ],
)
def test_one_reason_against_it_or_one_unknown_is_enough(function, changed):
    assert not judged(function, **changed)


def test_a_fading_source_is_no_young_supernova_but_may_be_a_fast_transient():
    assert not judged(young_supernova, rise_rate=-500.0)
    assert judged(fast_transient, rise_rate=-500.0)
