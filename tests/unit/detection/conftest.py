"""A small harness: stars, transients and exposures that owe nothing to the simulation."""

from dataclasses import dataclass

import numpy as np
import pytest

from broker.imaging.coadd import coadd
from broker.imaging.image import Calibration, Image
from broker.imaging.psf import GaussianPsf
from broker.imaging.templates import Template
from broker.imaging.warp import image_coefficients
from broker.imaging.wcs import Wcs
from broker.units import mag_to_flux

SKY = 600.0
GAIN = 1.5
READ_NOISE = 6.0
ZERO_POINT = 27.0


@dataclass(frozen=True)
class Field:
    """A field of stars and its template."""

    side: int
    wcs: Wcs
    stars: np.ndarray
    template: Template


def noise_of(sigma):
    """Flux of a source of S/N 1 on a science image [nJy], the template's noise not counted."""
    variance = SKY / GAIN + (READ_NOISE / GAIN) ** 2
    counts = np.sqrt(variance * GaussianPsf(sigma).effective_pixels)
    return float(counts * mag_to_flux(ZERO_POINT))


def draw(seed, wcs, side, sigma, objects, *, visit=1, zero_point=ZERO_POINT, sharper=0.0):
    """Objects are rows of ra, dec, flux [nJy]; `sharper` narrows the PSF across the image."""
    rng = np.random.default_rng(seed)
    # Wider than the image, so that stars just outside reach into it.
    canvas = np.full((side + 60, side + 60), SKY)
    for ra, dec, flux in objects:
        x, y = (float(v) for v in wcs.sky_to_pixel(ra, dec))
        i, j = round(x), round(y)
        if not (-15 <= i < side + 15 and -15 <= j < side + 15):
            continue
        psf = GaussianPsf(sigma * (1.0 - sharper * x / side))
        stamp = psf.stamp(x - i, y - j, 29) * flux / mag_to_flux(zero_point)
        canvas[j + 16 : j + 45, i + 16 : i + 45] += stamp
    expected = canvas[30:-30, 30:-30]
    electrons = rng.poisson(np.maximum(expected, 0.0) * GAIN) + rng.normal(
        0.0, READ_NOISE, expected.shape
    )
    return Image(
        (electrons / GAIN).astype(np.float32),
        np.full(expected.shape, SKY / GAIN, np.float32),
        np.zeros(expected.shape, np.uint16),
        wcs,
        GaussianPsf(sigma * (1.0 - sharper / 2.0)),
        Calibration(visit, 3, "r", 61000.0 + visit, 30.0, zero_point, GAIN, READ_NOISE, 6e4),
    )


def lattice(wcs, side, sigma, snrs, seed, *, pitch=56):
    """Transients far apart: rows of ra, dec, flux, x, y, snr."""
    rng = np.random.default_rng(seed)
    rows = []
    for gy in range(36, side - 36, pitch):
        for gx in range(36, side - 36, pitch):
            x, y = gx + rng.uniform(-4, 4), gy + rng.uniform(-4, 4)
            snr = float(rng.choice(snrs))
            ra, dec = (float(v) for v in wcs.pixel_to_sky(x, y))
            rows.append((ra, dec, snr * noise_of(sigma), x, y, snr))
    return np.array(rows)


def make_field(seed, *, side=512, n_stars=120, visits=8, template_sigma=(1.7, 1.95)):
    rng = np.random.default_rng(seed)
    wcs = Wcs.from_scale(150.0, 2.0, scale_arcsec=0.25, crpix=(side / 2, side / 2))
    reach = side * 0.25 / 3600 / 2
    stars = np.column_stack(
        [
            150.0 + rng.uniform(-reach, reach, n_stars),
            2.0 + rng.uniform(-reach, reach, n_stars),
            20.0 * noise_of(2.0) * 10 ** rng.uniform(0.0, 1.4, n_stars),
        ]
    )
    images = [
        draw(
            seed * 100 + k,
            wcs.shifted(*rng.uniform(-8, 8, 2)),
            side,
            rng.uniform(*template_sigma),
            stars,
            zero_point=ZERO_POINT + rng.uniform(-0.1, 0.1),
        )
        for k in range(visits)
    ]
    image = coadd(images, wcs.shifted(-16, -16), (side + 32, side + 32))
    return Field(side, wcs, stars, Template(image, "v1", image_coefficients(image)))


@pytest.fixture(scope="session")
def field():
    return make_field(1)
