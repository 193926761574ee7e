"""Flux, place and shape of point sources, at the limit that the noise sets.

The fit is that of maximum likelihood for a pixel-integrated Gaussian PSF, with the noise from a
model (sky, template, the source itself), never from the pixel's own value, which would bias faint
fluxes by 3 %. Errors are those of the Fisher matrix (Mendez et al. 2013, PASP 125 580).
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from broker.detection.psf_table import profile_from, psf_profile, psf_table
from broker.imaging.kernels import F32, F64, Bools, compiled

FIT_HALF_SIGMAS = 3.5
"""Half width of the fitted square, in PSF widths."""

MAX_SHIFT_SIGMAS = 1.25
"""A fit that goes further from the peak than this, in PSF widths, has failed."""

_ITERATIONS = 20
_CONVERGED_PX = 3e-4
"""A step this small is the last: the next would be a tenth of it, far below any error."""


@dataclass(frozen=True)
class Noise:
    """What the noise of an image with sources is made of, beyond the variance plane.

    Parameters
    ----------
    gain : float
        Electrons of one count: a source's own counts add their number over `gain` to the variance.
    floor : float
        Least variance of a pixel, that of sky and reading: what remains if a source fades.
    """

    gain: float
    floor: float


@dataclass(frozen=True)
class Fits:
    """PSF fits, arrays of shape (n_sources,); fluxes in the image's unit, lengths in pixels.

    Parameters
    ----------
    flux, flux_err, x, y, x_err, y_err
        Result and 1-sigma errors.
    chi2 : per degree of freedom.
    usable : share of the PSF's power on usable pixels.
    failed : the place is the peak's, since the fit left it.
    """

    flux: F64
    flux_err: F64
    x: F64
    y: F64
    x_err: F64
    y_err: F64
    chi2: F64
    usable: F64
    failed: Bools


def fit_sources(
    pixels: F32,
    variance: F32,
    x: NDArray[Any],
    y: NDArray[Any],
    *,
    psf_sigma: float,
    noise: Noise,
    unusable: Bools,
) -> Fits:
    """Fit flux and place of point sources near given pixels, each for itself.

    Parameters
    ----------
    pixels, variance : NDArray[np.float32], shape (ny, nx)
        Without background; the variance without the sources to be fitted.
    x, y : NDArray of int, shape (n_sources,)
        Peak pixels.
    psf_sigma : float
        [pixel]
    noise : Noise
    unusable : NDArray[np.bool_], shape (ny, nx)
    """
    half = int(np.ceil(FIT_HALF_SIGMAS * psf_sigma))
    table = _fit_all(
        pixels,
        variance,
        unusable,
        np.asarray(x, np.int64),
        np.asarray(y, np.int64),
        float(psf_sigma),
        half,
        1.0 / noise.gain,
        noise.floor,
    )
    flux, flux_err, x, y, x_err, y_err, chi2, usable, failed = table.T
    return Fits(flux, flux_err, x, y, x_err, y_err, chi2, usable, failed > 0.0)


@compiled
def _take(pixels: F32, variance: F32, unusable: Bools, cx: int, cy: int, stamp: F64) -> None:
    # Pixel, variance and 1 or 0 for usable, side by side; what is unusable weighs nothing.
    ny, nx = pixels.shape
    side = stamp.shape[1]
    half = side // 2
    stamp[0, :, :] = 0.0
    stamp[1, :, :] = 1.0
    stamp[2, :, :] = 0.0
    for j in range(max(0, half - cy), min(side, ny + half - cy)):
        for i in range(max(0, half - cx), min(side, nx + half - cx)):
            y, x = cy + j - half, cx + i - half
            good = 0.0 if unusable[y, x] else 1.0
            stamp[0, j, i] = pixels[y, x] if good > 0.0 else 0.0
            stamp[1, j, i] = variance[y, x] if good > 0.0 else 1.0
            stamp[2, j, i] = good


@compiled
def _flux_alone(
    stamp: F64, px: F64, py: F64, prior: float, per_count: float, floor: float
) -> float:
    signal, norm = 0.0, 0.0
    for j in range(stamp.shape[1]):
        for i in range(stamp.shape[2]):
            p = px[i] * py[j]
            weight = stamp[2, j, i] * p / max(stamp[1, j, i] + prior * p * per_count, floor)
            signal += weight * stamp[0, j, i]
            norm += weight * p
    return signal / norm if norm > 0.0 else 0.0


@compiled
def _sums(
    stamp: F64,
    flux: float,
    per_count: float,
    floor: float,
    px: F64,
    sx: F64,
    py: F64,
    sy: F64,
    normal: F64,
    right: F64,
) -> float:
    # Normal equations of the residuals at (flux, place) and their chi2; the weights are those of
    # the flux of the step before, so that they do not follow the noise of the pixels.
    pp, pu, pv, uu, uv, vv = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    rp, ru, rv, chi2 = 0.0, 0.0, 0.0, 0.0
    for j in range(stamp.shape[1]):
        across, slope = py[j], sy[j]
        for i in range(stamp.shape[2]):
            p, u, v = px[i] * across, sx[i] * across, px[i] * slope
            weight = stamp[2, j, i] / max(stamp[1, j, i] + flux * p * per_count, floor)
            rest = stamp[0, j, i] - flux * p
            wp, wu, wv = weight * p, weight * u, weight * v
            pp += wp * p
            pu += wp * u
            pv += wp * v
            uu += wu * u
            uv += wu * v
            vv += wv * v
            rp += wp * rest
            ru += wu * rest
            rv += wv * rest
            chi2 += weight * rest * rest
    normal[0, 0], normal[0, 1], normal[0, 2] = pp, flux * pu, flux * pv
    normal[1, 1], normal[1, 2], normal[2, 2] = flux * flux * uu, flux * flux * uv, flux * flux * vv
    normal[1, 0], normal[2, 0], normal[2, 1] = normal[0, 1], normal[0, 2], normal[1, 2]
    right[0], right[1], right[2] = rp, flux * ru, flux * rv
    return chi2


@compiled
def _usable_power(stamp: F64, px: F64, py: F64) -> tuple[float, float]:
    """Return the usable pixels, and their share of the PSF's power."""
    count, power, full = 0.0, 0.0, 0.0
    for j in range(stamp.shape[1]):
        for i in range(stamp.shape[2]):
            square = (px[i] * py[j]) ** 2
            count += stamp[2, j, i]
            power += stamp[2, j, i] * square
            full += square
    return count, power / full


@compiled
def _fit_all(
    pixels: F32,
    variance: F32,
    unusable: Bools,
    xs: NDArray[np.int64],
    ys: NDArray[np.int64],
    sigma: float,
    half: int,
    per_count: float,
    floor: float,
) -> F64:
    # Rows padded to whole vector instructions.
    side, width = 2 * half + 1, (2 * half + 8) // 8 * 8
    px, sx, py, sy = np.zeros(width), np.zeros(width), np.zeros(width), np.zeros(width)
    centre, slope = np.zeros(width), np.zeros(width)
    normal, right, stamp = np.zeros((3, 3)), np.zeros(3), np.empty((3, side, width))
    out = np.zeros((xs.size, 9))
    reach = max(1.5, MAX_SHIFT_SIGMAS * sigma)
    table = psf_table(half + int(np.ceil(reach)) + 1, sigma)
    psf_profile(0.0, half, sigma, centre, slope)
    for k in range(xs.size):
        _take(pixels, variance, unusable, xs[k], ys[k], stamp)
        # Flux alone, at the peak's pixel.
        first = _flux_alone(stamp, centre, centre, 0.0, per_count, floor)
        first = _flux_alone(stamp, centre, centre, first, per_count, floor)
        dx, dy, flux, failed = 0.0, 0.0, first, 0.0
        for _ in range(_ITERATIONS if flux != 0.0 else 0):
            profile_from(table, dx, half, px, sx)
            profile_from(table, dy, half, py, sy)
            _sums(stamp, flux, per_count, floor, px, sx, py, sy, normal, right)
            a, b, c = normal[1, 1], normal[1, 2], normal[2, 2]
            det = a * c - b * b
            if det <= 0.0:
                failed = 1.0
                break
            move_x = (c * right[1] - b * right[2]) / det
            move_y = (a * right[2] - b * right[1]) / det
            limit = max(1.0, max(abs(move_x), abs(move_y)) / (0.5 * sigma))
            dx, dy = dx + move_x / limit, dy + move_y / limit
            if abs(dx) > reach or abs(dy) > reach:
                failed = 1.0
                break
            flux += right[0] / normal[0, 0]
            if abs(move_x) + abs(move_y) < _CONVERGED_PX:
                break
        if failed > 0.0:
            dx, dy, flux = 0.0, 0.0, first
        profile_from(table, dx, half, px, sx)
        profile_from(table, dy, half, py, sy)
        chi2 = _sums(stamp, flux, per_count, floor, px, sx, py, sy, normal, right)
        count, share = _usable_power(stamp, px, py)
        _write(out[k], normal, flux, xs[k] + dx, ys[k] + dy, chi2, count, share, failed)
    return out


@compiled
def _write(
    row: F64,
    normal: F64,
    flux: float,
    x: float,
    y: float,
    chi2: float,
    count: float,
    usable: float,
    failed: float,
) -> None:
    # Variances from the inverse of the 3 x 3 Fisher matrix, by cofactors.
    a, b, c = normal[0, 0], normal[0, 1], normal[0, 2]
    d, e, f = normal[1, 1], normal[1, 2], normal[2, 2]
    det = a * (d * f - e * e) - b * (b * f - c * e) + c * (b * e - c * d)
    row[0], row[2], row[3] = flux, x, y
    row[6] = chi2 / max(count - 3.0, 1.0)
    row[7], row[8] = usable, failed
    row[1] = row[4] = row[5] = np.inf
    if det > 0.0:
        row[1] = math.sqrt((d * f - e * e) / det)
        row[4] = math.sqrt((a * f - c * c) / det)
        row[5] = math.sqrt((a * d - b * b) / det)
    elif a > 0.0:
        row[1] = math.sqrt(1.0 / a)


def moments(
    pixels: F32, x: F64, y: F64, sign: F64, *, psf_sigma: float, unusable: Bools
) -> tuple[F64, F64]:
    """Return full width at half maximum [pixel] and elongation of sources.

    Parameters
    ----------
    pixels : NDArray[np.float32], shape (ny, nx)
    x, y, sign : NDArray[np.float64], shape (n_sources,)
        Places; +1 or -1 for positive and negative sources.
    psf_sigma : float
        Width of the Gaussian weight, whose effect is taken out again. [pixel]
    unusable : NDArray[np.bool_], shape (ny, nx)

    Returns
    -------
    fwhm, elongation : NDArray[np.float64], shape (n_sources,)
        NaN where the moments are those of no Gaussian, as noise can make them.

    Notes
    -----
    For a Gaussian of covariance C and a weight W, the weighted moments are (C⁻¹ + W⁻¹)⁻¹
    (Bernstein & Jarvis 2002, AJ 123 583, section 3).
    """
    half = int(np.ceil(3.0 * psf_sigma))
    raw = _moments(pixels, unusable, x, y, sign, psf_sigma, half)
    with np.errstate(invalid="ignore", divide="ignore"):
        xx, xy, yy = raw[:, 0], raw[:, 1], raw[:, 2]
        det = xx * yy - xy * xy
        a, b, c = yy / det - psf_sigma**-2, -xy / det, xx / det - psf_sigma**-2
        inverse = a * c - b * b
        good = (det > 0.0) & (xx > 0.0) & (inverse > 0.0) & (a > 0.0)
        mean, gap = 0.5 * (a + c), np.hypot(0.5 * (a - c), b)
        fwhm = 2.0 * math.sqrt(2.0 * math.log(2.0)) * inverse**-0.25
        elongation = np.sqrt((mean + gap) / (mean - gap))
    return np.where(good, fwhm, np.nan), np.where(good, elongation, np.nan)


@compiled
def _moments(
    pixels: F32, unusable: Bools, xs: F64, ys: F64, signs: F64, sigma: float, half: int
) -> F64:
    ny, nx = pixels.shape
    out = np.zeros((xs.size, 3))
    for k in range(xs.size):
        cx, cy = round(xs[k]), round(ys[k])
        total, xx, xy, yy = 0.0, 0.0, 0.0, 0.0
        for y in range(max(0, cy - half), min(ny, cy + half + 1)):
            for x in range(max(0, cx - half), min(nx, cx + half + 1)):
                if unusable[y, x]:
                    continue
                dx, dy = x - xs[k], y - ys[k]
                value = signs[k] * pixels[y, x]
                value *= math.exp(-0.5 * (dx * dx + dy * dy) / (sigma * sigma))
                total += value
                xx += value * dx * dx
                xy += value * dx * dy
                yy += value * dy * dy
        if total > 0.0:
            out[k, 0], out[k, 1], out[k, 2] = xx / total, xy / total, yy / total
    return out
