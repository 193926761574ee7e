"""The matching kernel, against a plain convolution and a kernel that is known."""

import numpy as np
import pytest

from broker.errors import AlertError
from broker.imaging.kernel_stars import kernel_stars
from broker.imaging.kernels import RUN_PX
from broker.imaging.psf import GaussianPsf
from broker.imaging.subtract import (
    fit_kernel,
    gaussian_kernel,
    polynomials,
)

SIDE = 384
NOISE = 10.0


def scene(seed, sigma, *, noise, scale=1.0, shift=0.0, brighter=None):
    """Stars at places that depend on nothing but a fixed seed; `sigma` is a function of x."""
    stars = np.random.default_rng(42)
    pixels = np.zeros((SIDE, SIDE))
    grid = np.arange(30, SIDE - 30, 42)
    places = []
    for j in grid:
        for i in grid:
            dx, dy = stars.uniform(-0.5, 0.5, 2)
            flux = 3_000.0 * 10 ** stars.uniform(0.0, 1.2) * scale
            if brighter and len(places) in brighter:
                flux *= 1.3
            stamp = GaussianPsf(sigma(i)).stamp(dx + shift, dy, 29)
            pixels[j - 14 : j + 15, i - 14 : i + 15] += flux * stamp
            places.append((i, j))
    rng = np.random.default_rng(seed)
    x, y = np.array(places).T
    return rng.normal(pixels, noise).astype(np.float32), x, y


def whole_kernel(kernel, x, y):
    """The kernel at a pixel as a plain image."""
    at = [np.array(float(v // RUN_PX * RUN_PX + RUN_PX / 2)) for v in (x, y)]
    values = kernel.terms @ polynomials(at[0], at[1], (SIDE, SIDE))
    filters = kernel.basis.filters
    return sum(
        v * np.outer(filters[a], filters[b])
        for v, a, b in zip(values, kernel.basis.along_y, kernel.basis.along_x, strict=True)
    )


def fitted(**changes):
    source, x, y = scene(1, lambda i: 1.6, noise=1.0)
    target, _, _ = scene(2, lambda i: 2.0 + 0.25 * i / SIDE, noise=NOISE, scale=2.0, **changes)
    variance = np.full(source.shape, NOISE**2, np.float32)
    return source, target, fit_kernel(source, target, variance, x, y, 1.3)


def test_the_difference_of_matched_images_is_noise_though_seeing_varies_and_stars_are_shifted():
    source, target, kernel = fitted(shift=0.15)

    rest = (target - kernel.convolve(source) - kernel.background_plane())[20:-20, 20:-20]

    # 118336 pixels: the standard deviation is known to 0.2 %; the rest is the source's noise.
    assert rest.std() == pytest.approx(NOISE, rel=0.03)
    assert np.abs(rest).max() < 6.5 * NOISE
    assert kernel.scale == pytest.approx(2.0, rel=0.003)
    assert kernel.order >= 1


def test_convolution_is_that_of_the_kernel_written_out():
    source, _, kernel = fitted()
    r = kernel.basis.radius

    got = kernel.convolve(source)

    for x, y in ((40, 300), (200, 200), (333, 51)):
        patch = source[y - r : y + r + 1, x - r : x + r + 1].astype(float)
        oracle = float(np.sum(patch * whole_kernel(kernel, x, y)[::-1, ::-1]))
        assert got[y, x] == pytest.approx(oracle, rel=1e-4, abs=0.05)


def test_the_kernels_sum_is_the_flux_scale_everywhere():
    _, _, kernel = fitted()

    for x, y in ((5, 5), (200, 100), (370, 380)):
        assert whole_kernel(kernel, x, y).sum() == pytest.approx(kernel.scale, rel=1e-9)


def test_variable_stars_are_left_out_of_the_fit():
    source, x, y = scene(1, lambda i: 1.6, noise=1.0)
    variables = set(range(0, 64, 4))
    target, _, _ = scene(2, lambda i: 2.1, noise=NOISE, brighter=variables)
    variance = np.full(source.shape, NOISE**2, np.float32)

    kernel = fit_kernel(source, target, variance, x, y, 1.35)

    assert kernel.scale == pytest.approx(1.0, abs=0.004)
    assert kernel.n_stars <= len(x) - 0.8 * len(variables)


def test_with_equal_seeing_the_kernel_is_narrow():
    source, x, y = scene(1, lambda i: 1.8, noise=1.0)
    target, _, _ = scene(2, lambda i: 1.8, noise=NOISE)

    kernel = fit_kernel(source, target, np.full(source.shape, NOISE**2, np.float32), x, y, 0.0)

    # Wings far out weigh most in a second moment, and are known least: a tenth of 1.8 squared.
    assert kernel.second_moment() == pytest.approx(0.0, abs=0.3)
    assert kernel.order == 0


def test_the_plain_gaussian_kernel_widens_a_star_and_keeps_its_flux():
    source = np.zeros((SIDE, SIDE), np.float32)
    source[100:131, 100:131] = 1000.0 * GaussianPsf(1.5).stamp(size=31)

    got = gaussian_kernel(1.2, (SIDE, SIDE)).convolve(source)

    expected = 1000.0 * GaussianPsf(np.hypot(1.5, 1.2)).stamp(size=31)
    # A sampled Gaussian of 1.2 px is wider than the true one by less than 1 part in 1000.
    np.testing.assert_allclose(got[100:131, 100:131], expected, atol=0.05)
    assert got.sum() == pytest.approx(1000.0, rel=1e-3)


def test_no_star_and_no_light_are_refused():
    flat = np.zeros((SIDE, SIDE), np.float32)
    ones = np.ones_like(flat)
    none = np.zeros(0, np.int64)

    with pytest.raises(AlertError, match="no star"):
        fit_kernel(flat, flat, ones, none, none, 1.0)
    with pytest.raises(AlertError, match="cannot be matched"):
        fit_kernel(flat, flat, ones, np.array([100]), np.array([100]), 1.0)


def test_kernel_stars_are_isolated_whole_and_of_the_right_brightness():
    #             isolated  pair  pair  masked  border  faint  too bright
    x = np.array([100, 200, 208, 300, 5, 150, 250])
    y = np.array([100, 200, 200, 300, 50, 320, 90])
    snr = np.array([50.0, 60.0, 40.0, 80.0, 90.0, 12.0, 2000.0], np.float32)
    unusable = np.zeros((SIDE, SIDE), bool)
    unusable[305, 300] = True

    assert kernel_stars(x, y, snr, unusable).tolist() == [0]
