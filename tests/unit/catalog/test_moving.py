"""Alerts on bodies of a catalogue of orbits find them, and nothing else."""

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pytest

from broker.catalog import Catalogs, install_catalog
from broker.catalog.orbits import Elements, ephemeris, predicted_mag
from broker.errors import AlertError, ConfigError
from broker.units import separation_arcsec

TOML = """
kind = "orbits"
doc = "Asteroids."
radius_arcsec = 2.0
version = "1"

[[columns]]
name = "family"
dtype = "string"
unit = ""
doc = "Where it belongs."
"""
N = 3000


def belt(seed=1, n=N):
    rng = np.random.default_rng(seed)
    a, e = rng.uniform(0.9, 3.3, n), rng.uniform(0, 0.6, n)
    a[:20], e[:20] = rng.uniform(0.95, 1.1, 20), rng.uniform(0, 0.1, 20)  # fast, near the Earth
    return {
        "id": [f"b{k}" for k in range(n)],
        "a": a,
        "e": e,
        "i": rng.rayleigh(8, n),
        "om": rng.uniform(0, 360, n),
        "w": rng.uniform(0, 360, n),
        "ma": rng.uniform(0, 360, n),
        "epoch": np.full(n, 60_390.0),
        "H": rng.uniform(15, 20, n),
        "family": ["main" if x > 2 else "near" for x in a],
    }


def as_elements(columns):
    mean = (columns["ma"] + 180) % 360 - 180
    time = columns["epoch"] - np.radians(mean) * columns["a"] ** 1.5 / 0.01720209895
    return Elements(
        columns["a"] * (1 - columns["e"]), columns["e"], columns["i"], columns["om"],
        columns["w"], time,
    )  # fmt: skip


@pytest.fixture
def installed(tmp_path):
    (tmp_path / "belt.toml").write_text(TOML)
    columns = belt()
    pa_csv.write_csv(pa.table(columns), tmp_path / "belt.csv")
    folder = tmp_path / "catalogs"
    install_catalog(folder, "belt", tmp_path / "belt.csv", definition=tmp_path / "belt.toml")
    return Catalogs(folder), columns


@pytest.mark.slow
def test_an_alert_on_a_body_finds_it_by_brute_force_too(installed):
    catalogs, columns = installed
    orbits, rng = as_elements(columns), np.random.default_rng(2)
    body = rng.integers(0, N, 400)
    body[:20] = np.arange(20)
    mjd = 60_400.0 + rng.uniform(-0.7, 2.7, 400)
    seen = ephemeris(orbits.take(body), mjd)
    away = rng.uniform(0, 4.0, 400) / 3600.0
    found = catalogs.match(seen.ra, np.clip(seen.dec + away, -90, 90), mjd)
    for k in range(400):
        every = ephemeris(orbits, mjd[k])
        apart = separation_arcsec(seen.ra[k], seen.dec[k] + away[k], every.ra, every.dec)
        nearest = int(np.argmin(apart))
        if apart[nearest] <= 2.0:
            assert found["beltMatch"][k].as_py() == 1
            assert found["beltId"][k].as_py() == f"b{nearest}"
            assert found["beltSeparation"][k].as_py() == pytest.approx(apart[nearest], abs=1e-4)
            assert found["beltFamily"][k].as_py() == columns["family"][nearest]
            expected = predicted_mag(ephemeris(orbits.take(np.array([nearest])), mjd[k]),
                                     columns["H"][nearest])[0]  # fmt: skip
            assert found["beltPredictedMag"][k].as_py() == pytest.approx(expected, abs=1e-4)
            assert found["beltElementsAge"][k].as_py() == pytest.approx(mjd[k] - 60_390.0, abs=1e-3)
        else:
            assert found["beltMatch"][k].as_py() == 0
            assert found["beltId"][k].as_py() is None


def test_any_split_of_a_batch_gives_the_same_answers(installed):
    catalogs, columns = installed
    rng = np.random.default_rng(3)
    body, mjd = rng.integers(0, N, 60), 60_400.0 + rng.uniform(0, 1, 60)
    seen = ephemeris(as_elements(columns).take(body), mjd)
    whole = catalogs.match(seen.ra, seen.dec, mjd)
    parts = [catalogs.match(seen.ra[k : k + 7], seen.dec[k : k + 7], mjd[k : k + 7])
             for k in range(0, 60, 7)]  # fmt: skip
    assert pa.concat_tables(parts).combine_chunks().equals(whole.combine_chunks())


def test_without_a_time_nothing_is_searched(installed):
    catalogs, _ = installed
    assert catalogs.match([10.0], [5.0])["beltMatch"].to_pylist() == [-1]
    found = catalogs.match([10.0, 10.0, np.nan], [5.0, 5.0, 5.0], [60_400.0, np.nan, 60_400.0])
    assert found["beltMatch"].to_pylist() == [0, -1, -1]
    assert found["beltVersion"].to_pylist() == ["1", None, None]


def test_bodies_in_a_cone_are_those_of_brute_force(installed):
    catalogs, columns = installed
    every = ephemeris(as_elements(columns), 60_401.3)
    ra, dec = float(every.ra[5]), float(every.dec[5])
    rows, seen = catalogs.moving("belt").around(ra, dec, 7200.0, 60_401.3)
    apart = separation_arcsec(ra, dec, every.ra, every.dec)
    assert rows.tolist() == [k for k in np.argsort(apart).tolist() if apart[k] <= 7200.0]
    np.testing.assert_allclose(seen.ra, every.ra[rows], atol=1e-10)
    with pytest.raises(AlertError, match="no cone"):
        catalogs.moving("belt").around(400.0, 0.0, 1.0, 60_400.0)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"e": -0.1}, "no orbits"),
        ({"i": 200.0}, "no orbits"),
        ({"a": 0.0}, "no orbits"),
        ({"ma": np.nan}, "no orbits"),
        ({"epoch": 2_460_390.5}, "Julian date"),
    ],
)
def test_what_is_no_orbit_is_refused_and_the_old_version_stays(tmp_path, change, says):
    (tmp_path / "belt.toml").write_text(TOML)
    folder = tmp_path / "catalogs"
    good = pa.table(belt(n=30))
    install_catalog(folder, "belt", good, definition=tmp_path / "belt.toml")
    bad = belt(n=30)
    for name, value in change.items():
        bad[name] = np.where(np.arange(30) == 7, value, bad[name])
    with pytest.raises(ConfigError, match=says):
        install_catalog(folder, "belt", pa.table(bad), "2")
    with pytest.raises(ConfigError, match="no column"):
        install_catalog(folder, "belt", good.drop_columns(["om"]), "2")
    rows = Catalogs(folder).rows("belt")
    assert rows.version == "1"
    assert len(rows) == 30


def test_julian_dates_and_times_of_perihelion_are_read_as_the_definition_says(tmp_path):
    columns = belt(n=50)
    plain = as_elements(columns)
    other = columns | {
        "epoch": columns["epoch"] + 2_400_000.5,
        "tp": plain.perihelion_mjd + 2_400_000.5,
        "q": plain.perihelion_au,
    }
    del other["ma"], other["a"]
    (tmp_path / "belt.toml").write_text(TOML + '[orbits]\ntime = "jd"\n')
    install_catalog(tmp_path / "c", "belt", pa.table(other), definition=tmp_path / "belt.toml")
    moving = Catalogs(tmp_path / "c").moving("belt")
    np.testing.assert_allclose(moving.elements.perihelion_mjd, plain.perihelion_mjd, atol=1e-8)


def test_a_search_by_place_says_that_bodies_have_none(installed):
    from broker.catalog.cone import cone_search

    catalogs, _ = installed
    with pytest.raises(ConfigError, match="no fixed place"):
        cone_search(catalogs.rows("belt"), 10.0, 5.0, 10.0)
