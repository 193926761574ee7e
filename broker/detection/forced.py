"""PSF flux at given places, source or not."""

from typing import Any

import numpy as np

from broker.detection.measure import FIT_HALF_SIGMAS
from broker.detection.psf_table import profile_from, psf_table
from broker.imaging.kernels import F32, F64, Bools, compiled


def half_width(psf_sigma: float) -> int:
    """Return how far from a place's pixel the pixels are that its forced flux is from."""
    return int(np.ceil(FIT_HALF_SIGMAS * psf_sigma))


def forced_flux(
    pixels: F32, variance: F32, x: F64, y: F64, *, psf_sigma: float, unusable: Bools
) -> tuple[F64, F64]:
    """Return the PSF flux at places and its 1-sigma error, in the image's unit.

    Parameters
    ----------
    pixels, variance : NDArray[np.float32], shape (ny, nx)
        Background-subtracted, and the variance from a model.
    x, y : NDArray[np.float64], shape (n_places,)
        Fractional pixels; a place may lie outside the image.
    psf_sigma : float
        [pixel]
    unusable : NDArray[np.bool_], shape (ny, nx)

    Returns
    -------
    flux, flux_err : NDArray[np.float64], shape (n_places,)
        NaN where less than a quarter of the PSF's power falls on usable pixels.
    """
    half = half_width(psf_sigma)
    xs, ys = np.asarray(x, np.float64), np.asarray(y, np.float64)
    # Row by row: neighbours' pixels are still in the processor's cache.
    order = np.argsort(np.rint(ys), kind="stable")
    table = np.empty((xs.size, 2))
    table[order] = _forced(pixels, variance, unusable, xs[order], ys[order], float(psf_sigma), half)
    return table[:, 0], table[:, 1]


@compiled
def _forced(
    pixels: F32, variance: F32, unusable: Bools, xs: F64, ys: F64, sigma: float, half: int
) -> F64:
    ny, nx = pixels.shape
    side = 2 * half + 1
    px, py, slope = np.empty(side), np.empty(side), np.empty(side)
    out = np.full((xs.size, 2), np.nan)
    table = psf_table(half + 2, sigma)
    for k in range(xs.size):
        if not (abs(xs[k]) < 1e6 and abs(ys[k]) < 1e6):
            continue
        cx, cy = round(xs[k]), round(ys[k])
        profile_from(table, xs[k] - cx, half, px, slope)
        profile_from(table, ys[k] - cy, half, py, slope)
        signal, norm, power, across, along = 0.0, 0.0, 0.0, 0.0, 0.0
        for i in range(side):
            across += px[i] * px[i]
            along += py[i] * py[i]
        full = across * along
        a, b = max(0, half - cx), min(side, nx + half - cx)
        narrow = px.astype(np.float32)
        for j in range(max(0, half - cy), min(side, ny + half - cy)):
            y, low, high = cy + j - half, cx + a - half, cx + b - half
            if a < b:
                row = _row(pixels[y, low:high], variance[y, low:high], unusable[y, low:high],
                           narrow[a:b])  # fmt: skip
                signal += py[j] * row[0]
                norm += py[j] * py[j] * row[1]
                power += py[j] * py[j] * row[2]
        if power > 0.25 * full and norm > 0.0:
            out[k, 0] = signal / norm
            out[k, 1] = 1.0 / np.sqrt(norm)
    return out


@compiled
def _row(pixels: F32, variance: F32, unusable: Bools, profile: F32) -> Any:
    """Return the sums of a row: of profile times pixel over variance, its square, and alone."""
    signal, norm, power = np.float32(0.0), np.float32(0.0), np.float32(0.0)
    zero, one = np.float32(0.0), np.float32(1.0)
    for x in range(pixels.size):
        # Where it is masked the variance may be 0.
        p = zero if unusable[x] else profile[x]
        weighed = p / (one if unusable[x] else variance[x])
        signal += weighed * (zero if unusable[x] else pixels[x])
        norm += weighed * p
        power += p * p
    return signal, norm, power
