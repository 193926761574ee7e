"""Empty templates are empty, and a host that can be seen is seen, however it lies."""

import numpy as np
import pytest

from broker.science import Cutouts
from science_modules.hostless.module import MIN_SNR, hostless

SIZE, NOISE = 63, 10.0


def templates(n, seed, *, snr=0.0, x=0.0, y=0.0, sigma=1.5, level=200.0):
    """Return cutouts with a Gaussian source of a given optimal signal to noise."""
    rng = np.random.default_rng(seed)
    row, column = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2.0
    source = np.exp(-0.5 * ((column - x) ** 2 + (row - y) ** 2) / sigma**2)
    source *= snr * NOISE / np.sqrt((source**2).sum())
    pixels = level + source + rng.normal(0.0, NOISE, (n, SIZE, SIZE))
    return pixels.astype(np.float32)


def asked(pixels):
    return hostless(Cutouts.from_images(dict(enumerate(pixels)), len(pixels)))


def test_empty_sky_is_hostless():
    got = asked(templates(1000, seed=1))

    assert got["isHostless"].mean() > 0.99


@pytest.mark.parametrize(("x", "y"), [(0.0, 0.0), (5.0, -4.0), (-8.0, 3.0)])
def test_a_source_is_found_at_its_place(x, y):
    got = asked(templates(300, seed=2, snr=10.0, x=x, y=y))

    assert not got["isHostless"].mean() > 0.01
    assert got["templatePeakOffset"].median() == pytest.approx(np.hypot(x, y), abs=1.0)


def test_the_share_found_rises_through_a_half_near_the_limit():
    # A 3 x 3 mean keeps 91 % of the signal to noise of a Gaussian of this width.
    shares = [1.0 - asked(templates(300, seed=3, snr=s))["isHostless"].mean() for s in (3, 5, 8)]

    assert shares[0] < 0.15
    assert 0.3 < shares[1] < 0.9
    assert shares[2] > 0.97


def test_a_source_far_from_the_middle_is_another_s_host():
    got = asked(templates(100, seed=4, snr=30.0, x=20.0))

    assert got["isHostless"].mean() > 0.98


def test_what_cannot_be_told_is_null():
    pixels = templates(3, seed=5)
    pixels[0, 28:36, 20:45] = np.nan
    pixels[1] = 7.0
    got = asked(pixels)

    assert got["isHostless"].isna().tolist() == [True, True, False]
    assert got["templatePeakSnr"].isna().tolist() == [True, True, False]
    assert got["templatePeakSnr"][2] < MIN_SNR + 2.0


@pytest.mark.parametrize("size", [3, 9, 31, 48])
def test_small_and_even_cutouts_are_borne(size):
    pixels = np.random.default_rng(6).normal(0.0, 1.0, (4, size, size)).astype("f4")
    got = asked(pixels)

    assert len(got) == 4
    assert got["isHostless"].isna().all() == (size < 9)
