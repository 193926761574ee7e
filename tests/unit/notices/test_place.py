"""Credible levels, against sampling and against sums over the map."""

import gzip

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.catalog.healpix import pixels_of
from broker.errors import AlertError
from broker.notices import Ellipse
from broker.notices.maps import map_of_bytes
from broker.notices.place import place_of


def test_levels_of_an_ellipse_are_uniform_for_places_drawn_from_it():
    # The credible level of a draw is uniform: the definition of the level.
    rng = np.random.default_rng(1)
    place = Ellipse(100.0, 60.0, 0.05, 0.02, 30.0, 0.9)
    sigma = np.array([0.05, 0.02]) / np.sqrt(-2.0 * np.log(0.1))
    along, across = rng.normal(size=(2, 4000)) * sigma[:, None]
    turn = np.radians(30.0)
    north = along * np.cos(turn) - across * np.sin(turn)
    east = along * np.sin(turn) + across * np.cos(turn)

    level = place.level(100.0 + east / np.cos(np.radians(60.0 + north)), 60.0 + north)

    # Kolmogorov: 1.95 / sqrt(n) is exceeded once in a thousand.
    ranks = (np.arange(level.size) + 0.5) / level.size
    assert np.abs(np.sort(level) - ranks).max() < 1.95 / np.sqrt(level.size)


def test_the_edge_of_an_ellipse_has_its_containment():
    place = Ellipse(0.0, 89.0, 2.0, 1.0, 0.0, 0.68)

    # Towards the pole and beyond it, along the major axis.
    assert place.level([180.0], [89.0])[0] == pytest.approx(0.68, abs=1e-9)
    assert place.level([0.0], [87.0])[0] == pytest.approx(0.68, abs=1e-9)
    assert np.isnan(place.level([np.nan, 0.0], [0.0, 91.0])).all()


@given(
    ra=st.floats(0.0, 360.0),
    dec=st.floats(-90.0, 90.0),
    major=st.floats(0.001, 60.0),
    ratio=st.floats(0.05, 1.0),
    pa=st.floats(0.0, 180.0),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60)
def test_every_place_within_a_level_is_in_its_ranges(ra, dec, major, ratio, pa, seed):
    place = Ellipse(ra, dec, major, major * ratio, pa, 0.9)
    rng = np.random.default_rng(seed)
    there_dec = np.clip(dec + rng.normal(size=300) * major, -90.0, 90.0)
    shift = rng.normal(size=300) * major / np.maximum(np.cos(np.radians(there_dec)), 0.01)
    there_ra = (ra + shift) % 360.0
    inside = place.level(there_ra, there_dec) <= 0.9

    first, end = place.ranges(0.9)

    pixels = pixels_of(there_ra[inside], there_dec[inside])
    row = np.searchsorted(first, pixels, side="right") - 1
    assert ((row >= 0) & (pixels < end[row])).all()


@pytest.mark.parametrize("kind", ["NESTED", "RING", "NUNIQ"])
def test_levels_of_a_map_are_sums_over_likelier_pixels(sky_map, kind):
    data, p = sky_map(order=5, kind=kind)
    place = map_of_bytes(data)
    from cdshealpix.nested import healpix_to_lonlat
    from cdshealpix.ring import healpix_to_lonlat as ring_to_lonlat

    pixels = np.arange(p.size)
    lon, lat = ring_to_lonlat(pixels, 32) if kind == "RING" else healpix_to_lonlat(pixels, 5)
    # Of each pixel: the sum of all that are as likely or likelier, by brute force.
    expected = np.array([p[p >= one * (1.0 - 1e-12)].sum() for one in p[::37]])
    found = place.level(lon.deg[::37], lat.deg[::37])

    inside = expected < 0.985
    # Pixels of equal probability may stand in any order: their own share is the tolerance.
    assert np.abs(found[inside] - expected[inside]).max() < 6.0 * p.max()
    assert (found[expected > 0.995] == 1.0).all()
    best = int(np.argmax(p))
    assert place.separation([lon.deg[best]], [lat.deg[best]])[0] < 0.001


@pytest.mark.parametrize("kind", ["NESTED", "RING", "NUNIQ"])
def test_a_galactic_map_is_asked_and_told_in_icrs(sky_map, kind):
    from astropy.coordinates import SkyCoord

    galactic, _ = sky_map(order=5, ra=30.0, dec=20.0, kind=kind, header=[("COORDSYS", "G")])
    equatorial, _ = sky_map(order=5, ra=30.0, dec=20.0, kind=kind)
    rng = np.random.default_rng(6)
    lon, lat = rng.uniform(0.0, 360.0, 4000), np.degrees(np.arcsin(rng.uniform(-1.0, 1.0, 4000)))
    icrs = SkyCoord(l=lon, b=lat, unit="deg", frame="galactic").icrs
    there = icrs.ra.deg, icrs.dec.deg
    place = map_of_bytes(galactic)

    # The same map read as if it were equatorial, asked at the galactic places.
    expected = map_of_bytes(equatorial).level(lon, lat)
    level = place.level(*there)

    # A place within rounding of a pixel's border may fall on its other side.
    assert (level == expected).sum() >= 3999
    best = SkyCoord(l=30.0, b=20.0, unit="deg", frame="galactic").icrs
    assert place.separation([best.ra.deg], [best.dec.deg])[0] < 2.0 * 3600.0
    pixels = pixels_of(*there)
    for limit in (0.3, 0.9):
        first, end = place.ranges(limit)
        assert (first[1:] > end[:-1]).all()
        row = np.searchsorted(first, pixels, side="right") - 1
        covered = (row >= 0) & (pixels < end[row])
        assert covered[level <= limit].all()
        share = float((end - first).sum() / (12 << 58))
        assert place.sky_share(limit) < share < 0.2


@pytest.mark.parametrize("frame", ["C", "G"])
def test_a_stored_map_says_the_same(sky_map, frame):
    place = map_of_bytes(gzip.compress(sky_map(order=4, header=[("COORDSYS", frame)])[0]))

    again = place_of(place.to_cells())

    at = np.random.default_rng(2).uniform([0.0, -90.0], [360.0, 90.0], (500, 2)).T
    assert np.array_equal(again.level(*at), place.level(*at))
    assert again.likeliest == place.likeliest


def test_damaged_maps_are_refused(sky_map):
    data, _ = sky_map(order=4)
    for broken, reason in (
        (data[:-2880], "truncated"),
        (data[:-7], "cut short"),
        (gzip.compress(data)[:-20], "cut short"),
        (gzip.compress(data)[:30] + b"\0" * 50, "damaged"),
        (sky_map(order=4, column="DUST")[0], "has no column"),
        (sky_map(order=4, header=[("COORDSYS", "E")])[0], "COORDSYS is E"),
        (sky_map(order=4, header=[("NSIDE", 12)])[0], "NSIDE is 12"),
        (sky_map(order=4, header=[("ORDERING", "SPIRAL")])[0], "ORDERING"),
    ):
        with pytest.raises(AlertError, match=reason):
            map_of_bytes(broken)


def test_a_gzip_bomb_is_refused_before_it_fills_the_memory(monkeypatch):
    monkeypatch.setattr("broker.notices.maps.MAX_BYTES", 1 << 20)

    with pytest.raises(AlertError, match="larger than 1 MB"):
        map_of_bytes(gzip.compress(bytes(16 << 20)))
