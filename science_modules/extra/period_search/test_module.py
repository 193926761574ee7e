"""Injected periods come back, and noise has peaks as often as is said."""

from pathlib import Path

import numpy as np
import pytest

from broker.science import LightCurves, find_contributions
from broker.science.checks import parametrize_with_checks
from science_modules.extra.period_search.module import period_search

K = 60


def sources(n, seed, *, amplitude):
    """Return sinusoids in two bands with phases of their own, errors of 1, and their periods."""
    rng = np.random.default_rng(seed)
    mjd = 61000.0 - np.sort(rng.uniform(0.0, 60.0, (n, K)))[:, ::-1]
    band = rng.integers(1, 3, (n, K))
    period = 10.0 ** rng.uniform(np.log10(0.2), np.log10(15.0), (n, 1))
    phase = 2.0 * np.pi * mjd / period + np.where(band == 1, 0.0, 0.3)
    flux = 5.0 * band + amplitude * np.sin(phase) + rng.normal(size=mjd.shape)
    alert = np.repeat(np.arange(n), K)
    columns = (mjd.ravel(), flux.ravel().astype("f4"), np.ones(n * K, "f4"))
    return LightCurves(alert, *columns, n, band.ravel().astype("i1")), period[:, 0]


@pytest.mark.slow
def test_injected_periods_come_back():
    history, period = sources(100, 1, amplitude=3.0)
    got = period_search(history)
    found = np.abs(1.0 / got["period"] - 1.0 / period) < 0.2 / 60.0  # of the width of a peak

    assert (found & (got["periodLogFap"] < -4.0)).mean() > 0.95


@pytest.mark.slow
def test_noise_has_peaks_no_more_often_than_is_said():
    history, _ = sources(150, 2, amplitude=0.0)
    chance = 10.0 ** period_search(history)["periodLogFap"]

    # Baluev's is an upper limit that is close for small chances.
    assert 0.0 < (chance < 0.1).mean() < 0.1 + 3.0 * np.sqrt(0.09 / 150.0)
    assert (chance < 0.01).mean() < 0.01 + 3.0 * np.sqrt(0.01 / 150.0)


def test_errors_of_the_wrong_size_change_nothing():
    history, _ = sources(20, 3, amplitude=1.0)
    other = LightCurves(history.alert, history.mjd, history.flux, 0.2 * history.flux_err,
                        history.n_alerts, history.band)  # fmt: skip
    one, two = period_search(history), period_search(other)

    np.testing.assert_allclose(one["periodLogFap"], two["periodLogFap"], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("n", [1, 19])
def test_few_epochs_give_null(n):
    history, _ = sources(1, 4, amplitude=3.0)

    assert period_search(history.select(np.arange(K) < n)).isna().all(axis=None)


@parametrize_with_checks(find_contributions(Path(__file__).parent.parent))
def test_it_keeps_the_contract(subject, check):
    check(subject)
