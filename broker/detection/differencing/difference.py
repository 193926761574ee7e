"""The difference of an exposure and a template, with a variance that knows where stars were.

The sharper of the two is convolved. If neither is the sharper one everywhere, the exposure is
smoothed until it is broader than the template all over. The variance plane is that of white noise
with the same power at the scale of the PSF, place by place. The noise of stars comes from the
matched template, never from the exposure's own pixels, whose positive noise would hide itself.
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from broker.detection.differencing.matching import Match, match_images
from broker.detection.differencing.noise_planes import (
    flat_shares,
    is_finite,
    noise_shares,
    position_scale,
    subtract_left_over_sky,
    subtract_light,
    take_sky,
    typical,
    variance_plane,
)
from broker.detection.differencing.streaks import find_streaks
from broker.detection.differencing.width_map import WidthMap, constant_width
from broker.errors import AlertError
from broker.imaging.background import fit_background
from broker.imaging.cosmic_rays import find_cosmic_rays
from broker.imaging.image import Image
from broker.imaging.kernels import F32, F64, Bools, grow
from broker.imaging.mask import UNUSABLE, MaskArray, MaskPlane, is_set, set_plane
from broker.imaging.psf import GaussianPsf
from broker.imaging.subtract import Kernel, gaussian_kernel
from broker.imaging.templates import Template
from broker.imaging.warp import warp

_MARGIN = 16
"""How far beyond the exposure's borders light is looked for that convolution brings in. [pixel]"""

_BORDER_PX = 2
"""Rows and columns at the borders of a convolved exposure: light from outside is missing there."""


@dataclass(frozen=True)
class Difference:
    """Science image minus matched template, in counts of the science image.

    Parameters
    ----------
    science : Image
        The exposure without its sky; unusable pixels filled from the template.
    template : Image
        The template on the same pixels, in counts of the science image, not convolved.
    pixels : NDArray[np.float32], shape (ny, nx)
        The difference; 0 where unusable.
    variance : NDArray[np.float32], shape (ny, nx)
        White at the scale of the PSF, for a filter as wide as `psf_sigma`.
    detection_variance : NDArray[np.float32], shape (ny, nx)
        The same for a filter as wide as `filter_sigma`.
    unusable : NDArray[np.bool_], shape (ny, nx)
    star_light : NDArray[np.float32], shape (ny, nx)
        Expected counts of the static sky.
    psf_sigma : float
        Width of a point source on the difference, typical of the image. [pixel]
    filter_sigma : float
        Width of the filter that is best for detection. [pixel]
    position_error_scale : float
        Errors of positions are this much smaller than those of white noise.
    poisson_share : float
        Share of a source's own Poisson noise that a PSF-weighted sum sees.
    floor : float
        Least variance of a pixel: sky and reading.
    kernel : Kernel
    convolves_template : bool
    scorecard : dict
        What was found out about the exposure.
    widths, science_widths, template_widths : WidthMap, optional
        How wide a point source is, place by place, on the difference, the exposure and the
        template; without them as the PSFs say.
    model_error : float
        Relative 1-sigma error of the matched template.
    """

    science: Image
    template: Image
    pixels: F32
    variance: F32
    detection_variance: F32
    unusable: Bools
    star_light: F32
    psf_sigma: float
    filter_sigma: float
    position_error_scale: float
    poisson_share: float
    floor: float
    kernel: Kernel
    convolves_template: bool
    scorecard: dict[str, float | int | str]
    widths: WidthMap | None = None
    science_widths: WidthMap | None = None
    template_widths: WidthMap | None = None
    model_error: float = 0.01

    def width_at(self, x: F64, y: F64) -> F64:
        """Return the width of a point source at places, shape (n_places,). [pixel]"""
        return self.width_map.at(x, y)

    @property
    def width_map(self) -> WidthMap:
        """Width of a point source on the difference."""
        return self.widths or constant_width(self.psf_sigma, self.science.shape)


def subtract_template(
    image: Image, template: Template, *, cell_px: int = 64, model_error: float = 0.01
) -> Difference:
    """Return the difference of an exposure and a template.

    Parameters
    ----------
    image : Image
        With its sky.
    template : Template
    cell_px : int
        Cell of the background's mesh. [pixel]
    model_error : float
        Relative 1-sigma error of the matched template, beside its noise.

    Raises
    ------
    AlertError
        If the exposure is masked or without noise, or the template does not lie on it, or
        contains it: what changed would be subtracted from itself.
    """
    if template.contains(image.visit):
        raise AlertError(f"the template contains visit {image.visit}", visit=image.visit)
    science, scorecard = without_sky(image, cell_px=cell_px)
    del image  # its planes are not needed any more
    matched, wide = _matched_and_wide(template, science)
    _check_template(matched)
    science = _filled(science, matched)
    match = match_images(science, matched)
    science = replace(science, psf=GaussianPsf(match.science.typical))
    matched = replace(matched, psf=GaussianPsf(match.template.typical))
    unusable = _unusable(science, wide, match)
    pixels, light = _subtracted(science, wide, match)
    del wide
    difference = _assemble(science, matched, pixels, light, unusable, match, model_error, cell_px)
    streaks, trails = find_streaks(
        difference.pixels,
        difference.variance,
        psf_sigma=difference.psf_sigma,
        unusable=difference.unusable,
    )
    set_plane(science.mask, MaskPlane.STREAK, trails)
    scorecard |= difference.scorecard | _matching_card(match, matched)
    scorecard |= {"streaks": len(streaks), "streakPx": sum(s.length for s in streaks)}
    return replace(difference, scorecard=scorecard)


def _check_template(template: Image) -> None:
    if template.is_masked(UNUSABLE).all():
        if template.is_masked(MaskPlane.NO_DATA).all():
            raise AlertError("the template does not lie on the exposure")
        raise AlertError("the template is masked where the exposure is")
    if not is_finite(template.pixels):
        raise AlertError("the template has pixels that are not finite")


def _matching_card(match: Match, template: Image) -> dict[str, float | int | str]:
    kernel = match.kernel
    return {
        "kernelStars": kernel.n_stars,
        "kernelOrder": kernel.order,
        "kernelChi2": kernel.chi2,
        "kernelSum": kernel.scale if match.forward else 1.0 / kernel.scale,
        "kernelSumErr": kernel.scale_err,
        "convolved": "template" if match.forward else "science",
        "smoothing": match.smoothing,
        "templateSeeing": template.psf.fwhm * template.wcs.scale_arcsec,
        "psfStars": match.science.n_stars,
        "psfSpread": match.science.spread,
        "psfScatter": match.science.scatter / match.science.typical,
        "templatePsfSpread": match.template.spread,
    }


def without_sky(image: Image, *, cell_px: int = 64) -> tuple[Image, dict[str, float | int | str]]:
    """Return the exposure with its sky subtracted, its noise as a plane, cosmic rays masked.

    Also its scorecard: background, noise, seeing, masked and covered shares.

    Raises
    ------
    AlertError
        If it is all masked, without noise, or has usable pixels that are not finite.
    """
    unusable = image.is_masked(UNUSABLE)
    if not (is_finite(image.pixels) or (np.isfinite(image.pixels) | unusable).all()):
        raise AlertError("the exposure has pixels that are not finite")
    sky = fit_background(
        image.pixels, unusable=unusable, psf_sigma=image.psf.sigma, cell_px=cell_px
    )
    background = typical(sky.level)
    # Sky, reading, and the rounding to whole counts.
    read = (image.read_noise / image.gain) ** 2 + 1.0 / 12.0
    pixels, variance = np.empty_like(sky.level), sky.level
    take_sky(image.pixels, variance, unusable, 1.0 / image.gain, read, pixels)
    expected = typical(variance)
    # Counts that are not of the sky, as of a bad amplifier, would make the model too small.
    ratio = sky.sigma**2 / expected if expected > 0.0 else np.inf
    if expected <= 0.0 or not 0.9 < ratio < 1.1:
        variance = np.full_like(pixels, sky.sigma**2)
    if "nVisits" in image.meta:  # a coadd's own plane knows where fewer of its images lie
        usual = np.float32(np.median(image.variance[~unusable]))
        share = image.variance / usual if usual > 0.0 else np.float32(1.0)
        variance = np.where(unusable, variance, np.float32(sky.sigma**2) * share)
    mask = image.mask.copy()
    hits = find_cosmic_rays(pixels, variance, psf_sigma=image.psf.sigma, unusable=unusable)
    set_plane(mask, MaskPlane.COSMIC_RAY, hits)
    scorecard: dict[str, float | int | str] = {
        "background": background,
        "skySigma": sky.sigma,
        "noiseRatio": float(ratio),
        "seeing": image.fwhm_arcsec,
        "zeroPoint": image.zero_point,
        "cosmicRayPixels": int(hits.sum()),
        "sourceShare": float(np.mean(sky.sources)),
    }
    return image.with_arrays(pixels=pixels, variance=variance, mask=mask), scorecard


def on_science_pixels(template: Template, science: Image, *, margin: int = 0) -> Image:
    """Return the template on the exposure's pixels, in its counts by the zero points.

    Parameters
    ----------
    template : Template
    science : Image
    margin : int
        How far the result reaches beyond the exposure on all sides. [pixel]
    """
    ny, nx = science.shape
    wcs = science.wcs.shifted(-margin, -margin)
    shape = (ny + 2 * margin, nx + 2 * margin)
    moved = warp(template.image, wcs, shape, coefficients=template.coefficients)
    scale = np.float32(10.0 ** (0.4 * (science.zero_point - template.image.zero_point)))
    if scale != 1.0:  # in place: the planes are new, and others of their size would be too many
        np.multiply(moved.pixels, scale, out=moved.pixels)
        np.multiply(moved.variance, scale**2, out=moved.variance)
    return moved


class _Wide(NamedTuple):
    """Pixels and mask of a template that reaches beyond the exposure by `_MARGIN`."""

    pixels: F32
    mask: MaskArray


def _matched_and_wide(template: Template, science: Image) -> tuple[Image, _Wide]:
    """Return a template on the exposure's pixels, and with a margin."""
    wide = on_science_pixels(template, science, margin=_MARGIN)
    ny, nx = science.shape
    inner = np.s_[_MARGIN : _MARGIN + ny, _MARGIN : _MARGIN + nx]
    names = ("pixels", "variance", "mask")
    planes: Any = {name: np.ascontiguousarray(getattr(wide, name)[inner]) for name in names}
    matched = replace(wide, wcs=science.wcs, **planes)
    return matched, _Wide(wide.pixels, wide.mask)


def _widened(science: Image, wide: _Wide) -> F32:
    """Return the exposure with the template's light beyond its borders."""
    ny, nx = science.shape
    pixels = wide.pixels.copy()
    pixels[_MARGIN : _MARGIN + ny, _MARGIN : _MARGIN + nx] = science.pixels
    return pixels


def _filled(science: Image, template: Image) -> Image:
    """Return the exposure with the template's light where unusable: convolution spreads it."""
    unusable = science.is_masked(UNUSABLE)
    if not unusable.any():
        return science
    return science.with_arrays(pixels=np.where(unusable, template.pixels, science.pixels))


def _assemble(
    science: Image,
    template: Image,
    pixels: F32,
    light: F32,
    unusable: Bools,
    match: Match,
    model_error: float,
    cell_px: int,
) -> Difference:
    kernel, forward = match.kernel, match.forward
    widths = match.science.broadened(match.smoothing) if forward else match.template
    psf, scale = widths.typical, kernel.scale if forward else 1.0 / kernel.scale
    # What the exposure was convolved with; the filter that is best for detection undoes it.
    extra = max(widths.typical**2 - science.psf.sigma**2, 0.0)
    narrow = float(np.sqrt(max(science.psf.sigma**2 - extra, (0.6 * psf) ** 2)))
    narrow = psf if extra == 0.0 else narrow
    arguments = (science, template, light, match)
    variance, share = _variance(*arguments, widths, scale, model_error)
    for_detection = variance
    if extra > 0.0:
        narrow_widths = constant_width(narrow, science.shape)
        for_detection, _ = _variance(*arguments, narrow_widths, scale, model_error)
    left = subtract_left_over_sky(pixels, unusable, light, variance, cell_px=2 * cell_px)
    pixels[unusable] = 0.0
    return Difference(
        science,
        template,
        pixels,
        variance,
        for_detection,
        unusable,
        light,
        psf,
        narrow,
        position_scale(science, template, psf, extra, forward, scale),
        share,
        share * typical(science.variance),
        kernel,
        forward,
        {"usableShare": float(np.mean(~unusable)), "skyLeftOver": left},
        widths,
        match.science,
        match.template,
        model_error,
    )


def _subtracted(science: Image, wide: _Wide, match: Match) -> tuple[F32, F32]:
    """Return the difference and the matched template, in the exposure's counts."""
    kernel, ny, nx = match.kernel, *science.shape
    if match.forward:
        light = kernel.convolve(wide.pixels, margin=_MARGIN)
        pixels = science.pixels
        if match.smoothing > 0.0:
            smooth = gaussian_kernel(match.smoothing, science.shape)
            pixels = smooth.convolve(_widened(science, wide), margin=_MARGIN)
        return subtract_light(pixels, light, *kernel.background_lines()), light
    pixels = kernel.convolve(_widened(science, wide), margin=_MARGIN)
    pixels += kernel.background_plane()
    flat = np.ascontiguousarray(wide.pixels[_MARGIN : _MARGIN + ny, _MARGIN : _MARGIN + nx])
    pixels -= flat
    pixels *= np.float32(1.0 / kernel.scale)
    return pixels, flat * np.float32(1.0 / kernel.scale)


def _variance(
    science: Image,
    template: Image,
    light: F32,
    match: Match,
    widths: WidthMap,
    scale: float,
    model_error: float,
) -> tuple[F32, float]:
    """Return the variance plane for a filter of given widths, and the exposure's mean share."""
    shape = science.shape
    of_science = of_template = flat_shares(shape)
    if match.forward:
        of_template = noise_shares(match.kernel, widths)
        if match.smoothing > 0.0:
            of_science = noise_shares(gaussian_kernel(match.smoothing, shape), widths)
    else:
        of_science = noise_shares(match.kernel, widths)
    plane = variance_plane(
        science.variance,
        template.variance,
        light,
        of_science,
        of_template,
        1.0 / science.gain,
        scale,
        float(template.meta.get("nVisits", 1)),
        model_error,
    )
    return plane, float(np.mean(of_science))


def _unusable(science: Image, wide: _Wide, match: Match) -> Bools:
    own, other = science.is_masked(UNUSABLE), is_set(wide.mask, UNUSABLE)
    ny, nx = science.shape
    reach = match.kernel.basis.radius if match.forward and other.any() else 0
    other = grow(other, reach)[_MARGIN : _MARGIN + ny, _MARGIN : _MARGIN + nx]
    if not match.forward or match.smoothing > 0.0:
        own = grow(own, 1)
        inner = np.s_[_BORDER_PX:-_BORDER_PX, _BORDER_PX:-_BORDER_PX]
        inside = own[inner].copy()
        own[:] = True
        own[inner] = inside
    return np.ascontiguousarray(own | other)
