"""The difference of an exposure and a template, with a variance that knows where stars were.

The sharper of the two is convolved. The variance plane is that of white noise with the same power
at the scale of the PSF: convolution by a kernel that widens the PSF from t to s leaves a PSF-
weighted sum of white noise with s² / (s² + s² - t²) of the pixel's power. The noise of stars comes
from the matched template, never from the exposure's own pixels, whose positive noise would hide
itself.
"""

from dataclasses import dataclass, replace

import numpy as np

from broker.detection.detect import detect
from broker.errors import AlertError
from broker.imaging.background import fit_background
from broker.imaging.cosmic_rays import find_cosmic_rays
from broker.imaging.image import Image
from broker.imaging.kernel_stars import kernel_stars
from broker.imaging.kernels import F32, Bools, grow
from broker.imaging.mask import UNUSABLE, MaskPlane, set_plane
from broker.imaging.subtract import (
    LEAST_CHANGE,
    STAMP_HALF,
    Kernel,
    fit_kernel,
    gaussian_kernel,
)
from broker.imaging.templates import Template
from broker.imaging.warp import warp

_DECONVOLVE_LIMIT = 0.97
"""A template up to 1 / 0.97 times as broad as the exposure is still the one that is convolved."""

_MIN_STARS = 4
_LEAST_SKY = 0.2
_SCALE_RANGE = (0.5, 2.0)
"""Allowed ratio of the fitted flux scale to that of the zero points."""


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
        Width of a point source on the difference. [pixel]
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
        If the exposure is masked or without noise, or the template does not lie on it.
    """
    science, scorecard = without_sky(image, cell_px=cell_px)
    matched = on_science_pixels(template, science)
    no_template = matched.is_masked(MaskPlane.NO_DATA)
    if no_template.all():
        raise AlertError("the template does not lie on the exposure")
    science = _filled(science, matched)
    kernel, forward = _match(science, matched)
    difference = _assemble(science, matched, kernel, forward, model_error, cell_px)
    scorecard |= {
        "kernelStars": kernel.n_stars,
        "kernelOrder": kernel.order,
        "kernelChi2": kernel.chi2,
        "kernelSum": kernel.scale if forward else 1.0 / kernel.scale,
        "convolved": "template" if forward else "science",
        "templateSeeing": matched.psf.fwhm * matched.wcs.scale_arcsec,
        "usableShare": float(np.mean(~difference.unusable)),
    }
    return replace(difference, scorecard=scorecard)


def without_sky(image: Image, *, cell_px: int = 64) -> tuple[Image, dict[str, float | int | str]]:
    """Return the exposure with its sky subtracted, its noise as a plane, cosmic rays masked.

    Also its scorecard: background, noise, seeing, masked and covered shares.

    Raises
    ------
    AlertError
        If it is all masked, without noise, or has usable pixels that are not finite.
    """
    unusable = image.is_masked(UNUSABLE)
    if not np.isfinite(image.pixels[~unusable]).all():
        raise AlertError("the exposure has pixels that are not finite")
    sky = fit_background(
        image.pixels, unusable=unusable, psf_sigma=image.psf.sigma, cell_px=cell_px
    )
    pixels = np.where(unusable, np.float32(0.0), image.pixels - sky.level)
    # Sky, reading, and the rounding to whole counts.
    read = (image.read_noise / image.gain) ** 2 + 1.0 / 12.0
    variance: F32 = np.add(
        np.maximum(sky.level, 0.0) / np.float32(image.gain), read, dtype=np.float32
    )
    expected = float(np.median(variance[::4, ::4]))
    # Counts that are not of the sky, as of a bad amplifier, would make the model too small.
    ratio = sky.sigma**2 / expected if expected > 0.0 else np.inf
    if expected <= 0.0 or not 0.9 < ratio < 1.1:
        variance = np.full_like(pixels, sky.sigma**2)
    mask = image.mask.copy()
    hits = find_cosmic_rays(pixels, variance, psf_sigma=image.psf.sigma, unusable=unusable)
    set_plane(mask, MaskPlane.COSMIC_RAY, hits)
    scorecard: dict[str, float | int | str] = {
        "background": float(np.median(sky.level[::4, ::4])),
        "skySigma": sky.sigma,
        "noiseRatio": float(ratio),
        "seeing": image.fwhm_arcsec,
        "zeroPoint": image.zero_point,
        "cosmicRayPixels": int(hits.sum()),
        "sourceShare": float(np.mean(sky.sources)),
    }
    return image.with_arrays(pixels=pixels, variance=variance, mask=mask), scorecard


def on_science_pixels(template: Template, science: Image) -> Image:
    """Return the template on the exposure's pixels, in its counts by the zero points."""
    moved = warp(template.image, science.wcs, science.shape, coefficients=template.coefficients)
    scale = np.float32(10.0 ** (0.4 * (science.zero_point - template.image.zero_point)))
    return moved.with_arrays(pixels=moved.pixels * scale, variance=moved.variance * scale**2)


def _filled(science: Image, template: Image) -> Image:
    """Return the exposure with the template's light where unusable: convolution spreads it."""
    unusable = science.is_masked(UNUSABLE)
    return science.with_arrays(pixels=np.where(unusable, template.pixels, science.pixels))


def _match(science: Image, template: Image) -> tuple[Kernel, bool]:
    """Return the kernel, and whether it is the template's."""
    s, t = science.psf.sigma, template.psf.sigma
    forward = s >= _DECONVOLVE_LIMIT * t
    broadening = float(np.sqrt(max(s * s - t * t if forward else t * t - s * s, 0.0)))
    source, target = (template, science) if forward else (science, template)
    unusable = science.is_masked(UNUSABLE) | template.is_masked(UNUSABLE)
    light = np.maximum(template.pixels, np.float32(0.0))
    variance: F32 = np.asarray(
        science.variance
        + template.variance
        + light / np.float32(science.gain)
        + np.square(np.float32(LEAST_CHANGE) * light),
        np.float32,
    )
    peaks = detect(
        science.pixels,
        science.variance,
        psf_sigma=s,
        unusable=unusable,
        threshold=10.0,
        negative=False,
    )
    margin = STAMP_HALF + 14
    chosen = kernel_stars(peaks.x, peaks.y, peaks.snr, unusable, most=1000.0, margin=margin)
    x, y = peaks.x[chosen], peaks.y[chosen]
    # What is not in the template is no star to match to.
    static = template.pixels[y, x] > 0.3 * science.pixels[y, x]
    x, y = x[static], y[static]
    if x.size < _MIN_STARS:
        return gaussian_kernel(broadening, science.shape), forward
    kernel = fit_kernel(source.pixels, target.pixels, variance, x, y, broadening)
    if not _SCALE_RANGE[0] < kernel.scale < _SCALE_RANGE[1]:
        raise AlertError(
            f"the template's flux scale is {kernel.scale:.3g} of what the zero points say",
            scale=kernel.scale,
        )
    return kernel, forward


def _assemble(
    science: Image,
    template: Image,
    kernel: Kernel,
    forward: bool,
    model_error: float,
    cell_px: int,
) -> Difference:
    s, t = science.psf.sigma, template.psf.sigma
    extra = abs(s * s - t * t) if (s > t) == forward else 0.0
    if forward:
        model = kernel.convolve(template.pixels)
        pixels = science.pixels - model - kernel.background_plane()
        psf, narrow, scale = s, s, kernel.scale
    else:
        pixels = kernel.convolve(science.pixels) + kernel.background_plane() - template.pixels
        pixels /= np.float32(kernel.scale)
        model = template.pixels / np.float32(kernel.scale)
        psf, scale = t, 1.0 / kernel.scale
        narrow = float(np.sqrt(max(s * s - extra, (0.6 * t) ** 2)))
    light = np.maximum(model, np.float32(0.0))
    variance, floor = _variance(science, template, light, psf, extra, forward, scale, model_error)
    for_detection, _ = _variance(
        science, template, light, narrow, extra, forward, scale, model_error
    )
    share = 1.0 if forward else psf**2 / (psf**2 + extra)
    unusable = _unusable(science, template, kernel, forward)
    pixels -= _left_over_sky(pixels, unusable, light, variance, psf, cell_px)
    pixels[unusable] = 0.0
    position = _position_scale(science, template, psf, extra, forward, scale)
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
        position,
        share,
        floor,
        kernel,
        forward,
        {},
    )


def _left_over_sky(
    pixels: F32, unusable: Bools, light: F32, variance: F32, psf: float, cell_px: int
) -> F32:
    """Return the sky that is left on a difference: faint sources are no longer mixed with it."""
    no_sky = unusable | (np.square(light) > 0.25 * variance)
    if np.count_nonzero(~no_sky) < _LEAST_SKY * pixels.size:
        return np.zeros_like(pixels)
    return fit_background(pixels, unusable=no_sky, psf_sigma=psf, cell_px=2 * cell_px).level


def _shares(sigma: float, extra: float, forward: bool) -> tuple[float, float]:
    """Return the power of the science's and the template's noise that a PSF-wide sum sees."""
    smoothed = sigma**2 / (sigma**2 + extra)
    return (1.0, smoothed) if forward else (smoothed, 1.0)


def _variance(
    science: Image,
    template: Image,
    light: F32,
    sigma: float,
    extra: float,
    forward: bool,
    scale: float,
    model_error: float,
) -> tuple[F32, float]:
    of_science, of_template = _shares(sigma, extra, forward)
    visits = float(template.meta.get("nVisits", 1))
    per_count = (of_science + of_template * scale / visits) / science.gain
    sky = np.float32(of_science) * science.variance
    sky += np.float32(of_template * scale**2) * template.variance
    variance = sky + np.float32(per_count) * light + np.square(np.float32(model_error) * light)
    return variance, float(of_science * np.median(science.variance[::4, ::4]))


def _position_scale(
    science: Image, template: Image, sigma: float, extra: float, forward: bool, scale: float
) -> float:
    """Return the error of a position over that of white noise of equal power for the flux.

    A position is the product with the PSF's slope, which lies at higher frequency: smoothed noise
    has the square of the share there.
    """
    of_science, of_template = _shares(sigma, extra, forward)
    noise = float(np.median(science.variance[::4, ::4]))
    deep = float(np.median(template.variance[::4, ::4])) * scale**2
    flux = of_science * noise + of_template * deep
    place = of_science**2 * noise + of_template**2 * deep
    return float(np.sqrt(place / flux)) if flux > 0.0 else 1.0


def _unusable(science: Image, template: Image, kernel: Kernel, forward: bool) -> Bools:
    own = science.is_masked(UNUSABLE)
    other = template.is_masked(UNUSABLE)
    if forward:
        return own | grow(other, kernel.basis.radius if other.any() else 0)
    return grow(own, 1) | other
