"""When and how bright the peak was, and how fast the source has faded since."""

import numpy as np
import pandas as pd

from broker.science import Column, LightCurves, science_module
from broker.units import flux_err_to_mag_err, flux_to_mag


@science_module(
    version="1.0.0",
    outputs=(
        Column("peakMag", "float32", "mag", "AB magnitude of the brightest detection."),
        Column("peakMagErr", "float32", "mag", "1-sigma error of peakMag."),
        Column("daysSincePeak", "float32", "d", "Time from that detection to the alert."),
        Column("declineRate", "float32", "mag / d", "Fading since the peak; negative: rising."),
        Column("declineRateErr", "float32", "mag / d", "1-sigma error of declineRate."),
    ),
)
def decline(history: LightCurves, *, min_detections: int = 3) -> pd.DataFrame:
    """Find each alert's peak in its richest band, and fit a line to the magnitudes after it.

    Parameters
    ----------
    history : LightCurves
        Histories; detections of positive flux count.
    min_detections : int
        With fewer detections after the peak there is no rate.

    Returns
    -------
    pd.DataFrame, n_alerts rows
        NaN (null): the peak without a detection of positive flux; the rate too with fewer than
        three detections after the peak, or all of them at one time.

    Notes
    -----
    The peak itself is left out of the fit: it was chosen for being bright, and would make every
    source fade. Weighted least squares: Press et al. 2007, Numerical Recipes, 3rd ed., 15.2.
    """
    detections = history.detections()
    curves = detections.select(detections.flux > 0.0).in_richest_band()
    newest = history.max(history.mjd)
    highest = curves.max(curves.flux)
    is_peak = curves.flux == highest[curves.alert]
    peak_mjd = curves.min(np.where(is_peak, curves.mjd, np.inf))
    error = curves.max(np.where(is_peak, curves.flux_err, -np.inf))
    after = curves.select(curves.mjd > peak_mjd[curves.alert])
    with np.errstate(divide="ignore", invalid="ignore"):
        mag = flux_to_mag(after.flux.astype(np.float64))
        weight = flux_err_to_mag_err(after.flux_err.astype(np.float64), after.flux) ** -2.0
        mean_mjd = after.sum(weight * after.mjd) / after.sum(weight)
        lever = after.mjd - mean_mjd[after.alert]
        spread = after.sum(weight * lever**2)
        rate, rate_err = after.sum(weight * lever * mag) / spread, spread**-0.5
        columns = {
            "peakMag": flux_to_mag(highest),
            "peakMagErr": flux_err_to_mag_err(error, highest),
            "daysSincePeak": newest - peak_mjd,
        }
    fitted = (after.count >= min_detections) & (spread > 0.0)
    columns["declineRate"] = np.where(fitted, rate, np.nan)
    columns["declineRateErr"] = np.where(fitted, rate_err, np.nan)
    return pd.DataFrame(columns).astype(np.float32)
