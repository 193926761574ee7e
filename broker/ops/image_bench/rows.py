"""What every measurement of the image steps needs: rows, turns, and images of stars."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from broker.imaging.image import Calibration, Image
from broker.imaging.kernels import F32
from broker.imaging.mask import empty_mask
from broker.imaging.psf import GaussianPsf
from broker.imaging.wcs import Wcs
from broker.simulation.kernels import add_gaussians, normal_table, read_out

SIGMA, SKY, READ, GAIN = 2.0, 200.0, 6.0, 1.5
STARS_PER_MPIX = 240.0
MPIX = 1e6


def seconds(repeats: int, *calls: Callable[[], Any]) -> list[float]:
    """Return the median processor time of each call, the calls taking turns.

    Every call runs once before, so that nothing is compiled in a measured turn. [s]
    """
    for call in calls:
        call()
    times = np.empty((repeats, len(calls)))
    for k in range(repeats):
        for i, call in enumerate(calls):
            start = time.process_time()
            call()
            times[k, i] = time.process_time() - start
    return [float(max(t, 1e-9)) for t in np.median(times, axis=0)]


def field(
    side: int, *, seed: int = 1, sigma: float = SIGMA, per_mpix: float = STARS_PER_MPIX
) -> tuple[F32, Any, Any, Any]:
    """Draw and read out stars at places that do not depend on the seed of the noise.

    Parameters
    ----------
    side : int
        Of the square image. [pixel]
    seed : int
        Of the noise.
    sigma : float
        Of the PSF. [pixel]
    per_mpix : float
        Stars in a million pixels.

    Returns
    -------
    pixels : ndarray, shape (side, side), float32
        Without sky. [counts]
    x, y : ndarray, shape (n,)
        Where the stars are. [pixel]
    electrons : ndarray, shape (n,)
        Their fluxes; `GAIN` electrons are a count.
    """
    rng = np.random.default_rng(1)
    n = int(per_mpix * side * side / MPIX)
    x, y = rng.uniform(0, side, (2, n))
    electrons = 10 ** rng.uniform(2.7, 4.7, n)
    light = np.full((side, side), SKY, np.float32)
    width = np.full(n, sigma)
    add_gaussians(light, x, y, electrons, width, width, 0.02)
    counts = read_out(light, np.uint64(seed), normal_table(), GAIN, READ, 1000.0, 65_000.0)
    return counts.astype(np.float32) - np.float32(1000.0 + SKY / GAIN), x, y, electrons


def make_wcs(side: int, turn: float = 0.0) -> Wcs:
    """Return a WCS of 0.25 arcsec pixels, turned by an angle. [radian]"""
    step = 0.25 / 3600.0
    cos, sin = step * float(np.cos(turn)), step * float(np.sin(turn))
    return Wcs(150.0, 2.0, side / 2.0, side / 2.0, ((-cos, sin), (sin, cos)))


def make_image(pixels: F32, wcs: Wcs, *, sigma: float = SIGMA) -> Image:
    """Wrap pixels as an image with the variance of its sky and a round PSF."""
    level = SKY / GAIN + (READ / GAIN) ** 2
    return Image(
        pixels,
        np.full(pixels.shape, level, np.float32),
        empty_mask((pixels.shape[0], pixels.shape[1])),
        wcs,
        GaussianPsf(sigma),
        Calibration(1, 0, "r", 60_000.0, 30.0, 27.0, GAIN, READ, 6e4),
    )
