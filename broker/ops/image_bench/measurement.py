"""Fits, forced photometry and Petrosian fluxes."""

import numpy as np

from broker.bench_rows import Row, at_least, at_most
from broker.detection.forced import forced_flux
from broker.detection.galaxies.photometry import petrosian_photometry
from broker.detection.measure import Noise, fit_sources
from broker.ops.image_bench.rows import GAIN, READ, SIGMA, SKY, field, seconds


def rows(side: int, repeats: int) -> list[Row]:
    """Time fits, forced photometry and Petrosian fluxes."""
    pixels, x, y, _ = field(side)
    inside = (x > 20) & (x < side - 20) & (y > 20) & (y < side - 20)
    x, y = x[inside], y[inside]
    variance = np.full(pixels.shape, SKY / GAIN + (READ / GAIN) ** 2, np.float32)
    unusable = np.zeros(pixels.shape, bool)
    i, j = np.rint(x).astype(int), np.rint(y).astype(int)
    noise = Noise(GAIN, float(variance[0, 0]))
    # Each at a place of its own, in no order, as known objects come.
    many_x, many_y = np.random.default_rng(4).uniform(0.0, side, (2, 10 * x.size))
    few = slice(0, 100)
    fit, forced, petrosian = seconds(
        repeats,
        lambda: fit_sources(pixels, variance, i, j, psf_sigma=SIGMA, noise=noise,
                            unusable=unusable),
        lambda: forced_flux(pixels, variance, many_x, many_y, psf_sigma=SIGMA, unusable=unusable),
        lambda: petrosian_photometry(pixels, variance, x[few], y[few], unusable=unusable),
    )  # fmt: skip
    return [
        at_most("PSF fit [µs/source]", fit / x.size * 1e6, 10.0, "photutils 2200"),
        at_least("forced photometry, 1000/s", many_x.size / forced / 1e3, 300.0, "photutils ~1"),
        at_most("Petrosian flux [µs]", petrosian / 100 * 1e6, 300.0, "SEP 1200"),
    ]
