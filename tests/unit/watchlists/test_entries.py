"""Lists as people have them: read, or refused with the lines that are wrong."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from broker.catalog.registry import Catalogs, install_catalog
from broker.errors import ConfigError
from broker.watchlists import entries, read_entries, resolved


def test_positions_are_read_with_their_own_radius_or_the_lists(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text("id,ra,dec,radius\na,10.5,-3,\nb,0,90,7.5\n")

    found = read_entries(path, radius_arcsec=1.5)

    assert found.kind == "positions"
    assert found.table.to_pylist() == [
        {"id": "a", "ra": 10.5, "dec": -3.0, "radiusArcsec": 1.5},
        {"id": "b", "ra": 0.0, "dec": 90.0, "radiusArcsec": 7.5},
    ]


@pytest.mark.parametrize(
    "text",
    [
        "RA\tDec\n1\t2\n",
        "ra dec\n# a remark\n\n1 2\n",
        "dec;ra\n2;1\n",
        '"ra","dec"\r\n"1","2"\r\n',
    ],
)
def test_columns_may_stand_in_any_order_and_with_any_mark(text):
    assert read_entries(text).table.to_pylist() == [
        {"id": "1", "ra": 1.0, "dec": 2.0, "radiusArcsec": 2.0}
    ]


@pytest.mark.parametrize(
    "text", ["ZTF20aaa\n123\n", "objectId\nZTF20aaa\n123\n", "id\nZTF20aaa\n123"]
)
def test_one_column_is_names(text):
    found = read_entries(text)

    assert found.kind == "names"
    assert found.table.column("id").to_pylist() == ["ZTF20aaa", "123"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,ra,dec\na,1,2\nb,361,2\n", "line 3: ra 361 is off the sky: 0 to 360 deg"),
        ("id,ra,dec\n\na,1,-91\n", "line 3: dec -91 is off the sky"),
        ("id,ra,dec\na,12:30:00,2\n", "line 2: ra '12:30:00' is no number; positions are in deg"),
        ("id,ra,dec\na,nan,2\n", "line 2: ra 'nan' is no number"),
        ("id,ra,dec\na,1,2\nb,1,2\na,3,4\n", "line 4: id a is on line 2 already"),
        ("id,ra,dec\na,1,2,3\n", "line 2: 4 values for 3 columns"),
        ("id,ra,dec,radius\na,1,2,-1\n", "line 2: the radius is more than 0 and at most 3600"),
        ("id,ra,dec,radius\na,1,2,4000\n", "line 2: the radius"),
        ("id,ra,dec\n,1,2\n", "line 2: the id is empty"),
        ("a,b,c\n1,2,3\n", "line 1 must name the columns"),
        ("x\ny\nx\n", "line 3: id x is on line 1 already"),
        ("", "has no entries"),
        ("id,ra,dec\n", "has no entries"),
        ('id,ra,dec\n"a,1,2\n', "line 2"),
    ],
)
def test_what_cannot_be_is_refused_with_its_line(text, said):
    with pytest.raises(ConfigError) as caught:
        read_entries(text)

    assert said in caught.value.message


def test_of_many_wrong_lines_the_first_are_named_and_the_others_counted():
    with pytest.raises(ConfigError) as caught:
        read_entries("ra,dec\n" + "400,0\n" * 12)

    assert "line 6:" in caught.value.message
    assert "line 7:" not in caught.value.message
    assert caught.value.message.endswith("and 7 more")


def test_too_many_entries_are_refused(monkeypatch):
    monkeypatch.setattr(entries, "MOST_ENTRIES", 3)

    for text in ("ra,dec\n" + "1,2\n" * 4, "a\nb\nc\nd\n"):
        with pytest.raises(ConfigError, match="more than 3 entries"):
            read_entries(text)
    assert len(read_entries("a\nb\nc\n")) == 3


@pytest.mark.parametrize("radius", [0.0, -1.0, 3600.1, np.nan])
def test_a_radius_that_cannot_be_is_refused(radius):
    with pytest.raises(ConfigError, match="is not allowed"):
        read_entries("a\n", radius_arcsec=radius)


def test_a_crowd_in_one_place_is_refused_and_one_large_circle_among_many_small_is_not():
    rng = np.random.default_rng(4)
    rows = [f"{i},{10 + x},{y}" for i, (x, y) in enumerate(rng.uniform(0, 1e-4, (1500, 2)))]
    with pytest.raises(ConfigError, match="1500 entries are so near"):
        read_entries("id,ra,dec\n" + "\n".join(rows))

    rows = [f"{i},{10 + x},{y},2" for i, (x, y) in enumerate(rng.uniform(0, 0.5, (3000, 2)))]
    assert len(read_entries("id,ra,dec,radius\n" + "\n".join([*rows, "big,10,0,3600"]))) == 3001


def test_a_table_is_read_too_and_its_rows_are_named(tmp_path):
    path = tmp_path / "list.parquet"
    pq.write_table(pa.table({"id": [7, 8], "ra": [1.0, 2.0], "dec": [3.0, None]}), path)
    with pytest.raises(ConfigError, match="row 2: dec '' is no number"):
        read_entries(path)

    pq.write_table(pa.table({"id": [7, 8], "ra": [1.0, 2.0], "dec": [3.0, 4.0]}), path)
    assert read_entries(path).table.column("id").to_pylist() == ["7", "8"]


def test_names_take_their_places_from_a_catalogue(tmp_path):
    rows = pa.table({"id": ["s1", "s2", "s3"], "ra": [10.0, 20.0, 30.0], "dec": [1.0, 2.0, 3.0]})
    install_catalog(tmp_path, "reference", rows, "1")

    found = resolved(read_entries("s3\ns1\n"), "reference", Catalogs(tmp_path), 4.0)

    assert [tuple(row.values()) for row in found.table.to_pylist()] == [
        ("s3", 30.0, 3.0, 4.0),
        ("s1", 10.0, 1.0, 4.0),
    ]
    with pytest.raises(ConfigError, match="1 names are not in the catalogue reference: s4"):
        resolved(read_entries("s3\ns4\n"), "reference", Catalogs(tmp_path), 4.0)
