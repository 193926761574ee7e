"""`broker catalog` adds rows, lists catalogues and matches a place."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from broker.cli.main import cli


@pytest.fixture
def broker(tmp_path, monkeypatch):
    monkeypatch.setenv("BROKER_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        return CliRunner().invoke(cli, ["catalog", *arguments])

    return call


def test_rows_that_were_added_are_listed_and_matched(broker, tmp_path):
    pq.write_table(
        pa.table({"id": ["a"], "ra": [150.1], "dec": [-2.2], "class": ["star"]}),
        tmp_path / "rows.parquet",
    )

    added = broker("add", "rows.parquet", "--name", "reference", "--version", "v1", "--json")
    listed = broker("list", "--json")
    found = broker("match", "150.1", "-2.2", "--json")

    assert json.loads(added.stdout) == {
        "name": "reference",
        "version": "v1",
        "rows": 1,
        "skyFraction": 0.0,
    }
    by_name = {row["name"]: row for row in json.loads(listed.stdout)}
    assert (by_name["reference"]["version"], by_name["reference"]["rows"]) == ("v1", 1)
    assert (by_name["gaia"]["version"], by_name["gaia"]["rows"]) == (None, 0)
    match = json.loads(found.stdout)
    assert (match["referenceMatch"], match["referenceId"], match["gaiaMatch"]) == (1, "a", -1)


def test_a_catalogue_s_columns_are_shown_with_units(broker):
    shown = broker("show", "gaia", "--json")

    rows = {row["column"]: row for row in json.loads(shown.stdout)}
    assert rows["gaiaParallax"]["unit"] == "mas"
    assert rows["gaiaMatch"]["type"] == "int32"


def test_a_place_that_is_none_is_bad_data(broker):
    result = broker("match", "10", "95")

    assert "no place on the sky" in str(result.exception)
    assert result.exception.exit_code == 20
