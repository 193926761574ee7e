"""What lies around a source on the difference and speaks against it.

An artefact of the subtraction is as strong as the star under it allows: a peak that a shift of a
tenth of a pixel or a slightly wrong width of the PSF would make is no discovery.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from broker.detection.detect import Peaks
from broker.detection.differencing.difference import Difference
from broker.detection.measure import Fits
from broker.imaging.kernels import F32, F64, Bools, compiled
from broker.imaging.mask import MaskPlane

MOST = 1e3
"""Shifts and relative widths above this are given as this: no static light is there."""

_REACH_SIGMAS = 3.0
_CROWD_SIGMAS = 12.0


@dataclass(frozen=True)
class Surroundings:
    """What lies around sources, arrays of shape (n_sources,).

    Parameters
    ----------
    opposite_share : share of the power within 3 PSF widths that has the opposite sign.
    struck_share : share of the PSF on pixels struck by cosmic rays, and beside them.
    offset : distance of the fitted place from the peak, in PSF widths.
    shift : by how much the static light would have to be off its place to leave the peak [pixel].
    width_change : relative change of the PSF's width that would leave the peak.
    neighbours : number of other sources within 12 PSF widths.
    """

    opposite_share: F64
    struck_share: F64
    offset: F64
    shift: F64
    width_change: F64
    neighbours: F64


def surroundings(difference: Difference, peaks: Peaks, fits: Fits) -> Surroundings:
    """Return what lies around detected and fitted sources.

    Parameters
    ----------
    difference : Difference
    peaks : Peaks
    fits : Fits
        Of these peaks.
    """
    sigma = float(difference.psf_sigma)
    x, y = np.asarray(peaks.x, np.int64), np.asarray(peaks.y, np.int64)
    sign = np.where(peaks.snr < 0.0, -1.0, 1.0)
    around = _around(
        difference.pixels,
        difference.variance,
        difference.unusable,
        difference.science.mask,
        np.uint16(MaskPlane.COSMIC_RAY),
        x,
        y,
        sign,
        sigma,
    )
    steepest, curved = _static_light(difference.star_light, x, y, round(1.5 * sigma))
    widths = difference.width_at(fits.x, fits.y)
    peak = np.abs(fits.flux) / (2.0 * np.pi * widths**2)
    tiny = np.finfo(np.float64).tiny
    # To first order a shift d adds d · ∇L, a relative change w of the width w σ² ∇²L.
    return Surroundings(
        around[:, 0],
        around[:, 1],
        np.hypot(fits.x - x, fits.y - y) / widths,
        np.minimum(peak / np.maximum(steepest, tiny), MOST),
        np.minimum(peak / np.maximum(widths**2 * curved, tiny), MOST),
        _neighbours(x, y, _CROWD_SIGMAS * sigma),
    )


def _neighbours(x: NDArray[np.int64], y: NDArray[np.int64], reach: float) -> F64:
    from scipy.spatial import cKDTree

    if x.size == 0:
        return np.empty(0)
    places = np.column_stack([x, y])
    near = cKDTree(places).query_ball_point(places, reach, return_length=True)
    return np.asarray(near, np.float64) - 1.0


@compiled
def _around(
    pixels: F32,
    variance: F32,
    unusable: Bools,
    mask: NDArray[np.uint16],
    struck: Any,
    xs: NDArray[np.int64],
    ys: NDArray[np.int64],
    signs: F64,
    sigma: float,
) -> F64:
    ny, nx = pixels.shape
    half = int(np.ceil(_REACH_SIGMAS * sigma))
    weights = np.exp(-0.125 * np.arange(-half, half + 1) ** 2 / sigma**2)
    out = np.zeros((xs.size, 2))
    for k in range(xs.size):
        against, power, hit, total = 0.0, 0.0, 0.0, 0.0
        for j in range(2 * half + 1):
            for i in range(2 * half + 1):
                y, x = ys[k] + j - half, xs[k] + i - half
                if y < 0 or x < 0 or y >= ny or x >= nx:
                    continue
                weight = weights[j] * weights[i]
                total += weight
                if mask[y, x] & struck:
                    hit += weight
                if unusable[y, x] or variance[y, x] <= 0.0:
                    continue
                value = signs[k] * pixels[y, x]
                square = weight * value * value / variance[y, x]
                power += square
                if value < 0.0:
                    against += square
        out[k, 0] = against / power if power > 0.0 else 1.0
        out[k, 1] = hit / total
    return out


@compiled
def _static_light(
    light: F32, xs: NDArray[np.int64], ys: NDArray[np.int64], half: int
) -> tuple[F64, F64]:
    # The steepest slope and the strongest curvature (either sign) near each peak.
    ny, nx = light.shape
    steepest, curved = np.zeros(xs.size), np.zeros(xs.size)
    for k in range(xs.size):
        for y in range(max(1, ys[k] - half), min(ny - 1, ys[k] + half + 1)):
            for x in range(max(1, xs[k] - half), min(nx - 1, xs[k] + half + 1)):
                right, left = float(light[y, x + 1]), float(light[y, x - 1])
                up, down = float(light[y + 1, x]), float(light[y - 1, x])
                slope = 0.5 * np.sqrt((right - left) ** 2 + (up - down) ** 2)
                bend = abs(right + left + up + down - 4.0 * float(light[y, x]))
                steepest[k] = max(steepest[k], slope)
                curved[k] = max(curved[k], bend)
    return steepest, curved
