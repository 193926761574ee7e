"""Colours of the alert, from what was measured in other bands about the same time."""

import numpy as np
import pandas as pd

from broker.science import Column, LightCurves, science_module
from broker.units import BANDS

PAIRS = (("g", "r"), ("r", "i"))

_MAG_PER_RELATIVE_FLUX = 2.5 / np.log(10.0)

OUTPUTS = tuple(
    column
    for blue, red in PAIRS
    for column in (
        Column(f"colour{blue.upper()}{red}", "float32", "mag", f"{blue} - {red}, AB."),
        Column(f"colour{blue.upper()}{red}Err", "float32", "mag", "Its 1-sigma error."),
    )
)


@science_module(version="1.0.0", outputs=OUTPUTS)
def colour(history: LightCurves, *, window_days: float = 1.0, min_snr: float = 3.0) -> pd.DataFrame:
    """Compare the mean fluxes of two bands within a day before each alert.

    Parameters
    ----------
    history : LightCurves
        Histories; detections and forced fluxes count.
    window_days : float
        What is older, counted back from the newest entry, is left out. [d]
    min_snr : float
        The mean flux of each of the two bands must reach this signal to noise.

    Returns
    -------
    pd.DataFrame, n_alerts rows
        NaN (null) where a band was not measured in the window or is too faint: a colour of a
        limit is no colour. Colours are of the difference flux: of what has changed.
    """
    curves = history.measured().within(window_days).by_band()
    weight = curves.flux_err.astype(np.float64) ** -2.0
    with np.errstate(divide="ignore", invalid="ignore"):
        total = curves.sum(weight)
        flux = (curves.sum(weight * curves.flux) / total).reshape(-1, len(BANDS))
        relative = total.reshape(-1, len(BANDS)) ** -0.5 / flux
        is_bright = (flux > 0.0) & (relative * min_snr <= 1.0)
        columns = {}
        for blue, red in PAIRS:
            one, other = BANDS.index(blue), BANDS.index(red)
            both = is_bright[:, one] & is_bright[:, other]
            mag = -2.5 * np.log10(flux[:, one] / flux[:, other])
            error = _MAG_PER_RELATIVE_FLUX * np.hypot(relative[:, one], relative[:, other])
            name = f"colour{blue.upper()}{red}"
            columns[name] = np.where(both, mag, np.nan)
            columns[f"{name}Err"] = np.where(both, error, np.nan)
    return pd.DataFrame(columns).astype(np.float32)
