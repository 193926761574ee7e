"""Keys sort as the reads need them, and can be read back."""

import zlib
from itertools import pairwise

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import Latitude, Longitude
from cdshealpix.nested import lonlat_to_healpix
from hypothesis import given
from hypothesis import strategies as st

from broker.store import keys
from broker.types import Coordinate
from broker.units import separation_arcsec

texts = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1, max_size=12)
times = st.integers(0, 2**62)
ids = st.integers(0, 2**63 - 1).map(str)


@given(texts, texts, times, ids)
def test_an_alert_key_can_be_read_back(survey, name, at_us, dia_source_id):
    key = keys.alert_key(survey, name, at_us, dia_source_id)

    assert keys.split_alert_key(key) == (survey, name, at_us, dia_source_id)


@given(texts, texts, st.lists(st.tuples(times, ids), min_size=2, max_size=5))
def test_alerts_of_an_object_sort_by_time(survey, name, alerts):
    made = [keys.alert_key(survey, name, at, i) for at, i in alerts]

    assert [keys.split_alert_key(k)[2] for k in sorted(made)] == sorted(at for at, _ in alerts)


@given(texts, texts, texts, texts, times, ids)
def test_an_objects_range_has_its_alerts_and_no_others(survey, name, survey2, name2, at_us, i):
    first, stop = keys.object_range(survey, name)
    inside = first <= keys.alert_key(survey2, name2, at_us, i) < stop

    assert inside == ((survey, name) == (survey2, name2))


@given(st.integers(0, 12 * 4**13 - 1), texts, texts)
def test_a_sky_key_can_be_read_back(pixel, survey, name):
    assert keys.split_sky_key(keys.sky_key(pixel, survey, name)) == (pixel, survey, name)


@given(times, times)
def test_the_newest_sorts_first(a, b):
    assert (keys.newest_first(a) < keys.newest_first(b)) == (a > b)


@given(st.lists(texts, min_size=1, max_size=4))
def test_joined_parts_can_be_read_back(parts):
    assert keys.split_joined(keys.joined(parts)) == parts


@given(st.from_regex(r"[a-z][a-z0-9./-]{0,20}", fullmatch=True), st.integers(0, 99), times)
def test_a_coordinate_can_be_read_back(topic, partition, offset):
    coordinate = Coordinate(topic, partition, offset)

    assert keys.parse_coordinate(str(coordinate).encode()) == coordinate


@given(st.floats(0.0, 1e5), st.floats(0.0, 1e5))
def test_times_keep_their_order_to_a_microsecond(a, b):
    ta, tb = keys.time_us([a, b]).tolist()

    if abs(a - b) * 86_400e6 > 2.0:
        assert (ta < tb) == (a < b)
    assert ta == pytest.approx(a * 86_400e6, abs=1.0)


def test_times_before_mjd_zero_sort_first_and_do_not_overflow():
    assert keys.time_us([-5.0, 0.0]).tolist() == [0, 0]


def test_what_names_an_object_is_never_shared():
    assert keys.object_part("7", None, "1") == "7"
    assert keys.object_part(None, "7", "1") == "ss:7"
    assert keys.object_part(None, None, "7") == "-7"


@pytest.mark.parametrize("regions", [1, 2, 4, 16, 300])
def test_alerts_spread_evenly_over_the_regions(regions):
    splits = keys.salt_splits(regions)
    made = [keys.alert_key("ztf", f"ZTF{i}", 0, str(i)) for i in range(4000)]

    counts = np.bincount(np.searchsorted(np.array(splits), np.array(made), side="right"))

    n_regions = len(splits) + 1
    assert list(splits) == sorted(set(splits))
    assert n_regions == min(regions, 256)
    # Poisson: 5 sigma around the mean, on up to 256 regions
    mean = 4000 / n_regions
    assert np.all(np.abs(counts - mean) < 5 * np.sqrt(mean) + 1)


@pytest.mark.parametrize("order", [keys.SKY_ORDER, keys.OBJECT_ORDER])
def test_pixels_spread_over_the_regions_of_the_sky(order):
    rng = np.random.default_rng(1)
    dec = np.degrees(np.arcsin(rng.uniform(-1, 1, 4000)))
    pixels = keys.pixels(rng.uniform(0, 360, 4000), dec, order)
    splits = np.array(keys.pixel_splits(4, order))

    made = np.array([keys.sky_key(p, "s", "o")[:8] for p in pixels.tolist()])
    counts = np.bincount(np.searchsorted(splits, made, side="right"), minlength=4)

    assert np.all(np.abs(counts - 1000) < 5 * np.sqrt(1000))


def test_pixels_are_those_of_an_independent_implementation():
    rng = np.random.default_rng(2)
    ra, dec = rng.uniform(0, 360, 1000), np.degrees(np.arcsin(rng.uniform(-1, 1, 1000)))

    expected = lonlat_to_healpix(Longitude(ra, u.deg), Latitude(dec, u.deg), 13)

    assert np.array_equal(keys.pixels(ra, dec, 13), expected.astype(np.int64))


@pytest.mark.parametrize("radius", [0.5, 20.0, 600.0, 20_000.0])
@pytest.mark.parametrize("centre", [(0.0, 0.0), (359.9999, -41.8), (77.0, 90.0), (1.0, -89.99)])
def test_the_ranges_of_a_cone_hold_every_place_in_it(centre, radius):
    rng = np.random.default_rng(3)
    near = radius * 1.5 / 3600.0
    dec = np.clip(centre[1] + rng.uniform(-near, near, 4000), -90, 90)
    stretch = np.maximum(np.cos(np.radians(dec)), near / 180.0)
    ra = (centre[0] + rng.uniform(-near, near, 4000) / stretch) % 360.0
    inside = separation_arcsec(*centre, ra, dec) <= radius
    ranges = keys.cone_ranges(*centre, radius, 13)

    pixels = keys.pixels(ra[inside], dec[inside], 13)
    covered = np.zeros(pixels.size, dtype=bool)
    for first, end in ranges:
        covered |= (pixels >= first) & (pixels < end)

    assert inside.sum() > 500
    assert covered.all()
    assert all(a_end < b_first for (_, a_end), (b_first, _) in pairwise(ranges))


def test_salts_come_from_the_whole_name():
    key = keys.alert_key("s", "a", 0, "1")

    assert key[:2] == b"%02x" % (zlib.crc32(b"s|a") % 256)
