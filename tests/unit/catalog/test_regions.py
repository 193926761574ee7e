"""A box, a polygon and a coverage hold their entries and no other."""

import astropy.units as u
import numpy as np
import pyarrow as pa
import pytest
from astropy.coordinates import SkyCoord
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.catalog.coverage import coverage_of_cells
from broker.catalog.healpix import centres, pixel_side_arcsec, pixels_of
from broker.catalog.partition import Rows, sort_rows
from broker.catalog.regions import (
    _FARTHEST_CORNER_IN_SIDES,
    box,
    covered,
    polygon,
    region_search,
)
from broker.errors import AlertError
from broker.units import separation_arcsec

N = 30_000


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(3)
    ra, dec = rng.uniform(0, 360, N), np.degrees(np.arcsin(rng.uniform(-1, 1, N)))
    ra[:4], dec[:4] = [0.0, 360.0, 10.0, 77.0], [0.0, 0.0, 20.0, 90.0]
    ids = pa.array([f"s{k:05d}" for k in range(N)], pa.large_string())
    table, layers = sort_rows(
        pa.table({"id": ids, "ra": ra, "dec": dec}), rng.choice([0.5, 400_000.0], N)
    )
    return Rows("test", "1", table, layers)


def ids_of(rows, inside):
    return sorted(np.asarray(rows.table.column("id"))[inside])


def test_the_farthest_corner_of_a_pixel_is_as_near_as_assumed():
    rng = np.random.default_rng(0)
    dec = np.degrees(np.arcsin(rng.uniform(-1, 1, 200_000)))
    ra = rng.uniform(0, 360, dec.size)
    for order in (0, 1, 4, 9):
        pixel_ra, pixel_dec = centres(pixels_of(ra, dec, order), order)
        farthest = separation_arcsec(ra, dec, pixel_ra, pixel_dec).max()
        assert farthest < _FARTHEST_CORNER_IN_SIDES * pixel_side_arcsec(order)


@settings(max_examples=25)
@given(
    ra=st.tuples(*[st.one_of(st.sampled_from([0.0, 10.0, 350.0, 360.0]), st.floats(0, 360))] * 2),
    dec=st.tuples(*[st.one_of(st.sampled_from([-90.0, 0.0, 90.0]), st.floats(-90, 90))] * 2),
)
def test_a_box_is_what_a_comparison_of_all_entries_gives(rows, ra, dec):
    south, north = sorted(dec)
    west, east = ra
    # Turns, unwrapped: an entry may also stand a turn farther on.
    end = east if east >= west else east + 360.0
    turns = [rows.ra + turn for turn in (-360.0, 0.0, 360.0)]
    in_ra = np.any([(ra >= west) & (ra <= end) for ra in turns], axis=0)
    in_ra |= abs(east - west) == 360.0
    expected = ids_of(rows, in_ra & (rows.dec >= south) & (rows.dec <= north))

    assert region_search(rows, box(ra, (south, north))).column("id").to_pylist() == expected


@pytest.mark.parametrize("ra", [0.0, 45.0, 200.0, 359.0])
@pytest.mark.parametrize("dec", [-89.0, 0.0, 41.81, 88.0])
def test_a_convex_polygon_is_where_all_sides_turn_the_same_way(rows, ra, dec):
    centre = SkyCoord(ra * u.deg, dec * u.deg)
    angles = np.array([0.0, 80.0, 200.0, 290.0])
    corners = centre.directional_offset_by(angles * u.deg, np.array([20, 25, 15, 30]) * u.deg)
    vectors, there = (
        corners.cartesian.xyz.value.T,
        SkyCoord(rows.ra * u.deg, rows.dec * u.deg).cartesian.xyz.value,
    )
    sides = np.cross(vectors, np.roll(vectors, -1, axis=0)) @ there
    turn = np.sign(vectors.sum(axis=0) @ np.cross(vectors[0], vectors[1]))
    expected = ids_of(rows, (turn * sides > 0.0).all(axis=0))

    found = region_search(rows, polygon(corners.ra.deg, corners.dec.deg))

    assert len(expected) > 500
    assert found.column("id").to_pylist() == expected


def test_a_polygon_with_a_notch_is_the_hull_without_the_notch(rows):
    notch = [(10.0, 10.0), (30.0, 10.0), (30.0, 30.0), (20.0, 15.0), (10.0, 30.0)]
    hull = [notch[0], notch[1], notch[2], notch[4]]
    cut = [notch[2], notch[3], notch[4]]

    found = [
        set(region_search(rows, polygon(*np.array(p).T)).column("id").to_pylist())
        for p in (notch, hull, cut)
    ]

    assert found[0] == found[1] - found[2]
    assert found[2] <= found[1]
    assert min(len(f) for f in found) > 50


def test_a_coverage_holds_the_entries_of_its_cells(rows):
    cells = np.array([3, 500, 767])
    expected = ids_of(rows, np.isin(pixels_of(rows.ra, rows.dec, 3), cells))

    found = region_search(rows, covered(coverage_of_cells(cells, 3)))

    assert found.column("id").to_pylist() == expected
    assert found.column_names == ["id", "ra", "dec"]


def test_regions_that_cannot_be_are_refused():
    with pytest.raises(AlertError, match="no box"):
        box((0.0, 10.0), (10.0, 0.0))
    with pytest.raises(AlertError, match="no box"):
        box((-1.0, 10.0), (0.0, 10.0))
    with pytest.raises(AlertError, match="three or more corners"):
        polygon([0.0, 10.0], [0.0, 1.0])
    with pytest.raises(AlertError, match="too large"):
        polygon([0.0, 120.0, 240.0], [0.0, 0.0, 0.0])
