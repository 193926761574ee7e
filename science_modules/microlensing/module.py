"""Microlensing: does one magnification of all bands explain the light curve?"""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from broker.science import Column, LightCurves, science_module
from broker.units import BANDS

EFFECTIVE_TIMES_DAYS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Time scales u0 tE that are tried, a factor of two apart. [d]"""

LOOK_BACK_DAYS = 30.0
"""Peaks earlier than this before the alert are not looked for. [d]"""

REFINED_FROM = 40.0
"""Gains in chi square from which the whole curve of Paczynski is fitted, near the best model."""

IMPACTS = (0.03, 0.1, 0.2, 0.4, 0.8)
"""Impact parameters u0 that are tried in that fit."""

MIN_EPOCHS = 8
"""With fewer measurements there is no fit."""

Array = NDArray[np.floating[Any]]


@science_module(
    version="1.0.0",
    outputs=(
        Column(
            "microlensingDeltaChi2",
            "float32",
            "",
            "Gain in chi square over constant flux, for errors that make the best fit good.",
        ),
        Column("microlensingChi2PerDof", "float32", "", "Reduced chi square of the best model."),
        Column("microlensingEffectiveTime", "float32", "d", "Time scale u0 tE of the best model."),
        Column(
            "microlensingPeakTime", "float32", "d", "Peak of the best model, from the alert's time."
        ),
    ),
)
def microlensing(history: LightCurves, *, max_age_days: float = 120.0) -> pd.DataFrame:
    """Fit magnification curves of one lens to all bands at once.

    Parameters
    ----------
    history : LightCurves
        Histories; detections and forced fluxes of known bands count.
    max_age_days : float
        Older entries are left out. [d]

    Returns
    -------
    pd.DataFrame, n_alerts rows
        NaN (null) with fewer than eight measurements, or where no model of positive
        magnification is better than constant flux.

    Notes
    -----
    The two limits of Paczynski's curve (1986, ApJ 304 1), high and low magnification, which need
    only the peak and the effective time, each with a flux and a baseline a band found by linear
    least squares: Kim et al. 2018, AJ 155 76, eqs. 2 to 8. Where that gains 40 in chi square,
    the whole curve follows, on a grid that is halved twice around the best model.
    """
    curves = history.measured().within(max_age_days)
    newest = history.max(history.mjd)
    day = curves.mjd - newest[curves.alert]
    series = _Series(curves, day)
    n_epochs = curves.select(curves.band_code >= 0).count
    best = np.zeros(curves.n_alerts)
    peak, scale = np.full((2, curves.n_alerts), np.nan)
    for at, effective, gain in _gains(series):
        is_better = gain > best
        best = np.where(is_better, gain, best)
        peak = np.where(is_better, at, peak)
        scale = np.where(is_better, effective, scale)
    found = np.flatnonzero(best > REFINED_FROM)
    if found.size:
        best[found], peak[found], scale[found] = _refined(
            curves, day, found, peak[found], scale[found]
        )
    dof = n_epochs - 2.0 * series.n_bands() - 3.0
    fitted = (n_epochs >= MIN_EPOCHS) & (dof > 0.0) & (best > 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        reduced = (series.chi2_constant() - best) / dof
        columns = {
            "microlensingDeltaChi2": best / reduced,
            "microlensingChi2PerDof": reduced,
            "microlensingEffectiveTime": scale,
            "microlensingPeakTime": peak,
        }
    return pd.DataFrame({n: np.where(fitted, v, np.nan) for n, v in columns.items()}, dtype="f4")


class _Series:
    """Weighted sums over each band of each alert."""

    def __init__(self, curves: LightCurves, day: Array) -> None:
        known = curves.band_code >= 0
        chosen = curves.select(known)
        self.day = day[known]
        self._n_alerts = curves.n_alerts
        self._place = chosen.alert * len(BANDS) + chosen.band_code
        self._weight = chosen.flux_err.astype(np.float64) ** -2.0
        self._flux = chosen.flux.astype(np.float64)
        self._w = self._sum(self._weight)
        with np.errstate(invalid="ignore"):
            mean = self._sum(self._weight * self._flux) / self._w
        self._residual = self._flux - mean[self._place]

    def _sum(self, values: Array) -> Array:
        total = np.bincount(self._place, values, minlength=self._n_alerts * len(BANDS))
        return total.astype(np.float64, copy=False)  # integers if there are no entries at all

    def n_bands(self) -> NDArray[Any]:
        """Return the number of bands that each alert was measured in."""
        return np.count_nonzero(self._w.reshape(-1, len(BANDS)) > 0.0, axis=1)

    def chi2_constant(self) -> Array:
        """Return chi square for a constant flux in each band."""
        squares = self._sum(self._weight * self._residual**2)
        return np.asarray(squares.reshape(-1, len(BANDS)).sum(axis=1))

    def gain(self, shape: Array) -> Array:
        """Return how much lower chi square is with a positive multiple of a shape, and a level."""
        weighted = self._weight * shape
        total = self._sum(weighted)
        with np.errstate(divide="ignore", invalid="ignore"):
            spread = self._sum(weighted * shape) - total**2 / self._w
            product = self._sum(weighted * self._residual)
            gain = np.where((product > 0.0) & (spread > 1e-9 * self._w), product**2 / spread, 0.0)
        return gain.reshape(-1, len(BANDS)).sum(axis=1)


def _gains(series: _Series) -> Iterator[tuple[float, float, Array]]:
    """Yield peak time, effective time and gain for all models."""
    for effective in EFFECTIVE_TIMES_DAYS:
        for at in np.arange(effective, -LOOK_BACK_DAYS - 0.5 * effective, -effective):
            q = 1.0 + ((series.day - at) / effective) ** 2
            yield float(at), effective, series.gain(q**-0.5)
            yield float(at), effective, series.gain((1.0 - (0.5 * q + 1.0) ** -2.0) ** -0.5)


def _refined(
    curves: LightCurves, day: Array, alerts: NDArray[np.int64], peak: Array, scale: Array
) -> tuple[Array, Array, Array]:
    """Return gain, peak time and effective time of the best of Paczynski's curves."""
    number = np.full(curves.n_alerts, -1)
    number[alerts] = np.arange(alerts.size)
    chosen = number[curves.alert] >= 0
    few = curves.select(chosen)
    few = dataclasses.replace(few, alert=number[few.alert], n_alerts=alerts.size)
    series = _Series(few, day[chosen])
    alert = few.alert[few.band_code >= 0]
    best = np.zeros(alerts.size)
    for step in (0.5, 0.25, 0.125):
        center, width = peak.copy(), scale.copy()
        for shift, stretch in itertools.product((-1.0, 0.0, 1.0), repeat=2):
            at, effective = center + shift * step * width, width * 2.0 ** (stretch * step)
            z = ((series.day - at[alert]) / effective[alert]) ** 2
            for impact in IMPACTS:
                u2 = impact**2 * (1.0 + z)
                gain = series.gain((u2 + 2.0) / np.sqrt(u2 * (u2 + 4.0)))
                is_better = gain > best
                best = np.where(is_better, gain, best)
                peak = np.where(is_better, at, peak)
                scale = np.where(is_better, effective, scale)
    return best, peak, scale
