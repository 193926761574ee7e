"""Shapes of drawn sources are recovered, and artefacts look like artefacts."""

import numpy as np
import pytest
from scipy.special import erf

from broker.science import Cutouts
from science_modules.cutout_shape.module import OUTPUTS, cutout_shape, level_and_noise

FWHM = 2.0 * np.sqrt(2.0 * np.log(2.0))
NOISE = 5.0


def pixel_integral(n, centre, sigma):
    """Integrate a unit Gaussian over each of n pixels."""
    edges = (np.arange(n + 1) - 0.5 - centre) / (sigma * np.sqrt(2.0))
    return np.diff(erf(edges)) / 2.0


def drawn(*, flux, sigma_x=1.8, sigma_y=1.8, dx=0.0, dy=0.0, size=63, seed=1, level=0.0):
    """Return a noisy image of a Gaussian source near the middle."""
    middle = (size - 1) / 2
    noise = np.random.default_rng(seed).normal(level, NOISE, (size, size))
    source = np.outer(
        pixel_integral(size, middle + dy, sigma_y), pixel_integral(size, middle + dx, sigma_x)
    )
    return (noise + flux * source).astype(np.float32)


def measured(*images):
    """Return the measures of the difference images, without the prefix."""
    none = Cutouts((), len(images))
    got = cutout_shape(Cutouts.from_images(dict(enumerate(images)), len(images)), none)
    assert got.filter(like="science").isna().all(axis=None)
    got = got.filter(like="difference")
    return got.rename(columns=lambda name: name.removeprefix("difference"))


@pytest.mark.parametrize("size", [63, 31, 30])
@pytest.mark.parametrize("sigma", [1.2, 1.8, 2.6])
def test_width_and_place_are_recovered_in_cutouts_of_any_size(size, sigma):
    images = [
        drawn(flux=2e4, sigma_x=sigma, sigma_y=sigma, dx=0.7, dy=-0.4, size=size, seed=seed)
        for seed in range(30)
    ]

    got = measured(*images)

    # The pixel widens the source: variances add, 1/12 pixel squared.
    width = FWHM * np.sqrt(sigma**2 + 1 / 12)
    assert got["Fwhm"].mean() == pytest.approx(width, rel=0.01)
    assert got["Offset"].mean() == pytest.approx(np.hypot(0.7, 0.4), abs=0.03)
    assert got["Elongation"].mean() == pytest.approx(1.0, abs=0.03)


def test_elongation_is_the_ratio_of_the_axes():
    got = measured(drawn(flux=1e5, sigma_x=2.4, sigma_y=1.2))

    expected = np.sqrt((2.4**2 + 1 / 12) / (1.2**2 + 1 / 12))
    assert got["Elongation"][0] == pytest.approx(expected, rel=0.02)


def test_a_fading_source_is_measured_like_a_rising_one():
    image = drawn(flux=2e4, seed=5)

    got = measured(image, -image)

    for name in ("Fwhm", "Elongation", "Offset", "Sharpness", "Dipole", "NegativeFraction"):
        assert got[name][0] == pytest.approx(got[name][1], rel=1e-5), name
    assert got["Snr"][0] == pytest.approx(-got["Snr"][1], rel=1e-5)


def test_the_sky_of_a_science_image_does_not_matter():
    got = measured(drawn(flux=2e4, seed=6), drawn(flux=2e4, seed=6, level=1000.0))

    assert got["Fwhm"][0] == pytest.approx(got["Fwhm"][1], rel=1e-3)


def test_a_dipole_and_a_cosmic_ray_stand_out():
    dipole = drawn(flux=5e3, dx=2.0, seed=7) - drawn(flux=4.5e3, dx=-2.0, seed=8)
    cosmic_ray = drawn(flux=0.0, seed=9)
    cosmic_ray[31, 31] += 4000.0

    got = measured(dipole, cosmic_ray, drawn(flux=5e3, seed=10))

    assert got["Dipole"][0] > 0.5
    assert got["Dipole"][2] < 0.05
    assert got["NegativeFraction"][0] > 0.2
    assert got["Sharpness"][1] > 0.7
    assert got["Sharpness"][2] < 0.2


def test_noise_has_no_shape():
    got = measured(drawn(flux=0.0, seed=11))

    assert np.isnan(got["Fwhm"][0])
    assert abs(got["Snr"][0]) < 4


def test_missing_pixels_are_counted_and_a_hidden_middle_is_null():
    edge = drawn(flux=2e4, seed=12)
    edge[:, :21] = np.nan
    hidden = drawn(flux=2e4, seed=12)
    hidden[:, :32] = np.nan

    got = measured(edge, hidden)

    assert got["NanFraction"][0] == pytest.approx(21 / 63)
    assert got["Fwhm"][0] == pytest.approx(FWHM * np.sqrt(1.8**2 + 1 / 12), rel=0.03)
    assert np.isnan(got["Fwhm"][1])


def test_no_cutout_gives_nulls():
    got = cutout_shape(Cutouts((), 3), Cutouts((), 3))

    assert got.shape == (3, len(OUTPUTS))
    assert got.isna().all(axis=None)


def test_level_and_noise_equal_those_of_numpy_with_missing_pixels():
    pixels = drawn(flux=0.0, seed=13, level=100.0)[None]
    pixels[0, 5:20, :] = np.nan

    level, noise = level_and_noise(pixels)

    y, x = np.mgrid[:63:3, :63:3] - 31
    sample = pixels[0, ::3, ::3][x**2 + y**2 > (0.3 * 63) ** 2].astype(float)
    expected = np.nanmedian(sample)
    assert level[0] == pytest.approx(expected)
    assert noise[0] == pytest.approx(1.4826 * np.nanmedian(np.abs(sample - expected)))
    assert noise[0] == pytest.approx(NOISE, rel=0.15)
