"""The matched filter, against SEP, a plain convolution, and the theory of random peaks."""

import numpy as np
import pytest
from scipy import ndimage
from scipy.stats import norm, poisson

from broker.detection.detect import detect
from broker.imaging.psf import GaussianPsf

SIGMA = 2.0
NOISE = 14.14
AREA_NOISE = NOISE * np.sqrt(GaussianPsf(SIGMA).effective_pixels)
"""Flux of a source of S/N 1."""


def flat(shape):
    return np.full(shape, NOISE**2, np.float32)


def noise(seed, shape):
    rng = np.random.default_rng(seed)
    return rng.normal(0.0, NOISE, shape).astype(np.float32)


def lattice(seed, snr, *, side=1000, pitch=40):
    """Sources of one S/N with random phases: image and places."""
    rng = np.random.default_rng(seed + 1000)
    pixels = noise(seed, (side, side))
    places = []
    for j in range(pitch // 2, side - 10, pitch):
        for i in range(pitch // 2, side - 10, pitch):
            dx, dy = rng.uniform(-0.5, 0.5, 2)
            stamp = GaussianPsf(SIGMA).stamp(dx, dy, 15) * snr * AREA_NOISE
            pixels[j - 7 : j + 8, i - 7 : i + 8] += stamp.astype(np.float32)
            places.append((i + dx, j + dy))
    return pixels, np.array(places)


def found_share(peaks_x, peaks_y, places):
    from scipy.spatial import cKDTree

    if len(peaks_x) == 0:
        return 0.0
    distance, _ = cKDTree(np.column_stack([peaks_x, peaks_y])).query(places)
    return float(np.mean(distance < 3.0))


@pytest.mark.parametrize("snr", [4.0, 5.0, 6.0, 8.0])
@pytest.mark.parametrize("sign", [1, -1])
def test_completeness_is_that_of_a_matched_filter_for_both_signs(snr, sign):
    pixels, places = lattice(3, snr)

    got = detect(sign * pixels, flat(pixels.shape), psf_sigma=SIGMA)

    # A source is found if the largest of several correlated values passes: at least as often as
    # one value would that loses 3 % to its phase; at most as often as with half a sigma of luck.
    share = found_share(got.x[got.snr * sign > 0], got.y[got.snr * sign > 0], places)
    error = 3.0 * np.sqrt(0.25 / len(places))
    assert share >= 0.98 * norm.sf(5.0 - 0.97 * snr) - error
    assert share <= norm.sf(5.0 - 1.03 * snr - 0.5) + error


def test_it_finds_what_sep_finds_with_its_threshold_corrected():
    import sep

    pixels, places = lattice(4, 5.5)
    offsets = np.arange(-4, 5)
    kernel = np.exp(-0.5 * (offsets[:, None] ** 2 + offsets**2) / SIGMA**2)
    kernel /= kernel.sum()
    threshold = 5.0 * np.sqrt(np.sum(kernel**2))

    got = detect(pixels, flat(pixels.shape), psf_sigma=SIGMA, radius=4, negative=False)
    oracle = sep.extract(
        pixels,
        threshold,
        err=NOISE,
        filter_kernel=kernel,
        filter_type="conv",
        minarea=1,
        clean=False,
    )

    ours = found_share(got.x, got.y, places)
    theirs = found_share(oracle["x"], oracle["y"], places)
    assert ours == pytest.approx(theirs, abs=0.02)


def test_false_peaks_on_noise_are_as_many_as_theory_says():
    threshold, counted, area = 4.0, 0, 0
    for seed in range(2):
        pixels = noise(seed, (1500, 1500))
        got = detect(pixels, flat(pixels.shape), psf_sigma=SIGMA, threshold=threshold)
        counted += len(got)
        area += pixels.size

    # Peaks of a Gaussian field above t: Bond & Efstathiou 1987, MNRAS 226 655; two signs.
    density = threshold * np.exp(-(threshold**2) / 2) / ((2 * np.pi) ** 1.5 * 2 * SIGMA**2)
    # The pixels' grid misses peaks between pixels: up to a tenth of them.
    expected = 2 * density * area
    assert poisson.ppf(0.005, 0.9 * expected) <= counted <= poisson.ppf(0.995, expected)


def test_signal_to_noise_is_that_of_sums_with_variance_and_mask():
    pixels, _ = lattice(5, 12.0, side=400)
    rng = np.random.default_rng(6)
    variance = flat(pixels.shape) * rng.uniform(0.5, 3.0, pixels.shape).astype(np.float32)
    unusable = rng.random(pixels.shape) < 0.05
    pixels[unusable] = 5e4

    got = detect(pixels, variance, psf_sigma=SIGMA, unusable=unusable, threshold=4.0)

    offsets = np.arange(-4, 5)
    profile = GaussianPsf(SIGMA).profile(0.0, 4)
    kernel = np.outer(profile, profile)
    assert offsets.size == profile.size
    usable = ~unusable
    signal = ndimage.correlate(np.where(usable, pixels, 0.0).astype(float), kernel, mode="constant")
    power = ndimage.correlate(
        np.where(usable, variance, 0.0).astype(float), kernel**2, mode="constant"
    )
    oracle = signal / np.sqrt(power)
    assert len(got) > 50
    np.testing.assert_allclose(got.snr, oracle[got.y, got.x], rtol=1e-4)


def test_nothing_is_found_where_all_is_masked():
    pixels = noise(1, (64, 64))

    got = detect(pixels, flat(pixels.shape), psf_sigma=SIGMA, unusable=np.ones(pixels.shape, bool))

    assert len(got) == 0


def test_a_noisier_star_region_does_not_make_detections():
    pixels, variance = noise(7, (400, 400)), flat((400, 400))
    rng = np.random.default_rng(8)
    pixels[100:300, 100:300] += rng.normal(0.0, 5 * NOISE, (200, 200)).astype(np.float32)
    variance[100:300, 100:300] *= 26.0

    got = detect(pixels, variance, psf_sigma=SIGMA)

    assert len(got) <= 2
