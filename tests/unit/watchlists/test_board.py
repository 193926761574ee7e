"""Alerts on lists: as brute force finds them, taken up while it runs, and public ones only."""

import json

import mocpy
import numpy as np
import pyarrow as pa
import pytest

from broker.catalog.coverage import coverage_of_cells, read_coverage
from broker.errors import ConfigError
from broker.science import find_contributions
from broker.science.samples import sample_alerts
from broker.units import separation_arcsec
from broker.watchlists import WatchBoard, WatchBook, Watchlist, board, book, read_entries

N = 400


@pytest.fixture(scope="module")
def contributions():
    return find_contributions()


@pytest.fixture(scope="module")
def alerts():
    return sample_alerts(N, seed=5, cutouts=False)


@pytest.fixture
def scene(tmp_path, contributions, monkeypatch):
    monkeypatch.setattr(board, "_LOOK_EVERY_S", 0.0)
    kept = WatchBook(tmp_path / "watchlists")
    return kept, WatchBoard(kept.index, contributions)


def listed(name, **values):
    return Watchlist(name, values.pop("owner", "me"), "", **values)


def matches(watching, alerts, is_public=None):
    """Return (row, list, entry) of all matches."""
    shown = np.ones(alerts.num_rows, bool) if is_public is None else is_public
    found = watching.match(alerts, pa.table({}), shown)
    return {(row, one.listed.name, one.entry) for row, its in found.items() for one in its}


def places(alerts):
    return alerts["ra"].to_numpy(), alerts["dec"].to_numpy()


def test_each_list_has_what_brute_force_finds_with_its_nearest_entry(scene, alerts):
    kept, watching = scene
    rng = np.random.default_rng(6)
    ra, dec = places(alerts)
    expected, truth = set(), {}
    for k in range(8):
        # Around some alerts, entries closer and farther than their radii, and several to one.
        rows = rng.choice(N, 60)
        own = rng.uniform(0.5, 20.0, 60)
        away = own * rng.uniform(0.0, 2.0, 60) / 3600.0
        turn = rng.uniform(0, 2 * np.pi, 60)
        there_dec = np.clip(dec[rows] + away * np.sin(turn), -90, 90)
        there_ra = (ra[rows] + away * np.cos(turn) / np.cos(np.radians(dec[rows]))) % 360.0
        columns = zip(there_ra.tolist(), there_dec.tolist(), own.tolist(), strict=True)
        lines = [f"e{i},{a!r},{d!r},{r!r}" for i, (a, d, r) in enumerate(columns)]
        kept.put(listed(f"list-{k}"), read_entries("id,ra,dec,radius\n" + "\n".join(lines)))
        apart = separation_arcsec(ra[:, None], dec[:, None], there_ra, there_dec)
        apart = np.where(apart <= own, apart, np.inf)
        for row in np.flatnonzero(np.isfinite(apart).any(axis=1)).tolist():
            best = int(np.argmin(apart[row]))
            expected.add((row, f"list-{k}", f"e{best}"))
            truth[row, f"list-{k}"] = (apart[row, best], int(np.isfinite(apart[row]).sum()))

    assert matches(watching, alerts) == expected
    assert len(expected) > 100
    found = watching.match(alerts, pa.table({}), np.ones(N, bool))
    for row, its in found.items():
        for one in its:
            separation, n = truth[row, one.listed.name]
            assert one.n_entries == n
            assert abs(one.separation - separation) < 1e-6
            said = json.loads(one.header[1])
            assert said["list"] == one.listed.name
            assert said["entry"] == one.entry
            assert abs(said["separation"] - separation) < 1e-4


def test_objects_are_found_by_name_and_a_region_as_another_library_has_it(scene, alerts, tmp_path):
    kept, watching = scene
    ra, dec = places(alerts)
    names = sorted({name for name in alerts["diaObjectId"].to_pylist()[:30] if name})
    kept.put(listed("names"), read_entries("\n".join([*names, "not-there"])))
    kept.put(listed("more-names"), read_entries("\n".join(names[:2])))
    moc = mocpy.MOC.from_elliptical_cone(
        lon=_deg(ra[7]), lat=_deg(dec[7]), a=_deg(20.0), b=_deg(9.0), pa=_deg(30.0), max_depth=9
    )
    moc.save(tmp_path / "region.fits", format="fits", overwrite=True)
    kept.put(listed("region"), read_coverage(tmp_path / "region.fits"))

    found = matches(watching, alerts)

    ids = alerts["diaObjectId"].to_pylist()
    inside = moc.contains_lonlat(ra * _deg(1.0), dec * _deg(1.0))
    assert found == {
        *((i, "names", name) for i, name in enumerate(ids) if name in names),
        *((i, "more-names", name) for i, name in enumerate(ids) if name in names[:2]),
        *((i, "region", None) for i in np.flatnonzero(inside).tolist()),
    }
    assert inside.any()


def _deg(value):
    import astropy.units as u

    return value * u.deg


def test_lists_come_change_and_go_between_two_batches(scene, alerts):
    kept, watching = scene
    ra, dec = places(alerts)

    def around(row):
        return read_entries(f"id,ra,dec\nx,{ra[row]:.10f},{dec[row]:.10f}")

    assert matches(watching, alerts) == set()
    kept.put(listed("one"), around(3))
    assert matches(watching, alerts) == {(3, "one", "x")}
    kept.put(listed("two"), around(4))
    assert matches(watching, alerts) == {(3, "one", "x"), (4, "two", "x")}
    kept.put(listed("one"), around(5), replaces=True)
    assert matches(watching, alerts) == {(5, "one", "x"), (4, "two", "x")}
    kept.remove("one")
    assert matches(watching, alerts) == {(4, "two", "x")}
    kept.remove("two")
    assert matches(watching, alerts) == set()


def test_an_expression_must_be_true_too_and_null_is_not(scene, alerts, contributions):
    kept, watching = scene
    ra, dec = places(alerts)
    there = zip(ra.tolist(), dec.tolist(), strict=True)
    lines = [f"{i},{a!r},{d!r}" for i, (a, d) in enumerate(there)]
    entries = read_entries("id,ra,dec\n" + "\n".join(lines))
    kept.put(listed("bright", where="snr > 20 AND band = 'r'"), entries)
    kept.put(listed("reliable", where="reliability >= 0.5"), entries)

    found = matches(watching, alerts)

    snr, band = alerts["snr"].to_numpy(), alerts["band"].to_pylist()
    reliability = alerts["reliability"].to_pylist()
    bright = {i for i in range(N) if snr[i] > 20 and band[i] == "r"}
    reliable = {i for i in range(N) if reliability[i] is not None and reliability[i] >= 0.5}
    assert {row for row, name, _ in found if name == "bright"} == bright
    assert {row for row, name, _ in found if name == "reliable"} == reliable
    assert 0 < len(bright) < N


def test_an_expression_over_what_is_gone_chooses_nothing_and_is_told(scene, alerts):
    kept, watching = scene
    ra, dec = places(alerts)
    entries = read_entries(f"id,ra,dec\nx,{ra[0]:.10f},{dec[0]:.10f}")
    kept.put(listed("gone", where="no_such_output > 1"), entries)
    kept.put(listed("there"), entries)

    assert matches(watching, alerts) == {(0, "there", "x")}
    assert watching.failures == ("gone",)


def test_what_is_not_public_is_on_no_list(scene, alerts):
    kept, watching = scene
    kept.put(listed("north", where="dec > -91"), coverage_of_cells(np.arange(12), 0))
    is_public = np.arange(N) % 3 == 0

    found = matches(watching, alerts, is_public)

    assert {row for row, _, _ in found} == set(np.flatnonzero(is_public).tolist())


def test_an_index_that_cannot_be_read_leaves_the_lists_as_they_were(scene, alerts):
    kept, watching = scene
    ra, dec = places(alerts)
    kept.put(listed("one"), read_entries(f"id,ra,dec\nx,{ra[0]:.10f},{dec[0]:.10f}"))
    before = matches(watching, alerts)
    pointer = kept.index / "current"
    good = pointer.read_text()
    pointer.with_name("new").write_text("nowhere\n")
    pointer.with_name("new").replace(pointer)

    assert matches(watching, alerts) == before
    assert watching.failures == ("all",)
    pointer.write_text(good)
    assert matches(watching, alerts) == before
    assert watching.failures == ()


def test_names_are_taken_once_and_only_the_owner_replaces(scene):
    kept, _ = scene
    entries = read_entries("a\n")
    kept.put(listed("mine"), entries)

    with pytest.raises(ConfigError, match="already"):
        kept.put(listed("mine"), entries)
    with pytest.raises(ConfigError, match="you has no watchlist mine"):
        kept.put(listed("mine", owner="you"), entries, replaces=True)
    for name in ("", "Upper", "a/b", "..", "a" * 62):
        with pytest.raises(ConfigError, match="no name of a watchlist"):
            kept.put(listed(name), entries)
    with pytest.raises(ConfigError, match="there is no watchlist"):
        kept.remove("other")
    assert [one.name for one in kept.all()] == ["mine"]


def test_there_is_an_end_to_lists_entries_and_sky(scene, monkeypatch):
    kept, _ = scene
    monkeypatch.setattr(book, "MOST_ROWS", 3)
    monkeypatch.setattr(book, "MOST_OF_OWNER", 2)
    kept.put(listed("a"), read_entries("x\ny\n"))

    with pytest.raises(ConfigError, match="4 entries; at most 3"):
        kept.put(listed("b"), read_entries("x\ny\n"))
    kept.put(listed("b"), read_entries("x\n"))
    with pytest.raises(ConfigError, match="me has 2 watchlists"):
        kept.put(listed("c"), coverage_of_cells([5], 3))
    half = coverage_of_cells(np.arange(6), 0)
    with pytest.raises(ConfigError, match="50% of the sky, at most 25%"):
        kept.put(listed("c", owner="you"), half)
    with pytest.raises(ConfigError, match="the region is empty"):
        kept.put(listed("c", owner="you"), coverage_of_cells([], 0))
    made = kept.put(listed("c", owner="you", where="snr > 5"), half)
    assert (made.kind, made.sky_fraction) == ("region", 0.5)
    assert kept.entries("c").fraction == 0.5


def test_a_crash_between_a_list_and_its_index_is_made_good(scene, alerts, monkeypatch):
    kept, watching = scene
    ra, dec = places(alerts)
    kept.refresh()
    kept.put(listed("one"), read_entries(f"id,ra,dec\nx,{ra[0]:.10f},{dec[0]:.10f}"))
    before = (kept.index / "current").read_text()
    kept.refresh()
    assert (kept.index / "current").read_text() == before  # nothing was amiss

    with monkeypatch.context() as broken:
        broken.setattr(book, "write_index", lambda *parts: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            kept.put(listed("two"), read_entries(f"id,ra,dec\ny,{ra[1]:.10f},{dec[1]:.10f}"))
    assert {name for _, name, _ in matches(watching, alerts)} == {"one"}
    kept.refresh()
    assert {name for _, name, _ in matches(watching, alerts)} == {"one", "two"}
