"""The compiled sums over stars' pixels for the fit of a PSF that is a sum of Gaussians."""

import math

import numpy as np
from numpy.typing import NDArray

from broker.imaging.kernels import F64, compiled

MODEL_ERROR = 0.01
"""Relative error of the model of a star, which weighs the middle of bright ones less."""

PIXEL = 1.0 / 12.0
"""Second moment of a pixel's square: added to a Gaussian's, it is its integral to 1e-3. [pixel²]"""

Flags = NDArray[np.bool_]


@compiled
def _inverse(widths: F64, moments: F64, out: F64) -> None:
    """Write a, b, c of each Gaussian's inverse moments, and its height."""
    for k in range(widths.size):
        square = widths[k] * widths[k]
        xx, xy, yy = square * moments[0] + PIXEL, square * moments[1], square * moments[2] + PIXEL
        det = xx * yy - xy * xy
        out[k, 0], out[k, 1], out[k, 2] = yy / det, -xy / det, xx / det
        out[k, 3] = 1.0 / (2.0 * math.pi * math.sqrt(det))


@compiled
def shape_sums(
    data: F64,
    variance: F64,
    usable: Flags,
    at_x: F64,
    at_y: F64,
    x: F64,
    y: F64,
    flux: F64,
    moments: F64,
    widths: F64,
    shares: F64,
    gain: float,
) -> tuple[F64, F64, F64, F64]:
    """Return normal equations of flux, place and moments of each star, chi-square and pixels.

    Shapes (n_stars, 6, 6), (n_stars, 6), (n_stars,) and (n_stars,).
    """
    n = x.size
    normal, right = np.zeros((n, 6, 6)), np.zeros((n, 6))
    chi2, count = np.zeros(n), np.zeros(n)
    inverse, s = np.empty((widths.size, 4)), np.empty(6)
    for star in range(n):
        _inverse(widths, moments[star], inverse)
        for p in range(data.shape[1]):
            if not usable[star, p]:
                continue
            dx, dy = at_x[star, p] - x[star], at_y[star, p] - y[star]
            s[:] = 0.0
            for k in range(widths.size):
                a, b, c, height = inverse[k, 0], inverse[k, 1], inverse[k, 2], inverse[k, 3]
                zx, zy = a * dx + b * dy, b * dx + c * dy
                value = shares[k] * height * math.exp(-0.5 * (dx * zx + dy * zy))
                square = widths[k] * widths[k] * value
                s[0] += value
                s[1] += value * zx
                s[2] += value * zy
                s[3] += 0.5 * square * (zx * zx - a)
                s[4] += square * (zx * zy - b)
                s[5] += 0.5 * square * (zy * zy - c)
            light = flux[star] * s[0]
            wrong = MODEL_ERROR * light
            weight = 1.0 / (variance[star, p] + max(light, 0.0) / gain + wrong * wrong)
            rest = data[star, p] - light
            for i in range(1, 6):
                s[i] *= flux[star]
            for i in range(6):
                part = weight * s[i]
                right[star, i] += part * rest
                for j in range(i, 6):
                    normal[star, i, j] += part * s[j]
            chi2[star] += weight * rest * rest
            count[star] += 1.0
        for i in range(6):
            for j in range(i):
                normal[star, i, j] = normal[star, j, i]
    return normal, right, chi2, count


@compiled
def share_sums(
    data: F64,
    variance: F64,
    usable: Flags,
    at_x: F64,
    at_y: F64,
    x: F64,
    y: F64,
    flux: F64,
    moments: F64,
    widths: F64,
    shares: F64,
    gain: float,
) -> tuple[F64, F64]:
    """Return normal equations of the shares, shapes (n_widths, n_widths) and (n_widths,)."""
    m = widths.size
    normal, right = np.zeros((m, m)), np.zeros(m)
    inverse, parts = np.empty((m, 4)), np.empty(m)
    for star in range(x.size):
        _inverse(widths, moments[star], inverse)
        for p in range(data.shape[1]):
            if not usable[star, p]:
                continue
            dx, dy = at_x[star, p] - x[star], at_y[star, p] - y[star]
            light = 0.0
            for k in range(m):
                power = inverse[k, 0] * dx * dx + 2.0 * inverse[k, 1] * dx * dy
                power += inverse[k, 2] * dy * dy
                parts[k] = flux[star] * inverse[k, 3] * math.exp(-0.5 * power)
                light += shares[k] * parts[k]
            wrong = MODEL_ERROR * light
            weight = 1.0 / (variance[star, p] + max(light, 0.0) / gain + wrong * wrong)
            for i in range(m):
                part = weight * parts[i]
                right[i] += part * data[star, p]
                for j in range(i, m):
                    normal[i, j] += part * parts[j]
    for i in range(m):
        for j in range(i):
            normal[i, j] = normal[j, i]
    return normal, right
