"""The noise of a difference image, pixel by pixel, and the sky that is left on it."""

import math
from typing import Any

import numpy as np
from scipy.signal import fftconvolve

from broker.detection.differencing.width_map import WidthMap, grid_places
from broker.imaging.background import expand_mesh
from broker.imaging.image import Image
from broker.imaging.kernels import F32, F64, RUN_PX, Bools, compiled, grow
from broker.imaging.psf import GaussianPsf
from broker.imaging.subtract import Kernel, polynomials

_CLIP_SIGMAS = 3.0
_BLOCK_PX = 8
_HOT_SIGMAS = 4.0
"""A block with a pixel this far from 0, and those beside it, say nothing of the sky."""

_LEAST_SHARE = 0.1
"""A cell of the sky with fewer usable pixels takes the others' mean."""


_SAMPLE = 65_536


def typical(plane: F32) -> float:
    """Return the median of a smooth plane, from some 65,000 pixels spread evenly over it."""
    step = max(1, math.isqrt(plane.size // _SAMPLE))
    return float(np.median(plane[::step, ::step]))


def is_finite(pixels: F32) -> bool:
    """Return whether no pixel is NaN or infinite."""
    # The sum is finite only if all are, and takes no plane; else it may have overflowed.
    with np.errstate(invalid="ignore", over="ignore"):
        total = np.sum(pixels)
    return bool(np.isfinite(total) or np.isfinite(pixels).all())


@compiled
def take_sky(
    pixels: F32, level: F32, unusable: Bools, per_count: float, reading: float, out: F32
) -> None:
    """Subtract the sky, and make its plane that of the noise, in place.

    Parameters
    ----------
    pixels : NDArray[np.float32], shape (ny, nx)
    level : NDArray[np.float32], shape (ny, nx)
        The sky; afterwards the variance of sky and reading.
    unusable : NDArray[np.bool_], shape (ny, nx)
    per_count : float
        Variance for a count: 1 / gain.
    reading : float
        Variance of reading.
    out : NDArray[np.float32], shape (ny, nx)
        Filled with the pixels without sky, 0 where unusable.
    """
    zero, count, least = np.float32(0.0), np.float32(per_count), np.float32(reading)
    for y in range(pixels.shape[0]):
        for x in range(pixels.shape[1]):
            sky = level[y, x]
            out[y, x] = zero if unusable[y, x] else pixels[y, x] - sky
            level[y, x] = max(sky, zero) * count + least


@compiled
def subtract_light(pixels: F32, light: F32, level_y: F32, level_x: F32) -> F32:
    """Return pixels - light - (level_y + level_x), a plane that is the sum of two lines."""
    out = np.empty(pixels.shape, np.float32)
    for y in range(pixels.shape[0]):
        for x in range(pixels.shape[1]):
            out[y, x] = pixels[y, x] - light[y, x] - (level_y[y] + level_x[x])
    return out


def noise_shares(kernel: Kernel, widths: WidthMap) -> F32:
    """Return the power of convolved white noise that a PSF-weighted sum sees.

    Parameters
    ----------
    kernel : Kernel
        What the noise was convolved with.
    widths : WidthMap
        Of the PSF that weights the sum.

    Returns
    -------
    NDArray[np.float32], shape (n_bands, n_runs)
        Of each square of `RUN_PX` pixels, as a share of the power before the convolution with the
        kernel made to sum to 1: Σ (k * p)² / Σ p².
    """
    x, y = (v[::2, ::2] for v in grid_places(kernel.shape))
    places = zip(x.ravel(), y.ravel(), widths.at(x, y).ravel(), strict=True)
    shares = np.array([_share(kernel.at(a, b), s) for a, b, s in places])
    powers = polynomials(x.ravel(), y.ravel(), kernel.shape)
    terms = np.linalg.lstsq(powers.T, shares, rcond=None)[0]
    ny, nx = kernel.shape
    middle = RUN_PX / 2.0
    xx, yy = np.meshgrid(np.arange(0, nx, RUN_PX) + middle, np.arange(0, ny, RUN_PX) + middle)
    smooth = np.einsum("p,pyx->yx", terms, polynomials(xx, yy, kernel.shape))
    return np.clip(smooth, 0.8 * shares.min(), 1.2 * shares.max()).astype(np.float32)


def _share(kernel: F64, sigma: float) -> float:
    profile = GaussianPsf(sigma).profile(0.0, int(np.ceil(3.0 * sigma)))
    psf = np.outer(profile, profile)
    return float(np.sum(fftconvolve(psf, kernel / kernel.sum()) ** 2) / np.sum(psf**2))


def flat_shares(shape: tuple[int, int]) -> F32:
    """Return the shares of noise that was not convolved: 1, shape (n_bands, n_runs)."""
    return np.ones((-(-shape[0] // RUN_PX), -(-shape[1] // RUN_PX)), np.float32)


@compiled
def variance_plane(
    science: F32,
    template: F32,
    light: F32,
    of_science: F32,
    of_template: F32,
    per_count: float,
    scale: float,
    visits: float,
    model_error: float,
) -> F32:
    """Return the variance of a difference, white at the scale of the PSF.

    Parameters
    ----------
    science, template : NDArray[np.float32], shape (ny, nx)
        Variance of sky and reading.
    light : NDArray[np.float32], shape (ny, nx)
        Counts of the static sky, from the matched template.
    of_science, of_template : NDArray[np.float32], shape (n_bands, n_runs)
        From `noise_shares`.
    per_count : float
        Variance of the exposure for a count: 1 / gain.
    scale : float
        What the template's counts were multiplied by.
    visits : float
        Exposures that the template is made of.
    model_error : float
        Relative 1-sigma error of the matched template.
    """
    ny, nx = science.shape
    out = np.empty((ny, nx), np.float32)
    squared, error = np.float32(scale * scale), np.float32(model_error * model_error)
    count, deep = np.float32(per_count), np.float32(per_count * scale / visits)
    for y in range(ny):
        band = y // RUN_PX
        for k in range(of_science.shape[1]):
            i, j = k * RUN_PX, min(nx, (k + 1) * RUN_PX)
            # A function of its own on rows of its own: that is made of vector instructions.
            _variance_run(
                science[y, i:j], template[y, i:j], light[y, i:j],
                of_science[band, k], of_template[band, k], count, squared, deep, error,
                out[y, i:j],
            )  # fmt: skip
    return out


@compiled
def _variance_run(
    science: F32, template: F32, light: F32, a: Any, b: Any, count: Any, squared: Any, deep: Any,
    error: Any, out: F32,
) -> None:  # fmt: skip
    for x in range(out.size):
        star = max(light[x], np.float32(0.0))
        value = a * (science[x] + count * star) + b * (squared * template[x] + deep * star)
        out[x] = value + error * star * star


@compiled
def variance_around(
    variance: F32, light: F32, per_count: float, xs: F64, ys: F64, half: int
) -> F32:
    """Return a plane that holds variance + light * per_count around places, and nothing else.

    Parameters
    ----------
    variance, light : NDArray[np.float32], shape (ny, nx)
    per_count : float
    xs, ys : NDArray[np.float64], shape (n_places,)
    half : int
        It is filled in squares of 2 half + 1 pixels; what is elsewhere is not defined.
    """
    ny, nx = variance.shape
    out = np.empty((ny, nx), np.float32)
    share = np.float32(per_count)
    for k in range(xs.size):
        if not (abs(xs[k]) < 1e6 and abs(ys[k]) < 1e6):
            continue
        cx, cy = round(xs[k]), round(ys[k])
        for y in range(max(0, cy - half), min(ny, cy + half + 1)):
            for x in range(max(0, cx - half), min(nx, cx + half + 1)):
                out[y, x] = variance[y, x] + share * max(light[y, x], np.float32(0.0))
    return out


def position_scale(
    science: Image, template: Image, sigma: float, extra: float, forward: bool, scale: float
) -> float:
    """Return the error of a position over that of white noise of equal power for the flux.

    Parameters
    ----------
    science, template : Image
    sigma : float
        Of the difference's PSF. [pixel]
    extra : float
        By how much the exposure's squared width was raised. [pixel²]
    forward : bool
        Whether the template was convolved.
    scale : float
        What the template's counts were multiplied by.

    Notes
    -----
    A position is the product with the PSF's slope, which lies at higher frequency: smoothed noise
    has the square of the share there.
    """
    of_science = sigma**2 / (sigma**2 + extra)
    wider = max(sigma**2 - template.psf.sigma**2, 0.0) if forward else 0.0
    of_template = sigma**2 / (sigma**2 + wider)
    noise = typical(science.variance)
    deep = typical(template.variance) * scale**2
    flux = of_science * noise + of_template * deep
    place = of_science**2 * noise + of_template**2 * deep
    return float(np.sqrt(place / flux)) if flux > 0.0 else 1.0


def subtract_left_over_sky(
    pixels: F32, unusable: Bools, light: F32, variance: F32, *, cell_px: int
) -> float:
    """Subtract, in place, the sky that is left on a difference; return its largest value.

    Faint sources that raised the exposure's sky are gone here, and the noise is known, so one
    clipped mean of each cell is enough, without the blocks around what has changed.

    Parameters
    ----------
    pixels : NDArray[np.float32], shape (ny, nx)
    unusable : NDArray[np.bool_], shape (ny, nx)
    light, variance : NDArray[np.float32], shape (ny, nx)
        Pixels with much light of stars are left out.
    cell_px : int
    """
    total, count, hot = _blocks(pixels, unusable, light, variance)
    calm = ~grow(hot, 1)
    side = max(1, cell_px // _BLOCK_PX)
    level, used = _by_cell(total * calm, side), _by_cell(count * calm, side)
    known = used >= _LEAST_SHARE * (side * _BLOCK_PX) ** 2
    if not known.any():
        return 0.0
    level[known] /= used[known]
    level[~known] = np.mean(level[known])
    plane = expand_mesh(level, side * _BLOCK_PX, (pixels.shape[0], pixels.shape[1]))
    _subtract(pixels, plane)
    return float(np.abs(level).max())


def _by_cell(blocks: F32, side: int) -> F32:
    """Return sums over squares of side x side blocks; those at the far borders may be smaller."""
    rows = np.add.reduceat(blocks, np.arange(0, blocks.shape[0], side), axis=0)
    cells = np.add.reduceat(rows, np.arange(0, blocks.shape[1], side), axis=1)
    return np.asarray(cells, np.float32)


@compiled
def _subtract(pixels: F32, plane: F32) -> None:
    for y in range(pixels.shape[0]):
        for x in range(pixels.shape[1]):
            pixels[y, x] -= plane[y, x]


@compiled
def _blocks(pixels: F32, unusable: Bools, light: F32, variance: F32) -> tuple[F32, F32, Bools]:
    """Return sum and number of a block's quiet pixels, and whether it has one that is not."""
    ny, nx = pixels.shape
    rows, columns = (ny + _BLOCK_PX - 1) // _BLOCK_PX, (nx + _BLOCK_PX - 1) // _BLOCK_PX
    total = np.zeros((rows, columns), np.float32)
    count = np.zeros((rows, columns), np.float32)
    hot = np.zeros((rows, columns), np.bool_)
    clip, far = np.float32(_CLIP_SIGMAS**2), np.float32(_HOT_SIGMAS**2)
    zero, one, quarter = np.float32(0.0), np.float32(1.0), np.float32(0.25)
    # Column by column over a block's rows, whole rows at once; then the columns of each block.
    sums = np.zeros((3, columns * _BLOCK_PX), np.float32)
    for j in range(rows):
        sums[:] = zero
        part, used, most = sums[0], sums[1], sums[2]
        for y in range(j * _BLOCK_PX, min(ny, (j + 1) * _BLOCK_PX)):
            for x in range(nx):
                value, noise, star = pixels[y, x], variance[y, x], light[y, x]
                square = value * value
                known = not unusable[y, x]
                good = known & (square < clip * noise) & (star * star < quarter * noise)
                part[x] += value if good else zero
                used[x] += one if good else zero
                most[x] = max(most[x], square - far * noise if known else zero)
        for i in range(columns):
            a, b, c = zero, zero, zero
            for x in range(i * _BLOCK_PX, (i + 1) * _BLOCK_PX):
                a += part[x]
                b += used[x]
                c = max(c, most[x])
            total[j, i], count[j, i], hot[j, i] = a, b, c > zero
    return total, count, hot
