"""Kilonovae: gone in days, blue at first and red soon after.

A linear rise to the peak and an exponential fall; the fall time grows to the red as in the light
curves of AT 2017gfo (Villar et al. 2017, ApJL 851 L21).
"""

import numpy as np

from broker.simulation.contract import (
    FloatArray,
    Host,
    Params,
    Surroundings,
    TransientClass,
    dark_template,
)

_PEAK_DAYS = {"u": 0.4, "g": 0.6, "r": 0.9, "i": 1.3, "z": 1.6, "y": 1.9}


def draw(rng: np.random.Generator, around: Surroundings) -> Params:
    """Draw mergers in the day and a half before night 0."""
    n = around.amplitude.size
    return {
        "amplitude": around.amplitude,
        "t0": around.first_mjd - rng.uniform(0.3, 1.5, n),
        "stretch": (1.0 + around.redshift) * rng.uniform(0.8, 1.4, n),
    }


def flux(mjd: float, band: str, params: Params) -> FloatArray:
    """Return the flux at a time. [nJy]"""
    phase = np.maximum(mjd - params["t0"], 0.0) / (params["stretch"] * _PEAK_DAYS[band])
    return np.asarray(params["amplitude"] * phase * np.exp(1.0 - phase))


CLASS = TransientClass("kilonova", 0.06, Host.GALAXY, draw, flux, dark_template)
