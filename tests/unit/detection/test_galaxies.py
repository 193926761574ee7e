"""Fluxes of extended sources agree with another program's and with what was drawn."""

import math

import numpy as np
import pytest
import sep

from broker.detection.galaxies.photometry import (
    Shapes,
    adaptive_shapes,
    aperture_photometry,
    ellipse_photometry,
    kron_photometry,
    kron_radii,
    petrosian_photometry,
)
from broker.simulation.kernels import add_gaussians

SIDE, NOISE = 600, 4.0


def exponential(pixels, x, y, flux, half_light, sub=5):
    """Add a round exponential disc, integrated over each pixel, out to ten scale lengths."""
    scale = half_light / 1.6783
    reach = int(12 * scale)
    j, i = round(y), round(x)
    fine = (np.arange((2 * reach + 1) * sub) + 0.5) / sub - 0.5 - reach
    r = np.hypot(fine[None, :] + i - x, fine[:, None] + j - y)
    side = 2 * reach + 1
    light = np.exp(-r / scale).reshape(side, sub, side, sub).sum(axis=(1, 3))
    pixels[j - reach : j + reach + 1, i - reach : i + reach + 1] += flux * light / light.sum()


@pytest.fixture(scope="module")
def field():
    """Elliptical Gaussians along the axes on a lattice, with noise."""
    rng = np.random.default_rng(2)
    grid = np.arange(40.0, SIDE - 30.0, 60.0)
    x, y = (g.ravel() + rng.uniform(-3, 3, g.size) for g in np.meshgrid(grid, grid))
    wide, high = rng.uniform(2.0, 4.0, (2, x.size))
    flux = np.full(x.size, 20_000.0)
    pixels = np.zeros((SIDE, SIDE), np.float32)
    add_gaussians(pixels, x, y, flux, wide, high, 1e-4)
    noisy = pixels + rng.normal(0.0, NOISE, pixels.shape).astype(np.float32)
    variance = np.full(pixels.shape, NOISE**2, np.float32)
    return pixels, noisy, variance, np.zeros(pixels.shape, bool), x, y, wide, high, flux


def test_shapes_are_those_that_were_drawn(field):
    pixels, _, _, unusable, x, y, wide, high, _ = field

    got = adaptive_shapes(pixels, x, y, psf_sigma=2.0, unusable=unusable)

    # The pixel's square adds its own width.
    wide, high = np.hypot(wide, 12**-0.5), np.hypot(high, 12**-0.5)
    np.testing.assert_allclose(got.a, np.maximum(wide, high), rtol=5e-3)
    np.testing.assert_allclose(got.b, np.minimum(wide, high), rtol=5e-3)
    along = np.abs(np.cos(got.theta)) > 0.7
    clear = np.abs(wide - high) > 0.3
    assert (along == (wide > high))[clear].all()


def test_apertures_equal_those_of_sep(field):
    _, noisy, variance, unusable, x, y, *_ = field

    got = aperture_photometry(noisy, variance, x, y, 7.3, unusable=unusable)

    flux, error, _ = sep.sum_circle(noisy, x, y, 7.3, err=NOISE, subpix=5)
    # Both count 5 × 5 subpixels; one at the border may fall to either side.
    np.testing.assert_allclose(got.flux, flux, atol=0.2 * NOISE)
    np.testing.assert_allclose(got.flux_err, error, rtol=1e-3)


def test_kron_radius_and_flux_equal_those_of_sep(field):
    _, noisy, variance, unusable, x, y, wide, high, _ = field
    theta = np.linspace(-1.5, 1.5, x.size)
    shapes = Shapes(np.maximum(wide, high), np.minimum(wide, high), theta)

    radius = kron_radii(noisy, x, y, shapes, unusable=unusable)
    got = ellipse_photometry(noisy, variance, x, y, shapes, 2.5 * radius, unusable=unusable)

    theirs, _ = sep.kron_radius(noisy, x, y, shapes.a, shapes.b, theta, 6.0)
    flux, _, _ = sep.sum_ellipse(noisy, x, y, shapes.a, shapes.b, theta, 2.5 * theirs, subpix=5)
    np.testing.assert_allclose(radius, theirs, rtol=2e-3)
    np.testing.assert_allclose(got.flux, flux, rtol=5e-3)


def test_kron_flux_of_gaussians_is_nearly_all_of_it_with_honest_errors(field):
    _, noisy, variance, unusable, x, y, *_, flux = field
    shapes = adaptive_shapes(noisy, x, y, psf_sigma=2.0, unusable=unusable)

    got = kron_photometry(noisy, variance, x, y, shapes, unusable=unusable)

    ratio = got.flux / flux
    # 3.5 sigma of a Gaussian hold 0.998 of it.
    assert np.mean(ratio) == pytest.approx(0.998, abs=4 * np.std(ratio) / math.sqrt(ratio.size))
    pull = (got.flux - np.mean(got.flux)) / got.flux_err
    assert np.std(pull) == pytest.approx(1.0, abs=4.0 / math.sqrt(2 * ratio.size))


@pytest.mark.parametrize("half_light", [3.0, 6.0])
def test_petrosian_magnitudes_of_discs_have_little_bias(half_light):
    rng = np.random.default_rng(3)
    pixels = np.zeros((500, 500))
    places = [(x + rng.uniform(-2, 2), y + rng.uniform(-2, 2))
              for x in (100, 250, 400) for y in (100, 250, 400)]  # fmt: skip
    for x, y in places:
        exponential(pixels, x, y, 20_000.0, half_light)
    x, y = np.array(places).T
    pixels = pixels.astype(np.float32)
    variance, unusable = np.ones((500, 500), np.float32), np.zeros((500, 500), bool)

    got = petrosian_photometry(pixels, variance, x, y, unusable=unusable)

    offset = -2.5 * np.log10(got.flux / 20_000.0)
    assert np.abs(offset).max() < 0.02


def test_a_petrosian_radius_is_where_its_definition_says(field):
    pixels = np.zeros((200, 200), np.float32)
    sigma = np.array([5.0])
    add_gaussians(pixels, np.array([100.0]), np.array([100.0]), np.array([1e5]), sigma, sigma, 1e-6)

    got = petrosian_photometry(
        pixels, np.ones_like(pixels), np.array([100.0]), np.array([100.0]),
        unusable=np.zeros(pixels.shape, bool),
    )  # fmt: skip

    # For a Gaussian the ratio has a closed form; solve it by bisection.
    def ratio(r):
        ring = np.exp(-0.5 * (0.8 * r) ** 2) - np.exp(-0.5 * (1.25 * r) ** 2)
        return ring / (1.25**2 - 0.8**2) / (1.0 - np.exp(-0.5 * r * r))

    low, high = 0.5, 6.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if ratio(middle) > 0.2 else (low, middle)
    assert got.radius[0] == pytest.approx(low * np.hypot(5.0, 12**-0.5), rel=0.01)


def test_masked_and_missing_pixels_are_counted_and_nothing_is_not_zero(field):
    _, noisy, variance, unusable, *_ = field
    masked = unusable.copy()
    masked[:, 300:] = True
    x, y = np.array([300.0, 0.0, 1e9, np.nan]), np.array([300.0, 0.0, 10.0, 10.0])

    got = aperture_photometry(noisy, variance, x, y, 10.0, unusable=masked)

    assert got.masked[0] == pytest.approx(0.5, abs=0.04)
    assert got.masked[1] == pytest.approx(0.72, abs=0.05)
    assert np.isnan(got.flux[2:]).all()
