"""Galaxies by a model: Gaussian, exponential and de Vaucouleurs, seen through the image's PSF.

A profile is a sum of Gaussians (Hogg & Lang 2013, PASP 125 719), and so is the PSF: their
convolution is analytic, and the light outside any aperture is part of the model.
"""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from broker.detection.galaxies.loops import N_PARTS, draw, fit_one
from broker.detection.galaxies.photometry import Shapes
from broker.detection.measure import Noise
from broker.detection.psf.stars import StarPsf
from broker.imaging.kernels import F32, F64, Bools

_N_GAUSSIANS = {1.0: 7, 4.0: 11}
_RANGE = {1.0: (0.05, 2.5), 4.0: (0.004, 30.0)}
"""Narrowest and widest Gaussian, over the half-light radius."""

_LEAST_HALF, _MOST_HALF = 12, 48
_REACH = 6.0


@dataclass(frozen=True)
class Model:
    """Fits of one profile, arrays of shape (n_sources,).

    Parameters
    ----------
    flux, flux_err : NDArray[np.float64]
        All of the light, and its 1-sigma error with place and shape free; NaN if no fit.
    x, y : NDArray[np.float64]
        [pixel]
    radius : NDArray[np.float64]
        Of half of the light, geometric mean of the axes, before the PSF. [pixel]
    axis_ratio : NDArray[np.float64]
        Shorter over longer axis, before the PSF.
    theta : NDArray[np.float64]
        Angle of the longer axis from the x axis towards y. [rad]
    chi2 : NDArray[np.float64]
        Not divided by the degrees of freedom.
    n_pixels : NDArray[np.float64]
    """

    flux: F64
    flux_err: F64
    x: F64
    y: F64
    radius: F64
    axis_ratio: F64
    theta: F64
    chi2: F64
    n_pixels: F64


@dataclass(frozen=True)
class GalaxyFits:
    """What the models say, arrays of shape (n_sources,).

    Parameters
    ----------
    gaussian, disc, bulge : Model
        Of Sérsic index 1/2, 1 and 4.
    flux, flux_err : NDArray[np.float64]
        Of the sum of disc and bulge that fits best, each with its own best shape.
    bulge_share : NDArray[np.float64]
        Of the bulge in it, 0 to 1.
    """

    gaussian: Model
    disc: Model
    bulge: Model
    flux: F64
    flux_err: F64
    bulge_share: F64

    @property
    def best(self) -> Model:
        """Of disc and bulge the one that fits better, source by source."""
        other = self.bulge.chi2 < self.disc.chi2
        names = Model.__dataclass_fields__
        return Model(
            **{n: np.where(other, getattr(self.bulge, n), getattr(self.disc, n)) for n in names}
        )


@functools.cache
def sersic_gaussians(index: float) -> Any:
    """Return share and variance (half-light radius 1) of the Gaussians of a Sérsic profile.

    Parameters
    ----------
    index : float
        0.5, 1 or 4.

    Returns
    -------
    NDArray[np.float64], shape (n, 2)
        Shares sum to 1: the profile is not cut off.
    """
    from scipy.optimize import nnls
    from scipy.special import gamma, gammaincinv

    if index == 0.5:
        return np.array([[1.0, 1.0 / (2.0 * np.log(2.0))]])
    low, high = _RANGE[index]
    sigma = np.geomspace(low, high, _N_GAUSSIANS[index])
    b = float(gammaincinv(2.0 * index, 0.5))
    radius = np.geomspace(0.1 * low, 3.0 * high, 600)
    total = 2.0 * np.pi * index * gamma(2.0 * index) * b ** (-2.0 * index)
    light = np.exp(-b * radius ** (1.0 / index)) / total
    basis = np.exp(-0.5 * (radius[:, None] / sigma) ** 2) / (2.0 * np.pi * sigma**2)
    # Light in an interval of log r; the last row is that of all of it.
    area = radius[:, None] ** 2
    rows = np.vstack([basis * area, np.full((1, sigma.size), 30.0)])
    shares, _ = nnls(rows, np.append(light * area[:, 0], 30.0))
    used = shares > 0.0
    return np.column_stack([shares[used] / shares.sum(), sigma[used] ** 2])


def fit_galaxies(
    pixels: F32,
    variance: F32,
    x: F64,
    y: F64,
    shapes: Shapes,
    *,
    psf: StarPsf,
    noise: Noise,
    unusable: Bools,
    reach: int = 0,
) -> GalaxyFits:
    """Fit galaxy models to sources, each for itself.

    Parameters
    ----------
    pixels, variance : NDArray[np.float32], shape (ny, nx)
        Without background, and, as far as it can be, without the neighbours.
    x, y : NDArray[np.float64], shape (n_sources,)
        Where to start. [pixel]
    shapes : Shapes
        As `adaptive_shapes` measures them: where to start, and how many pixels to take.
    psf : StarPsf
    noise : Noise
    unusable : NDArray[np.bool_], shape (ny, nx)
    reach : int
        Half width of the pixels that are fitted; 0 follows the shape. [pixel]
    """
    n = len(x)
    tables = np.full((3, n, 9), np.nan)
    flux, error, share = np.full(n, np.nan), np.full(n, np.nan), np.full(n, np.nan)
    profiles = [sersic_gaussians(index) for index in (0.5, 1.0, 4.0)]
    frame = (1.0 / noise.gain, noise.floor)
    ny, nx = pixels.shape
    for k in range(n):
        if not (0.0 <= x[k] < nx and 0.0 <= y[k] < ny):
            continue
        cx, cy = round(float(x[k])), round(float(y[k]))
        first, half = _start(psf, shapes, k, float(x[k]) - cx, float(y[k]) - cy)
        half = reach or half
        own = psf.gaussians_at(float(x[k]), float(y[k]))
        for m, profile in enumerate(profiles):
            fit_one(
                pixels, variance, unusable, cx, cy, half, profile, own, first, *frame,
                tables[m, k],
            )  # fmt: skip
            if m == 0 and np.isfinite(tables[0, k, 0]):
                first = tables[0, k, 1:6].copy()
                first[2:] = np.copysign(np.maximum(np.abs(first[2:]), 0.3), first[2:])
        flux[k], error[k], share[k] = _both(
            pixels, variance, unusable, (cx, cy, half), profiles, own, tables[1:, k], noise
        )
        tables[:, k, 1] += cx
        tables[:, k, 2] += cy
    gaussian, disc, bulge = (_model(table) for table in tables)
    return GalaxyFits(gaussian, disc, bulge, flux, error, share)


def _start(psf: StarPsf, shapes: Shapes, k: int, dx: float, dy: float) -> tuple[F64, int]:
    """Return the first place and shape, and the half width of the pixels that are fitted."""
    wide = float(shapes.a[k]) if np.isfinite(shapes.a[k]) else psf.sigma
    high = float(shapes.b[k]) if np.isfinite(shapes.b[k]) else psf.sigma
    theta = float(shapes.theta[k]) if np.isfinite(shapes.theta[k]) else 0.0
    half = int(np.clip(np.ceil(_REACH * max(wide, psf.sigma)), _LEAST_HALF, _MOST_HALF))
    # The half-light radius of a Gaussian is 1.18 sigma.
    a, b = (1.18 * np.sqrt(max(s * s - psf.sigma**2, 0.09 * psf.sigma**2)) for s in (wide, high))
    cos, sin = np.cos(theta), np.sin(theta)
    xx, yy = (a * cos) ** 2 + (b * sin) ** 2, (a * sin) ** 2 + (b * cos) ** 2
    xy = (a * a - b * b) * sin * cos
    first = np.sqrt(xx)
    low = xy / first
    return np.array([dx, dy, first, np.sqrt(max(yy - low * low, 0.01)), low]), half


def _model(table: F64) -> Model:
    flux, x, y, a, b, c, error, chi2, count = table.T
    xx, xy, yy = a * a, a * c, b * b + c * c
    mean, gap = 0.5 * (xx + yy), np.hypot(0.5 * (xx - yy), xy)
    small = np.maximum(mean - gap, 1e-12)
    return Model(
        flux, error, x, y, np.sqrt(np.abs(a * b)), np.sqrt(small / (mean + gap)),
        0.5 * np.arctan2(2.0 * xy, xx - yy), chi2, count,
    )  # fmt: skip


def _both(
    pixels: F32,
    variance: F32,
    unusable: Bools,
    place: tuple[int, int, int],
    profiles: list[Any],
    psf: F64,
    rows: F64,
    noise: Noise,
) -> tuple[float, float, float]:
    """Return flux, error and bulge's share of the best sum of the two fits."""
    cx, cy, half = place
    if not np.isfinite(rows[:, 0]).all():
        good = rows[np.isfinite(rows[:, 0])]
        share = float("nan") if len(good) == 0 else float(np.isfinite(rows[1, 0]))
        return (*((np.nan, np.nan) if len(good) == 0 else (good[0, 0], good[0, 6])), share)
    ny, nx = pixels.shape
    j0, j1, i0, i1 = (
        max(0, cy - half),
        min(ny, cy + half + 1),
        max(0, cx - half),
        min(nx, cx + half + 1),
    )
    inside = (slice(j0 - cy + half, j1 - cy + half), slice(i0 - cx + half, i1 - cx + half))
    window = (slice(j0, j1), slice(i0, i1))
    seen = []
    for profile, row in zip(profiles[1:], rows, strict=True):
        parts = np.empty((N_PARTS, 2 * half + 1, 2 * half + 1))
        draw(profile, psf, *row[1:6], half, parts)
        seen.append(parts[0][inside])
    disc, bulge = seen
    light = np.maximum(0.5 * (rows[0, 0] * disc + rows[1, 0] * bulge), 0.0)
    weight = np.where(unusable[window], 0.0, 1.0 / np.maximum(
        variance[window] + light / noise.gain, noise.floor))  # fmt: skip
    one, two = rows[0, 0] * disc, rows[1, 0] * bulge
    gap = two - one
    norm = float(np.sum(weight * gap * gap))
    share = float(np.sum(weight * gap * (pixels[window] - one))) / norm if norm > 0.0 else 0.0
    share = min(max(share, 0.0), 1.0)
    flux = (1.0 - share) * rows[0, 0] + share * rows[1, 0]
    return flux, float((1.0 - share) * rows[0, 6] + share * rows[1, 6]), share
