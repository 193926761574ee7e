"""Where a catalogue has looked is told from its rows, and written so that others read it."""

import json

import numpy as np
import pytest
from astropy.io import fits

from broker.catalog.coverage import (
    all_sky,
    coverage_of_cells,
    coverage_of_ranges,
    coverage_of_rows,
    read_coverage,
    write_coverage,
)
from broker.catalog.healpix import pixels_of
from broker.errors import ConfigError


def rows_on(rng, n, ra=(0.0, 360.0), dec=(-90.0, 90.0)):
    z = rng.uniform(*np.sin(np.radians(dec)), n)
    return np.sort(pixels_of(rng.uniform(*ra, n), np.degrees(np.arcsin(z))))


@pytest.mark.parametrize("n", [1_000, 20_000, 300_000])
def test_rows_all_over_the_sky_cover_it(n):
    assert coverage_of_rows(rows_on(np.random.default_rng(1), n)).fraction > 0.9999


@pytest.mark.parametrize("n", [300, 5_000, 100_000])
def test_rows_in_a_field_cover_the_field_and_little_else(n):
    rng = np.random.default_rng(2)
    coverage = coverage_of_rows(rows_on(rng, n, (358.0, 362.0), (39.0, 43.0)))
    ra, dec = rng.uniform(355.0, 365.0, 20_000), rng.uniform(36.0, 46.0, 20_000)
    inside = (abs(ra - 360.0) < 2.0) & (abs(dec - 41.0) < 2.0)

    found = coverage.contains(ra % 360.0, dec)

    # A cell with fewer than 120 rows, and some in each quarter, sticks out by no more than the
    # diagonal of one with four times as many; RA is wider than the sky.
    side = 4.0 * np.sqrt(2.0 * 480.0 / n) / np.cos(np.radians(43.0))
    assert found[inside].mean() > 1.0 - side / 8.0
    near = (abs(ra - 360.0) < 2.0 + side) & (abs(dec - 41.0) < 2.0 + side)
    assert not found[~near].any()


def test_a_density_that_varies_by_a_thousand_makes_no_holes():
    rng = np.random.default_rng(3)
    height = np.clip(rng.exponential(9.0, 400_000), 0.0, 90.0)
    dec = np.concatenate([height[:200_000], -height[200_000:]])
    plane = pixels_of(rng.uniform(0.0, 360.0, dec.size), dec)
    rows = np.concatenate([plane, rows_on(rng, 20_000)])

    assert coverage_of_rows(np.sort(rows)).fraction > 0.999


def test_few_rows_cover_nothing():
    for n in (0, 1, 40):
        assert coverage_of_rows(rows_on(np.random.default_rng(4), n)).fraction == 0.0


def test_no_position_off_the_sky_is_covered():
    assert all_sky().contains([10.0, np.nan, 400.0], [95.0, 0.0, 0.0]).tolist() == [False] * 3


def test_a_union_of_cells_is_what_a_set_of_cells_is():
    rng = np.random.default_rng(5)
    order = rng.integers(0, 4, 30)
    cells = rng.integers(0, 12 * 4**order)
    fine = {
        int(c) << 2 * (4 - k) | j
        for c, k in zip(cells, order, strict=True)
        for j in range(4 ** (4 - k))
    }

    coverage = coverage_of_cells(cells, order)

    at = np.arange(12 * 4**4, dtype=np.uint64)
    found = coverage.contains_pixels(at << np.uint64(50))
    assert set(at[found].tolist()) == fine
    assert coverage.fraction == pytest.approx(len(fine) / (12 * 4**4))
    assert (coverage.first[1:] > coverage.end[:-1]).all()


def test_a_moc_comes_back_from_its_file(tmp_path):
    written = coverage_of_rows(rows_on(np.random.default_rng(6), 5000, (10, 20), (-5, 5)))
    write_coverage(tmp_path / "moc.fits", written)

    read = read_coverage(tmp_path / "moc.fits")

    np.testing.assert_array_equal(read.first, written.first)
    np.testing.assert_array_equal(read.end, written.end)


def test_a_moc_of_unique_numbers_and_one_of_json_are_read(tmp_path):
    # NUNIQ of pixel p of order k is 4 * 4^k + p: 4 + 3, 16 + 9, 4 * 4^9 + 5.
    column = fits.Column("UNIQ", "K", array=np.array([7, 25, 4**10 + 5]))
    table = fits.BinTableHDU.from_columns([column])
    table.header["ORDERING"] = "NUNIQ"
    table.writeto(tmp_path / "moc.fits")
    (tmp_path / "moc.json").write_text(json.dumps({"0": [3], "1": [9], "9": [5]}))
    expected = coverage_of_cells([3, 9, 5], [0, 1, 9])

    for name in ("moc.fits", "moc.json"):
        read = read_coverage(tmp_path / name)
        np.testing.assert_array_equal(read.first, expected.first)
        np.testing.assert_array_equal(read.end, expected.end)


@pytest.mark.parametrize("text", ["", "{", '{"0": [12]}', "ra,dec\n1,2\n"])
def test_what_is_no_moc_is_refused(tmp_path, text):
    (tmp_path / "moc").write_text(text)

    with pytest.raises(ConfigError, match=r"cannot be read as a MOC|do not exist"):
        read_coverage(tmp_path / "moc")


def test_no_ranges_are_no_coverage():
    nothing = coverage_of_ranges(np.empty(0, np.uint64), np.empty(0, np.uint64))

    assert not nothing.contains([1.0], [1.0]).any()
