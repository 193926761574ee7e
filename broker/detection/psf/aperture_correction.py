"""What the fitted PSF misses of a star's light: what it leaves around the image's own stars."""

from dataclasses import dataclass

import numpy as np

from broker.detection.galaxies.photometry import aperture_photometry
from broker.imaging.kernels import F32, F64, Bools

RADIUS_SIGMAS = 5.0
"""Radius of the aperture, in PSF widths."""

LEAST_STARS = 5
_LEAST_SNR = 50.0
_CLIP_SIGMAS = 3.0
_ROUNDS = 6


@dataclass(frozen=True)
class ApertureCorrection:
    """The ratio of an aperture's flux to that of the PSF.

    Parameters
    ----------
    factor : float
        What PSF fluxes are to be multiplied by: the ratio, less what its error makes of it.
    ratio, error : float
        Measured, and its 1-sigma error.
    n_stars : int
    """

    factor: float
    ratio: float
    error: float
    n_stars: int


def measure_correction(
    residual: F32,
    variance: F32,
    x: F64,
    y: F64,
    flux: F64,
    flux_err: F64,
    *,
    stars: Bools,
    psf_sigma: float,
    gain: float,
    unusable: Bools,
) -> ApertureCorrection:
    """Measure the correction on what is left of an image when all its sources are subtracted.

    So neighbours do not count, and the noise of the star's own photons almost cancels.

    Parameters
    ----------
    residual, variance : NDArray[np.float32], shape (ny, nx)
    x, y, flux, flux_err : NDArray[np.float64], shape (n_sources,)
    stars : NDArray[np.bool_], shape (n_sources,)
        Which of them are good point sources.
    psf_sigma, gain : float
    unusable : NDArray[np.bool_], shape (ny, nx)

    Returns
    -------
    ApertureCorrection
        A factor of 1 with fewer than five stars.

    Notes
    -----
    The factor is shrunk towards 1 by (1 - error² / (ratio - 1)²), as James & Stein (1961) do: a
    correction that is not seen is not made.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        rows = np.flatnonzero(stars & (flux > _LEAST_SNR * flux_err))
    if rows.size < LEAST_STARS:
        return ApertureCorrection(1.0, 1.0, np.inf, int(rows.size))
    radius = RADIUS_SIGMAS * psf_sigma
    left = aperture_photometry(residual, variance, x[rows], y[rows], radius, unusable=unusable)
    ratio = 1.0 + left.flux / flux[rows]
    error = np.sqrt(left.flux_err**2 + flux[rows] / gain) / flux[rows]
    keep = np.isfinite(ratio) & (left.masked < 0.01)
    middle = float(np.median(ratio[keep])) if keep.any() else 1.0
    for _ in range(_ROUNDS):
        pull = (ratio - middle) / np.hypot(error, 1e-3)
        spread = 1.4826 * float(np.median(np.abs(pull[keep]))) if keep.any() else 1.0
        keep &= np.abs(pull) < _CLIP_SIGMAS * max(spread, 0.5)
        if keep.sum() < LEAST_STARS:
            return ApertureCorrection(1.0, 1.0, np.inf, int(keep.sum()))
        weight = 1.0 / (error[keep] ** 2 + 1e-6)
        middle = float(np.average(ratio[keep], weights=weight))
    spread = float(np.sqrt(np.average((ratio[keep] - middle) ** 2, weights=weight)))
    sure = spread / float(np.sqrt(weight.sum() ** 2 / np.sum(weight**2)))
    away = middle - 1.0
    share = max(0.0, 1.0 - sure**2 / max(away**2, 1e-30))
    return ApertureCorrection(1.0 + share * away, middle, sure, int(keep.sum()))
