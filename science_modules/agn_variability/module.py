"""Variability of active galaxies as a damped random walk: its time scale and its size."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from broker.science import Column, LightCurves, science_module

LOG_TAU = 3.5 * (np.arange(12) + 0.5) / 12.0
"""Time scales that are tried, log10 of days: the middles of equal parts of 0 to 3.5."""

LOG_SIGMA = -0.5 + 2.5 * (np.arange(10) + 0.5) / 10.0
"""Standard deviations that are tried, log10 in units of the median error, of -0.5 to 2."""

MIN_EPOCHS = 8
MAX_EPOCHS = 200
"""Of longer light curves the newest are taken: the cost is bounded."""

Array = NDArray[np.floating[Any]]


@science_module(
    version="1.0.0",
    outputs=(
        Column("drwLogTau", "float32", "", "log10 of the damping time in days, posterior mean."),
        Column("drwLogTauErr", "float32", "", "Its posterior standard deviation."),
        Column("drwLogSigma", "float32", "", "log10 of the standard deviation in nJy, mean."),
        Column("drwLogSigmaErr", "float32", "", "Its posterior standard deviation."),
        Column(
            "drwLogBayesFactor", "float32", "", "log10 of the evidence over that of constant flux."
        ),
    ),
)
def agn_variability(history: LightCurves) -> pd.DataFrame:
    """Estimate a damped random walk in each alert's richest band.

    Parameters
    ----------
    history : LightCurves
        Histories; detections and forced fluxes count.

    Returns
    -------
    pd.DataFrame, n_alerts rows
        NaN (null) with fewer than eight measurements of one band.

    Notes
    -----
    Kelly, Bechtold & Siemiginowska 2009, ApJ 698 895, eqs. 6 to 12: the likelihood by a Kalman
    filter, exact and linear in the number of epochs; the mean flux is marginalised. The prior is
    flat in log tau (1 to 3000 d) and in log sigma (0.3 to 100 median errors). A damping time that
    is longer than a fifth of the light curve is a lower limit only (Kozlowski 2017, A&A 597 A128):
    its error says so.
    """
    curves = history.measured().in_richest_band().in_time_order()
    curves = curves.select(curves.rank() >= (curves.count - MAX_EPOCHS)[curves.alert])
    chosen = np.flatnonzero(curves.count >= MIN_EPOCHS)
    names = ("drwLogTau", "drwLogTauErr", "drwLogSigma", "drwLogSigmaErr", "drwLogBayesFactor")
    result = np.full((curves.n_alerts, len(names)), np.nan)
    # Alerts with like numbers of epochs go together: padding costs.
    for alerts in np.array_split(chosen[np.argsort(curves.count[chosen])], 4):
        if alerts.size:
            result[alerts] = _estimate(*_padded(curves, alerts))
    return pd.DataFrame(result.astype(np.float32), columns=list(names))


def _padded(curves: LightCurves, alerts: NDArray[np.int64]) -> tuple[Array, Array, Array, Array]:
    """Return days, fluxes in units of the median error, relative variances, and that error.

    Shapes (n_epochs, n), the errors (n,). Epochs that are not there have infinite variance.
    """
    unit = curves.median(curves.flux_err)[alerts]
    n_epochs = int(curves.count[alerts].max())
    rank = np.arange(n_epochs)[:, None]
    place = np.minimum(curves.starts[alerts] + rank, len(curves) - 1)
    there = rank < curves.count[alerts]
    center = curves.median(curves.flux)[alerts]
    flux = np.where(there, (curves.flux[place].astype(np.float64) - center) / unit, 0.0)
    variance = np.where(there, (curves.flux_err[place].astype(np.float64) / unit) ** 2, np.inf)
    newest = curves.last(curves.mjd)[alerts]
    day = np.where(there, curves.mjd[place], newest)
    return day, flux, variance, unit


def _estimate(day: Array, flux: Array, variance: Array, unit: Array) -> Array:
    """Return the outputs of some alerts, shape (n, 5)."""
    log_sigma, log_tau = (grid.ravel() for grid in np.meshgrid(LOG_SIGMA, LOG_TAU))
    sigma2 = np.append(10.0 ** (2.0 * log_sigma), 0.0)  # the last is constant flux
    tau = np.append(10.0**log_tau, 1.0)
    log_like = _log_likelihood(day, flux, variance, sigma2, tau)
    grid, constant = log_like[:, :-1], log_like[:, -1]
    highest = grid.max(axis=1, keepdims=True)
    weight = np.exp(grid - highest)
    evidence = highest[:, 0] + np.log(weight.mean(axis=1))
    weight /= weight.sum(axis=1, keepdims=True)
    moments = []
    for values, step in ((log_tau, LOG_TAU[1] - LOG_TAU[0]), (log_sigma, np.diff(LOG_SIGMA)[0])):
        mean = weight @ values
        spread = np.sqrt(np.maximum(weight @ values**2 - mean**2, 0.0) + step**2 / 12.0)
        moments += [mean, spread]
    moments[2] = moments[2] + np.log10(unit)
    return np.column_stack([*moments, (evidence - constant) / np.log(10.0)])


def _log_likelihood(day: Array, flux: Array, variance: Array, sigma2: Array, tau: Array) -> Array:
    """Return the likelihood of each alert and each pair of parameters, the mean marginalised.

    Parameters
    ----------
    day, flux, variance : NDArray, shape (n_epochs, n)
        Times, fluxes and variances; an infinite variance is no epoch.
    sigma2, tau : NDArray, shape (n_pairs,)
        Variances of the process and damping times. [d]

    Returns
    -------
    NDArray, shape (n, n_pairs)
    """
    shape = (flux.shape[1], len(tau))
    state, response = np.zeros((2, *shape))  # of the flux, and of a constant
    spread = np.broadcast_to(sigma2, shape).copy()
    log_det, chi2, cross, norm = np.zeros((4, *shape))
    for k in range(len(day)):
        if k:
            damping = np.exp((day[k - 1] - day[k])[:, None] / tau)
            state, response = state * damping, response * damping
            spread = sigma2 + damping**2 * (spread - sigma2)
        error = variance[k][:, None]
        there = np.isfinite(error)
        total = np.where(there, spread + error, 1.0)
        gain = np.where(there, spread / total, 0.0)
        one, other = flux[k][:, None] - state, 1.0 - response
        inverse = np.where(there, 1.0 / total, 0.0)
        log_det += np.log(total)
        chi2 += one * one * inverse
        cross += one * other * inverse
        norm += other * other * inverse
        state, response = state + gain * one, response + gain * other
        spread = spread * (1.0 - gain)
    return -0.5 * (chi2 - cross**2 / norm + log_det + np.log(norm))
