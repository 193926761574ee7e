"""Pairs of an exposure and a template whose truth is known: what differences are judged on."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from broker.imaging.image import Calibration, Image
from broker.imaging.kernels import F32, F64
from broker.imaging.mask import MaskPlane
from broker.imaging.psf import GaussianPsf
from broker.imaging.templates import Template
from broker.imaging.warp import image_coefficients
from broker.imaging.wcs import Wcs
from broker.ops.image_bench import rows as tools
from broker.simulation.detector import cosmic_rays
from broker.simulation.kernels import add_gaussians, normal_table, read_out
from broker.simulation.streams import noise_key

SKY, GAIN, READ, VISITS = 600.0, 1.5, 6.0, 8
"""Electrons of sky, electrons of a count, electrons of read noise, exposures of the template."""

SATURATION = 5e4
_BIAS = 1000.0
_MARGIN = 16
_STARS_PER_MPIX, _TRANSIENTS_PER_MPIX = 330.0, 12.0


@dataclass(frozen=True)
class Look:
    """How a pair of images looks.

    Parameters
    ----------
    sigma, template_sigma : float
        Widths of the PSFs at the centre. [pixel]
    spread, template_spread : float
        By which share they grow across the image: the exposure's along x, the template's along y.
    offset_px : float
        By how much the exposure's WCS is wrong.
    cosmic_rays_per_mpix, defects_per_mpix : float
    moved_share : float
        Share of the stars that are 0.1 to 0.5 px off their place in the template.
    """

    sigma: float = 2.1
    template_sigma: float = 1.8
    spread: float = 0.12
    template_spread: float = 0.12
    offset_px: float = 0.0
    cosmic_rays_per_mpix: float = 0.0
    defects_per_mpix: float = 0.0
    moved_share: float = 0.0


@dataclass(frozen=True)
class Pair:
    """An exposure, its template, and the truth.

    Parameters
    ----------
    image : Image
        With its sky.
    template : Template
    stars : NDArray[np.float64], shape (n_stars, 3)
        x, y [pixel] and counts of the static stars.
    has_moved : NDArray[np.bool_], shape (n_stars,)
    transients : NDArray[np.float64], shape (n_transients, 4)
        x, y [pixel], counts, and S/N of the best filter.
    """

    image: Image
    template: Template
    stars: F64
    has_moved: NDArray[np.bool_]
    transients: F64


def noise_of(sigma: Any) -> F64:
    """Return the counts of a source of S/N 1 with the best filter, at PSFs of these widths."""
    variance = (SKY + READ**2) / GAIN**2 * (1.0 + 1.0 / VISITS) + 1.0 / 12.0
    pixels = [GaussianPsf(float(s)).effective_pixels for s in np.atleast_1d(sigma)]
    return np.sqrt(variance * np.array(pixels))


def draw_pair(seed: int, side: int, look: Look, *, snr: Any = (), trail: F32 | None = None) -> Pair:
    """Draw a pair of images.

    Parameters
    ----------
    seed : int
    side : int
        Of the exposure. [pixel]
    look : Look
    snr : array_like, shape (n_transients,)
        Signal to noise of the transients, which lie anywhere.
    trail : NDArray[np.float32], shape (side, side), optional
        Electrons that the exposure has besides.
    """
    rng = np.random.default_rng(seed)
    n = int(_STARS_PER_MPIX * side * side / 1e6)
    x, y = rng.uniform(-10.0, side + 10.0, (2, n))
    counts = 10 ** rng.uniform(3.0, 5.5, n)
    has_moved = rng.random(n) < look.moved_share
    step, angle = rng.uniform(0.1, 0.5, n) * has_moved, rng.uniform(0.0, 2.0 * np.pi, n)
    wrong = look.offset_px / np.sqrt(2.0)
    now_x, now_y = x + wrong + step * np.cos(angle), y + wrong + step * np.sin(angle)
    light = np.full((side, side), SKY, np.float32)
    if trail is not None:
        light += trail
    _add(light, now_x, now_y, counts, look.sigma * _grown(now_x, side, look.spread))
    strength = np.asarray(snr, float)
    at_x, at_y = rng.uniform(20.0, side - 20.0, (2, strength.size))
    widths = look.sigma * _grown(at_x, side, look.spread)
    change = strength * noise_of(widths) if strength.size else strength
    _add(light, at_x, at_y, change, widths)
    image = _exposure(seed, light, look, rng)
    template = _template(rng, side, (x, y, counts), look, image)
    truth = np.column_stack([at_x, at_y, change, strength])
    return Pair(image, template, np.column_stack([now_x, now_y, counts]), has_moved, truth)


def _grown(place: F64, side: int, spread: float) -> F64:
    return np.asarray(1.0 + spread * (place / side - 0.5), np.float64)


def _add(light: F32, x: F64, y: F64, counts: F64, widths: F64) -> None:
    add_gaussians(light, x, y, counts * GAIN, widths, widths, 0.02)


def _exposure(seed: int, light: F32, look: Look, rng: np.random.Generator) -> Image:
    side = light.shape[0]
    key = noise_key(seed, "difference")
    raw = read_out(light, key, normal_table(), GAIN, READ, _BIAS, 65_000.0)
    pixels = raw.astype(np.float32) - np.float32(_BIAS)
    rays = rng.poisson(look.cosmic_rays_per_mpix * pixels.size / 1e6)
    struck, charge = cosmic_rays(rng, int(rays), side)
    np.add.at(pixels.reshape(-1), struck, (charge / GAIN).astype(np.float32))
    mask = np.where(pixels >= SATURATION, np.uint16(MaskPlane.SATURATED), np.uint16(0))
    for _ in range(rng.poisson(look.defects_per_mpix * pixels.size / 1e6)):
        column, first = rng.integers(0, side, 2)
        last = first + int(rng.integers(1, side // 4))
        pixels[first:last, column] = 0.0
        mask[first:last, column] |= np.uint16(MaskPlane.BAD)
    calibration = Calibration(5, 3, "r", 61000.0, 30.0, 27.0, GAIN, READ, SATURATION)
    wcs = Wcs.from_scale(150.0, 2.0, scale_arcsec=0.2, crpix=(side / 2, side / 2))
    variance = np.full(pixels.shape, (SKY + READ**2) / GAIN**2, np.float32)
    return Image(pixels, variance, mask, wcs, GaussianPsf(look.sigma), calibration)


def _template(
    rng: np.random.Generator, side: int, stars: tuple[F64, F64, F64], look: Look, image: Image
) -> Template:
    x, y, counts = stars
    shape = (side + 2 * _MARGIN, side + 2 * _MARGIN)
    light = np.zeros(shape, np.float32)
    widths = look.template_sigma * _grown(y, side, look.template_spread)
    _add(light, x + _MARGIN, y + _MARGIN, counts, widths)
    spread = np.sqrt((light + SKY + READ**2) / VISITS) / GAIN
    pixels = light / GAIN + spread * rng.standard_normal(shape, np.float32)
    full = light / GAIN >= SATURATION
    deep = Image(
        pixels.astype(np.float32),
        np.full(shape, (SKY + READ**2) / GAIN**2 / VISITS, np.float32),
        np.where(full, np.uint16(MaskPlane.SATURATED), np.uint16(0)),
        image.wcs.shifted(-_MARGIN, -_MARGIN),
        GaussianPsf(look.template_sigma),
        replace(image.calibration, visit=0),
        {"nVisits": VISITS},
    )
    return Template(deep, "bench", image_coefficients(deep))


def changed_pair(side: int) -> tuple[Image, Template]:
    """Return an image of stars and a dozen transients a megapixel, and a template of the stars."""
    rng = np.random.default_rng(9)
    n = int(_TRANSIENTS_PER_MPIX * side * side / tools.MPIX)
    x, y = rng.uniform(20.0, side - 20.0, (2, n))
    new, *_ = tools.field(side, seed=7)
    width = np.full(n, tools.SIGMA)
    add_gaussians(new, x, y, 10 ** rng.uniform(2.8, 4.0, n), width, width, 0.02)
    deep, *_ = tools.field(side, seed=8, sigma=1.8)
    sky = np.float32(tools.SKY / tools.GAIN)
    image = tools.make_image(new + sky, tools.make_wcs(side), sigma=tools.SIGMA)
    reference = tools.make_image(deep, tools.make_wcs(side), sigma=1.8)
    return image, Template(reference, "bench", image_coefficients(reference))


def draw_trail(rng: np.random.Generator, side: int, electrons_px: float, length: float) -> Any:
    """Return a trail's light, its middle line's ends and where it is brightest.

    Parameters
    ----------
    rng : Generator
    side : int
        [pixel]
    electrons_px : float
        Light of a pixel's length.
    length : float
        [pixel]

    Returns
    -------
    light : NDArray[np.float32], shape (side, side)
        [e-]
    core : NDArray[np.bool_], shape (side, side)
        Pixels within two PSF widths of its middle line.
    """
    from scipy.special import erf

    sigma, angle = 2.1, rng.uniform(0.0, np.pi)
    x0, y0 = rng.uniform(0.2 * side, 0.8 * side, 2)
    x0, y0 = x0 - 0.5 * length * np.cos(angle), y0 - 0.5 * length * np.sin(angle)
    y, x = np.mgrid[:side, :side]
    across = (x - x0) * np.sin(angle) - (y - y0) * np.cos(angle)
    along = (x - x0) * np.cos(angle) + (y - y0) * np.sin(angle)
    profile = np.exp(-0.5 * (across / sigma) ** 2) / (np.sqrt(2.0 * np.pi) * sigma)
    root = sigma * np.sqrt(2.0)
    profile *= 0.5 * (erf(along / root) - erf((along - length) / root))
    core = (np.abs(across) < 2.0 * sigma) & (along > 0.0) & (along < length)
    return (electrons_px * profile).astype(np.float32), core
