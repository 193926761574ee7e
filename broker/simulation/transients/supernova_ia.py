"""Supernovae like type Ia: a rise of days, a fall of weeks, faster and earlier in the blue.

The form is that of Bazin et al. 2009, A&A 499 653, eq. 1, stretched by 1 + z.
"""

import numpy as np

from broker.simulation.contract import (
    FloatArray,
    Host,
    Params,
    Surroundings,
    TransientClass,
    band_factor,
    dark_template,
)

_FALL_DAYS = {"u": 12.0, "g": 18.0, "r": 26.0, "i": 32.0, "z": 34.0, "y": 34.0}
_RISE_DAYS = 4.0


def draw(rng: np.random.Generator, around: Surroundings) -> Params:
    """Draw explosions from 25 days before night 0 to 4 days after it."""
    n = around.amplitude.size
    return {
        "amplitude": around.amplitude,
        "t0": around.first_mjd + rng.uniform(-25.0, 4.0, n),
        "stretch": (1.0 + around.redshift) * rng.normal(1.0, 0.08, n).clip(0.7, 1.3),
        "colour": rng.normal(0.0, 0.1, n),
    }


def flux(mjd: float, band: str, params: Params) -> FloatArray:
    """Return the flux at a time. [nJy]"""
    fall = _FALL_DAYS[band]
    days = (mjd - params["t0"]) / params["stretch"]
    shape = _bazin(days, fall) / _peak(fall)
    return np.asarray(params["amplitude"] * band_factor(params["colour"], band) * shape)


def _bazin(days: FloatArray, fall: float) -> FloatArray:
    # Before -60 days both exponentials would overflow; the flux is below 1e-6 of the peak there.
    days = np.maximum(days, -60.0)
    return np.asarray(np.exp(-days / fall) / (1.0 + np.exp(-days / _RISE_DAYS)))


def _peak(fall: float) -> float:
    """Return the maximum of the form: at rise · ln(fall / rise - 1)."""
    return float(_bazin(np.asarray(_RISE_DAYS * np.log(fall / _RISE_DAYS - 1.0)), fall))


CLASS = TransientClass("supernova-ia", 0.40, Host.GALAXY, draw, flux, dark_template)
