"""Flare stars: red dwarfs that brighten in a minute and fade in an hour or so, again and again.

The fall is the double exponential of Davenport et al. 2014, ApJ 797 122, in its simplest form.
"""

import numpy as np

from broker.simulation.contract import (
    FloatArray,
    Host,
    Params,
    Surroundings,
    TransientClass,
    band_factor,
    quiescent_template,
)
from broker.units import SECONDS_PER_DAY

_NIGHTS = 30
_FLARES_PER_NIGHT = 2
_HALF_NIGHT_DAYS = 0.2
_BLUE = -0.4
"""Colour g - r of the flare itself: a hot black body."""


def draw(rng: np.random.Generator, around: Surroundings) -> Params:
    """Draw stars with two flares in each of thirty nights."""
    n = around.amplitude.size
    shape = (n, _NIGHTS, _FLARES_PER_NIGHT)
    start = rng.uniform(-_HALF_NIGHT_DAYS, _HALF_NIGHT_DAYS, shape)
    start += around.first_mjd + np.arange(_NIGHTS)[:, None]
    return {
        "amplitude": around.amplitude,
        "quiescent": around.amplitude * rng.uniform(0.3, 2.0, n),
        "colour": rng.uniform(1.0, 1.6, n),
        "start": start.reshape(n, _NIGHTS * _FLARES_PER_NIGHT),
        "height": rng.uniform(0.3, 1.0, (n, _NIGHTS * _FLARES_PER_NIGHT)),
        "fall_days": rng.uniform(1_500.0, 7_000.0, n) / SECONDS_PER_DAY,
    }


def flux(mjd: float, band: str, params: Params) -> FloatArray:
    """Return the flux at a time. [nJy]"""
    since = (mjd - params["start"]) / params["fall_days"][:, None]
    since_flare = np.maximum(since, 0.0)
    fall = 0.7 * np.exp(-3.0 * since_flare) + 0.3 * np.exp(-0.6 * since_flare)
    shape = np.where(since >= 0.0, params["height"] * fall, 0.0).sum(axis=1)
    flare = params["amplitude"] * shape * band_factor(_BLUE, band)
    return np.asarray(quiescent_template(band, params) + flare)


CLASS = TransientClass("flare-star", 0.10, Host.STAR, draw, flux, quiescent_template)
