"""Several exposures of a place as one deep image: a template."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from broker.errors import AlertError
from broker.imaging.background import fit_background
from broker.imaging.image import Calibration, Image
from broker.imaging.kernels import F32, Bools, compiled, grow, select
from broker.imaging.mask import UNUSABLE, MaskPlane
from broker.imaging.psf import GaussianPsf
from broker.imaging.warp import warp
from broker.imaging.wcs import Wcs

CLIP_SIGMAS = 4.0
"""A pixel further than this from the median of its stack is left out (three images or more)."""

CLIP_SHARE = 0.3
"""The clip is also never nearer than this share of the brightest median within `_REACH_PX`."""

_REACH_PX = 2
_CLIP_GROW_PX = 2
"""Pixels of an image this near to one that is left out are left out as well: warping spreads what
struck a pixel over its neighbours, where it is below the clip and would get in."""

_SEEING_MARGIN = 1.5
_MEDIAN_VARIANCE = 1.571
"""Of a median of normal values, over that of their mean."""


def coadd(images: Sequence[Image], wcs: Wcs, shape: tuple[int, int]) -> Image:
    """Return the clipped, inverse-variance weighted mean of images of one band.

    Parameters
    ----------
    images : sequence of Image
        One band; with their sky, which is subtracted here.
    wcs : Wcs
        Of the result.
    shape : (int, int)
        Of the result: (ny, nx).

    Returns
    -------
    Image
        Background-subtracted, with the zero point of the first image. `visit` is 0, the exposure
        time the sum, the midpoint the mean. Its variance is that of the sky's noise, of images
        with that noise at the scale of a PSF (see `broker.imaging.warp`). Pixels that no image
        covers are `NO_DATA`; those seen only by saturated images keep `SATURATED`.

    Raises
    ------
    AlertError
        If there is no image, or they are of several bands.
    """
    if not images:
        raise AlertError("a template needs at least one image")
    bands = {image.band for image in images}
    if len(bands) > 1:
        raise AlertError(f"a template is of one band; these images are of {sorted(bands)}")
    reference = images[0].zero_point
    stack, variances, masks, sigmas = [], [], [], []
    for image in images:
        moved = warp(_without_sky(image), wcs, shape)
        scale = np.float32(10.0 ** (0.4 * (reference - image.zero_point)))
        stack.append(moved.pixels * scale)
        variances.append(_plane_level(moved) * float(scale) ** 2)
        masks.append(moved.mask)
        sigmas.append(moved.psf.sigma)
    pixels, variance, mask = _combine(
        np.stack(stack),
        np.array(variances, np.float32),
        _shares(sigmas),
        np.stack(masks),
        np.uint16(UNUSABLE),
        np.uint16(MaskPlane.NO_DATA),
        np.uint16(MaskPlane.SATURATED),
    )
    weights = 1.0 / np.array(variances)
    # The mean of Gaussians is nearly the Gaussian of the mean variance, for seeing within 20 %.
    sigma = float(np.sqrt(np.average(np.square(sigmas), weights=weights)))
    return Image(
        pixels,
        variance,
        mask,
        wcs,
        GaussianPsf(sigma),
        _calibration(images, reference),
        {"nVisits": len(images), "visits": " ".join(str(i.visit) for i in images)},
    )


def _without_sky(image: Image) -> Image:
    unusable = image.is_masked(UNUSABLE)
    sky = fit_background(image.pixels, unusable=unusable, psf_sigma=image.psf.sigma)
    pixels = np.where(unusable, np.float32(0.0), image.pixels - sky.level)
    # A spline spreads a bad pixel over its neighbours.
    near = grow(image.is_masked(UNUSABLE & ~MaskPlane.SATURATED), 1)
    mask = image.mask | np.where(near, np.uint16(MaskPlane.BAD), np.uint16(0))
    saturated = image.is_masked(MaskPlane.SATURATED)
    mask |= np.where(grow(saturated, 2), np.uint16(MaskPlane.SATURATED), np.uint16(0))
    variance = np.full_like(pixels, sky.sigma**2)
    return replace(image, pixels=pixels, variance=variance, mask=mask)


def _shares(sigmas: Sequence[float]) -> F32:
    """Return how far each image may be from the median, as a share of what is bright near by.

    Seeing differs between exposures, so cores and wings of stars do: by as much as Gaussians of
    the images' widths differ from that of the median width, and half as much again. A clip that
    takes cores for outliers makes fluxes too low.
    """
    middle = float(np.median(sigmas))
    radius = np.linspace(0.0, 4.0 * middle, 65)
    bright = np.exp(-0.5 * (np.maximum(radius - _REACH_PX, 0.0) / middle) ** 2)
    typical = np.exp(-0.5 * (radius / middle) ** 2)
    own = [(middle / s) ** 2 * np.exp(-0.5 * (radius / s) ** 2) for s in sigmas]
    gaps = [float(np.max(np.abs(light - typical) / bright)) for light in own]
    return np.maximum(np.array(gaps) * _SEEING_MARGIN, CLIP_SHARE).astype(np.float32)


def _plane_level(image: Image) -> float:
    inside = image.variance[~image.is_masked(MaskPlane.NO_DATA)]
    return float(inside[0]) if inside.size else float("inf")


def _calibration(images: Sequence[Image], zero_point: float) -> Calibration:
    first = images[0].calibration
    return replace(
        first,
        visit=0,
        midpoint_mjd_tai=float(np.mean([i.midpoint_mjd_tai for i in images])),
        exposure_s=float(sum(i.exposure_s for i in images)),
        zero_point=zero_point,
    )


def _combine(
    stack: Any, variances: F32, shares: F32, masks: Any, unusable: Any, no_data: Any, saturated: Any
) -> tuple[F32, F32, Any]:
    from scipy.ndimage import maximum_filter

    middle = _medians(stack, masks, unusable)
    bright = maximum_filter(np.abs(middle), 2 * _REACH_PX + 1)
    noise = np.sqrt(variances) * np.float32(CLIP_SIGMAS)
    left_out = np.empty(stack.shape, np.bool_)
    for k in range(len(stack)):
        far = _far(stack[k], masks[k], middle, bright, noise[k], shares[k], unusable)
        left_out[k] = grow(far, _CLIP_GROW_PX)
    return _means(stack, variances, left_out, masks, middle, unusable, no_data, saturated)


@compiled
def _medians(stack: Any, masks: Any, unusable: int) -> F32:
    n, ny, nx = stack.shape
    out = np.zeros((ny, nx), np.float32)
    values = np.empty(n, np.float32)
    for y in range(ny):
        for x in range(nx):
            count = 0
            for k in range(n):
                if masks[k, y, x] & unusable == 0:
                    values[count] = stack[k, y, x]
                    count += 1
            if count > 0:
                out[y, x] = 0.5 * (
                    select(values, count, (count - 1) // 2) + select(values, count, count // 2)
                )
    return out


@compiled
def _far(
    pixels: F32, mask: Any, middle: F32, bright: F32, noise: Any, share: Any, unusable: int
) -> Bools:
    """Return which usable pixels of an image are further from the median than the clip."""
    ny, nx = pixels.shape
    out = np.empty((ny, nx), np.bool_)
    for y in range(ny):
        for x in range(nx):
            gap = abs(pixels[y, x] - middle[y, x])
            usable = mask[y, x] & unusable == 0
            out[y, x] = usable and gap > noise + share * bright[y, x]
    return out


@compiled
def _means(
    stack: Any,
    variances: F32,
    left_out: Any,
    masks: Any,
    middle: F32,
    unusable: int,
    no_data: int,
    saturated: int,
) -> tuple[F32, F32, Any]:
    n, ny, nx = stack.shape
    pixels = np.zeros((ny, nx), np.float32)
    variance = np.zeros((ny, nx), np.float32)
    mask = np.zeros((ny, nx), np.uint16)
    for y in range(ny):
        for x in range(nx):
            count, seen = 0, 0
            for k in range(n):
                seen |= masks[k, y, x]
                count += masks[k, y, x] & unusable == 0
            if count == 0:
                mask[y, x] = no_data | (seen & saturated)
                continue
            total, weight, whole = 0.0, 0.0, 0.0
            for k in range(n):
                if masks[k, y, x] & unusable:
                    continue
                whole += 1.0 / variances[k]
                if count < 3 or not left_out[k, y, x]:
                    total += stack[k, y, x] / variances[k]
                    weight += 1.0 / variances[k]
            if whole == 0.0:
                mask[y, x] = no_data
                continue
            if weight == 0.0:  # each is near an outlier of its own, as it may be with three images
                weight = whole / _MEDIAN_VARIANCE
                total = middle[y, x] * weight
            pixels[y, x] = total / weight
            variance[y, x] = 1.0 / weight
    return pixels, variance, mask
