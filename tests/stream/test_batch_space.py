"""Batch work in space, windows, parts and statistics: what one process finds, for any blocks."""

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from sklearn.cluster import DBSCAN

from broker.batch import blocks
from broker.batch import catalogs as batch
from broker.batch.histograms import histogram
from broker.batch.repartition import repartition
from broker.catalog import install_catalog
from broker.catalog.distance import Distance
from broker.catalog.healpix import pixels_of
from broker.catalog.space import in_space
from broker.catalog.windows import cone, on_the_sky, rows_in_window, shell
from broker.errors import ConfigError

BY = Distance("redshift", comoving=True)
N = 900
DEFINITION = """
doc = "Galaxies with a redshift."
radius_arcsec = 1.0
version = "1"
[[columns]]
name = "redshift"
unit = ""
dtype = "float64"
doc = "Redshift."
[[columns]]
name = "mag"
dtype = "float32"
unit = "mag"
doc = "Magnitude."
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("catalogs")
    rng = np.random.default_rng(1)
    redshift = rng.uniform(0.1, 0.12, N)
    redshift[::50] = np.nan
    mag = rng.normal(20, 1, N)
    mag[::7] = np.nan
    table = pa.table(
        {
            "id": [f"g{k:04d}" for k in rng.permutation(N)],
            "ra": rng.uniform(-2, 2, N) % 360.0,
            "dec": rng.uniform(39, 43, N),
            "redshift": redshift,
            "mag": mag,
        }
    )
    (path / "galaxies.toml").write_text(DEFINITION, encoding="utf-8")
    install_catalog(path, "galaxies", table, "1", definition=path / "galaxies.toml")
    (path / "galaxies.toml").unlink()
    return path


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 300)


def test_clusters_in_space_are_those_of_scikit_learn(spark, folder, small_blocks):
    space = in_space(batch.rows_of(folder, "galaxies"), BY)
    order = np.argsort(space.row)

    found = batch.clusters(spark, folder, "galaxies", radius=4.0, min_points=4, distance=BY)

    theirs = DBSCAN(eps=4.0, min_samples=4).fit(space.xyz[order])
    core = np.zeros(order.size, bool)
    core[theirs.core_sample_indices_] = True
    mine = found.column("cluster").to_numpy()
    np.testing.assert_array_equal(found.column("isCore").to_numpy(zero_copy_only=False), core)
    np.testing.assert_array_equal(mine < 0, theirs.labels_ < 0)
    # Both number clusters by their first core entry; border entries may be of several.
    np.testing.assert_array_equal(mine[core], theirs.labels_[core])
    assert mine.max() > 5
    assert found.num_rows == N - 18


def test_neighbours_in_space_are_those_of_one_process(spark, folder, small_blocks):
    space = in_space(batch.rows_of(folder, "galaxies"), BY)
    ids = np.asarray(space.rows.table.column("id"))

    got = batch.neighbours(spark, folder, "galaxies", "galaxies", k=3, distance=BY).toArrow()

    place, entry, separation = space.nearest_to_places(space.xyz, 3)
    assert got.column("leftId").to_pylist() == ids[space.row[place]].tolist()
    assert got.column("rightId").to_pylist() == ids[space.row[entry]].tolist()
    np.testing.assert_array_equal(got.column("separation").to_numpy(), separation)
    assert got.column("leftId")[::3] == got.column("rightId")[::3]


def test_a_window_holds_what_one_process_finds(spark, folder, small_blocks):
    rows = batch.rows_of(folder, "galaxies")
    windows = [on_the_sky(cone(0.0, 41.0, 5000.0)), shell(BY, 0.105, 0.115)]

    found = batch.window(spark, folder, "galaxies", windows).toArrow()

    expected = rows.entries.take(pa.array(rows_in_window(rows, windows)))
    assert found.column("id").to_pylist() == expected.column("id").to_pylist()
    assert found.column_names == expected.column_names
    assert 20 < found.num_rows < N / 2


@pytest.mark.parametrize("by", ["healpix", "shells", "octree", "kdtree", "kdtree on the sky"])
def test_parts_are_the_same_bytes_for_any_blocks_and_hold_every_entry_once(
    spark, folder, tmp_path, monkeypatch, by
):
    by, on_the_sky = by.removesuffix(" on the sky"), by in ("healpix", "kdtree on the sky")
    distance, every = (None, N) if on_the_sky else (BY, N - 18)
    written = []
    for size in (300, 10_000):
        monkeypatch.setattr(blocks, "BLOCK", size)
        out = tmp_path / str(size)
        listed = repartition(
            spark, folder, "galaxies", out, by=by, distance=distance, rows_per_part=200
        )
        files = {path.name: path.read_bytes() for path in sorted(out.iterdir())}
        written.append(files)
    assert written[0] == written[1]

    assert pa_csv.read_csv(out / "partitions.csv").num_rows == listed.num_rows > 3
    tables = [pq.read_table(out / name) for name in listed.column("file").to_pylist()]
    assert [t.num_rows for t in tables] == listed.column("entries").to_pylist()
    assert max(t.num_rows for t in tables) <= 200
    ids = sorted(i for t in tables for i in t.column("id").to_pylist())
    assert len(ids) == len(set(ids)) == every
    for part, table in zip(listed.to_pylist(), tables, strict=True):
        assert hashlib.sha256(files[part["file"]]).hexdigest() == part["sha256"]
        if by == "shells":
            values = table.column("redshift").to_numpy()
            assert ((values >= part["inner"]) & (values < part["outer"])).all()
            assert (np.diff(values) >= 0.0).all()
        if by == "kdtree":
            assert abs(table.num_rows - every / len(tables)) < 1.0
        if by == "healpix":
            at = pixels_of(table.column("ra"), table.column("dec"), part["order"])
            assert (at == part["pixel"]).all()


def test_statistics_by_pixel_are_those_of_numpy(spark, folder, small_blocks):
    rows = batch.rows_of(folder, "galaxies")
    at = pixels_of(rows.ra, rows.dec, 5).astype(int)
    mag = rows.table.column("mag").to_numpy().astype(float)

    found = histogram(spark, folder, "galaxies", "mag", order=5, quantiles=(0.0, 0.3, 0.5, 1.0))

    np.testing.assert_array_equal(found.counts, np.bincount(at, minlength=12 * 4**5))
    for pixel in np.unique(at):
        values = mag[(at == pixel) & np.isfinite(mag)]
        assert found.known[pixel] == values.size
        assert found.total[pixel] == pytest.approx(values.sum(), rel=1e-13)
        assert found.mean[pixel] == pytest.approx(values.mean(), rel=1e-13)
        for q, of_pixel in found.quantiles.items():
            assert of_pixel[pixel] == np.quantile(values, q)
    assert np.isnan(found.mean[found.known == 0]).all()


def test_what_cannot_be_done_is_told(spark, folder, tmp_path):
    def divide(out=tmp_path / "out", **how):
        return repartition(spark, folder, "galaxies", out, **how)

    with pytest.raises(ConfigError, match="need a distance"):
        divide(by="shells")
    with pytest.raises(ConfigError, match="exists already"):
        divide(by="healpix", out=tmp_path)
    with pytest.raises(ConfigError, match="no column z"):
        divide(by="octree", distance=Distance("z"))
    with pytest.raises(ConfigError, match="0 or more"):
        batch.clusters(spark, folder, "galaxies", radius_arcsec=-1.0, min_points=2)
    with pytest.raises(ConfigError, match="is large_string"):
        histogram(spark, folder, "galaxies", "id", order=3)
    assert list(tmp_path.iterdir()) == []
