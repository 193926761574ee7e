"""How good an image is: one record of numbers, and the flags that come of them.

What an image is held against is what a survey has: the template of the place, whose stars say how
bright and where stars should be; the header's zero point; gain and read noise; and, for what
differs from night to night, the median of earlier images of the detector and band (`usual`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from broker.detection.detect import Peaks
from broker.detection.differencing.difference import (
    Difference,
    on_science_pixels,
    subtract_template,
    without_sky,
)
from broker.detection.halved import find_bright, is_large, typical
from broker.detection.quality.image_flags import flags_of
from broker.detection.quality.sky_structure import sky_structure
from broker.detection.quality.star_shapes import Shapes, star_shapes
from broker.detection.quality.transparency import LEAST_STARS, seen, transparency
from broker.errors import AlertError
from broker.imaging.image import Image
from broker.imaging.isr import Box
from broker.imaging.kernel_stars import kernel_stars
from broker.imaging.kernels import F32, F64, Bools
from broker.imaging.mask import UNUSABLE
from broker.imaging.psf import FWHM_PER_SIGMA
from broker.imaging.templates import Template
from broker.units import flux_to_mag

Card = dict[str, float | int | str]

STAR_SNR = 10.0
"""Stars are counted above this S/N."""

_SHAPE_SNR = 25.0
_MARGIN_PX = 20
_USUAL = ("seeing", "limitingMag", "background")
_LEAST_USUAL = 5


@dataclass(frozen=True)
class _Stars:
    """Peaks above `STAR_SNR`, and which of them are isolated and bright."""

    peaks: Peaks
    chosen: Any

    @property
    def places(self) -> tuple[F64, F64]:
        return (
            self.peaks.x[self.chosen].astype(np.float64),
            self.peaks.y[self.chosen].astype(np.float64),
        )


def assess(
    image: Image,
    template: Template | None = None,
    *,
    usual: Mapping[str, float] | None = None,
    failure: str = "",
) -> Card:
    """Return the scorecard of an image.

    Parameters
    ----------
    image : Image
        With its sky. `meta["amplifiers"]`, if it is there, has the amplifiers' places as lists of
        y, y_end, x, x_end [pixel].
    template : Template, optional
        Of its place and band.
    usual : mapping, optional
        As of `usual_of`.
    failure : str
        Why it could not be subtracted, if that is known already; it is not tried again.

    Returns
    -------
    dict
        As `complete`; `failure` says why, if the image could not be subtracted.
    """
    if template is not None and not failure:
        try:
            return of_difference(image, subtract_template(image, template), usual=usual)
        except AlertError as error:
            failure = error.message
    try:
        clean, card = without_sky(image)
        deep = None if template is None else on_science_pixels(template, clean)
        card = card | image_numbers(image, clean, deep)
    except AlertError as error:
        card = {"maskedShare": float(np.mean(image.is_masked(UNUSABLE)))}
        failure = failure or error.message
    if failure:
        card["failure"] = failure
    return complete(card, image, usual=usual)


def of_difference(
    image: Image,
    difference: Difference,
    found: Mapping[str, Any] | None = None,
    *,
    usual: Mapping[str, float] | None = None,
) -> Card:
    """Return the scorecard of an image whose difference is made.

    Parameters
    ----------
    image : Image
        With its sky.
    difference : Difference
    found : mapping, optional
        The scorecard of what was found on it, as of `broker.detection.dia.DiaResult`.
    usual : mapping, optional
        As of `usual_of`.
    """
    card = difference.scorecard | dict(found or {})
    card |= image_numbers(image, difference.science, difference.template, difference=difference)
    return complete(card, image, usual=usual)


def complete(card: Card, image: Image, *, usual: Mapping[str, float] | None = None) -> Card:
    """Return a scorecard with which image it is of, what is unusual, and its flags.

    Parameters
    ----------
    card : dict
        With what was measured.
    image : Image
    usual : mapping, optional
        Medians of seeing, limitingMag and background of earlier images, see `usual_of`.
    """
    whole: Card = {
        "visit": image.visit,
        "detector": image.detector,
        "band": image.band,
        "midpointMjdTai": float(image.midpoint_mjd_tai),
    }
    whole |= card
    return judged(whole, usual or {})


def judged(card: Mapping[str, Any], usual: Mapping[str, float]) -> Card:
    """Return a scorecard held against the usual numbers, with its flags."""
    done = {k: v.item() if isinstance(v, np.generic) else v for k, v in card.items()}

    def known(name: str) -> bool:
        return np.isfinite(float(card.get(name, np.nan))) and name in usual

    if known("seeing"):
        done["seeingOverUsual"] = float(card["seeing"]) / usual["seeing"]
    if known("limitingMag"):
        done["depthOff"] = float(card["limitingMag"]) - usual["limitingMag"]
    if known("background") and usual["background"] > 0.0:
        done["skyOverUsual"] = float(card["background"]) / usual["background"]
    done["flags"] = flags_of(done)
    return done


def usual_of(cards: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Return the medians of scorecards of one band; nothing of fewer than five.

    Parameters
    ----------
    cards : iterable of dict
        Of earlier images, or of a whole night: a median bears a few that are odd.
    """
    kept = list(cards)
    found: dict[str, float] = {}
    for name in _USUAL:
        values = np.array([float(card.get(name, np.nan)) for card in kept])
        values = values[np.isfinite(values)]
        if values.size >= _LEAST_USUAL:
            found[name] = float(np.median(values))
    return found


def image_numbers(
    image: Image, clean: Image, deep: Image | None, *, difference: Difference | None = None
) -> Card:
    """Return what can be measured of an image beside sky and kernel.

    Parameters
    ----------
    image : Image
        With its sky.
    clean : Image
        Without it.
    deep : Image, optional
        The template on its pixels, in its counts.
    difference : Difference, optional
    """
    unusable = image.is_masked(UNUSABLE)
    card: Card = {"maskedShare": np.count_nonzero(unusable) / unusable.size}
    no_light = clean.is_masked(UNUSABLE)
    own = _find(clean.pixels, clean, no_light, clean.psf.sigma)
    card["nStars"] = len(own.peaks)
    shapes = star_shapes(clean.pixels, *own.places, psf_sigma=clean.psf.sigma, unusable=no_light)
    card |= _psf_numbers(shapes, clean)
    if deep is not None:
        covered = no_light | deep.is_masked(UNUSABLE)
        card |= _against_template(clean, deep, covered, own, card)
    card |= _sky_numbers(image, clean, deep, unusable)
    if difference is not None:
        card |= _difference_numbers(difference)
    return card | _depth(card, clean)


def _find(pixels: F32, noise: Image, unusable: Bools, sigma: float) -> _Stars:
    peaks = find_bright(
        pixels, noise.variance, psf_sigma=sigma, unusable=unusable, threshold=STAR_SNR
    )
    chosen = kernel_stars(
        peaks.x, peaks.y, peaks.snr, unusable,
        least=_SHAPE_SNR, most=5000.0, limit=150, margin=_MARGIN_PX,
    )  # fmt: skip
    return _Stars(peaks, chosen)


def _psf_numbers(shapes: Shapes, image: Image) -> Card:
    """Return width, scatter and ellipticity of the stars, the densest half by width."""
    width = shapes.sigma
    known = np.isfinite(width)
    card: Card = {"psfStars": int(known.sum())}
    if known.sum() < LEAST_STARS:
        return card
    sizes = np.sort(width[known])
    half = (sizes.size + 1) // 2
    start = int(np.argmin(sizes[half - 1 :] - sizes[: sizes.size - half + 1]))
    middle = float(np.median(sizes[start : start + half]))
    stars = known & (np.abs(width / middle - 1.0) < 0.2)
    if stars.sum() < LEAST_STARS:
        return card
    e1, e2 = shapes.e1[stars], shapes.e2[stars]
    mean = float(np.hypot(np.median(e1), np.median(e2)))
    spread = 1.4826 * np.median(np.abs(np.concatenate([e1 - np.median(e1), e2 - np.median(e2)])))
    scatter = 1.4826 * float(np.median(np.abs(width[stars] - np.median(width[stars]))))
    return card | {
        "psfStars": int(stars.sum()),
        "seeing": middle * FWHM_PER_SIGMA * image.wcs.scale_arcsec,
        "seeingScatter": scatter / middle,
        "ellipticity": mean,
        "ellipticityErr": float(1.25 * spread / np.sqrt(stars.sum())),
        "trailPx": float(np.median(shapes.major[stars])) * FWHM_PER_SIGMA,
    }


def _against_template(clean: Image, deep: Image, unusable: Bools, own: _Stars, known: Card) -> Card:
    """Return how bright and where the template's stars are on the image."""
    stars = _find(deep.pixels, clean, unusable, deep.psf.sigma)
    card: Card = {"nStarsExpected": len(stars.peaks)}
    x, y = stars.places
    if len(stars.peaks) >= LEAST_STARS:
        card["starShare"] = seen(
            own.peaks, stars.peaks, reach=3.0 * max(clean.psf.sigma, 1.0), least_snr=2.0 * STAR_SNR
        )
    if x.size < LEAST_STARS:
        return card
    there = star_shapes(deep.pixels, x, y, psf_sigma=deep.psf.sigma, unusable=unusable)
    here = star_shapes(clean.pixels, x, y, psf_sigma=clean.psf.sigma, unusable=unusable)
    both = np.isfinite(there.sigma) & np.isfinite(here.sigma)
    if both.sum() >= LEAST_STARS:
        dx, dy = (here.x - there.x)[both], (here.y - there.y)[both]
        mid_x, mid_y = float(np.median(dx)), float(np.median(dy))
        rest = np.concatenate([dx - mid_x, dy - mid_y])
        card["wcsShiftPx"] = float(np.hypot(mid_x, mid_y))
        card["wcsRmsPx"] = 1.4826 * float(np.median(np.abs(rest)))
    wide = float(known.get("trailPx", clean.psf.fwhm)) / FWHM_PER_SIGMA
    reach = float(np.clip(3.0 * max(wide, deep.psf.sigma), 3.0, 20.0))
    x, y = np.where(both, there.x, x), np.where(both, there.y, y)
    return card | transparency(clean, deep, x, y, reach=reach, unusable=unusable)


def _sky_numbers(image: Image, clean: Image, deep: Image | None, unusable: Bools) -> Card:
    sigma = float(np.sqrt(typical(clean.variance)))
    light = clean.pixels if deep is None else deep.pixels
    few = slice(None, None, 8 if is_large(image.shape) else 4)
    sky = float(np.median(image.pixels[few, few] - clean.pixels[few, few]))
    if not sky > sigma:  # an image whose sky was taken out: shares are of the noise
        sky = sigma
    # Of a large image every second row and column: an amplifier still has thousands of pixels.
    step = 2 if is_large(image.shape) else 1
    part = (slice(None, None, step), slice(None, None, step))
    found = sky_structure(
        np.ascontiguousarray(image.pixels[part]),
        sigma=sigma,
        sky=sky,
        unusable=np.ascontiguousarray(unusable[part]),
        sources=light[part] > np.float32(2.0 * sigma),
        amplifiers=[
            Box(b.y // step, b.y_end // step, b.x // step, b.x_end // step)
            for b in amplifiers_of(image)
        ],
    )
    # What noise alone can make is not counted: 5 standard errors.
    sure = found.step_snr > 5.0
    return {
        "skyShape": found.shape_share,
        "amplifierStep": found.step_share if sure else 0.0,
        "amplifierNoise": found.noise_jump,
        "amplifierLost": found.lost_share,
        "worstAmplifier": found.worst,
    }


def amplifiers_of(image: Image) -> Sequence[Box]:
    """Return the amplifiers of an image, from its `meta`; empty if it does not say."""
    boxes = image.meta.get("amplifiers") or ()
    return tuple(Box(*(int(v) for v in box)) for box in boxes)


def _difference_numbers(difference: Difference) -> Card:
    step = 6 if is_large(difference.pixels.shape) else 3
    part = (slice(None, None, step), slice(None, None, step))
    usable = ~difference.unusable[part]
    if not usable.any():
        return {}
    noise = np.sqrt(difference.variance[part])[usable]
    left = np.abs(difference.pixels[part])[usable]
    light, pull = difference.star_light[part][usable], left / noise
    bright = light > 3.0 * noise
    card: Card = {"differenceChi": 1.4826 * float(np.median(pull))}
    if bright.sum() > 20:
        # The mean of |N(0, 1)| is 0.798: noise is no residual.
        rest = float(np.sum(left[bright]) - 0.798 * np.sum(noise[bright]))
        card["subtractionRatio"] = max(rest, 0.0) / float(np.sum(light[bright]))
    return card


def _depth(card: Card, clean: Image) -> Card:
    """Return the 5-sigma limit of a point source, with the PSF and the zero point measured."""
    scale = clean.wcs.scale_arcsec
    sigma = float(card.get("seeing", clean.fwhm_arcsec)) / scale / FWHM_PER_SIGMA
    variance = typical(clean.variance)
    counts = 5.0 * np.sqrt(4.0 * np.pi * sigma**2 * variance)
    off = float(card.get("zeroPointOff", 0.0))
    limit = float(flux_to_mag(counts * clean.flux_per_count)) + off
    return {"limitingMag": limit} if np.isfinite(limit) else {}
