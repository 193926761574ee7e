"""Close pairs come apart, and nothing else does."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from broker.detection.detect import detect
from broker.detection.galaxies.deblend import deblend
from broker.detection.measure import Noise
from broker.detection.psf.tables import gaussian_tables
from broker.simulation.kernels import add_gaussians

SIGMA, SKY = 2.0, 200.0
UNIT = np.sqrt(SKY * 4.0 * np.pi) * SIGMA


def draw(x, y, snr, side, seed, width=None):
    light = np.full((side, side), SKY, np.float32)
    width = np.full(x.size, SIGMA) if width is None else width
    add_gaussians(light, x, y, snr * UNIT, width, width, 1e-3)
    return (np.random.default_rng(seed).poisson(light) - SKY).astype(np.float32)


def taken_apart(pixels, *, passes=4):
    variance = np.full(pixels.shape, SKY, np.float32)
    unusable = np.zeros(pixels.shape, bool)
    peaks = detect(pixels, variance, psf_sigma=SIGMA, unusable=unusable, negative=False)
    return deblend(
        pixels, variance, peaks, psf=gaussian_tables(SIGMA, pixels.shape),
        noise=Noise(1.0, SKY), unusable=unusable, passes=passes,
    )  # fmt: skip


def matched(x, y, got, radius=2.0):
    """Return for each truth its source, one to one, nearest pairs first; -1 for none."""
    pairs = cKDTree(np.column_stack([x, y])).query_ball_point(
        np.column_stack([got.fits.x, got.fits.y]), radius
    )
    gaps = sorted(
        (np.hypot(got.fits.x[k] - x[m], got.fits.y[k] - y[m]), m, k)
        for k, found in enumerate(pairs)
        for m in found
    )
    partner, used = np.full(x.size, -1), set()
    for _, m, k in gaps:
        if partner[m] < 0 and k not in used:
            partner[m] = k
            used.add(k)
    return partner


@pytest.mark.slow
@pytest.mark.parametrize("apart", [4.0, 5.0, 7.0])
def test_pairs_come_apart_with_unbiased_fluxes_and_honest_errors(apart):
    rng = np.random.default_rng(int(apart))
    grid = np.arange(30.0, 620.0, 40.0)
    x0, y0 = (g.ravel() + rng.uniform(-0.5, 0.5, g.size) for g in np.meshgrid(grid, grid))
    angle = rng.uniform(0, 2 * np.pi, x0.size)
    x = np.append(x0, x0 + apart * np.cos(angle))
    y = np.append(y0, y0 + apart * np.sin(angle))
    snr = 10 ** rng.uniform(1.2, 2.2, x.size)

    got = taken_apart(draw(x, y, snr, 640, 1))

    partner = matched(x, y, got)
    found = partner >= 0
    bright = snr > 20.0
    # The nearest pairs have a star of up to eight times the flux two PSF widths away.
    assert found[bright].mean() > (0.95 if apart < 5.0 else 0.98)
    assert len(got.peaks) == pytest.approx(found.sum(), abs=0.01 * x.size)
    fits = got.fits
    pull = ((fits.flux[partner] - snr * UNIT) / fits.flux_err[partner])[found & bright]
    assert abs(np.median(pull)) < 0.3
    # A pair at two PSF widths is not quite Gaussian in its errors.
    assert 1.4826 * np.median(np.abs(pull - np.median(pull))) < 1.35


def test_a_crowded_field_is_complete_and_pure():
    rng = np.random.default_rng(2)
    side = 700
    n = int(1200 * side * side / 1e6)
    x, y = rng.uniform(0, side, (2, n))
    snr = 10 ** rng.uniform(np.log10(5.0), np.log10(300.0), n)

    got = taken_apart(draw(x, y, snr, side, 3))

    partner = matched(x, y, got)
    gap = cKDTree(np.column_stack([x, y])).query(np.column_stack([x, y]), k=2)[0][:, 1]
    inside = (np.minimum(x, y) > 8) & (np.maximum(x, y) < side - 9)
    pair = inside & (snr > 10.0) & (gap >= 4.0) & (gap <= 10.0)
    real = np.isin(np.arange(len(got.peaks)), partner)
    assert pair.sum() > 80
    assert np.mean(partner[pair] >= 0) >= 0.97
    assert real.mean() >= 0.985
    alone = taken_apart(draw(x, y, snr, side, 3), passes=0)
    assert np.mean(matched(x, y, alone)[pair] >= 0) < 0.9


def test_isolated_stars_however_bright_stay_single():
    rng = np.random.default_rng(4)
    grid = np.arange(40.0, 600.0, 60.0)
    x, y = (g.ravel() + rng.uniform(-3, 3, g.size) for g in np.meshgrid(grid, grid))
    snr = 10 ** rng.uniform(1.5, 4.0, x.size)

    got = taken_apart(draw(x, y, snr, 600, 5))

    assert not got.added.any()
    assert len(got.peaks) == x.size


def test_a_galaxy_is_not_shredded():
    rng = np.random.default_rng(6)
    grid = np.arange(40.0, 320.0, 60.0)
    x, y = (g.ravel() + rng.uniform(-3, 3, g.size) for g in np.meshgrid(grid, grid))

    got = taken_apart(draw(x, y, np.full(x.size, 300.0), 320, 7, np.full(x.size, 4.0)))

    assert len(got.peaks) >= x.size
    assert not got.added.any()


def test_an_image_without_sources_has_none():
    got = taken_apart(np.random.default_rng(8).normal(0.0, 14.0, (100, 100)).astype(np.float32))

    assert len(got.peaks) == 0
    assert got.fits.flux.size == 0
