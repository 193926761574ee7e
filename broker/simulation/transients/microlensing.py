"""Microlensing: a star magnified by another that passes before it, the same in every band.

Magnification of a point by a point: Paczyński 1986, ApJ 304 1, eq. 5.
"""

import numpy as np

from broker.simulation.contract import (
    FloatArray,
    Host,
    Params,
    Surroundings,
    TransientClass,
    quiescent_template,
)


def draw(rng: np.random.Generator, around: Surroundings) -> Params:
    """Draw events that peak within half their duration of night 0."""
    n = around.amplitude.size
    impact = rng.uniform(0.1, 0.8, n)
    duration = np.exp(rng.uniform(np.log(10.0), np.log(60.0), n))
    return {
        "quiescent": around.amplitude / (_magnification(impact) - 1.0),
        "colour": rng.uniform(0.3, 1.4, n),
        "impact": impact,
        "duration": duration,
        "t0": around.first_mjd + duration * rng.uniform(-0.5, 0.5, n),
    }


def flux(mjd: float, band: str, params: Params) -> FloatArray:
    """Return the flux at a time. [nJy]"""
    distance = np.hypot(params["impact"], (mjd - params["t0"]) / params["duration"])
    return np.asarray(quiescent_template(band, params) * _magnification(distance))


def _magnification(u: FloatArray) -> FloatArray:
    return np.asarray((u**2 + 2.0) / (u * np.sqrt(u**2 + 4.0)))


CLASS = TransientClass("microlensing", 0.08, Host.STAR, draw, flux, quiescent_template)
