"""Parameters of simulated damped random walks come back with errors that are honest."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from broker.science.samples import ascending_times as times
from broker.science.samples import light_curves as curves
from science_modules.agn_variability.module import _log_likelihood, agn_variability

ERROR = 50.0


def walks(n, k, seed, *, span=900.0):
    """Draw from the prior: exact steps of an Ornstein-Uhlenbeck process, and noise."""
    rng = np.random.default_rng(seed)
    mjd = times(rng, n, k, span)
    tau, sigma = 10.0 ** rng.uniform(0.0, 3.5, n), ERROR * 10.0 ** rng.uniform(-0.5, 2.0, n)
    flux = np.empty((n, k))
    flux[:, 0] = sigma * rng.normal(size=n)
    for j in range(1, k):
        damping = np.exp((mjd[:, j - 1] - mjd[:, j]) / tau)
        step = sigma * np.sqrt(1.0 - damping**2) * rng.normal(size=n)
        flux[:, j] = damping * flux[:, j - 1] + step
    return curves(mjd, flux + 1000.0 + rng.normal(0.0, ERROR, (n, k)), ERROR, 2), tau, sigma


def test_the_likelihood_is_that_of_the_full_covariance():
    rng = np.random.default_rng(1)
    day, flux = np.sort(rng.uniform(0.0, 50.0, 6)), rng.normal(0.0, 3.0, 6)
    variance = rng.uniform(0.5, 2.0, 6)
    for sigma2, tau in ((4.0, 10.0), (0.5, 100.0), (0.0, 1.0)):
        lag = np.abs(day[:, None] - day)
        covariance = sigma2 * np.exp(-lag / tau) + np.diag(variance)
        # The mean is marginalised: numerically here, by a sum over a fine grid.
        means = np.linspace(-40.0, 40.0, 40_001)
        values = multivariate_normal(cov=covariance).logpdf(flux - means[:, None])
        expected = np.log(np.exp(values).sum() * (means[1] - means[0]))
        got = _log_likelihood(day[:, None], flux[:, None], variance[:, None],
                              np.array([sigma2]), np.array([tau]))  # fmt: skip
        constant = -0.5 * (len(day) - 1) * np.log(2.0 * np.pi)
        assert got[0, 0] + constant == pytest.approx(expected, abs=1e-6)


def test_pulls_are_standard_normal_over_the_prior():
    history, tau, sigma = walks(1200, 60, seed=2)
    got = agn_variability(history)

    for name, truth in (("drwLogTau", tau), ("drwLogSigma", sigma)):
        pull = (got[name] - np.log10(truth)) / got[f"{name}Err"]
        assert abs(pull.mean()) < 0.15
        assert pull.std() == pytest.approx(1.0, abs=0.15)


def test_variability_is_told_from_noise():
    rng = np.random.default_rng(3)
    history, _, sigma = walks(300, 40, seed=4)
    factor = agn_variability(history)["drwLogBayesFactor"]
    assert (factor[sigma > 3.0 * ERROR] > 2.0).mean() > 0.95

    mjd = times(rng, 1000, 40, 900.0)
    noise = curves(mjd, 1000.0 + rng.normal(0.0, ERROR, mjd.shape), ERROR, 2)
    assert (agn_variability(noise)["drwLogBayesFactor"] > 2.0).mean() < 0.003


def test_a_month_says_that_it_cannot_tell_a_long_time_scale():
    history, tau, _ = walks(300, 30, seed=5, span=30.0)
    got = agn_variability(history)

    assert got["drwLogTauErr"][tau > 300.0].median() > 0.5


def test_seven_epochs_are_too_few_and_long_curves_are_cut():
    rng = np.random.default_rng(6)
    few = curves(times(rng, 2, 7, 30.0), 1.0, 1.0, 2)
    assert agn_variability(few).isna().all(axis=None)

    history, _, _ = walks(2, 260, seed=7)
    newest = history.select(history.rank() >= 60)
    np.testing.assert_array_equal(agn_variability(history), agn_variability(newest))
