"""The index of a layer says where each coarse pixel begins, and changes no answer."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from broker.catalog import Catalogs, install_catalog
from broker.catalog.benchmark.layout import write_layout
from broker.catalog.coverage import all_sky
from broker.catalog.crossmatch import within
from broker.catalog.layer_index import index_layer, index_order, no_index
from broker.catalog.partition import open_rows
from broker.errors import ConfigError

N = 20_000


def sky(rng, n):
    return rng.uniform(0, 360, n), np.degrees(np.arcsin(rng.uniform(-1, 1, n)))


@pytest.mark.parametrize("n", [0, 1, 5000, 300_000])
def test_rows_of_a_cell_are_between_its_start_and_the_next(n):
    rng = np.random.default_rng(n)
    pixels = np.sort(rng.integers(0, 12 << 58, n, dtype=np.uint64))

    index = index_layer(pixels)

    cells = (pixels >> np.uint64(index.shift)).astype(np.int64)
    counts = np.bincount(cells, minlength=12 * 4**index.order)
    np.testing.assert_array_equal(np.diff(index.starts), counts)
    assert index.starts[0] == 0
    assert index.starts[-1] == n
    assert no_index(n).starts.tolist() == [0, n]


def test_cells_hold_some_hundred_rows_up_to_the_largest_catalogue():
    for n in (10**5, 10**7, 10**9):
        assert 60 < n / (12 * 4 ** index_order(n)) < 350


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    path = tmp_path_factory.mktemp("c")
    rng = np.random.default_rng(2)
    ra, dec = sky(rng, N)
    ids = [f"s{k}" for k in range(N)]
    table = pa.table({"id": ids, "ra": ra, "dec": dec, "sizeArcsec": rng.uniform(0, 300, N)})
    install_catalog(path, "reference", table, "1", coverage=all_sky())  # rows of several layers
    return path


def test_answers_are_the_same_with_and_without_an_index(installed):
    rows = open_rows(installed / "reference")
    rng = np.random.default_rng(3)
    ra, dec = sky(rng, 5000)
    near = rng.choice(N, 2500, replace=False)  # every second place is by an entry
    ra[::2], dec[::2] = rows.ra[near], np.clip(rows.dec[near] + 20.0 / 3600.0, -90.0, 90.0)

    assert len(rows.index) == len(rows.layers) > 1
    with_index = within(rows, ra, dec)
    without = within(replace(rows, index=(), read_ahead=None), ra, dec)

    assert with_index[0].size > 1000
    for a, b in zip(with_index, without, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_catalogue_of_an_early_version_has_no_index_and_one_that_is_cut_is_refused(installed):
    file = next((installed / "reference").glob("*/index.npy"))
    whole = np.load(file)
    expected = Catalogs(installed).match([10.0, 20.0], [5.0, 6.0])
    file.unlink()
    assert Catalogs(installed).match([10.0, 20.0], [5.0, 6.0]) == expected

    np.save(file, whole[:-3])
    with pytest.raises(ConfigError, match=r"index\.npy has"):
        open_rows(installed / "reference")
    np.save(file, whole)


def test_a_field_is_read_ahead_once_and_scattered_positions_are_not(tmp_path, monkeypatch):
    write_layout(tmp_path, "gaia", 4_000_000, radius_arcsec=1.5, share=0.001, seed=1)
    rows = Catalogs(tmp_path).rows("gaia")
    asked = []
    monkeypatch.setattr(
        "broker.catalog.layer_index.os.posix_fadvise", lambda *words: asked.append(words)
    )
    rng = np.random.default_rng(4)

    within(rows, *sky(rng, 100))
    assert asked == []
    within(rows, rng.uniform(10.0, 10.2, 300), rng.uniform(5.0, 5.2, 300))
    first = len(asked)
    within(rows, rng.uniform(10.0, 10.2, 300), rng.uniform(5.0, 5.2, 300))

    size = next(tmp_path.glob("*/*/rows.arrow")).stat().st_size
    assert first >= rows.table.num_columns
    assert len(asked) == first
    assert all(0 < offset < offset + length <= size for _, offset, length, _ in asked)
