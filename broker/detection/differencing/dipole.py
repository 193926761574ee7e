"""Whether a source of the opposite sign sits beside one: a badly registered star."""

import numpy as np

from broker.detection.measure import Fits
from broker.detection.psf_table import psf_profile
from broker.imaging.kernels import F32, F64, Bools, compiled

MIN_SNR = 3.5
"""Least S/N of the opposite lobe."""

MIN_SHARE = 0.35
"""Least ratio of the opposite lobe's S/N to the source's."""


def opposite_snr(
    pixels: F32, variance: F32, fits: Fits, *, psf_sigma: F64 | float, unusable: Bools
) -> F64:
    """Return the S/N of the strongest opposite-sign source beside each fitted one.

    Parameters
    ----------
    pixels, variance : NDArray[np.float32], shape (ny, nx)
    fits : Fits
        The sources, which are subtracted first.
    psf_sigma : float
        [pixel]
    unusable : NDArray[np.bool_], shape (ny, nx)

    Returns
    -------
    NDArray[np.float64], shape (n_sources,)
        Positive; within three PSF widths of the source.
    """
    widths = np.broadcast_to(np.asarray(psf_sigma, np.float64), fits.x.shape).copy()
    widest = float(widths.max(initial=1.0))
    half, reach = int(np.ceil(2.0 * widest)), int(np.ceil(3.0 * widest))
    return np.asarray(
        _opposite(pixels, variance, unusable, fits.x, fits.y, fits.flux, widths, half, reach)
    )


@compiled
def _opposite(
    pixels: F32,
    variance: F32,
    unusable: Bools,
    xs: F64,
    ys: F64,
    fluxes: F64,
    sigmas: F64,
    half: int,
    reach: int,
) -> F64:
    ny, nx = pixels.shape
    wide = half + reach
    side = 2 * wide + 1
    px, py, slope = np.empty(side), np.empty(side), np.empty(side)
    taps = np.empty(2 * half + 1)
    blank = np.empty(2 * half + 1)
    rest, noise = np.empty((side, side)), np.empty((side, side))
    out = np.zeros(xs.size)
    for k in range(xs.size):
        cx, cy, sigma = round(xs[k]), round(ys[k]), sigmas[k]
        psf_profile(0.0, half, sigma, taps, blank)
        psf_profile(xs[k] - cx, wide, sigma, px, slope)
        psf_profile(ys[k] - cy, wide, sigma, py, slope)
        sign = 1.0 if fluxes[k] >= 0.0 else -1.0
        for j in range(side):
            for i in range(side):
                y, x = cy + j - wide, cx + i - wide
                rest[j, i], noise[j, i] = 0.0, 0.0
                if 0 <= y < ny and 0 <= x < nx and not unusable[y, x]:
                    rest[j, i] = -sign * (pixels[y, x] - fluxes[k] * px[i] * py[j])
                    noise[j, i] = variance[y, x]
        for j in range(half, side - half):
            for i in range(half, side - half):
                if (j - wide) ** 2 + (i - wide) ** 2 > reach * reach:
                    continue
                signal, power = 0.0, 0.0
                for b in range(2 * half + 1):
                    for a in range(2 * half + 1):
                        weight = taps[a] * taps[b]
                        signal += weight * rest[j + b - half, i + a - half]
                        power += weight * weight * noise[j + b - half, i + a - half]
                if power > 0.0 and signal > 0.0:
                    out[k] = max(out[k], signal / np.sqrt(power))
    return out
