"""How a template and an exposure are made alike: which is convolved, with which kernel."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from broker.detection.detect import detect
from broker.detection.differencing.width_map import WidthMap, measure_widths
from broker.errors import AlertError
from broker.imaging.image import Image
from broker.imaging.kernel_stars import kernel_stars
from broker.imaging.kernels import F32, Bools
from broker.imaging.mask import UNUSABLE
from broker.imaging.subtract import (
    LEAST_CHANGE,
    STAMP_HALF,
    Kernel,
    cut_stamps,
    fit_kernel,
    gaussian_kernel,
)

_DECONVOLVE_LIMIT = 0.97
"""A template up to 1 / 0.97 times as broad as the exposure is still the one that is convolved."""

_MIXED = 0.03
"""How much broader, in squared widths, the template may be somewhere without smoothing."""

_LEAST_BROADENING = 0.7
_MIN_STARS = 4
_SURE_SNR = 20.0
_LEAST_LIGHT = 0.15
"""A star of the template has at least this share of its peak on an exposure of twice its width, or
behind clouds of two magnitudes."""
_SCALE_RANGE = (0.5, 2.0)
"""Allowed ratio of the fitted flux scale to that of the zero points."""


@dataclass(frozen=True)
class Match:
    """How the two images are made alike.

    Parameters
    ----------
    kernel : Kernel
    forward : bool
        Whether the kernel is the template's.
    smoothing : float
        Width of the Gaussian that the exposure is convolved with first; 0 for none. [pixel]
    science, template : WidthMap
        Of the images as they came.
    """

    kernel: Kernel
    forward: bool
    smoothing: float
    science: WidthMap
    template: WidthMap


def match_images(science: Image, template: Image) -> Match:
    """Return how an exposure and a template are made alike.

    Parameters
    ----------
    science, template : Image
        On the same pixels, without sky.

    Raises
    ------
    AlertError
        If their fluxes differ by more than a factor of two from what their zero points say, or
        most of the template's stars are not where the exposure should have them.

    Notes
    -----
    The sharper image is convolved, by the widths that are measured on its stars. Where the
    template is the sharper one at one place and the exposure at another, the exposure is first
    smoothed until it is the broader one everywhere: no kernel has to sharpen.
    """
    unusable = science.is_masked(UNUSABLE) | template.is_masked(UNUSABLE)
    x, y, is_odd = _static_stars(science, template, unusable)
    if is_odd:
        _require_stars(science, template, unusable)
    own = measure_widths(science, x, y, unusable=unusable)
    deep = measure_widths(template, x, y, unusable=unusable, variance=science.variance)
    s, t = own.typical, deep.typical
    forward = s >= _DECONVOLVE_LIMIT * t
    gap = np.square(deep.grid) - np.square(own.grid)
    smoothing = 0.0
    if gap.min() < 0.0 < gap.max() and gap.max() > _MIXED * t * t:
        forward, smoothing = True, float(np.sqrt(gap.max() + _LEAST_BROADENING**2))
    broadening = float(np.sqrt(max(s * s + smoothing**2 - t * t if forward else t * t - s * s, 0)))
    if x.size < _MIN_STARS:
        kernel = gaussian_kernel(broadening, science.shape)
        return Match(kernel, forward, smoothing, own, deep)
    counts = _smoothed(science, smoothing)
    source, target = (template.pixels, counts) if forward else (counts, template.pixels)
    noise = _star_noise(science, template, x, y)
    kernel = fit_kernel(source, target, noise, x, y, broadening)
    if not _SCALE_RANGE[0] < kernel.scale < _SCALE_RANGE[1]:
        raise AlertError(
            f"the template's flux scale is {kernel.scale:.3g} of what the zero points say",
            scale=kernel.scale,
        )
    return Match(kernel, forward, smoothing, own, deep)


def _static_stars(
    science: Image, template: Image, unusable: Bools
) -> tuple[NDArray[np.int32], NDArray[np.int32], bool]:
    """Return pixels of stars that are in both images, and whether they are oddly few."""
    peaks = detect(
        science.pixels,
        science.variance,
        psf_sigma=science.psf.sigma,
        unusable=unusable,
        threshold=10.0,
        negative=False,
    )
    margin = STAMP_HALF + 14
    chosen = kernel_stars(peaks.x, peaks.y, peaks.snr, unusable, most=1000.0, margin=margin)
    x, y = peaks.x[chosen], peaks.y[chosen]
    # What is not in the template is no star to match to.
    static = template.pixels[y, x] > 0.3 * science.pixels[y, x]
    few = int(static.sum()) < max(_MIN_STARS, 0.5 * x.size)
    return x[static], y[static], few


def _require_stars(science: Image, template: Image, unusable: Bools) -> None:
    """Raise AlertError if the exposure has not the stars that the template has.

    What changes is on the exposure alone, however much it is; but a star of the template that it
    should see and does not says that the two are not of the same place, or not turned alike.
    """
    peaks = detect(
        template.pixels,
        science.variance + template.variance,
        psf_sigma=template.psf.sigma,
        unusable=unusable,
        threshold=_SURE_SNR,
        negative=False,
    )
    margin = STAMP_HALF
    ny, nx = science.shape
    inside = (peaks.x >= margin) & (peaks.x < nx - margin)
    inside &= (peaks.y >= margin) & (peaks.y < ny - margin)
    x, y = peaks.x[inside], peaks.y[inside]
    if x.size == 0:
        return
    here = cut_stamps(science.pixels, x, y, 1).max(axis=(1, 2))
    found = int(np.sum(here > _LEAST_LIGHT * template.pixels[y, x]))
    if found < 0.5 * x.size and (x.size >= _MIN_STARS or found == 0):
        raise AlertError(
            f"{found} of {x.size} bright stars of the template are on the exposure: its WCS or the "
            "template is wrong",
            found=found,
            stars=int(x.size),
        )


def _star_noise(science: Image, template: Image, x: NDArray[np.int32], y: NDArray[np.int32]) -> F32:
    """Return the variance that kernel stars are weighted by, shape (n_stars, side, side)."""
    light = np.maximum(cut_stamps(template.pixels, x, y, STAMP_HALF), np.float32(0.0))
    noise = cut_stamps(science.variance, x, y, STAMP_HALF)
    noise = noise + cut_stamps(template.variance, x, y, STAMP_HALF)
    error = np.float32(LEAST_CHANGE) * light
    return np.asarray(noise + light / np.float32(science.gain) + error * error, np.float32)


def _smoothed(science: Image, smoothing: float) -> F32:
    if smoothing == 0.0:
        return science.pixels
    return gaussian_kernel(smoothing, science.shape).convolve(science.pixels)
