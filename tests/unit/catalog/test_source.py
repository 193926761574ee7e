"""The same catalogue comes in by any kind of file, frame and unit, or not at all."""

import astropy.units as u
import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import Column, MaskedColumn, Table

from broker.catalog import Catalogs, definitions, install_catalog
from broker.catalog.install import remove_catalog
from broker.errors import ConfigError
from broker.science import find_contributions
from broker.units import separation_arcsec

N = 400
TOML = """
doc = "Stars of a survey."
radius_arcsec = 2.0
version = "dr1"

[positions]
id = "objid"
ra = "RAJ2000"
dec = "DEJ2000"

[[columns]]
name = "gMag"
source = "g_mean"
dtype = "float32"
unit = "mag"
doc = "Magnitude."

[[columns]]
name = "size"
source = "size"
source_unit = "arcmin"
dtype = "float64"
unit = "arcsec"
doc = "Size."

[[columns]]
name = "kind"
dtype = "string"
unit = ""
doc = "Kind."
"""


@pytest.fixture(scope="module")
def stars():
    rng = np.random.default_rng(1)
    ra, dec = rng.uniform(0, 360, N), np.degrees(np.arcsin(rng.uniform(-1, 1, N)))
    return Table(
        {
            "objid": np.arange(N) + 7_000_000_000,
            "RAJ2000": ra,
            "DEJ2000": dec,
            "g_mean": MaskedColumn(rng.uniform(14, 24, N), mask=np.arange(N) % 5 == 0),
            "size": rng.uniform(0, 1, N),
            "kind": [f"kind {k % 3}" for k in range(N)],
            "unused": rng.uniform(size=N),
        }
    )


@pytest.fixture
def add(tmp_path):
    def add(rows, text=TOML, **options):
        (tmp_path / "stars.toml").write_text(text)
        definition = tmp_path / "stars.toml"
        return install_catalog(tmp_path / "c", "stars", rows, definition=definition, **options)

    return add


def as_arrow(table):
    columns = {n: pa.array(np.ma.asarray(table[n]).tolist()) for n in table.colnames}
    return pa.table(columns)


WRITERS = {
    "stars.csv": lambda t, p: pa_csv.write_csv(as_arrow(t), p),
    "stars.parquet": lambda t, p: pq.write_table(as_arrow(t), p),
    "stars.fits": lambda t, p: t.write(p),
    "stars.fits.gz": lambda t, p: t.write(p),
    "stars.vot": lambda t, p: t.write(p, format="votable"),
    "stars.ecsv": lambda t, p: t.write(p),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_catalogue_comes_in_from_any_kind_of_file(add, stars, tmp_path, name):
    WRITERS[name](stars, tmp_path / name)

    assert add(tmp_path / name) == N

    got = Catalogs(tmp_path / "c").match(stars["RAJ2000"], stars["DEJ2000"])
    assert got.column("starsMatch").to_pylist() == [1] * N
    assert got.column("starsId").to_pylist() == [str(i) for i in stars["objid"]]
    assert got.column("starsKind").to_pylist() == list(stars["kind"])
    assert got.column("starsGMag").to_pylist() == [
        None if m is np.ma.masked else np.float32(m) for m in stars["g_mean"]
    ]
    np.testing.assert_allclose(got.column("starsSize"), stars["size"] * 60.0, rtol=1e-12)
    assert set(got.column("starsVersion").to_pylist()) == {"dr1"}


def test_a_user_s_catalogue_is_defined_where_its_rows_are_and_nowhere_else(add, stars, tmp_path):
    add(as_arrow(stars))

    assert "stars" in definitions(tmp_path / "c")
    assert "stars" not in definitions()
    remove_catalog(tmp_path / "c", "stars")
    assert "stars" not in definitions(tmp_path / "c")
    with pytest.raises(ConfigError, match="no catalogue 'stars'"):
        remove_catalog(tmp_path / "c", "stars")


def moved(stars, change):
    c = SkyCoord(stars["RAJ2000"] * u.deg, stars["DEJ2000"] * u.deg)
    table = stars.copy()
    if change in ("galactic", "fk5"):
        c = c.transform_to(change)
        table["RAJ2000"], table["DEJ2000"] = c.spherical.lon.deg, c.spherical.lat.deg
    elif change == "rad":
        table["RAJ2000"], table["DEJ2000"] = c.ra.rad, c.dec.rad
    else:
        table["RAJ2000"] = c.ra.to_string("hour", sep=":", precision=6)
        table["DEJ2000"] = c.dec.to_string("deg", sep=" ", precision=5)
    return table


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ("galactic", 'frame = "galactic"'),
        ("fk5", 'frame = "fk5"'),
        ("rad", 'unit = "rad"'),
        ("hms", 'unit = "hms"'),
    ],
)
def test_positions_of_another_frame_or_unit_become_icrs_degrees(add, stars, tmp_path, change, line):
    add(as_arrow(moved(stars, change)), TOML.replace('id = "objid"', f'id = "objid"\n{line}'))

    rows = Catalogs(tmp_path / "c").rows("stars")
    by_id = {str(row["objid"]): (row["RAJ2000"], row["DEJ2000"]) for row in stars}
    ra, dec = np.array([by_id[i] for i in rows.table.column("id").to_pylist()]).T
    assert separation_arcsec(ra, dec, rows.ra, rows.dec).max() < 2e-4


def known(stars, k=3):
    row = stars[k]
    return (
        f'\n[positions.known]\nid = "{row["objid"]}"\n'
        f"ra = {row['RAJ2000']}\ndec = {row['DEJ2000']}\n"
    )


@pytest.mark.parametrize("change", ["galactic", "rad"])
def test_a_wrong_frame_or_unit_shows_in_an_object_whose_place_is_known(
    add, stars, tmp_path, change
):
    text = TOML.replace("[[columns]]", known(stars) + "[[columns]]", 1)
    add(as_arrow(stars), text)

    with pytest.raises(ConfigError, match=r"should be at .* check positions\.frame"):
        add(as_arrow(moved(stars, change)), text, version="dr2")

    assert Catalogs(tmp_path / "c").rows("stars").version == "dr1"


def without(stars, **columns):
    table = stars.copy()
    for name, values in columns.items():
        table.replace_column(name, Column(np.broadcast_to(values, N)))
    return as_arrow(table)


@pytest.mark.parametrize("width_deg", [0.5, 20.0])
def test_a_small_field_in_radians_is_refused_and_one_in_degrees_is_told_apart(
    add, stars, tmp_path, width_deg
):
    field = stars.copy()
    field["RAJ2000"] = 150.0 + width_deg * np.linspace(0.0, 1.0, N)
    field["DEJ2000"] = 2.0 + width_deg * np.linspace(0.0, 1.0, N)
    add(as_arrow(field))

    with pytest.raises(ConfigError, match="look like radians"):
        add(as_arrow(moved(field, "rad")), version="dr2")

    # In degrees a field may be there, too; a file with units says so.
    field["RAJ2000"], field["DEJ2000"] = np.linspace(1.0, 2.0, N), np.linspace(0.0, 1.0, N)
    field["RAJ2000"].unit = field["DEJ2000"].unit = u.deg
    field.write(tmp_path / "field.ecsv")
    add(tmp_path / "field.ecsv", version="dr3")
    assert Catalogs(tmp_path / "c").rows("stars").version == "dr3"


@pytest.mark.parametrize(
    ("change", "line", "message"),
    [
        (lambda t: as_arrow(moved(t, "rad")), "", "look like radians"),
        (as_arrow, 'unit = "rad"', "these are degrees"),
        (lambda t: without(t, RAJ2000=np.where(np.arange(N) == 9, np.nan, 1.0)), "", "sky; the fi"),
        (lambda t: without(t, objid=1), "", "id 1 occurs 400 times"),
        (lambda t: as_arrow(t).drop_columns(["DEJ2000"]), "", "no column DEJ2000 .did you mean"),
        (lambda t: as_arrow(t).drop_columns(["g_mean"]), "", "no column g_mean"),
        (lambda t: without(t, g_mean="faint"), "", "column g_mean of the rows is not float"),
        (lambda t: without(t, RAJ2000="12:x:00", DEJ2000="0:0:0"), 'unit = "hms"', "sexagesimal"),
    ],
)
def test_a_catalogue_that_cannot_be_used_leaves_the_old_one(
    add, stars, tmp_path, change, line, message
):
    add(as_arrow(stars))

    with pytest.raises(ConfigError, match=message):
        add(change(stars), TOML.replace('id = "objid"', f'id = "objid"\n{line}'), version="dr2")

    assert Catalogs(tmp_path / "c").rows("stars").version == "dr1"


def test_units_that_a_file_states_are_converted_or_contradict(add, stars, tmp_path):
    table = stars.copy()
    table["size"].unit = "deg"
    text = TOML.replace('source_unit = "arcmin"\n', "")
    table.write(tmp_path / "stars.fits")
    add(tmp_path / "stars.fits", text)
    got = Catalogs(tmp_path / "c").match(stars["RAJ2000"], stars["DEJ2000"])
    np.testing.assert_allclose(got.column("starsSize"), stars["size"] * 3600.0)

    for column, unit, message in (("size", "Jy", "is in Jy"), ("RAJ2000", "rad", "is in rad")):
        wrong = stars.copy()
        wrong[column].unit = unit
        wrong.write(tmp_path / "wrong.fits", overwrite=True)
        with pytest.raises(ConfigError, match=message):
            add(tmp_path / "wrong.fits", text)


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_that_is_cut_short_is_refused(add, stars, tmp_path, name):
    path = tmp_path / name
    WRITERS[name](stars, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2 + 3])

    with pytest.raises(ConfigError, match=r"cannot be read|the rows have no column|is not"):
        add(path)


def test_a_file_of_an_unknown_kind_is_refused(add, tmp_path):
    (tmp_path / "stars.doc").write_text("stars")

    with pytest.raises(ConfigError, match=r"ends in \.csv"):
        add(tmp_path / "stars.doc")


def test_columns_of_a_running_query_stay_when_a_new_version_has_others(
    add, stars, tmp_path, monkeypatch
):
    add(as_arrow(stars))
    catalogs = Catalogs(tmp_path / "c")
    before = catalogs.match([10.0], [10.0])
    text = TOML.replace('name = "gMag"', 'name = "rMag"').replace("float64", "float32")

    add(as_arrow(stars), text, version="dr2")
    later = catalogs._looked_at + 1.5
    monkeypatch.setattr("broker.catalog.registry.time.monotonic", lambda: later)
    after = catalogs.match(stars["RAJ2000"][:1], stars["DEJ2000"][:1])

    assert after.schema == before.schema
    row = after.to_pylist()[0]
    assert (row["starsVersion"], row["starsGMag"], row["starsSize"]) == ("dr2", None, None)
    assert row["starsKind"] == "kind 0"
    assert "starsRMag" in Catalogs(tmp_path / "c").match([10.0], [10.0]).column_names


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('id = "objid"', 'frame = "fk4"', "positions.frame is 'fk4'; use icrs"),
        ('id = "objid"', 'unit = "hours"', "positions.unit is 'hours'"),
        ('id = "objid"', 'pm_ra = "pmra"', "needs pm_ra, pm_dec and epoch"),
        ('id = "objid"', 'colour = "blue"', "colour"),
        ('version = "dr1"', 'coverage = "north"', "coverage is 'north'"),
        ('name = "gMag"', 'name = "radiusArcsec"', "name radiusArcsec is taken"),
        ('name = "gMag"', 'name = "g mag"', "no camelCase name"),
    ],
)
def test_a_definition_that_cannot_be_used_names_its_file(add, stars, old, new, message):
    with pytest.raises(ConfigError, match=rf"stars\.toml.*{message}"):
        add(as_arrow(stars), TOML.replace(old, new))


def test_a_module_may_ask_for_a_catalogue_of_one_s_own(add, stars, tmp_path):
    add(as_arrow(stars))
    folder = tmp_path / "modules" / "bright"
    folder.mkdir(parents=True)
    (folder / "module.py").write_text(
        "from broker.science import Column, science_module\n"
        "@science_module(version='1.0.0', outputs=(Column('gap', 'float64', 'mag', 'Gap.'),))\n"
        "def bright(stars_match, stars_gmag):\n"
        "    '''Tell how bright the star is.'''\n"
        "    return (stars_gmag - 20.0).where(stars_match == 1).to_frame('gap')\n"
    )

    found = find_contributions(tmp_path / "modules", catalogs=definitions(tmp_path / "c"))

    assert found.modules[0].inputs == ("stars_match", "stars_gmag")
    with pytest.raises(ConfigError, match="stars_match"):
        find_contributions(tmp_path / "modules", catalogs=definitions())
