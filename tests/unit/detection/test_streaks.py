"""Trails on differences: found where they are, and nowhere else."""

import numpy as np
import pytest
from scipy.special import erf

from broker.detection.differencing.streaks import find_streaks
from broker.imaging.psf import GaussianPsf

SIDE, SIGMA = 512, 2.0
NONE = np.zeros((SIDE, SIDE), bool)
ONE = np.ones((SIDE, SIDE), np.float32)


def noise(seed):
    return np.random.default_rng(seed).standard_normal((SIDE, SIDE)).astype(np.float32)


def trail(x0, y0, angle, length, light):
    y, x = np.mgrid[:SIDE, :SIDE]
    across = (x - x0) * np.sin(angle) - (y - y0) * np.cos(angle)
    along = (x - x0) * np.cos(angle) + (y - y0) * np.sin(angle)
    profile = np.exp(-0.5 * (across / SIGMA) ** 2) / (np.sqrt(2 * np.pi) * SIGMA)
    profile *= 0.5 * (erf(along / SIGMA / 1.4142) - erf((along - length) / SIGMA / 1.4142))
    core = (np.abs(across) < 2 * SIGMA) & (along > 0) & (along < length)
    return (light * profile).astype(np.float32), core


@pytest.mark.parametrize("angle", [0.0, 0.4, np.pi / 2, 2.5])
def test_a_trail_that_a_point_filter_sees_at_six_sigma_is_masked_from_end_to_end(angle):
    light, core = trail(250.0, 240.0, angle, 180.0, 6.0)

    streaks, mask = find_streaks(noise(1) + light, ONE, psf_sigma=SIGMA, unusable=NONE)

    assert len(streaks) == 1
    assert streaks[0].length == pytest.approx(180.0, abs=25.0)
    assert mask[core].mean() > 0.93
    # 12 pixels beyond each end, and twice the core's width.
    assert mask.sum() < 3.0 * core.sum()


def test_two_trails_that_cross_are_both_found():
    first, core_1 = trail(-50.0, 100.0, 0.5, 900.0, 10.0)
    second, core_2 = trail(100.0, 500.0, -1.0, 500.0, 10.0)

    streaks, mask = find_streaks(noise(2) + first + second, ONE, psf_sigma=SIGMA, unusable=NONE)

    assert len(streaks) >= 2
    assert mask[core_1 | core_2].mean() > 0.95


def test_noise_and_bright_points_make_no_trail():
    found = 0
    for seed in range(8):
        pixels, rng = noise(10 + seed), np.random.default_rng(seed)
        for _ in range(20):
            x, y = rng.integers(16, SIDE - 16, 2)
            stamp = 10 ** rng.uniform(1.5, 3.5) * GaussianPsf(SIGMA).stamp(size=25)
            pixels[y - 12 : y + 13, x - 12 : x + 13] += stamp.astype(np.float32)
        found += len(find_streaks(pixels, ONE, psf_sigma=SIGMA, unusable=NONE)[0])

    # On larger samples one in two hundred megapixels.
    assert found == 0


def test_masked_pixels_do_not_vote():
    light, core = trail(0.0, 256.0, 0.0, 512.0, 50.0)

    streaks, mask = find_streaks(noise(3) + light, ONE, psf_sigma=SIGMA, unusable=light > 0.1)

    assert streaks == []
    assert not mask.any()
    assert core.any()
