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

from broker.imaging.kernels import F32, F64, Bools, compiled

FIT_HALF_SIGMAS = 3.5
"""Half width of the fitted square, in PSF widths."""

MAX_SHIFT_SIGMAS = 1.25
"""A fit that goes further from the peak than this, in PSF widths, has failed."""

_ITERATIONS = 20
_ROOT2 = math.sqrt(2.0)


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
def psf_profile(offset: float, half: int, sigma: float, share: F64, slope: F64) -> None:
    """Fill a PSF's share in each pixel from -half to half, and its derivative with the place.

    Parameters
    ----------
    offset : float
        Place of the source from the middle pixel's centre. [pixel]
    half : int
    sigma : float
        Width of the Gaussian. [pixel]
    share, slope : NDArray[np.float64], shape (2 half + 1,)
    """
    norm = 1.0 / (sigma * math.sqrt(2.0 * math.pi))
    edge = (-half - 0.5 - offset) / sigma
    low, density = math.erf(edge / _ROOT2), norm * math.exp(-0.5 * edge * edge)
    for i in range(2 * half + 1):
        edge = (i - half + 0.5 - offset) / sigma
        high, next_density = math.erf(edge / _ROOT2), norm * math.exp(-0.5 * edge * edge)
        share[i] = 0.5 * (high - low)
        slope[i] = density - next_density
        low, density = high, next_density


@compiled
def _sums(
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
    px: F64,
    sx: F64,
    py: F64,
    sy: F64,
    normal: F64,
    right: F64,
) -> tuple[float, float, float, float]:
    # Normal equations of the residuals at (flux, place); the weights are those of the flux
    # `prior` of the step before, so that they do not follow the noise of the pixels.
    ny, nx = pixels.shape
    normal[:] = 0.0
    right[:] = 0.0
    chi2, count, power, full = 0.0, 0.0, 0.0, 0.0
    for j in range(2 * half + 1):
        for i in range(2 * half + 1):
            p = px[i] * py[j]
            full += p * p
            y, x = cy + j - half, cx + i - half
            if y < 0 or x < 0 or y >= ny or x >= nx or unusable[y, x]:
                continue
            weight = 1.0 / max(variance[y, x] + prior * p * per_count, floor)
            gx, gy = flux * sx[i] * py[j], flux * px[i] * sy[j]
            rest = pixels[y, x] - flux * p
            normal[0, 0] += weight * p * p
            normal[0, 1] += weight * p * gx
            normal[0, 2] += weight * p * gy
            normal[1, 1] += weight * gx * gx
            normal[1, 2] += weight * gx * gy
            normal[2, 2] += weight * gy * gy
            right[0] += weight * p * rest
            right[1] += weight * gx * rest
            right[2] += weight * gy * rest
            chi2 += weight * rest * rest
            count += 1.0
            power += p * p
    normal[1, 0], normal[2, 0], normal[2, 1] = normal[0, 1], normal[0, 2], normal[1, 2]
    return chi2, count, power, full


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
    side = 2 * half + 1
    px, sx, py, sy = np.empty(side), np.empty(side), np.empty(side), np.empty(side)
    normal, right = np.empty((3, 3)), np.empty(3)
    out = np.zeros((xs.size, 9))
    reach = max(1.5, MAX_SHIFT_SIGMAS * sigma)
    for k in range(xs.size):
        dx, dy, flux, failed = 0.0, 0.0, 0.0, 0.0
        for step in range(_ITERATIONS):
            psf_profile(dx, half, sigma, px, sx)
            psf_profile(dy, half, sigma, py, sy)
            if step == 0 or failed > 0.0:
                # Flux alone, at the peak's pixel.
                for _ in range(2):
                    _sums(
                        pixels, variance, unusable, xs[k], ys[k], half, 0.0, flux, per_count, floor,
                        px, sx, py, sy, normal, right,
                    )  # fmt: skip
                    flux = right[0] / normal[0, 0] if normal[0, 0] > 0.0 else 0.0
                if flux == 0.0 or failed > 0.0:
                    break
            _sums(
                pixels, variance, unusable, xs[k], ys[k], half, flux, flux, per_count, floor,
                px, sx, py, sy, normal, right,
            )  # fmt: skip
            a, b, c = normal[1, 1], normal[1, 2], normal[2, 2]
            det = a * c - b * b
            if det <= 0.0:
                failed, dx, dy = 1.0, 0.0, 0.0
                continue
            move_x = (c * right[1] - b * right[2]) / det
            move_y = (a * right[2] - b * right[1]) / det
            limit = max(1.0, max(abs(move_x), abs(move_y)) / (0.5 * sigma))
            dx, dy = dx + move_x / limit, dy + move_y / limit
            if abs(dx) > reach or abs(dy) > reach:
                failed, dx, dy = 1.0, 0.0, 0.0
                continue
            flux += right[0] / normal[0, 0]
            if abs(move_x) + abs(move_y) < 1e-4:
                break
        psf_profile(dx, half, sigma, px, sx)
        psf_profile(dy, half, sigma, py, sy)
        chi2, count, power, full = _sums(
            pixels, variance, unusable, xs[k], ys[k], half, flux, flux, per_count, floor,
            px, sx, py, sy, normal, right,
        )  # fmt: skip
        _write(out[k], normal, flux, xs[k] + dx, ys[k] + dy, chi2, count, power / full, failed)
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
