"""The sky's level, against what was put in and against SEP."""

import numpy as np
import pytest
import sep

from broker.errors import AlertError
from broker.imaging.background import expand_mesh, fit_background
from broker.imaging.psf import GaussianPsf

SKY_SIGMA = 14.0


def crowded_sky(seed, *, n_stars, side=512):
    rng = np.random.default_rng(seed)
    yy, xx = np.mgrid[:side, :side]
    sky = 200.0 + 0.02 * xx - 0.01 * yy
    pixels = sky + rng.normal(0.0, SKY_SIGMA, sky.shape)
    stamp = GaussianPsf(2.0)
    for x, y in rng.uniform(15, side - 16, (n_stars, 2)):
        i, j = round(x), round(y)
        flux = 1500.0 * 10 ** rng.uniform(0.0, 2.0)
        pixels[j - 12 : j + 13, i - 12 : i + 13] += flux * stamp.stamp(x - i, y - j, 25)
    return pixels.astype(np.float32), sky


@pytest.mark.parametrize("n_stars", [0, 60, 300])
def test_the_sky_is_found_under_stars_without_bias_and_no_worse_than_sep(n_stars):
    pixels, sky = crowded_sky(1, n_stars=n_stars)

    got = fit_background(pixels, unusable=np.zeros(sky.shape, bool), psf_sigma=2.0)

    residual = got.level - sky
    oracle = sep.Background(pixels, bw=64, bh=64).back() - sky
    # 64 cells of 4096 pixels: the mean of the mesh is known to 14 / sqrt(512²) = 0.03.
    assert abs(residual.mean()) < 0.01 * SKY_SIGMA + 0.1
    assert residual.std() < 0.04 * SKY_SIGMA
    assert np.sqrt(np.mean(residual**2)) <= 1.1 * np.sqrt(np.mean(oracle**2)) + 0.1
    assert got.sigma == pytest.approx(SKY_SIGMA, rel=0.01)


def test_masked_pixels_do_not_count():
    pixels, sky = crowded_sky(2, n_stars=0)
    unusable = np.zeros(sky.shape, bool)
    unusable[100:300, 50:400] = True
    spoiled = np.where(unusable, np.float32(60_000.0), pixels)

    got = fit_background(spoiled, unusable=unusable, psf_sigma=2.0)

    assert np.abs(got.level - sky).max() < 0.5 * SKY_SIGMA


def test_an_image_without_usable_pixels_is_refused_with_its_reason():
    pixels = np.ones((128, 128), np.float32)

    with pytest.raises(AlertError, match="100% of the image is masked"):
        fit_background(pixels, unusable=np.ones(pixels.shape, bool), psf_sigma=2.0)
    with pytest.raises(AlertError, match="no noise"):
        fit_background(pixels, unusable=np.zeros(pixels.shape, bool), psf_sigma=2.0)


def test_a_mesh_of_a_plane_is_expanded_to_that_plane():
    yy, xx = np.mgrid[:96, :160]
    plane = 3.0 + 0.5 * xx - 0.25 * yy
    cells = plane.reshape(3, 32, 5, 32).mean(axis=(1, 3)).astype(np.float32)

    got = expand_mesh(cells, 32, (96, 160))

    np.testing.assert_allclose(got, plane, atol=1e-3)
