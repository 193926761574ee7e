"""Stellar flares: two measurements in a row far above the quiet level."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import log_ndtr

from broker.science import Column, LightCurves, science_module
from broker.units import BANDS

MIN_QUIET = 3
"""With fewer older measurements of a band its quiet level is that of the template: zero."""

_SIGMA_PER_MAD = 1.4826
_MEDIAN_VARIANCE = np.pi / 2.0
"""Variance of a median of many normal values over that of their mean."""

Array = NDArray[np.floating[Any]]


@science_module(
    version="1.0.0",
    outputs=(
        Column("flarePhi", "float32", "", "Product of the deviations of the two newest epochs."),
        Column(
            "flareSignificance",
            "float32",
            "",
            "-log10 of the chance that noise has such a product.",
        ),
        Column("flareAmplitude", "float32", "mag", "Brightening of the alert over its template."),
    ),
)
def flare(
    history: LightCurves,
    psf_flux: pd.Series,
    template_flux: pd.Series,
    *,
    window_days: float = 1.0,
) -> pd.DataFrame:
    """Ask whether the two newest measurements are both far above the quiet level.

    Parameters
    ----------
    history : LightCurves
        Histories; detections and forced fluxes of any band count.
    psf_flux, template_flux : pd.Series
        For the amplitude. [nJy]
    window_days : float
        The two must be of this time before the alert; what is older tells the quiet level. [d]

    Returns
    -------
    pd.DataFrame, n_alerts rows
        NaN (null): product and significance where there are no two measurements in the window;
        the amplitude where the template has no flux there or the source fades.

    Notes
    -----
    Kowalski et al. 2009, AJ 138 633, eq. 1, with the median of each band as quiet level and its
    scatter (from the median absolute deviation) added to the errors. A product is large too when
    one point is far off: the significance is that of the lower of the two, -2 log10 Q(lower).
    """
    curves = history.measured().select(history.measured().band_code >= 0)
    newest = history.max(history.mjd)
    is_old = curves.mjd < newest[curves.alert] - window_days
    level, variance = _quiet(curves.select(is_old))
    recent = curves.select(~is_old)
    series = recent.alert * len(BANDS) + recent.band_code
    error = np.sqrt(recent.flux_err.astype(np.float64) ** 2 + variance[series])
    deviation = (recent.flux - level[series]) / error
    last = recent.rank() - recent.count[recent.alert]
    pair = [recent.sum(np.where(last == place, deviation, 0.0)) for place in (-1, -2)]
    is_pair = recent.count >= 2
    log_chance = 2.0 * log_ndtr(-np.minimum(*pair)) / np.log(10.0)
    base = template_flux.to_numpy(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        amplitude = 2.5 * np.log10(1.0 + psf_flux.to_numpy(np.float64) / base)
    has_amplitude = (base > 0.0) & (psf_flux.to_numpy() > 0.0)
    return pd.DataFrame(
        {
            "flarePhi": np.where(is_pair, pair[0] * pair[1], np.nan),
            "flareSignificance": np.where(is_pair, -log_chance, np.nan),
            "flareAmplitude": np.where(has_amplitude, amplitude, np.nan),
        }
    ).astype(np.float32)


def _quiet(old: LightCurves) -> tuple[Array, Array]:
    """Return each band's level, and the variance to be added to errors, shape (n_alerts * 6,).

    The variance is that of the source beyond the errors, and that of the level itself.
    """
    bands = old.by_band()
    level, error = bands.median(bands.flux), bands.median(bands.flux_err)
    scatter = _SIGMA_PER_MAD * bands.median(np.abs(bands.flux - level[bands.alert]))
    enough = bands.count >= MIN_QUIET
    with np.errstate(divide="ignore", invalid="ignore"):
        own = np.maximum(scatter**2 - error**2, 0.0)
        variance = own + _MEDIAN_VARIANCE * (error**2 + own) / bands.count
    return np.where(enough, level, 0.0), np.where(enough, variance, 0.0)
