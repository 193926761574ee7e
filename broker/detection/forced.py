"""PSF flux at given places, source or not."""

import numpy as np

from broker.detection.measure import FIT_HALF_SIGMAS
from broker.detection.psf_table import psf_profile
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
    table = _forced(
        pixels,
        variance,
        unusable,
        np.asarray(x, np.float64),
        np.asarray(y, np.float64),
        float(psf_sigma),
        half,
    )
    return table[:, 0], table[:, 1]


@compiled
def _forced(
    pixels: F32, variance: F32, unusable: Bools, xs: F64, ys: F64, sigma: float, half: int
) -> F64:
    ny, nx = pixels.shape
    side = 2 * half + 1
    px, py, slope = np.empty(side), np.empty(side), np.empty(side)
    out = np.full((xs.size, 2), np.nan)
    for k in range(xs.size):
        if not (abs(xs[k]) < 1e6 and abs(ys[k]) < 1e6):
            continue
        cx, cy = round(xs[k]), round(ys[k])
        psf_profile(xs[k] - cx, half, sigma, px, slope)
        psf_profile(ys[k] - cy, half, sigma, py, slope)
        signal, norm, power, full = 0.0, 0.0, 0.0, 0.0
        for j in range(side):
            for i in range(side):
                p = px[i] * py[j]
                full += p * p
                y, x = cy + j - half, cx + i - half
                if y < 0 or x < 0 or y >= ny or x >= nx or unusable[y, x]:
                    continue
                weight = 1.0 / variance[y, x]
                signal += weight * p * pixels[y, x]
                norm += weight * p * p
                power += p * p
        if power > 0.25 * full and norm > 0.0:
            out[k, 0] = signal / norm
            out[k, 1] = 1.0 / np.sqrt(norm)
    return out
