"""Pulsating stars like RR Lyrae: a steep rise, a slow fall, in half a day.

A Fourier series of three terms; ratios and phases are typical of type ab (Deb & Singh 2009,
A&A 507 1729, figures 3 to 6). The amplitude falls to the red.
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

_RATIOS = np.array([1.0, 0.45, 0.3])
_PHASES = np.array([0.0, 2.3, 4.9])
_AMPLITUDE = {"u": 1.15, "g": 1.2, "r": 1.0, "i": 0.85, "z": 0.8, "y": 0.78}
_LARGEST = float(
    np.abs(
        np.cos(np.linspace(0.0, 2.0 * np.pi, 721)[:, None] * np.arange(1, 4) + _PHASES) @ _RATIOS
    ).max()
)


def draw(rng: np.random.Generator, around: Surroundings) -> Params:
    """Draw stars with periods of 0.3 to 0.9 days; the mean stays above the swing."""
    n = around.amplitude.size
    return {
        "amplitude": around.amplitude,
        "quiescent": around.amplitude * rng.uniform(1.5, 5.0, n),
        "colour": rng.uniform(0.0, 0.4, n),
        "period_days": rng.uniform(0.3, 0.9, n),
        "epoch": around.first_mjd + rng.uniform(-1.0, 0.0, n),
    }


def flux(mjd: float, band: str, params: Params) -> FloatArray:
    """Return the flux at a time. [nJy]"""
    phase = 2.0 * np.pi * (mjd - params["epoch"]) / params["period_days"]
    swing = np.cos(phase[:, None] * np.arange(1, 4) + _PHASES) @ _RATIOS / _LARGEST
    change = params["amplitude"] * _AMPLITUDE[band] * band_factor(params["colour"], band) * swing
    return np.asarray(quiescent_template(band, params) + change)


CLASS = TransientClass(
    "variable-star", 0.24, Host.STAR, draw, flux, quiescent_template, is_variable=True
)
