"""Cosmic rays are found, stars are left alone."""

import numpy as np
import pytest
from scipy import ndimage

from broker.imaging.cosmic_rays import find_cosmic_rays
from broker.imaging.psf import GaussianPsf

NOISE = 20.0


def stars(seed, sigma, *, side=600, n=250):
    rng = np.random.default_rng(seed)
    pixels = np.zeros((side, side))
    unit = NOISE * np.sqrt(GaussianPsf(sigma).effective_pixels)
    rows = np.column_stack([*rng.uniform(15, side - 16, (2, n)), 10 ** rng.uniform(0.5, 3.0, n)])
    for x, y, snr in rows:
        i, j = round(x), round(y)
        stamp = GaussianPsf(sigma).stamp(x - i, y - j, 25)
        pixels[j - 12 : j + 13, i - 12 : i + 13] += snr * unit * stamp
    noise = rng.normal(0.0, np.sqrt(NOISE**2 + pixels))
    return (pixels + noise).astype(np.float32), rng


@pytest.mark.parametrize("sigma", [1.3, 1.8, 2.5])
def test_no_pixel_of_a_star_is_taken_for_a_hit(sigma):
    flagged = 0
    for seed in range(4):
        pixels, _ = stars(seed, sigma)
        variance = np.full(pixels.shape, NOISE**2, np.float32)
        hits = find_cosmic_rays(
            pixels, variance, psf_sigma=sigma, unusable=np.zeros(pixels.shape, bool)
        )
        flagged += ndimage.label(hits)[1]

    # 1000 stars: an isolated spike of noise may pass once.
    assert flagged <= 1


@pytest.mark.parametrize("sigma", [1.3, 1.8, 2.5])
def test_tracks_are_found_pixel_by_pixel(sigma):
    pixels, rng = stars(9, sigma)
    struck = np.zeros(pixels.shape, bool)
    for _ in range(60):
        x, y = rng.uniform(30, 570, 2)
        angle, length = rng.uniform(0, 2 * np.pi), rng.exponential(8.0) + 1.0
        for along in np.arange(0.0, length):
            j = int(np.clip(y + along * np.sin(angle), 2, 597))
            i = int(np.clip(x + along * np.cos(angle), 2, 597))
            struck[j, i] = True
    pixels[struck] += 600.0
    variance = np.full(pixels.shape, NOISE**2, np.float32)

    hits = find_cosmic_rays(
        pixels, variance, psf_sigma=sigma, unusable=np.zeros(pixels.shape, bool)
    )

    assert (hits & struck).sum() >= 0.97 * struck.sum()
    # The margin is one pixel to each side.
    assert hits.sum() <= ndimage.binary_dilation(struck, np.ones((5, 5))).sum()


def test_masked_pixels_are_neither_judged_nor_marked():
    pixels, _ = stars(1, 1.8, n=0)
    unusable = np.zeros(pixels.shape, bool)
    unusable[300, 300] = True
    pixels[300, 300] = 5e4

    hits = find_cosmic_rays(
        pixels, np.full(pixels.shape, NOISE**2, np.float32), psf_sigma=1.8, unusable=unusable
    )

    assert not hits.any()
