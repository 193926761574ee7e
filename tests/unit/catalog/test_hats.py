"""A catalogue goes out as a HATS folder by the letter of its standard, and comes back."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from broker.catalog import Catalogs, install_catalog
from broker.catalog.definition import definition_of
from broker.catalog.hats import export_hats, tiles
from broker.catalog.healpix import pixels_of
from broker.errors import ConfigError

N = 5000


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    path = tmp_path_factory.mktemp("c")
    rng = np.random.default_rng(1)
    table = pa.table(
        {
            "id": [f"s{k}" for k in range(N)],
            "ra": rng.uniform(0, 360, N),
            "dec": np.degrees(np.arcsin(rng.uniform(-1, 1, N))),
            "class": rng.choice(["star", "galaxy"], N),
            "mag": rng.uniform(14, 24, N).astype(np.float32),
            "sizeArcsec": rng.choice([0.0, 30.0], N).astype(np.float32),
            "redshift": pa.nulls(N, pa.float32()),
        }
    )
    install_catalog(path, "reference", table, "v1")
    rows = Catalogs(path).rows("reference")
    n = export_hats(rows, definition_of("reference"), path / "hats", rows_per_file=300)
    return path, rows, n


def test_each_file_holds_the_rows_of_its_tile_sorted_and_none_too_many(exported):
    path, _, n = exported
    files = sorted((path / "hats" / "dataset").rglob("Npix=*.parquet"))
    assert len(files) == n > 12
    total = 0
    for file in files:
        order = int(file.parents[1].name.removeprefix("Norder="))
        pixel = int(file.stem.removeprefix("Npix="))
        assert file.parent.name == f"Dir={pixel // 10000 * 10000}"
        table = pq.read_table(file, partitioning=None)
        fine = np.asarray(table.column("_healpix_29"))
        np.testing.assert_array_equal(fine, pixels_of(table.column("ra"), table.column("dec")))
        assert (np.diff(fine) >= 0).all()
        assert set(fine >> 2 * (29 - order)) == {pixel}
        assert table.num_rows <= 300
        total += table.num_rows
    assert total == N


def test_the_folder_s_own_files_say_what_is_in_it(exported):
    path, rows, n = exported
    folder = path / "hats"
    lines = (folder / "hats.properties").read_text().splitlines()
    said = dict(line.split(" = ", 1) for line in lines)
    assert said["obs_collection"] == "reference"
    assert said["dataproduct_type"] == "object"
    assert (said["hats_col_ra"], said["hats_col_dec"]) == ("ra", "dec")
    assert said["hats_nrows"] == str(N)
    listed = (folder / "partition_info.csv").read_text().splitlines()
    assert listed[0] == "Norder,Npix"
    assert len(listed) == n + 1
    metadata = pq.read_metadata(folder / "dataset" / "_metadata")
    assert (metadata.num_rows, metadata.num_row_groups) == (N, n)
    first = metadata.row_group(0).column(0).file_path
    assert (folder / "dataset" / first).is_file()
    schema = pq.read_schema(folder / "dataset" / "_common_metadata")
    assert schema.names == ["_healpix_29", *rows.entries.column_names]
    assert schema.field("mag").metadata[b"unit"] == b"mag"


def test_a_hats_folder_comes_back_as_the_same_catalogue(exported):
    path, rows, _ = exported

    install_catalog(path / "again", "reference", path / "hats", "v1")

    assert Catalogs(path / "again").rows("reference").table == rows.table


def test_a_hats_folder_that_lacks_a_file_is_refused(exported, tmp_path):
    path, _, _ = exported
    import shutil

    shutil.copytree(path / "hats", tmp_path / "hats")
    next((tmp_path / "hats" / "dataset").rglob("Npix=*.parquet")).unlink()

    with pytest.raises(ConfigError, match="cannot be read as HATS"):
        install_catalog(tmp_path / "c", "reference", tmp_path / "hats", "v1")


def test_a_folder_that_is_there_is_not_written_over(exported):
    path, rows, _ = exported

    with pytest.raises(ConfigError, match="exists already"):
        export_hats(rows, definition_of("reference"), path / "hats")


def test_rows_at_one_place_are_one_tile_however_many():
    pixels = np.full(1000, pixels_of(10.0, 20.0)[0])

    assert [(first, end) for _, _, first, end in tiles(pixels, 10)] == [(0, 1000)]
