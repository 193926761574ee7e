"""Which quality flags the sources of a difference have."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from broker.detection.detect import Peaks
from broker.detection.differencing.difference import Difference
from broker.detection.flags import SourceFlag
from broker.detection.measure import Fits
from broker.imaging.kernels import F32, Mask, compiled
from broker.imaging.mask import MaskPlane
from broker.imaging.psf import FWHM_PER_SIGMA

_OF_SCIENCE = (
    (MaskPlane.EDGE, SourceFlag.EDGE),
    (MaskPlane.SATURATED, SourceFlag.SATURATED),
    (MaskPlane.BAD, SourceFlag.BAD),
    (MaskPlane.COSMIC_RAY, SourceFlag.COSMIC_RAY),
    (MaskPlane.STREAK, SourceFlag.STREAK),
)
_OF_TEMPLATE = (
    (MaskPlane.NO_DATA, SourceFlag.NO_TEMPLATE_DATA),
    (MaskPlane.SATURATED, SourceFlag.SATURATED_TEMPLATE),
)
_BRIGHT = 0.5
_LARGE_CHI2 = 2.0


def dia_flags(difference: Difference, peaks: Peaks, fits: Fits) -> NDArray[np.int64]:
    """Return the flags of sources but that of dipoles, shape (n_sources,).

    Parameters
    ----------
    difference : Difference
    peaks : Peaks
    fits : Fits
        Of these peaks.
    """
    half = int(np.ceil(2.0 * difference.psf_sigma))
    flags = np.where(fits.failed, int(SourceFlag.CENTROID_FAILED), 0).astype(np.int64)
    for image, pairs in ((difference.science, _OF_SCIENCE), (difference.template, _OF_TEMPLATE)):
        bits = bits_around(image.mask, peaks.x, peaks.y, half)
        for plane, flag in pairs:
            flags |= np.where(bits & int(plane), int(flag), 0)
    bright = star_share(difference, peaks) > _BRIGHT
    flags |= np.where(bright, int(SourceFlag.BRIGHT_STAR_NEAR), 0)
    flags |= np.where(_has_neighbour(difference, peaks), int(SourceFlag.NEIGHBOUR_NEAR), 0)
    poor = difference.kernel.n_stars == 0 or not difference.kernel.chi2 < _LARGE_CHI2
    return flags | (int(SourceFlag.POOR_SUBTRACTION) if poor else 0)


def star_share(difference: Difference, peaks: Peaks) -> F32:
    """Return the share of the peak pixel's variance that a static source's light has."""
    variance = difference.variance[peaks.y, peaks.x]
    floor = np.float32(difference.floor)
    return np.asarray(1.0 - floor / np.maximum(variance, floor), np.float32)


@compiled
def bits_around(mask: Mask, xs: NDArray[Any], ys: NDArray[Any], half: int) -> NDArray[np.int64]:
    """Return all planes that are set within a square of 2 half + 1 pixels, shape (n,)."""
    ny, nx = mask.shape
    out = np.zeros(xs.size, np.int64)
    for k in range(xs.size):
        for y in range(max(0, ys[k] - half), min(ny, ys[k] + half + 1)):
            for x in range(max(0, xs[k] - half), min(nx, xs[k] + half + 1)):
                out[k] |= mask[y, x]
    return out


def _has_neighbour(difference: Difference, peaks: Peaks) -> Any:
    from scipy.spatial import cKDTree

    if len(peaks) == 0:
        return np.zeros(0, bool)
    places = np.column_stack([peaks.x, peaks.y])
    reach = 3.0 * FWHM_PER_SIGMA * difference.psf_sigma
    return cKDTree(places).query_ball_point(places, reach, return_length=True) > 1
