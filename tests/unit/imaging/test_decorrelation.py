"""White noise again: against the noise and the sources of a convolved image."""

import numpy as np
import pytest
from scipy.ndimage import convolve

from broker.errors import AlertError
from broker.imaging.decorrelation import make_whitening
from broker.imaging.psf import GaussianPsf

KERNEL = GaussianPsf(1.2).stamp(size=13)


def correlation(pixels, dy, dx):
    ny, nx = pixels.shape
    return float(np.mean(pixels[dy:, dx:] * pixels[: ny - dy, : nx - dx]) / np.var(pixels))


@pytest.mark.parametrize("shape", [(256, 256), (251, 263)])
def test_noise_is_white_with_the_variance_of_both_images(shape):
    rng = np.random.default_rng(1)
    plain, deep = rng.normal(0.0, 2.0, shape), rng.normal(0.0, 3.0, shape)
    difference = (plain - convolve(deep, KERNEL, mode="wrap")).astype(np.float32)

    got = make_whitening(KERNEL, plain=4.0, convolved=9.0).apply(difference)[8:-8, 8:-8]

    assert correlation(difference, 0, 1) > 0.05  # 0.09 by theory
    # 57600 pixels: a correlation is known to 0.004, a variance to 0.6 %; these are five of them.
    for lag in ((0, 1), (1, 0), (1, 1), (0, 2)):
        assert abs(correlation(got, *lag)) < 0.02
    assert np.var(got) == pytest.approx(13.0, rel=0.03)


def test_flux_is_kept_and_the_width_measures_it_without_bias():
    whitening = make_whitening(3.0 * KERNEL, plain=1.0, convolved=8.0)

    star, width = whitening.psf(2.4), whitening.width(2.4)

    model = GaussianPsf(width).stamp(size=star.shape[0])
    assert star.sum() == pytest.approx(1.0, abs=1e-3)
    assert np.sum(star * model) / np.sum(model**2) == pytest.approx(1.0, abs=1e-6)
    assert 2.0 < width < 2.4  # towards the sharper of the two images


def test_without_convolved_noise_nothing_changes():
    pixels = np.random.default_rng(2).normal(size=(64, 60)).astype(np.float32)

    got = make_whitening(KERNEL, plain=1.0, convolved=0.0).apply(pixels)

    np.testing.assert_allclose(got, pixels, atol=1e-5)


def test_a_kernel_or_noise_that_says_nothing_is_refused():
    for kernel, plain in ((-KERNEL, 1.0), (KERNEL, 0.0), (KERNEL * np.nan, 1.0)):
        with pytest.raises(AlertError, match="cannot be made white"):
            make_whitening(kernel, plain=plain, convolved=1.0)
