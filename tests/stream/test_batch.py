"""Spark's workers find what one process finds, in blocks."""

import numpy as np
import pyarrow as pa
import pytest

from broker.batch import blocks
from broker.batch import catalogs as batch
from broker.catalog import install_catalog
from broker.catalog.crossmatch import within
from broker.catalog.healpix import pixels_of
from broker.catalog.neighbours import nearest_k, pairs_within
from broker.errors import ConfigError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("catalogs")
    rng = np.random.default_rng(1)
    for name, n in (("gaia", 700), ("reference", 900)):
        table = pa.table(
            {
                "id": [f"{name}{k:04d}" for k in range(n)],
                "ra": rng.uniform(-0.05, 0.05, n) % 360.0,
                "dec": rng.uniform(41.78, 41.84, n),
            }
        )
        install_catalog(path, name, table, "1")
    return path


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 256)


def triples(frame):
    rows = frame.toArrow().to_pylist()
    return [(row["leftId"], row["rightId"], row["separation"]) for row in rows]


def named(a, b, pairs):
    ids = [np.asarray(rows.table.column("id")) for rows in (a, b)]
    return [(ids[0][i], ids[1][j], d) for i, j, d in zip(*pairs, strict=True)]


def test_joins_are_those_of_one_process(spark, folder, small_blocks):
    a, b = (batch.rows_of(folder, name) for name in ("gaia", "reference"))

    own = batch.crossmatch(spark, folder, "gaia", "reference", k=2)
    wide = batch.crossmatch(spark, folder, "gaia", "reference", radius_arcsec=20.0)
    near = batch.neighbours(spark, folder, "gaia", "reference", k=3)

    assert triples(own) == named(a, b, within(b, a.ra, a.dec, k=2))
    assert triples(wide) == named(a, b, pairs_within(b, a.ra, a.dec, 20.0))
    assert triples(near) == named(a, b, nearest_k(b, a.ra, a.dec, 3))
    assert len(triples(own)) > 20


def test_clusters_do_not_depend_on_blocks(spark, folder, small_blocks, monkeypatch):
    found = batch.clusters(spark, folder, "reference", radius_arcsec=8.0, min_points=3)
    monkeypatch.setattr(blocks, "BLOCK", 10_000)
    whole = batch.clusters(spark, folder, "reference", radius_arcsec=8.0, min_points=3)

    assert found == whole
    assert found.column("cluster").to_numpy().max() > 10


def test_a_density_map_counts_every_entry(spark, folder, small_blocks):
    rows = batch.rows_of(folder, "reference")

    counts = batch.density(spark, folder, "reference", order=9)

    expected = np.bincount(pixels_of(rows.ra, rows.dec, 9).astype(int), minlength=counts.size)
    np.testing.assert_array_equal(counts, expected)


def test_what_cannot_be_done_is_said_before_spark_starts_work(spark, folder):
    with pytest.raises(ConfigError, match="no catalogue"):
        batch.crossmatch(spark, folder, "gaia", "simbad")
    with pytest.raises(ConfigError, match="order 11"):
        batch.density(spark, folder, "reference", order=11)
