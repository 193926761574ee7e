"""Catalogues are added whole or not at all, and read as found, none, or not searched."""

import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from broker.catalog import Catalogs, definitions, install_catalog
from broker.catalog.coverage import all_sky
from broker.catalog.registry import Definition, parse_definition, read_definitions
from broker.errors import ConfigError

STAR, GALAXY = (
    ("s", 10.0, 20.0, "star", 18.5, 0.0, None),
    ("g", 50.0, -60.0, "galaxy", 20.0, 6.0, 0.1),
)


def entries(*rows):
    names = ("id", "ra", "dec", "class", "mag", "size_arcsec", "redshift")
    columns = zip(*rows, strict=True) if rows else [[]] * len(names)
    return pa.table(dict(zip(names, (list(column) for column in columns), strict=True)))


def in_the_next_second(catalogs, monkeypatch):
    later = catalogs._looked_at + 1.5
    monkeypatch.setattr("broker.catalog.registry.time.monotonic", lambda: later)


def test_a_match_brings_the_entry_with_its_columns(tmp_path):
    pq.write_table(entries(STAR, GALAXY), tmp_path / "rows.parquet")

    n = install_catalog(tmp_path, "reference", tmp_path / "rows.parquet", "2026.1")
    got = Catalogs(tmp_path).match([10.0, 50.0], [20.0 + 1.0 / 3600.0, -60.0]).to_pylist()

    assert n == 2
    assert got[0]["referenceMatch"] == 1
    assert got[0]["referenceId"] == "s"
    assert got[0]["referenceSeparation"] == pytest.approx(1.0, abs=1e-6)  # float32
    assert got[0]["referenceVersion"] == "2026.1"
    assert got[0]["referenceClass"] == "star"
    assert got[0]["referenceMag"] == 18.5
    assert got[0]["referenceRedshift"] is None
    assert got[1]["referenceRedshift"] == np.float32(0.1)


def test_a_galaxy_matches_within_its_size_and_a_star_does_not(tmp_path):
    install_catalog(tmp_path, "reference", entries(STAR, GALAXY), "1", coverage=all_sky())

    away = 5.0 / 3600.0
    got = Catalogs(tmp_path).match([10.0, 50.0], [20.0 + away, -60.0 + away])

    assert got.column("referenceMatch").to_pylist() == [0, 1]


def test_each_class_of_entry_has_its_radius(tmp_path):
    (tmp_path / "own.toml").write_text(
        'doc = "Mixed."\nradius_arcsec = 1.0\ncoverage = "all-sky"\nversion = "1"\n'
        'class_column = "class"\nclass_radii = { galaxy = 8.0, qso = 3.0 }\n'
        '[[columns]]\nname = "class"\ndtype = "string"\nunit = ""\ndoc = "Kind."\n'
    )
    kinds = ["star", "galaxy", "qso", None]
    rows = pa.table(
        {"id": list("abcd"), "ra": [10.0, 20.0, 30.0, 40.0], "dec": [0.0] * 4, "class": kinds}
    )
    install_catalog(tmp_path / "c", "own", rows, definition=tmp_path / "own.toml")
    catalogs = Catalogs(tmp_path / "c")

    for away, expected in ((0.9, [1, 1, 1, 1]), (2.5, [0, 1, 1, 0]), (7.0, [0, 1, 0, 0])):
        got = catalogs.match([10.0, 20.0, 30.0, 40.0], [away / 3600.0] * 4)
        assert got["ownMatch"].to_pylist() == expected


def test_a_reading_says_found_none_or_not_searched(tmp_path):
    install_catalog(tmp_path, "reference", entries(STAR), "1", coverage=all_sky())

    got = Catalogs(tmp_path).match([10.0, 11.0, np.nan], [20.0, 20.0, 20.0])

    assert got.column("referenceMatch").to_pylist() == [1, 0, -1]
    assert got.column("referenceVersion").to_pylist() == ["1", "1", None]
    assert got.column("referenceId").to_pylist() == ["s", None, None]


def test_where_a_catalogue_has_not_looked_it_is_not_searched_and_not_empty(tmp_path):
    rng = np.random.default_rng(5)
    places = rng.uniform([9.0, 19.0], [11.0, 21.0], (3000, 2)).tolist()
    field = [(f"s{k}", *place, "star", 18.5, 0.0, None) for k, place in enumerate(places)]
    install_catalog(tmp_path, "reference", entries(*field), "1")

    # in the middle of the field but on no star; far away; and on a star
    got = Catalogs(tmp_path).match(
        [10.0, 200.0, 10.0, 10.0, field[7][1]], [20.0, 20.0, -70.0, 24.0, field[7][2]]
    )

    assert got.column("referenceMatch").to_pylist() == [0, -1, -1, -1, 1]
    assert got.column("referenceVersion").to_pylist() == ["1", None, None, None, "1"]


def test_a_few_rows_do_not_tell_where_a_catalogue_has_looked(tmp_path):
    install_catalog(tmp_path, "reference", entries(STAR, GALAXY), "1")

    got = Catalogs(tmp_path).match([10.0, 10.1], [20.0, 20.0])

    assert got.column("referenceMatch").to_pylist() == [1, -1]


def test_a_catalogue_without_rows_is_not_searched_and_is_no_error(tmp_path):
    got = Catalogs(tmp_path / "nowhere").match([10.0], [20.0]).to_pylist()

    assert got[0]["gaiaMatch"] == -1
    assert got[0]["referenceMatch"] == -1
    assert [v for name, v in got[0].items() if not name.endswith("Match")] == [None] * 14


def test_the_columns_of_a_match_are_the_declared_ones_in_their_types(tmp_path):
    install_catalog(tmp_path, "reference", entries(STAR), "1")
    declared = [c for columns in definitions().values() for c in columns]

    for positions in ([], [10.0], [10.0, 200.0]):
        got = Catalogs(tmp_path).match(positions, positions)
        assert got.column_names == [c.name for c in declared]
        assert got.schema.types == [c.arrow_type for c in declared]


def test_a_new_version_is_taken_up_between_batches(tmp_path, monkeypatch):
    install_catalog(tmp_path, "reference", entries(STAR), "1")
    catalogs = Catalogs(tmp_path)
    catalogs.match([10.0], [20.0])

    install_catalog(tmp_path, "reference", entries(GALAXY), "2", coverage=all_sky())
    in_the_next_second(catalogs, monkeypatch)
    got = catalogs.match([10.0, 50.0], [20.0, -60.0])

    assert got.column("referenceVersion").to_pylist() == ["2", "2"]
    assert got.column("referenceMatch").to_pylist() == [0, 1]


def test_an_open_catalogue_outlives_its_files(tmp_path):
    install_catalog(tmp_path, "reference", entries(STAR), "1")
    catalogs = Catalogs(tmp_path)
    rows = catalogs.rows("reference")

    for version in ("2", "3", "4"):
        install_catalog(tmp_path, "reference", entries(GALAXY), version)

    assert rows.table.column("id").to_pylist() == ["s"]
    kept = sorted(p.name for p in (tmp_path / "reference").iterdir())
    assert kept == ["000003-3", "000004-4", "current"]


def test_catalogues_can_be_sent_to_a_worker(tmp_path):
    install_catalog(tmp_path, "reference", entries(STAR), "1")
    catalogs = Catalogs(tmp_path)
    catalogs.match([10.0], [20.0])

    sent = pickle.loads(pickle.dumps(catalogs))

    assert sent.match([10.0], [20.0]) == catalogs.match([10.0], [20.0])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (entries(), "no rows"),
        (entries(STAR, STAR), "id s occurs 2 times"),
        (entries((None, *STAR[1:])), "has no id"),
        (entries(("x", None, *STAR[2:])), r"not on the sky; the first is id x"),
        (entries(("x", 361.0, *STAR[2:])), "not on the sky"),
        (entries(("x", 1.0, float("nan"), *STAR[3:])), "not on the sky"),
        (entries((*STAR[:5], float("inf"), None)), "infinite"),
        (entries(STAR).drop_columns(["dec"]), "no column dec"),
        (entries(STAR).set_column(4, "mag", [["faint"]]), "column mag"),
    ],
)
def test_rows_that_cannot_be_used_are_refused_and_change_nothing(tmp_path, rows, message):
    install_catalog(tmp_path, "reference", entries(GALAXY), "1")

    with pytest.raises(ConfigError, match=message):
        install_catalog(tmp_path, "reference", rows, "2")

    assert Catalogs(tmp_path).rows("reference").version == "1"


def test_an_unknown_catalogue_a_bad_version_and_no_parquet_are_refused(tmp_path):
    (tmp_path / "file").write_text("ra,dec")

    with pytest.raises(ConfigError, match="no catalogue 'simbad' is defined"):
        install_catalog(tmp_path, "simbad", entries(STAR), "1")
    with pytest.raises(ConfigError, match="version '1/2' is not allowed"):
        install_catalog(tmp_path, "reference", entries(STAR), "1/2")
    with pytest.raises(ConfigError, match="reference has no version: give --version"):
        install_catalog(tmp_path, "reference", entries(STAR))
    with pytest.raises(ConfigError, match="cannot be read as Parquet"):
        install_catalog(tmp_path, "reference", tmp_path / "file", "1")


def test_a_damaged_catalogue_is_an_error_and_never_reads_not_searched(tmp_path):
    install_catalog(tmp_path, "reference", entries(STAR), "1")
    (tmp_path / "reference" / "000001-1" / "rows.arrow").write_bytes(b"ARROW1 or not")

    with pytest.raises(ConfigError, match="cannot be read"):
        Catalogs(tmp_path).match([10.0], [20.0])


GOOD = """
doc = "d"
radius_arcsec = 1.0
[[columns]]
name = "mag"
dtype = "float32"
unit = "mag"
doc = "m"
"""


def test_a_definition_is_read_from_its_text():
    assert isinstance(parse_definition("twoMass", GOOD), Definition)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("radius_arcsec = ", "cannot be used"),
        ("radius_arcsec = 1.0", "cannot be used: 'columns'"),
        (GOOD.replace("doc =", "docs =", 1), "docs"),
        (GOOD.replace("float32", "float"), "use bool, int32"),
        (GOOD.replace('"mag"', '"id"', 1), "name id is taken"),
        (GOOD.replace("1.0", "0.0"), "must be positive"),
        ('radius_column = "size"\n' + GOOD, "radius_column size"),
        ('class_column = "kind"\nclass_radii = { star = 1.0 }\n' + GOOD, "class_radii"),
    ],
)
def test_a_definition_that_cannot_be_used_names_its_file(text, message):
    with pytest.raises(ConfigError, match=rf"twoMass\.toml.*{message}"):
        parse_definition("twoMass", text)


def test_every_definition_states_its_columns_with_units_and_meaning():
    for definition in read_definitions().values():
        assert definition.doc.endswith(".")
        for column in definition.columns:
            assert column.doc.endswith(".")
            # a parameter is the snake_case of the column
            assert column.python_name.isidentifier()
