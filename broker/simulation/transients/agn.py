"""Active galactic nuclei: the magnitude walks at random, and is drawn back to its mean.

A damped random walk (Kelly et al. 2009, ApJ 698 895) has the power spectrum of Lorentz. It is made
as a sum of waves whose frequencies are drawn from that spectrum, so that it can be had at any time
without those before it.
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

_WAVES = 64


def draw(rng: np.random.Generator, around: Surroundings) -> Params:
    """Draw nuclei with an rms of 0.1 to 0.4 mag and memories of 20 to 200 days."""
    n = around.amplitude.size
    rms_mag = rng.uniform(0.1, 0.4, n)
    tau_days = np.exp(rng.uniform(np.log(20.0), np.log(200.0), n))
    return {
        "quiescent": around.amplitude / rms_mag,
        "colour": rng.normal(0.1, 0.1, n),
        "rms_mag": rms_mag,
        "frequency": rng.standard_cauchy((n, _WAVES)) / tau_days[:, None],
        "phase": rng.uniform(0.0, 2.0 * np.pi, (n, _WAVES)),
        "epoch": np.full(n, around.first_mjd),
    }


def flux(mjd: float, band: str, params: Params) -> FloatArray:
    """Return the flux at a time. [nJy]"""
    days = (mjd - params["epoch"])[:, None]
    waves = np.cos(params["frequency"] * days + params["phase"]).sum(axis=1)
    mag = params["rms_mag"] * np.sqrt(2.0 / _WAVES) * waves
    return np.asarray(quiescent_template(band, params) * np.power(10.0, -0.4 * mag))


CLASS = TransientClass("agn", 0.12, Host.NUCLEUS, draw, flux, quiescent_template)
