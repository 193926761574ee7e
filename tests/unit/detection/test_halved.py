"""What is found at half the resolution is what is found at all of it, but for the faintest."""

import numpy as np

from broker.detection.detect import detect
from broker.detection.halved import find_bright
from broker.ops.image_bench.rows import GAIN, READ, SKY, field


def test_bright_stars_of_a_large_image_are_found_at_half_the_resolution():
    pixels = field(1024, sigma=1.7)[0]
    variance = np.full(pixels.shape, SKY / GAIN + (READ / GAIN) ** 2, np.float32)
    unusable = np.zeros(pixels.shape, np.bool_)
    unusable[300:310] = True

    half, whole = (
        find(pixels, variance, psf_sigma=1.7, unusable=unusable, threshold=10.0, **more)
        for find, more in ((find_bright, {}), (detect, {"negative": False}))
    )

    assert len(whole) > 100
    assert 0.9 * len(whole) < len(half) <= len(whole)
    away = np.hypot(half.x[:, None] - whole.x, half.y[:, None] - whole.y)
    near = away.min(axis=1) < 2.5
    assert near.mean() > 0.98
    mate = away.argmin(axis=1)[near]
    alone = (away < 12.0).sum(axis=1)[near] == 1
    share = (half.snr[near] / whole.snr[mate])[alone]
    assert 0.9 < np.median(share) < 1.0
    assert abs(np.median((half.flux[near] / whole.flux[mate])[alone]) - 1.0) < 0.02
