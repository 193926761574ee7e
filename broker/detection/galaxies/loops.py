"""The compiled loops of galaxy fits: sums of Gaussians seen through a PSF that is one as well."""

import math

import numpy as np

from broker.imaging.kernels import F32, F64, Bools, compiled

N_PARTS = 6
"""Value, and the derivatives with x, y and the three numbers of the shape."""

_BOX_SIGMAS = 4.5
_PIXEL = 1.0 / 12.0
_STEPS = 40
_SMALLEST = 0.02


@compiled
def draw(
    profile: F64, psf: F64, x: float, y: float, a: float, b: float, c: float, half: int, out: F64
) -> None:
    """Fill a galaxy of flux 1 and its derivatives.

    Parameters
    ----------
    profile : NDArray[np.float64], shape (n, 2)
        Share and variance, in units of the shape's, of each Gaussian.
    psf : NDArray[np.float64], shape (m, 4)
        Share, xx, xy and yy of each Gaussian of the PSF. [pixel²]
    x, y : float
        Centre from the middle pixel. [pixel]
    a, b, c : float
        The shape is L Lᵀ with L = [[a, 0], [c, b]]. [pixel]
    half : int
    out : NDArray[np.float64], shape (6, 2 half + 1, 2 half + 1)
    """
    out[:] = 0.0
    vxx, vxy, vyy = a * a, a * c, b * b + c * c
    for g in range(profile.shape[0]):
        for m in range(psf.shape[0]):
            scale = profile[g, 1]
            xx = scale * vxx + psf[m, 1] + _PIXEL
            xy = scale * vxy + psf[m, 2]
            yy = scale * vyy + psf[m, 3] + _PIXEL
            det = xx * yy - xy * xy
            norm = profile[g, 0] * psf[m, 0] / (2.0 * math.pi * math.sqrt(det))
            p, q, r = yy / det, -xy / det, xx / det
            reach_x, reach_y = _BOX_SIGMAS * math.sqrt(xx), _BOX_SIGMAS * math.sqrt(yy)
            for j in range(max(-half, int(y - reach_y)), min(half, int(y + reach_y) + 1) + 1):
                dy = j - y
                for i in range(max(-half, int(x - reach_x)), min(half, int(x + reach_x) + 1) + 1):
                    dx = i - x
                    zx, zy = p * dx + q * dy, q * dx + r * dy
                    value = norm * math.exp(-0.5 * (dx * zx + dy * zy))
                    gxx = 0.5 * value * scale * (zx * zx - p)
                    gxy = value * scale * (zx * zy - q)
                    gyy = 0.5 * value * scale * (zy * zy - r)
                    k, n = j + half, i + half
                    out[0, k, n] += value
                    out[1, k, n] += value * zx
                    out[2, k, n] += value * zy
                    out[3, k, n] += 2.0 * a * gxx + c * gxy
                    out[4, k, n] += 2.0 * b * gyy
                    out[5, k, n] += a * gxy + 2.0 * c * gyy


@compiled
def _equations(
    pixels: F32,
    variance: F32,
    unusable: Bools,
    cx: int,
    cy: int,
    half: int,
    flux: float,
    prior: float,
    per_count: float,
    floor: float,
    parts: F64,
    normal: F64,
    right: F64,
) -> tuple[float, float]:
    ny, nx = pixels.shape
    normal[:] = 0.0
    right[:] = 0.0
    chi2, count = 0.0, 0.0
    row = np.empty(6)
    for j in range(2 * half + 1):
        for i in range(2 * half + 1):
            y, x = cy + j - half, cx + i - half
            if y < 0 or x < 0 or y >= ny or x >= nx or unusable[y, x]:
                continue
            value = parts[0, j, i]
            light = max(prior * value, 0.0)
            weight = 1.0 / max(variance[y, x] + light * per_count, floor)
            rest = pixels[y, x] - flux * value
            row[0] = value
            for m in range(1, 6):
                row[m] = flux * parts[m, j, i]
            for m in range(6):
                right[m] += weight * row[m] * rest
                for n in range(m, 6):
                    normal[m, n] += weight * row[m] * row[n]
            chi2 += weight * rest * rest
            count += 1.0
    for m in range(6):
        for n in range(m):
            normal[m, n] = normal[n, m]
    return chi2, count


@compiled
def solve(matrix: F64, right: F64, out: F64) -> bool:
    """Solve a positive definite system by Cholesky's method, in place; False if it is none."""
    n = right.size
    for j in range(n):
        for k in range(j):
            matrix[j, j] -= matrix[j, k] * matrix[j, k]
        if matrix[j, j] <= 0.0:
            return False
        matrix[j, j] = math.sqrt(matrix[j, j])
        for i in range(j + 1, n):
            for k in range(j):
                matrix[i, j] -= matrix[i, k] * matrix[j, k]
            matrix[i, j] /= matrix[j, j]
    for i in range(n):
        total = right[i]
        for k in range(i):
            total -= matrix[i, k] * out[k]
        out[i] = total / matrix[i, i]
    for i in range(n - 1, -1, -1):
        total = out[i]
        for k in range(i + 1, n):
            total -= matrix[k, i] * out[k]
        out[i] = total / matrix[i, i]
    return True


@compiled
def _moved(best: F64, step: F64, first: F64, half: int, trial: F64) -> bool:
    """Fill `trial` with the next try; False if it lies far from where the fit began."""
    shrink = max(1.0, 0.5 * max(abs(step[1]), abs(step[2])))
    for m in range(6):
        trial[m] = best[m] + step[m] / shrink
    trial[3], trial[4] = max(abs(trial[3]), _SMALLEST), max(abs(trial[4]), _SMALLEST)
    return max(abs(trial[1] - first[0]), abs(trial[2] - first[1])) <= 0.5 * half


@compiled
def fit_one(
    pixels: F32,
    variance: F32,
    unusable: Bools,
    cx: int,
    cy: int,
    half: int,
    profile: F64,
    psf: F64,
    first: F64,
    per_count: float,
    floor: float,
    row: F64,
) -> None:
    """Fit a galaxy by Levenberg's and Marquardt's method.

    Parameters
    ----------
    first : NDArray[np.float64], shape (5,)
        x, y from the middle pixel, and the shape to start with. [pixel]
    row : NDArray[np.float64], shape (9,)
        Filled: flux, x, y, a, b, c, error of the flux, chi² and number of pixels.
    """
    parts = np.empty((N_PARTS, 2 * half + 1, 2 * half + 1))
    normal, right, step = np.empty((6, 6)), np.empty(6), np.empty(6)
    best = np.empty(6)
    best[1:] = first
    draw(profile, psf, best[1], best[2], best[3], best[4], best[5], half, parts)
    flux = 0.0
    for _ in range(3):
        _equations(pixels, variance, unusable, cx, cy, half, 0.0, flux, per_count, floor, parts,
                   normal, right)  # fmt: skip
        flux = right[0] / normal[0, 0] if normal[0, 0] > 0.0 else 0.0
    best[0], prior, damp = flux, flux, 1e-3
    row[:] = np.nan
    if flux <= 0.0:
        return
    chi2, count = _equations(pixels, variance, unusable, cx, cy, half, flux, prior, per_count,
                             floor, parts, normal, right)  # fmt: skip
    trial, matrix = np.empty(6), np.empty((6, 6))
    for _ in range(_STEPS):
        matrix[:] = normal
        for m in range(6):
            matrix[m, m] *= 1.0 + damp
            matrix[m, m] += 1e-12 * normal[0, 0] * flux * flux + 1e-30
        if not solve(matrix, right, step):
            damp *= 10.0
            if damp > 1e6:
                break
            continue
        if not _moved(best, step, first, half, trial):
            damp *= 10.0
            if damp > 1e6:
                break
            continue
        draw(profile, psf, trial[1], trial[2], trial[3], trial[4], trial[5], half, parts)
        new, count = _equations(pixels, variance, unusable, cx, cy, half, trial[0], prior,
                                per_count, floor, parts, normal, right)  # fmt: skip
        if new <= chi2:
            done = chi2 - new < 1e-3
            best[:] = trial
            chi2 = new
            damp = max(damp * 0.2, 1e-9)
            if done:
                break
        else:
            damp *= 10.0
            draw(profile, psf, best[1], best[2], best[3], best[4], best[5], half, parts)
            _equations(pixels, variance, unusable, cx, cy, half, best[0], prior, per_count, floor,
                       parts, normal, right)  # fmt: skip
            if damp > 1e6:
                break
    draw(profile, psf, best[1], best[2], best[3], best[4], best[5], half, parts)
    chi2, count = _equations(pixels, variance, unusable, cx, cy, half, best[0], best[0], per_count,
                             floor, parts, normal, right)  # fmt: skip
    row[0:6] = best
    row[7], row[8] = chi2, count
    right[:] = 0.0
    right[0] = 1.0
    for m in range(6):
        normal[m, m] += 1e-9 * normal[m, m] + 1e-30
    if solve(normal, right, step) and step[0] > 0.0:
        row[6] = math.sqrt(step[0])
