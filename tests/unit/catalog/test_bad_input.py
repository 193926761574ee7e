"""What cannot be a catalogue is refused with one clear line, and readers never see half of one."""

import threading
from collections import namedtuple
from pathlib import Path

import astropy.units as u
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import Table
from click.testing import CliRunner

from broker.catalog import Catalogs, install_catalog
from broker.catalog.coverage import all_sky
from broker.cli.main import cli
from broker.errors import ConfigError

TOML = """
doc = "Active galaxies."
radius_arcsec = 1.5
version = "dr1"
coverage = "all-sky"
columns = []

[positions.known]
id = "M 87"
ra = 187.70593
dec = 12.39112
within_arcsec = 5.0
"""
N = 300


def sky(seed=1, n=N):
    rng = np.random.default_rng(seed)
    ra, dec = rng.uniform(0, 360, n), np.degrees(np.arcsin(rng.uniform(-1, 1, n)))
    ra[0], dec[0] = 187.70593, 12.39112
    return ra, dec


def table(ra, dec):
    return pa.table({"id": ["M 87", *(f"a{k}" for k in range(1, len(ra)))], "ra": ra, "dec": dec})


@pytest.fixture
def add(tmp_path):
    (tmp_path / "agn.toml").write_text(TOML)

    def add(rows, version="dr1"):
        definition = tmp_path / "agn.toml"
        return install_catalog(tmp_path / "c", "agn", rows, version, definition=definition)

    return add


def galactic(ra, dec):
    there = SkyCoord(ra * u.deg, dec * u.deg).galactic
    return there.l.deg, there.b.deg


def test_galactic_coordinates_declared_as_icrs_are_told_by_a_known_galaxy(add, tmp_path):
    ra, dec = sky()
    assert add(table(ra, dec)) == N

    with pytest.raises(ConfigError, match=r"M 87 should be at \(187\.706, 12\.3911\).*frame"):
        add(table(*galactic(ra, dec)), "dr2")

    assert Catalogs(tmp_path / "c").rows("agn").version == "dr1"


def test_galactic_coordinates_are_told_in_a_file_too_and_the_command_says_so_in_a_line(
    add, tmp_path, monkeypatch
):
    ra, dec = sky()
    monkeypatch.setenv("BROKER_HOME", str(tmp_path / "home"))
    for name, places in (("good", (ra, dec)), ("bad", galactic(ra, dec))):
        Table(table(*places).to_pydict()).write(tmp_path / f"{name}.fits")
    words = ["catalog", "add", "--name", "agn", "--definition", str(tmp_path / "agn.toml")]

    good = CliRunner().invoke(cli, [*words, str(tmp_path / "good.fits")])
    bad = CliRunner().invoke(cli, [*words, "--version", "dr2", str(tmp_path / "bad.fits")])

    assert good.exit_code == 0, good.output
    assert isinstance(bad.exception, ConfigError)
    assert "M 87 should be at" in str(bad.exception)
    assert "\n" not in str(bad.exception)
    assert "dr1" in CliRunner().invoke(cli, ["catalog", "list"]).output


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (lambda ra, dec: table(np.radians(ra), np.radians(dec)), "M 87 should be at"),
        (lambda ra, dec: table(ra, dec).drop_columns(["ra"]), "no column ra"),
        (lambda ra, dec: table(ra, dec).drop_columns(["ra", "dec"]), "no column ra"),
        (lambda ra, dec: table(ra * 3600.0, dec * 3600.0), "not on the sky"),
        (lambda ra, dec: table(ra / 15.0, dec), "M 87 should be at"),
        (lambda ra, dec: table(dec, ra), "not on the sky"),
    ],
)
def test_positions_that_are_none_or_in_other_units_are_refused(add, tmp_path, rows, message):
    ra, dec = sky()
    add(table(ra, dec))

    with pytest.raises(ConfigError, match=message):
        add(rows(ra, dec), "dr2")

    assert Catalogs(tmp_path / "c").rows("agn").version == "dr1"


@pytest.mark.parametrize("left_bytes", [0, 10, 1000])
@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.fits", "a.vot", "a.ecsv"])
def test_a_file_that_breaks_off_early_is_refused(add, tmp_path, name, left_bytes):
    ra, dec = sky()
    whole = tmp_path / name
    if name == "a.parquet":
        pq.write_table(table(ra, dec), whole)
    else:
        kind = {"a.csv": "ascii.csv", "a.vot": "votable", "a.ecsv": "ascii.ecsv"}.get(name)
        Table(table(ra, dec).to_pydict()).write(whole, format=kind)
    add(whole)
    # In the middle of a line: 7 bytes from the end, or so many from the beginning.
    whole.write_bytes(whole.read_bytes()[: left_bytes or -7])

    with pytest.raises(ConfigError) as refused:
        add(whole, "dr2")

    assert len(str(refused.value)) < 1000
    assert Catalogs(tmp_path / "c").rows("agn").version == "dr1"


Usage = namedtuple("Usage", "total used free")


def test_a_catalogue_larger_than_the_disk_is_refused_before_it_is_written(
    add, tmp_path, monkeypatch
):
    add(table(*sky()))
    before = sorted(p.name for p in (tmp_path / "c" / "agn").iterdir())
    monkeypatch.setattr(
        "broker.catalog.install.shutil.disk_usage", lambda _: Usage(10**6, 10**6 - 5000, 5000)
    )

    with pytest.raises(ConfigError, match=r"agn needs .* MB; the disk of .* has 0\.01 MB left"):
        add(table(*sky(2)), "dr2")

    assert sorted(p.name for p in (tmp_path / "c" / "agn").iterdir()) == before
    assert Catalogs(tmp_path / "c").rows("agn").version == "dr1"


def test_a_disk_that_fills_up_while_it_is_written_leaves_the_old_version(
    add, tmp_path, monkeypatch
):
    add(table(*sky()))

    def full(path, _):
        Path(path).write_bytes(b"ARROW1\0\0")
        raise OSError(28, "No space left on device")

    other = tmp_path / "other.toml"
    other.write_text(TOML.replace("Active galaxies", "Others"))
    monkeypatch.setattr("broker.catalog.partition.pa.OSFile", full)
    for name, definition in (("agn", other), ("new", other)):
        with pytest.raises((ConfigError, OSError), match="space"):
            install_catalog(tmp_path / "c", name, table(*sky(2)), "dr2", definition=definition)
    monkeypatch.undo()

    kept = Catalogs(tmp_path / "c").definitions
    assert kept["agn"].doc == "Active galaxies."
    assert "new" not in kept
    assert Catalogs(tmp_path / "c").rows("agn").version == "dr1"
    add(table(*sky(3)), "dr3")
    assert Catalogs(tmp_path / "c").rows("agn").version == "dr3"


def test_a_reader_never_sees_half_a_catalogue_while_versions_are_replaced(
    add, tmp_path, monkeypatch
):
    # In version k all entries are k arcsec north: a mixture would show in any match.
    monkeypatch.setattr("broker.catalog.registry._LOOK_EVERY_S", 0.0)
    ra, dec = sky()
    dec = np.clip(dec, -89.0, 89.0)
    dec[0] = 12.39112

    def version(k):
        columns = {"id": [f"{k}-{i}" for i in range(N)], "ra": ra, "dec": dec + k / 3600.0}
        return pa.table(columns)

    path = tmp_path / "c"
    (tmp_path / "agn.toml").write_text(TOML.split("[positions.known]")[0])
    install_catalog(path, "agn", version(0), "v0", definition=tmp_path / "agn.toml")
    done, read_once, seen, wrong = threading.Event(), threading.Event(), set(), []

    def read():
        catalogs = Catalogs(path)
        while not done.is_set():
            got = catalogs.match(ra, dec)
            versions = set(got.column("agnVersion").to_pylist())
            ids = got.column("agnId").to_pylist()
            k = int(next(iter(versions))[1:]) % 2
            if len(versions) > 1 or ids != [f"{k}-{i}" for i in range(N)]:
                wrong.append((versions, ids[:3]))
            away = got.column("agnSeparation").to_numpy()
            if np.abs(away - k).max() > 1e-3:
                wrong.append(away)
            seen.update(versions)
            read_once.set()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for k in range(1, 25):
            # The reader goes on reading meanwhile; it gets time for a read a version at least.
            assert read_once.wait(timeout=60)
            read_once.clear()
            install_catalog(path, "agn", version(k % 2), f"v{k}", coverage=all_sky())
    finally:
        done.set()
        reader.join()

    assert not wrong
    assert len(seen) >= 3
