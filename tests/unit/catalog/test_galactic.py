"""Galactic pixels and places, against astropy's frames."""

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy_healpix import HEALPix
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.catalog.galactic import equatorial_cover, to_galactic, to_icrs
from broker.catalog.healpix import FINEST_ORDER, pixels_of


def test_places_turn_as_in_astropy_and_back():
    rng = np.random.default_rng(1)
    ra = np.r_[rng.uniform(0.0, 360.0, 500), 192.85948, 0.0, 0.0]
    dec = np.r_[rng.uniform(-90.0, 90.0, 500), 27.12825, 90.0, -90.0]
    there = SkyCoord(ra, dec, unit="deg").galactic

    lon, lat = to_galactic(ra, dec)
    again = SkyCoord(*to_icrs(lon, lat), unit="deg")

    assert SkyCoord(l=lon, b=lat, unit="deg", frame="galactic").separation(there).arcsec.max() < 0.1
    assert again.separation(SkyCoord(ra, dec, unit="deg")).arcsec.max() < 1e-6


@settings(max_examples=60)
@given(order=st.integers(0, 12), seed=st.integers(0, 2**31))
def test_a_cover_holds_every_place_of_its_galactic_pixels(order, seed):
    rng = np.random.default_rng(seed)
    n = min(12 * 4**order, 40)
    pixel = rng.choice(12 * 4**order, n, replace=False)
    # Places in a pixel, at its corners and on its sides too.
    dx, dy = np.r_[rng.uniform(size=(30, 2)), [[0, 0], [0, 1], [1, 0], [1, 1], [0.5, 0]]].T
    grid = HEALPix(2**order, order="nested")
    lon, lat = grid.healpix_to_lonlat(np.repeat(pixel, dx.size), np.tile(dx, n), np.tile(dy, n))
    icrs = SkyCoord(l=lon, b=lat, frame="galactic").icrs
    shift = np.uint64(2 * (FINEST_ORDER - order))
    first = np.sort(pixel.astype(np.uint64)) << shift

    start, end = equatorial_cover(first, first + (np.uint64(1) << shift))

    pixels = pixels_of(icrs.ra.deg, icrs.dec.deg)
    row = np.searchsorted(start, pixels, side="right") - 1
    assert ((row >= 0) & (pixels < end[row])).all()
    assert (start[1:] > end[:-1]).all()
    if n == 12 * 4**order:
        assert int((end - start).sum()) == 12 << (2 * FINEST_ORDER)


@pytest.mark.parametrize("order", [4, 9])
def test_a_cover_of_a_field_is_not_much_larger(order):
    shift = np.uint64(2 * (FINEST_ORDER - order))
    at = SkyCoord(l=120.0, b=60.0, unit="deg", frame="galactic")
    grid = HEALPix(2**order, order="nested")
    radius = 10.0 * np.degrees(grid.pixel_resolution.to_value(u.rad))
    pixel = np.sort(grid.cone_search_lonlat(at.l, at.b, radius * u.deg)).astype(np.uint64)

    start, end = equatorial_cover(pixel << shift, (pixel + np.uint64(1)) << shift)

    assert int((end - start).sum()) < 2.2 * pixel.size * (1 << int(shift))
