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


DEFINITION = """
doc = "Places."
radius_arcsec = 5.0
positions = { id = "name", ra = "RA", dec = "DE" }
columns = []
"""


@pytest.fixture
def places(broker, tmp_path):
    (tmp_path / "places.toml").write_text(DEFINITION)
    (tmp_path / "places.csv").write_text("name,RA,DE\na,10.0,20.0\nb,359.5,-1.0\nc,0.5,1.0\n")
    add = ("add", "places.csv", "--name", "places", "--definition", "places.toml")
    result = broker(*add, "--version", "1", "--coverage", "all-sky", "--json")
    assert json.loads(result.stdout)["skyFraction"] == 1.0
    return broker


def found(result):
    return [row["id"] for row in json.loads(result.stdout)]


def test_a_catalogue_of_one_s_own_is_searched_in_any_region(places, tmp_path):
    (tmp_path / "moc.json").write_text('{"0": [4]}')
    search = ("search", "places", "--json")

    assert found(places(*search, "--cone", "10.0", "20.001", "5")) == ["a"]
    assert found(places(*search, "--box", "359", "1", "-2", "2")) == ["b", "c"]
    corners = ("--polygon", "9", "19", "--polygon", "11", "19", "--polygon", "10", "22")
    assert found(places(*search, *corners)) == ["a"]
    assert found(places(*search, "--moc", "moc.json")) == ["a", "b", "c"]
    assert "give one of" in places(*search).output


@pytest.mark.parametrize("kind", ["csv", "parquet", "vot", "ecsv", "fits"])
def test_a_list_of_positions_is_matched_into_a_file(places, tmp_path, kind):
    from broker.catalog.source import read_file

    (tmp_path / "list.csv").write_text("n,ra,dec\n1,10.0,20.0\n2,50.0,0.0\n3,,\n")

    result = places("match-list", "list.csv", "--out", f"out.{kind}")

    assert result.exit_code == 0, result.exception
    rows = read_file(tmp_path / f"out.{kind}")[0].to_pylist()
    assert [row["n"] for row in rows] == [1, 2, 3]
    assert [row["placesMatch"] for row in rows] == [1, 0, -1]
    assert rows[0]["placesId"] == "a"
    if kind in ("vot", "ecsv", "fits"):
        units = read_file(tmp_path / f"out.{kind}")[1]
        assert (units["ra"], units["placesSeparation"]) == ("deg", "arcsec")


def test_a_catalogue_goes_out_and_is_removed(places, tmp_path):
    assert places("export", "places", "hats").exit_code == 0
    assert places("export", "places", "moc.fits", "--format", "moc").exit_code == 0
    assert (tmp_path / "hats" / "hats.properties").is_file()
    assert found(places("search", "places", "--moc", "moc.fits", "--json")) == ["a", "b", "c"]

    assert places("remove", "places").exit_code == 0

    assert "places" not in [row["name"] for row in json.loads(places("list", "--json").stdout)]


def test_a_match_is_told_in_words(places):
    assert "0.0 arcsec from the entry a of places." in places("match", "10", "20").output


def test_bodies_of_a_catalogue_of_orbits_are_found_at_a_time(broker, tmp_path):
    (tmp_path / "belt.toml").write_text(
        'kind = "orbits"\ndoc = "Asteroids."\nradius_arcsec = 5.0\nversion = "1"\n'
    )
    orbit = {"e": 0.078, "i": 10.6, "om": 80.3, "w": 73.6, "ma": 60.0, "a": 2.77, "H": 3.34}
    rows = {name: [value] for name, value in orbit.items()} | {"id": ["1"], "epoch": [61_000.0]}
    pq.write_table(pa.table(rows), tmp_path / "belt.parquet")
    added = broker("add", "belt.parquet", "--name", "belt", "--definition", "belt.toml")
    assert added.exit_code == 0, added.output

    near = broker("ephemeris", "belt", "--mjd", "61000.5", "--cone", "10", "0", "648000", "--json")
    (body,) = json.loads(near.stdout)
    place = (str(body["ra"]), str(body["dec"]))
    found = json.loads(broker("match", *place, "--mjd", "61000.5", "--json").stdout)
    said = broker("match", *place, "--mjd", "61000.5").stdout

    assert body["id"] == "1"
    assert found["beltId"] == "1"
    assert found["beltSeparation"] < 0.001
    assert found["beltPredictedMag"] == pytest.approx(body["predictedMag"])
    assert "from where 1 of belt should be, predicted at V =" in said
    assert "give --mjd" in broker("match", "10", "20").output
    exported = broker("export", "belt", "folder")
    assert "no fixed place" in str(exported.exception)
