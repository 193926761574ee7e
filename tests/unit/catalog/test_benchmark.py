"""The benchmark of catalogues compares the same work, and makes the layout that it says."""

import importlib

import numpy as np
import pyarrow as pa
import pytest

from broker.bench_rows import at_least, at_most
from broker.catalog import Catalogs
from broker.catalog.benchmark.layout import TILE_ORDER, write_layout
from broker.catalog.benchmark.paper import rows_on_paper, seconds_on
from broker.catalog.benchmark.sizes import Sizes
from broker.catalog.healpix import pixels_of
from broker.cli.bench_catalog import STEPS

SMALL = Sizes(rows=20_000, points=20_000, layout_rows=200_000, orbits=2000, alerts=2001)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bodies", "nearest", "space", "growth", "notices"])
def test_each_step_measures_and_its_answers_are_those_of_the_reference(name, tmp_path):
    step = importlib.import_module(STEPS[name])

    found = step.rows(Sizes(**{**vars(SMALL), "out": tmp_path / "plots"}))

    assert all(row.measured > 0.0 for row in found)
    for row in found:
        if "share" in row.what and row.required:
            assert row.is_met, row
    assert (tmp_path / "plots").exists() == (name == "growth")


def test_a_cluster_of_twice_the_nodes_needs_half_the_time_and_slower_rows_need_more():
    assert seconds_on(1, 0.46) == pytest.approx(1380.0 / 16 + 142.0)
    assert seconds_on(8, 0.46) == pytest.approx(seconds_on(4, 0.46) / 2.0)
    assert [row.measured for row in rows_on_paper(2.0)] == [seconds_on(n, 2.0) for n in (1, 8, 64)]
    assert seconds_on(1, 2.0) > seconds_on(1, 0.46)


def test_a_row_that_falls_short_says_so():
    assert at_least("a", 1.0, 2.0).is_met is False
    assert at_most("a", 1.0, 2.0).is_met is True
    assert at_most("a", float("nan"), 2.0).is_met is False


@pytest.fixture(scope="module", params=[1.0, 0.2])
def layout(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("c")
    made = write_layout(path, "gaia", 100_000, radius_arcsec=1.5, share=request.param, seed=3)
    return path, made, Catalogs(path).rows("gaia")


def test_a_layout_is_a_sorted_catalogue_whose_filled_tiles_are_whole(layout):
    _, made, rows = layout
    tile = (rows.pixels >> np.uint64(2 * (29 - TILE_ORDER))).astype(np.int64)
    filled = np.flatnonzero(np.isin(tile, made.tiles))

    assert len(rows) == 100_000
    assert (np.diff(rows.pixels.astype(np.int64)) >= 0).all()
    assert np.unique(tile).size == 12 * 4**TILE_ORDER
    assert filled.size == made.rows
    there = pixels_of(rows.ra[filled], rows.dec[filled])
    near = np.abs(there.astype(np.int64) - rows.pixels[filled].astype(np.int64)) <= 8
    assert near.mean() > 0.99  # the rest is across a border of larger pixels, by rounding
    ids = rows.table.column("id").take(pa.array(filled)).cast(pa.int64()).to_numpy()
    np.testing.assert_array_equal(ids, filled)


def test_a_layout_is_searched_as_any_catalogue(layout):
    path, made, rows = layout
    tile = (rows.pixels >> np.uint64(2 * (29 - TILE_ORDER))).astype(np.int64)
    some = np.flatnonzero(np.isin(tile, made.tiles))[::97]

    got = Catalogs(path).match(rows.ra[some], rows.dec[some])

    np.testing.assert_array_equal(got.column("gaiaId").cast(pa.int64()).to_numpy(), some)
    assert got.column("gaiaGMag").null_count == 0
