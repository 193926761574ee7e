"""Rubin's cutouts: plain FITS with an image, its variances and the PSF."""

import functools

import numpy as np

from broker.simulation.packets.common import Place, blob, cards, gaussian, padded

_SIZE = 30
_SKY_NOISE_NJY = 60.0
_PSF_SIGMA_PX = 2.0

_IMAGE_CARDS = (
    "BITPIX  =                  -32 / array data type",
    "NAXIS   =                    2 / number of array dimensions",
    f"NAXIS1  = {_SIZE:20d}",
    f"NAXIS2  = {_SIZE:20d}",
)


@functools.cache
def _extensions(psf_size: int) -> bytes:
    """Return the second and third HDU: variances and the PSF, the same in all packets."""
    variance = np.full((_SIZE, _SIZE), _SKY_NOISE_NJY**2, ">f4")
    psf = gaussian(psf_size, _PSF_SIGMA_PX, 0.0, 0.0).astype(">f8")
    image = "XTENSION= 'IMAGE   '           / Image extension"
    counts = ("PCOUNT  =                    0", "GCOUNT  =                    1")
    return b"".join(
        (
            cards(image, *_IMAGE_CARDS, *counts, "EXTNAME = 'UNCERT  '"),
            padded(variance.tobytes()),
            cards(
                image,
                "BITPIX  =                  -64 / array data type",
                "NAXIS   =                    2 / number of array dimensions",
                f"NAXIS1  = {psf_size:20d}",
                f"NAXIS2  = {psf_size:20d}",
                *counts,
                "EXTNAME = 'PSFIMAGE'",
            ),
            padded(psf.tobytes()),
        )
    )


def _primary(place: Place) -> bytes:
    scale = 0.2 / 3600.0
    return cards(
        "SIMPLE  =                    T / conforms to FITS standard",
        *_IMAGE_CARDS,
        "EXTEND  =                    T",
        "BUNIT   = 'nJy     '",
        f"CRPIX1  = {_SIZE / 2 + 0.5:20.6f}",
        f"CRPIX2  = {_SIZE / 2 + 0.5:20.6f}",
        f"CDELT1  = {-scale:20.12e}",
        f"CDELT2  = {scale:20.12e}",
        f"CRVAL1  = {place.ra:20.12f}",
        f"CRVAL2  = {place.dec:20.12f}",
        "CTYPE1  = 'RA---TAN'",
        "CTYPE2  = 'DEC--TAN'",
    )


_DIFFERENCE_PSF, _TEMPLATE_PSF = 41, 77
"""Sides of the PSF images, as in the real sample. [px]"""


def draw_cutouts(rng: np.random.Generator, place: Place, flux: float) -> dict[str, bytes]:
    """Return the three cutouts of a source of some flux [nJy], encoded as fields."""
    dx, dy = rng.uniform(-0.5, 0.5, 2)
    source = gaussian(_SIZE, _PSF_SIGMA_PX, dx, dy) * np.float32(flux)
    noise = rng.standard_normal((2, _SIZE, _SIZE), np.float32) * np.float32(_SKY_NOISE_NJY)
    template = 0.3 * noise[0] + np.float32(250.0)
    difference = noise[1] + source
    header = _primary(place)
    images = {
        "cutoutDifference": (difference, _DIFFERENCE_PSF),
        "cutoutScience": (template + difference, _DIFFERENCE_PSF),
        "cutoutTemplate": (template, _TEMPLATE_PSF),
    }
    return {
        name: blob(header + padded(pixels.astype(">f4").tobytes()) + _extensions(psf))
        for name, (pixels, psf) in images.items()
    }
