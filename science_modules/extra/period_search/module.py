"""The best period of all bands together, and how often noise has one as good."""

from typing import Any

import numpy as np
import pandas as pd
from astropy.timeseries import LombScargle
from numpy.typing import NDArray
from scipy.special import gammaln

from broker.science import Column, LightCurves, science_module
from broker.units import BANDS

MIN_EPOCHS = 20
MIN_EPOCHS_IN_BAND = 6
MAX_FREQUENCY = 10.0
"""Shortest period: a tenth of a day. [1 / d]"""

MAX_FREQUENCIES = 20_000
"""Long light curves are searched with a coarser grid: the cost is bounded."""

_OVERSAMPLING = 5.0
_DIRECT = 60  # fewer epochs than that are faster without Fourier transforms

Array = NDArray[np.floating[Any]]


@science_module(
    version="1.0.0",
    outputs=(
        Column("period", "float64", "d", "Period of the highest peak."),
        Column("periodLogFap", "float32", "", "log10 of the chance that noise has such a peak."),
        Column("periodPower", "float32", "", "Part of chi square that the best sinusoids explain."),
    ),
)
def period_search(history: LightCurves) -> pd.DataFrame:
    """Add up the Lomb-Scargle periodograms of all bands, each with its own mean and sinusoid.

    Parameters
    ----------
    history : LightCurves
        Histories; detections and forced fluxes count.

    Returns
    -------
    pd.DataFrame, n_alerts rows
        NaN (null) with fewer than 20 measurements in bands that have six or more.

    Notes
    -----
    The multi-phase model of VanderPlas & Ivezic 2015, ApJ 812 18, by astropy's periodograms.
    The false-alarm probability is Baluev's (2008, MNRAS 385 1279) for 2 K free parameters: the
    expected number of up-crossings of a chi-square process, with errors of unknown scale. Periods
    longer than half the light curve are not looked for.
    """
    curves = history.measured()
    rows = np.full((history.n_alerts, 3), np.nan)
    bands = curves.by_band()
    usable = (bands.count >= MIN_EPOCHS_IN_BAND).reshape(-1, len(BANDS))
    n_usable = np.where(usable, bands.count.reshape(usable.shape), 0).sum(axis=1)
    for alert in np.flatnonzero(n_usable >= MIN_EPOCHS).tolist():
        series = [
            slice(bands.starts[k], bands.starts[k + 1])
            for k in np.flatnonzero(usable[alert]) + alert * usable.shape[1]
        ]
        rows[alert] = _search(
            [
                (bands.mjd[s], bands.flux[s].astype("f8"), bands.flux_err[s].astype("f8"))
                for s in series
            ]
        )
    return pd.DataFrame(
        {
            "period": rows[:, 0],
            "periodLogFap": rows[:, 1].astype(np.float32),
            "periodPower": rows[:, 2].astype(np.float32),
        }
    )


def _search(series: list[tuple[Array, Array, Array]]) -> tuple[float, float, float]:
    """Return period, log10 of the false-alarm probability, and power, of one alert."""
    every = np.concatenate([mjd for mjd, _, _ in series])
    span = float(np.ptp(every))
    if span < 2.0 / MAX_FREQUENCY:
        return np.nan, np.nan, np.nan
    step = max(1.0 / (_OVERSAMPLING * span), MAX_FREQUENCY / MAX_FREQUENCIES)
    frequency = 2.0 / span + step * np.arange(int((MAX_FREQUENCY - 2.0 / span) / step) + 1)
    gain, chi2 = np.zeros(len(frequency)), 0.0
    variance = n = 0.0
    for mjd, flux, error in series:
        weight = error**-2.0
        flux = flux - np.average(flux, weights=weight)
        model = LombScargle(mjd - every.min(), flux, error, center_data=False)
        gain += 2.0 * model.power(
            frequency,
            normalization="psd",
            method="fast" if len(mjd) > _DIRECT else "cython",
            assume_regular_frequency=True,
        )
        chi2 += float((weight * flux**2).sum())
        variance += len(mjd) * float(np.cov(mjd, aweights=weight, bias=True))
        n += len(mjd)
    best = int(gain.argmax())
    power = min(float(gain[best] / chi2), 1.0 - 1e-12) if chi2 > 0.0 else np.nan
    z = -0.5 * (n - 3.0 * len(series)) * np.log1p(-power)
    width = MAX_FREQUENCY * np.sqrt(4.0 * np.pi * variance / n)
    return float(1.0 / frequency[best]), log_false_alarm(z, len(series), float(width)), power


def log_false_alarm(z: float, n_bands: int, width: float) -> float:
    """Return log10 of the chance that noise has a peak of this height.

    Parameters
    ----------
    z : float
        Half the gain in chi square.
    n_bands : int
        Bands, each with a sinusoid of its own.
    width : float
        Number of independent frequencies, as W in Baluev 2008.
    """
    if not z > 0.0:
        return 0.0
    log_rate = np.log(width) + (n_bands - 0.5) * np.log(z) - z - gammaln(n_bands)
    if log_rate < -20.0:
        return float(log_rate / np.log(10.0))
    return float(np.log10(max(-np.expm1(-np.exp(min(log_rate, 50.0))), 1e-300)))
