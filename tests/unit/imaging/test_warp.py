"""Warping, against SciPy's splines and a sky whose stars are known."""

import numpy as np
import pytest
from scipy import ndimage

from broker.imaging.image import Calibration, Image
from broker.imaging.kernels import spline_coefficients
from broker.imaging.mask import MaskPlane
from broker.imaging.psf import GaussianPsf
from broker.imaging.warp import warp
from broker.imaging.wcs import Wcs

CALIBRATION = Calibration(1, 1, "r", 61000.0, 30.0, 27.0, 1.5, 6.0, 60000.0)


def image_of(pixels, wcs, *, variance=1.0, sigma=2.0):
    pixels = pixels.astype(np.float32)
    plane = np.full(pixels.shape, variance, np.float32)
    mask = np.zeros(pixels.shape, np.uint16)
    return Image(pixels, plane, mask, wcs, GaussianPsf(sigma), CALIBRATION)


def test_spline_coefficients_are_those_of_scipy():
    pixels = np.random.default_rng(1).normal(size=(70, 91)).astype(np.float32)

    got = spline_coefficients(pixels)

    oracle = ndimage.spline_filter(pixels.astype(float), 3, mode="mirror")
    np.testing.assert_allclose(got, oracle, atol=1e-5)  # float32


@pytest.mark.parametrize("dec", [0.0, 88.9])
def test_a_turned_image_is_that_of_map_coordinates_on_the_exact_positions(dec):
    pixels = np.random.default_rng(2).normal(size=(300, 280))
    old = Wcs.from_scale(10.0, dec, scale_arcsec=0.2, crpix=(140.0, 150.0))
    turned = Wcs(10.0003, dec + 2e-5, 139.0, 149.0, ((-5.5e-5, 3e-6), (3e-6, 5.5e-5)))

    got = warp(image_of(pixels, old), turned, (290, 285))

    yy, xx = np.mgrid[:290, :285]
    x, y = old.sky_to_pixel(*turned.pixel_to_sky(xx, yy))
    oracle = ndimage.map_coordinates(pixels, [y, x], order=3, mode="mirror")
    oracle *= (turned.scale_arcsec / old.scale_arcsec) ** 2
    inside = ~got.is_masked(MaskPlane.NO_DATA)
    assert inside.mean() > 0.9
    np.testing.assert_allclose(got.pixels[inside], oracle[inside], atol=2e-4)
    assert (got.pixels[~inside] == 0.0).all()
    assert (got.variance[~inside] == 0.0).all()


@pytest.mark.parametrize("scale_arcsec", [0.2, 0.25])
def test_a_star_keeps_its_flux_and_its_place(scale_arcsec):
    old = Wcs.from_scale(10.0, 3.0, scale_arcsec=0.2, crpix=(60.0, 60.0))
    new = Wcs.from_scale(10.0001, 3.0001, scale_arcsec=scale_arcsec, crpix=(60.3, 59.6))
    pixels = np.zeros((121, 121))
    pixels[40:81, 40:81] = 1000.0 * GaussianPsf(2.0).stamp(0.3, -0.2, 41)

    got = warp(image_of(pixels, old), new, (121, 121))

    yy, xx = np.mgrid[:121, :121]
    total = got.pixels.sum(dtype=float)
    x, y = new.sky_to_pixel(*old.pixel_to_sky(60.3, 59.8))
    assert total == pytest.approx(1000.0, rel=3e-4)
    assert (got.pixels * xx).sum(dtype=float) / total == pytest.approx(float(x), abs=1e-3)
    assert (got.pixels * yy).sum(dtype=float) / total == pytest.approx(float(y), abs=1e-3)


def test_the_variance_that_comes_out_is_that_of_a_psf_weighted_sum():
    old = Wcs.from_scale(10.0, 3.0, scale_arcsec=0.2, crpix=(300.0, 300.0))
    new = old.shifted(0.5, 0.5)
    pixels = np.random.default_rng(3).normal(0.0, 3.0, (600, 600))

    got = warp(image_of(pixels, old, variance=9.0), new, (590, 590))

    psf = GaussianPsf(2.0).stamp(size=13)
    sums = ndimage.correlate(got.pixels[5:-5, 5:-5].astype(float), psf)[10:-10:6, 10:-10:6]
    # 8836 sums, nearly independent: the standard deviation is known to 1 %.
    assert sums.std() == pytest.approx(np.sqrt(9.0 * np.sum(psf**2)), rel=0.03)
    assert got.pixels.std() < 0.8 * 3.0  # the pixels' own noise is less


def test_masks_travel_with_their_pixels():
    wcs = Wcs.from_scale(10.0, 3.0, scale_arcsec=0.2, crpix=(30.0, 30.0))
    image = image_of(np.ones((61, 61)), wcs)
    image.mask[30, 20] = MaskPlane.BAD

    got = warp(image, wcs.shifted(2.0, 1.0), (50, 50))

    assert got.mask[29, 18] & MaskPlane.BAD
    assert np.count_nonzero(got.mask & np.uint16(MaskPlane.BAD)) <= 4
