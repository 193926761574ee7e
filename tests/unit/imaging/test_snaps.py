"""A pair of snaps gives a clean image and the cosmic rays, and spares the stars."""

import numpy as np
import pytest

from broker.errors import AlertError
from broker.imaging.psf import GaussianPsf
from broker.imaging.snaps import split_snaps
from broker.simulation.detector import cosmic_rays

SIDE, GAIN, READ, SKY = 512, 1.6, 7.0, 100.0


@pytest.fixture(scope="module")
def pair():
    """Two snaps with stars whose seeing differs by 2 %, and their hits."""
    rng = np.random.default_rng(11)
    places = rng.uniform(20, SIDE - 21, (300, 2))
    electrons = 10.0 ** rng.uniform(2.0, 5.3, 300)
    truth, stars, snaps, struck = [], np.zeros((SIDE, SIDE)), [], []
    for sigma in (2.0, 2.04):
        light = np.full((SIDE, SIDE), SKY)
        for (x, y), flux in zip(places, electrons, strict=True):
            i, j = round(x), round(y)
            stamp = GaussianPsf(sigma).stamp(x - i, y - j, 21) * flux
            light[j - 10 : j + 11, i - 10 : i + 11] += stamp
        pixels, charge = cosmic_rays(rng, 40, SIDE)
        hit = np.bincount(pixels, charge, SIDE * SIDE).reshape(SIDE, SIDE)
        counts = (rng.poisson(light) + hit + rng.normal(0.0, READ, light.shape)) / GAIN
        snaps.append(counts.astype(np.float32))
        struck.append(hit > 0.0)
        truth.append(light / GAIN)
        stars = np.maximum(stars, light - SKY)
    return snaps, struck, sum(truth), stars


def test_hits_are_found_pixel_by_pixel_and_stars_are_not(pair):
    snaps, struck, _, stars = pair

    got = split_snaps(*snaps, gain=GAIN, read_noise=READ)

    true = struck[0] | struck[1]
    found = got.struck
    assert (found & true).sum() >= 0.98 * true.sum()
    assert (found & true).sum() >= 0.99 * found.sum()
    assert not (found & ~true & (stars > 2000.0)).any()
    once = struck[0] ^ struck[1]
    assert (got.hits[once & found] == np.where(struck[0], 1, 2)[once & found]).mean() > 0.99


def test_the_clean_image_has_neither_hits_nor_bias(pair):
    snaps, struck, truth, stars = pair

    got = split_snaps(*snaps, gain=GAIN, read_noise=READ)

    repaired = got.struck & (struck[0] ^ struck[1]) & (stars < 50.0)
    pull = (got.pixels - truth) / np.sqrt(got.variance)
    sky = ~got.struck & ~struck[0] & ~struck[1] & (stars < 50.0)
    assert np.std(pull[sky]) == pytest.approx(1.0, abs=0.01)
    assert np.std(pull[repaired]) == pytest.approx(1.0, abs=4.0 / np.sqrt(2 * repaired.sum()))
    assert np.mean(pull[repaired]) == pytest.approx(0.0, abs=4.0 / np.sqrt(repaired.sum()))


def test_masked_pixels_are_not_judged():
    first, second = np.full((30, 30), 50.0, np.float32), np.full((30, 30), 50.0, np.float32)
    first[5, 5] = first[20, 20] = 5000.0
    unusable = np.zeros((30, 30), bool)
    unusable[5, 5] = True

    got = split_snaps(first, second, gain=GAIN, read_noise=READ, unusable=unusable)

    assert np.argwhere(got.struck).tolist() == [[20, 20]]


def test_snaps_of_two_shapes_are_refused():
    with pytest.raises(AlertError, match="one shape"):
        split_snaps(np.ones((3, 3), np.float32), np.ones((3, 4), np.float32), gain=1, read_noise=1)
