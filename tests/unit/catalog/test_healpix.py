"""The compiled pixels are the library's."""

import numpy as np
import pytest

from broker.catalog._search import finest_pixels
from broker.catalog.healpix import near_pixels, neighbourhood, pixels_of


def test_finest_pixels_are_the_library_s_all_over_the_sky():
    rng = np.random.default_rng(1)
    ra, dec = rng.uniform(0, 360, 300_000), np.degrees(np.arcsin(rng.uniform(-1, 1, 300_000)))

    ours, theirs = finest_pixels(ra, dec), pixels_of(ra, dec)

    # At order 29 pixels have 2e-9 rad: rounding moves some across a border, never farther.
    assert np.mean(ours == theirs) > 0.999
    np.testing.assert_array_equal(ours >> np.uint64(28), theirs >> np.uint64(28))


@pytest.mark.parametrize("order", [1, 6, 15])
def test_awkward_places_are_in_the_library_s_pixel_or_one_beside_it(order):
    ra = np.array([45.0 * k + e for k in range(9) for e in (-1e-13, 0.0, 1e-13)] * 7) % 360.0
    dec = np.repeat([-90.0, -41.8103148957, -1e-14, 0.0, 41.8103148957, 89.9999999, 90.0], 27)
    shift = np.uint64(2 * (29 - order))

    ours = (finest_pixels(ra, dec) >> shift).astype(np.int64)

    beside = neighbourhood(pixels_of(ra, dec, order), order)
    assert (ours[:, None] == beside).any(axis=1).all()


@pytest.mark.parametrize("order", [0, 1, 2, 15, 29])
def test_near_pixels_are_the_neighbours_of_the_library(order):
    rng = np.random.default_rng(2)
    pixels = rng.integers(0, 12 * 4**order, 500).astype(np.uint64)

    ours, theirs = near_pixels(pixels, order), neighbourhood(pixels, order)

    np.testing.assert_array_equal(np.sort(ours, axis=1), np.sort(theirs, axis=1))
