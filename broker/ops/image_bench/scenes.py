"""Stars and galaxies drawn by GalSim, and sources matched to what was drawn."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from broker.errors import ConfigError
from broker.imaging.image import Calibration, Image
from broker.imaging.kernels import F64, Bools
from broker.imaging.mask import empty_mask
from broker.imaging.psf import GaussianPsf
from broker.ops.image_bench.rows import SKY, make_wcs
from broker.simulation.kernels import add_gaussians

WIDTH = 2.0
"""Sigma of a round Gaussian PSF. [pixel]"""

UNIT = float(np.sqrt(SKY * 4.0 * np.pi) * WIDTH)
"""Flux of S/N 1 against the sky. [electron]"""

_STAMP = 91


@dataclass(frozen=True)
class Scene:
    """An image and what is on it: arrays of shape (n,).

    Parameters
    ----------
    image : Image
        With its sky, a count an electron.
    x, y, flux : NDArray[np.float64]
    """

    image: Image
    x: F64
    y: F64
    flux: F64


def lattice(side: int, pitch: float, rng: np.random.Generator) -> tuple[F64, F64]:
    """Return places far from one another, each with its own part of a pixel."""
    grid = np.arange(0.5 * pitch, side - 0.45 * pitch, pitch)
    x, y = (g.ravel() + rng.uniform(-3.0, 3.0, g.size) for g in np.meshgrid(grid, grid))
    return x, y


def expose(light: Any, rng: np.random.Generator, *, sky: float = SKY) -> Image:
    """Return the image of expected electrons, with sky and the noise of counting."""
    pixels = rng.poisson(np.maximum(light, 0.0) + sky).astype(np.float32)
    return Image(
        pixels,
        np.full(pixels.shape, sky, np.float32),
        empty_mask((pixels.shape[0], pixels.shape[1])),
        make_wcs(pixels.shape[0]),
        GaussianPsf(WIDTH),
        Calibration(1, 0, "r", 60_000.0, 30.0, 27.0, 1.0, 0.0, 1e9),
    )


def gaussian_stars(side: int, x: F64, y: F64, flux: F64, seed: int) -> Scene:
    """Draw stars with a round Gaussian PSF of `WIDTH`."""
    light = np.zeros((side, side), np.float32)
    width = np.full(x.size, WIDTH)
    add_gaussians(light, x, y, flux, width, width, 1e-3)
    return Scene(expose(light, np.random.default_rng(seed)), x, y, flux)


def profiles(side: int, x: F64, y: F64, flux: F64, shape_of: Any, seed: int) -> Scene:
    """Draw what `shape_of(galsim, k, u, v)` returns: GalSim's profile of flux 1 of source k.

    u and v are its place from -1 to 1.

    Raises
    ------
    ConfigError
        If GalSim is not installed.
    """
    try:
        import galsim
    except ImportError as error:
        raise ConfigError("this measurement needs GalSim; install nightjar-broker[test]") from error
    canvas = galsim.ImageF(side, side)
    for k in range(x.size):
        i, j = round(float(x[k])), round(float(y[k]))
        u, v = (2.0 * x[k] + 1.0) / side - 1.0, (2.0 * y[k] + 1.0) / side - 1.0
        stamp = (
            shape_of(galsim, k, u, v)
            .withFlux(flux[k])
            .drawImage(nx=_STAMP, ny=_STAMP, scale=1.0, offset=(x[k] - i, y[k] - j))
        )
        stamp.setCenter(i + 1, j + 1)
        inside = stamp.bounds & canvas.bounds
        canvas[inside] += stamp[inside]
    return Scene(expose(canvas.array, np.random.default_rng(seed)), x, y, flux)


def matched(scene: Scene, x: F64, y: F64, radius: float = 2.0) -> Any:
    """Return the number of each drawn object's source, one to one, nearest first; -1 for none."""
    from scipy.spatial import cKDTree

    drawn = np.column_stack([scene.x, scene.y])
    near: Any = cKDTree(drawn).query_ball_point(np.column_stack([x, y]), radius)
    pairs = [(m, k) for k, found in enumerate(near) for m in found]
    gaps = sorted((np.hypot(x[k] - scene.x[m], y[k] - scene.y[m]), m, k) for m, k in pairs)
    partner, taken = np.full(scene.x.size, -1), set()
    for _, m, k in gaps:
        if partner[m] < 0 and k not in taken:
            partner[m] = k
            taken.add(k)
    return partner


def away_from_border(x: F64, y: F64, side: int, margin: float = 8.0) -> Bools:
    """Return which places are on the image with a margin."""
    return (np.minimum(x, y) > margin) & (np.maximum(x, y) < side - 1.0 - margin)
