"""How fast a transient brightens, from its detections of the last few nights, and who asks."""

import numpy as np
import pandas as pd

from broker.science import Column, LightCurves, science_module, topic_filter
from broker.science.cuts import (
    all_of,
    is_changing,
    is_extragalactic,
    is_first_seen_within,
    is_reliable,
    is_rising,
    is_young,
    none_of,
)

_MAG_PER_LN_FLUX = 2.5 / np.log(10.0)


@science_module(
    version="1.0.0",
    outputs=(
        Column("riseRate", "float32", "nJy / d", "Slope of psfFlux with time, newest band."),
        Column("riseRateErr", "float32", "nJy / d", "1-sigma error of riseRate."),
    ),
)
def rise_rate(
    history: LightCurves, *, window_days: float = 5.0, min_detections: int = 3
) -> pd.DataFrame:
    """Fit one straight line per alert, by weighted least squares, in its richest band.

    Parameters
    ----------
    history : LightCurves
        Histories, the alerts' own detections among them.
    window_days : float
        Detections older than this, counted back from the newest, are left out. [d]
    min_detections : int
        With fewer detections of one band in the window both outputs are null.

    Returns
    -------
    pd.DataFrame, n_alerts rows
        The declared outputs; NaN (null) where there are too few detections, or
        all are at the same time.

    Notes
    -----
    Times are taken from each alert's weighted mean time, which keeps the sums
    well conditioned: Press et al. 2007, Numerical Recipes, 3rd ed., section 15.2.
    """
    recent = history.detections().within(window_days).in_richest_band()
    weight = recent.flux_err.astype(np.float64) ** -2.0
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_mjd = recent.sum(weight * recent.mjd) / recent.sum(weight)
        lever = recent.mjd - mean_mjd[recent.alert]
        spread = recent.sum(weight * lever**2)
        slope = recent.sum(weight * lever * recent.flux) / spread
        error = spread**-0.5
    fitted = (recent.count >= min_detections) & (spread > 0.0)
    return pd.DataFrame(
        {
            "riseRate": np.where(fitted, slope, np.nan).astype(np.float32),
            "riseRateErr": np.where(fitted, error, np.nan).astype(np.float32),
        }
    )


@topic_filter(topic="young-supernova", max_pass_fraction=0.02)
def young_supernova(
    age_days: pd.Series,
    reliability: pd.Series,
    is_negative: pd.Series,
    rise_rate: pd.Series,
    rise_rate_err: pd.Series,
    context_class: pd.Series,
) -> pd.Series:
    """For spectroscopy of supernovae in their first days: new, rising, real, on no known star.

    An alert that lacks a value it is judged by is never chosen: NaN compares false, and where no
    catalogue was searched the context is "unknown".
    """
    return all_of(
        is_young(age_days),
        is_reliable(reliability),
        none_of(is_negative),
        is_rising(rise_rate, rise_rate_err),
        is_extragalactic(context_class),
    )


@topic_filter(topic="fast-transient", max_pass_fraction=0.02)
def fast_transient(
    psf_flux: pd.Series,
    age_days: pd.Series,
    reliability: pd.Series,
    rise_rate: pd.Series,
    rise_rate_err: pd.Series,
    context_class: pd.Series,
    *,
    min_mag_per_day: float = 0.3,
) -> pd.Series:
    """For counterparts of bursts and mergers: change by 0.3 mag a day or more, up or down.

    The rate is that of the magnitude, 2.5 / ln 10 x slope / flux, where the slope is significant
    at 5 sigma; kilonovae fade faster than 0.3 mag / d (Andreoni et al. 2021, ApJ 918 63).
    """
    mag_per_day = _MAG_PER_LN_FLUX * rise_rate.abs() / psf_flux.abs()
    return all_of(
        is_first_seen_within(age_days, days=14.0),
        is_reliable(reliability),
        is_changing(rise_rate, rise_rate_err),
        mag_per_day >= min_mag_per_day,
        is_extragalactic(context_class),
    )
