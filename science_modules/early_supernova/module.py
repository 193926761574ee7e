"""Early supernovae: since when has the flux risen as that of an expanding fireball?"""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import log_ndtr

from broker.science import Column, LightCurves, science_module
from broker.units import BANDS

AGES_DAYS = np.arange(0.5, 25.1, 0.5)
"""Ages at the alert that are tried. [d]"""

LIMIT_SIGMAS = 5.0
"""What upper limits stand for, in their errors."""

Array = NDArray[np.floating[Any]]


@science_module(
    version="1.0.0",
    outputs=(
        Column("fireballAge", "float32", "d", "Time since the explosion, posterior mean."),
        Column("fireballAgeErr", "float32", "d", "Its posterior standard deviation."),
        Column("fireballChi2PerDof", "float32", "", "Reduced chi square of the best fireball."),
        Column(
            "earlySupernovaScore",
            "float32",
            "",
            "Weight of a rise with the square of time against constant flux and straight lines.",
        ),
    ),
)
def early_supernova(
    history: LightCurves, *, window_days: float = 30.0, min_detections: int = 3
) -> pd.DataFrame:
    """Fit F = A (t - t0)^2 after t0, nothing before, with one t0 and an A a band.

    Parameters
    ----------
    history : LightCurves
        Histories: detections and forced fluxes; upper limits, of 5 sigma, are not exceeded.
    window_days : float
        What is older, counted back from the newest entry, is left out. [d]
    min_detections : int
        With fewer detections in the window there is no fit.

    Returns
    -------
    pd.DataFrame, n_alerts rows
        NaN (null) with fewer than three detections or no degree of freedom in the window, or
        where no fireball has positive flux.

    Notes
    -----
    Riess et al. 1999, AJ 118 2675; Miller et al. 2020, ApJ 902 47. The flux at the alert has a
    flat prior, as has the age from 0.25 to 25.25 d. The score is the weight of the best fireball
    among three models by their information criteria, exp(-BIC / 2): Schwarz 1978, Ann. Stat. 6
    461. It holds for the first two weeks: near its peak a supernova rises more slowly.
    """
    recent = history.within(window_days)
    detections = recent.detections().by_band()
    seen = detections.count > 0
    curves, limits = (
        one.select(seen[one.alert])  # a band without a detection has no scale
        for one in (recent.measured().by_band(), recent.upper_limits().by_band())
    )
    limits = limits.select(limits.flux_err > 0.0)
    sums = _Sums(curves, limits, history.max(history.mjd))
    chi2, log_posterior, is_positive = sums.fireballs()
    best = chi2.argmin(axis=0)
    row = np.arange(history.n_alerts)
    n, n_bands = _by_alert(curves.count), _by_alert(seen)
    dof = n - n_bands - 1
    n_detections = _by_alert(detections.count)
    fitted = (n_detections >= min_detections) & (dof > 0) & is_positive[best, row]
    age, error = _moments(log_posterior)
    with np.errstate(divide="ignore", invalid="ignore"):
        columns = {
            "fireballAge": age,
            "fireballAgeErr": error,
            "fireballChi2PerDof": chi2[best, row] / dof,
            "earlySupernovaScore": _score(chi2[best, row], sums, n, n_bands),
        }
    return pd.DataFrame({k: np.where(fitted, v, np.nan) for k, v in columns.items()}, dtype="f4")


def _by_alert(values: NDArray[Any]) -> NDArray[Any]:
    """Return sums over the bands, shape (n_alerts,)."""
    return np.asarray(values.reshape(-1, len(BANDS)).sum(axis=1))


class _Sums:
    """Least squares over each band of each alert, for one shape after the other.

    An upper limit adds -2 ln of the chance that the fitted flux stays below it: for a flux of
    zero that is nothing, for one at the limit 1.4, and more beyond.
    """

    def __init__(self, curves: LightCurves, limits: LightCurves, newest: Array) -> None:
        self._curves, self._limits = curves, limits
        self._day = curves.mjd - newest[curves.alert // len(BANDS)]
        self._limit_day = limits.mjd - newest[limits.alert // len(BANDS)]
        self._weight = curves.flux_err.astype(np.float64) ** -2.0
        self._flux = curves.flux.astype(np.float64)
        self._weighted_flux = self._weight * self._flux
        self._squares = curves.sum(self._weight * self._flux**2)
        self._w = curves.sum(self._weight)

    def _chi2(self, gain: Array, at_limits: Array) -> Array:
        below = log_ndtr(LIMIT_SIGMAS - at_limits / self._limits.flux_err)
        return _by_alert(self._squares - gain - 2.0 * self._limits.sum(below))

    def fireballs(self) -> tuple[Array, Array, NDArray[np.bool_]]:
        """Return chi square, log posterior, and whether flux is positive: (n_ages, n_alerts)."""
        highest = self._curves.max(np.abs(self._flux))
        with np.errstate(divide="ignore", invalid="ignore"):
            widest = np.nan_to_num((2.0 * highest) ** -2.0, nan=0.0, posinf=0.0)
        chi2s, posteriors, positives = [], [], []
        for age in AGES_DAYS:
            shape, at_limits = (
                (np.maximum(day + age, 0.0) / age) ** 2 for day in (self._day, self._limit_day)
            )
            squares = self._curves.sum(self._weight * shape**2)
            product = self._curves.sum(self._weighted_flux * shape)
            with np.errstate(divide="ignore", invalid="ignore"):
                flux = np.where(squares > 0.0, product / squares, 0.0)
                # No more than the widest flux that is possible: a shape that is zero at all
                # epochs leaves the flux free, not infinitely so.
                width = np.where(widest > 0.0, np.log(squares + widest), 0.0)
            chi2 = self._chi2(flux * product, flux[self._limits.alert] * at_limits)
            chi2s.append(chi2)
            posteriors.append(-0.5 * (chi2 + _by_alert(width)))
            positives.append(_by_alert(product) > 0.0)
        return np.array(chi2s), np.array(posteriors), np.array(positives)

    def lines(self) -> tuple[Array, Array]:
        """Return chi square for a constant and for a straight line a band, (n_alerts,) each."""
        curves, place = self._curves, self._limits.alert
        with np.errstate(divide="ignore", invalid="ignore"):
            mean_day = curves.sum(self._weight * self._day) / self._w
            level = np.nan_to_num(curves.sum(self._weighted_flux) / self._w)
            lever = self._day - mean_day[curves.alert]
            spread = curves.sum(self._weight * lever**2)
            product = curves.sum(self._weighted_flux * lever)
            slope = np.where(spread > 0.0, product / spread, 0.0)
        gain = level * curves.sum(self._weighted_flux)
        tilted = level[place] + slope[place] * np.nan_to_num(self._limit_day - mean_day[place])
        return self._chi2(gain, level[place]), self._chi2(gain + slope * product, tilted)


def _moments(log_posterior: Array) -> tuple[Array, Array]:
    """Return mean and standard deviation of the age, shape (n_alerts,)."""
    weight = np.exp(log_posterior - log_posterior.max(axis=0))
    weight /= weight.sum(axis=0)
    mean = AGES_DAYS @ weight
    variance = np.maximum(AGES_DAYS**2 @ weight - mean**2, 0.0)
    return mean, np.sqrt(np.maximum(variance, (AGES_DAYS[1] - AGES_DAYS[0]) ** 2 / 12.0))


def _score(fireball: Array, sums: _Sums, n: Array, n_bands: Array) -> Array:
    """Return the weight of the fireball among the three models, 0 to 1."""
    log_n = np.log(np.maximum(n, 1))
    constant, line = sums.lines()
    penalties = np.array([n_bands + 1, n_bands, 2 * n_bands]) * log_n
    criteria = np.array([fireball, constant, line]) + penalties
    weight = np.exp(-0.5 * (criteria - criteria.min(axis=0)))
    return weight[0] / weight.sum(axis=0)
