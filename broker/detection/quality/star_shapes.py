"""Shapes of stars: width, elongation and direction, by moments whose weight takes the star's shape.

A weight that is as elongated as the star sees a trail whole, where a round one sees its middle
(Bernstein & Jarvis 2002, AJ 123 583, section 3.1).
"""

import math
from dataclasses import dataclass

import numpy as np

from broker.imaging.kernels import F32, F64, Bools, compiled

_ROUNDS = 12
_SETTLED = 5e-4
"""A change of the moments, in their own size, that is none."""

_REACH_SIGMAS = 4.0
_TRAIL_PX = 6
_WIDEST = 12.0
_PIXEL_VARIANCE = 1.0 / 12.0


@dataclass(frozen=True)
class Shapes:
    """Shapes of sources; NaN where none could be measured.

    Parameters
    ----------
    x, y : NDArray[np.float64], shape (n,)
        Centres. [pixel]
    sigma : NDArray[np.float64], shape (n,)
        Geometric mean of the axes' standard deviations, the pixel's share taken out. [pixel]
    e1, e2 : NDArray[np.float64], shape (n,)
        (xx - yy) / (xx + yy) and 2 xy / (xx + yy) of the second moments.
    major : NDArray[np.float64], shape (n,)
        Standard deviation along the major axis. [pixel]
    """

    x: F64
    y: F64
    sigma: F64
    e1: F64
    e2: F64
    major: F64


def star_shapes(pixels: F32, x: F64, y: F64, *, psf_sigma: float, unusable: Bools) -> Shapes:
    """Measure sources.

    Parameters
    ----------
    pixels : NDArray[np.float32], shape (ny, nx)
        Without sky.
    x, y : NDArray[np.float64], shape (n,)
        Where they are, to two pixels or so.
    psf_sigma : float
        First width of the weight. [pixel]
    unusable : NDArray[np.bool_], shape (ny, nx)
    """
    half = math.ceil(_REACH_SIGMAS * psf_sigma) + _TRAIL_PX
    out = _adaptive(pixels, unusable, x, y, psf_sigma, half)
    xx, xy, yy = out[:, 2], out[:, 3], out[:, 4]
    with np.errstate(invalid="ignore", divide="ignore"):
        xx, yy = xx - _PIXEL_VARIANCE, yy - _PIXEL_VARIANCE
        trace, det = xx + yy, xx * yy - xy * xy
        good = (det > 0.05) & (trace > 0.0)
        e1, e2 = (xx - yy) / trace, 2.0 * xy / trace
        major = np.sqrt(0.5 * trace * (1.0 + np.hypot(e1, e2)))
        sigma = det**0.25
    columns = (out[:, 0], out[:, 1], sigma, e1, e2, major)
    return Shapes(*(np.where(good, c, np.nan) for c in columns))


@compiled
def _adaptive(pixels: F32, unusable: Bools, xs: F64, ys: F64, sigma: float, half: int) -> F64:
    """Return centre and moments xx, xy, yy, shape (n, 5); zeros where they do not converge."""
    ny, nx = pixels.shape
    out = np.zeros((xs.size, 5))
    for k in range(xs.size):
        x0, y0 = xs[k], ys[k]
        cxx, cxy, cyy = sigma * sigma, 0.0, sigma * sigma
        good = True
        for _ in range(_ROUNDS):
            det = cxx * cyy - cxy * cxy
            wxx, wxy, wyy = cyy / det, -cxy / det, cxx / det
            total, sx, sy, sxx, sxy, syy = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
            ix, iy = round(xs[k]), round(ys[k])
            for y in range(max(0, iy - half), min(ny, iy + half + 1)):
                for x in range(max(0, ix - half), min(nx, ix + half + 1)):
                    if unusable[y, x]:
                        continue
                    dx, dy = x - x0, y - y0
                    power = wxx * dx * dx + 2.0 * wxy * dx * dy + wyy * dy * dy
                    if power > 18.0:
                        continue
                    value = pixels[y, x] * math.exp(-0.5 * power)
                    total += value
                    sx += value * dx
                    sy += value * dy
                    sxx += value * dx * dx
                    sxy += value * dx * dy
                    syy += value * dy * dy
            if total <= 0.0:
                good = False
                break
            mx, my = sx / total, sy / total
            # The product of two equal Gaussians is half as wide: both steps are doubled.
            was_xx, was_xy, was_yy = cxx, cxy, cyy
            cxx = 2.0 * (sxx / total - mx * mx)
            cxy = 2.0 * (sxy / total - mx * my)
            cyy = 2.0 * (syy / total - my * my)
            x0, y0 = x0 + 2.0 * mx, y0 + 2.0 * my
            det = cxx * cyy - cxy * cxy
            wide = max(cxx, cyy) > _WIDEST * _WIDEST
            away = abs(x0 - xs[k]) > half or abs(y0 - ys[k]) > half
            if cxx <= 0.1 or cyy <= 0.1 or det <= 0.02 or wide or away:
                good = False
                break
            change = abs(cxx - was_xx) + abs(cxy - was_xy) + abs(cyy - was_yy)
            if change + abs(mx) + abs(my) < _SETTLED * (cxx + cyy):
                break
        if good:
            out[k, 0], out[k, 1] = x0, y0
            out[k, 2], out[k, 3], out[k, 4] = cxx, cxy, cyy
    return out
