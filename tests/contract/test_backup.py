"""A run comes back from its back-up as it was, on memory and on HBase."""

import dataclasses
import json

import every_table
import pyarrow as pa
import pytest

from broker.archive import Archive
from broker.archive.archive import ROWS
from broker.config import Config
from broker.errors import AlertError, ConfigError
from broker.ops.backup import back_up, read_manifest
from broker.ops.restore import restore
from broker.store.tables import create_tables, drop_tables
from broker.types import Coordinate, Run

IN_MEMORY = pytest.mark.parametrize("tables", ["memory"], indirect=True)
"""What is the same for all tables is asked once: to make and drop a run's in HBase takes long."""

FILES = {
    "checkpoints/{run}/alerts/commits/0": b"v1",
    "checkpoints/{run}/alerts/offsets/0": b"v1 offsets",
    "catalogs/{run}/gaia/pixel.parquet": b"catalogue",
    "watchlists/{run}/list.json": b"{}",
    "templates/{run}/a/b.fits": bytes(range(256)) * 99,
    "filters/bright.json": b"filter",
    "schemas/lsst/12.0.avsc": b"{}",
}


@pytest.fixture
def made(tables, tmp_path, run):
    """A run with all it may have, and an empty place to restore it to."""
    config = Config(home=tmp_path / "home", run=run.name)
    create_tables(tables, run)
    every_table.fill(tables, run)
    for name, content in FILES.items():
        path = config.home / name.format(run=run.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (config.home / "logs").mkdir()
    (config.home / "logs" / "kafka.log").write_text("not copied")
    archived(config, run, 0, [b"one", b"two"])
    yield config, Config(home=tmp_path / "other", run=run.name), tmp_path / "backup"
    drop_tables(tables, run)


def archived(config, run, first, packets):
    rows = {
        "offset": range(first, first + len(packets)),
        "timestamp_ms": [1_760_000_000_000] * len(packets),
        "value": packets,
    }
    table = pa.table({k: pa.array(v, ROWS.field(k).type) for k, v in rows.items()}, ROWS)
    Archive(config.archive_path, run).write(run.alerts_topic("ztf"), 0, [table])


def everything(tables, run):
    return {
        name: list(tables.table(name).scan_timed())
        for name in tables.names()
        if name.startswith(run.table(""))
    }


def test_a_run_comes_back_as_it_was(tables, made, run):
    config, other, folder = made
    before, said = everything(tables, run), every_table.read(tables, run)
    manifest = back_up(config, tables, folder)
    drop_tables(tables, run)

    found = restore(other, tables, folder)

    assert everything(tables, run) == before
    assert str(every_table.read(tables, run)) == str(said)
    assert all(one.is_same and one.saved == one.restored for one in found)
    assert {c.name: c.rows for c in manifest.tables} == {
        name.removeprefix(run.table("")): len(rows) for name, rows in before.items()
    }
    for name, content in FILES.items():
        assert (other.home / name.format(run=run.name)).read_bytes() == content
    assert not (other.home / "logs").exists()
    assert not list(folder.rglob("*.log"))
    packet = Archive(other.archive_path, run).get(Coordinate(run.alerts_topic("ztf"), 0, 1))
    assert packet == b"two"
    # Timestamps are as they were: what was hidden stays hidden, what is newer is seen.
    every_table.fill(tables, run)
    now = everything(tables, run)
    on_the_servers_clock = {run.table("notice"), run.table("quarantine")}
    assert all(now[name] == before[name] for name in before.keys() - on_the_servers_clock)


@IN_MEMORY
def test_nobody_else_can_open_a_file_of_a_back_up(tables, made, run):
    config, _, folder = made
    token = config.run_path("tokens") / "ann"
    token.parent.mkdir(parents=True)
    token.write_text("{}")
    token.chmod(0o600)
    back_up(config, tables, folder)

    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in files:
        way = [path, *(p for p in path.parents if p.is_relative_to(folder))]
        assert any(not place.stat().st_mode & 0o007 for place in way), path
    (kept,) = (path for path in files if path.name == "ann" and "tokens" in path.parts)
    assert kept.stat().st_mode & 0o777 == 0o600


@IN_MEMORY
def test_what_is_there_is_not_written_over_unless_it_is_asked_for(tables, made, run):
    config, other, folder = made
    back_up(config, tables, folder)

    with pytest.raises(ConfigError, match="is not empty"):
        restore(other, tables, folder)
    assert all(one.is_same for one in restore(other, tables, folder, over=True))

    # A row that the back-up has not is found by the check.
    tables.table(run.table("sky")).put([(b"more", {b"k:x": b"1"})])
    found = {one.what: one for one in restore(other, tables, folder, over=True)}
    assert not found["table sky"].is_same
    assert found["table alert"].is_same


@IN_MEMORY
def test_a_second_back_up_adds_the_archive_s_new_files_alone(tables, made, run):
    config, _, folder = made
    back_up(config, tables, folder)
    kept = {p: p.stat().st_ino for p in (folder / "archive").rglob("*") if p.is_file()}
    archived(config, run, 2, [b"three"])

    manifest = back_up(config, tables, folder)

    now = {p: p.stat().st_ino for p in (folder / "archive").rglob("*") if p.is_file()}
    assert len(now) == len(kept) + 2
    assert {p: now[p] for p in kept} == kept
    assert sorted(path.name for path in folder.iterdir()) == ["archive", "state"]
    assert read_manifest(folder) == manifest


@IN_MEMORY
def test_a_damaged_back_up_is_refused_before_anything_is_written(tables, made, run):
    config, other, folder = made
    manifest = back_up(config, tables, folder)
    drop_tables(tables, run)
    for file in (manifest.files[0], next(f for f in manifest.files if "alert.parquet" in f.path)):
        path = folder / file.path
        good = path.read_bytes()
        path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        with pytest.raises(AlertError, match=f"damaged: {file.path}"):
            restore(other, tables, folder)
        path.write_bytes(good)
    assert not everything(tables, run)
    assert not other.home.exists()


@IN_MEMORY
def test_an_interrupted_back_up_is_none_and_the_one_before_it_stays(tables, made, run):
    config, other, folder = made
    first = back_up(config, tables, folder)
    broken = dataclasses.replace(config, run=run.name)

    class EndsError(Exception):
        pass

    def stop(what):
        if what == "archive":
            raise EndsError

    with pytest.raises(EndsError):
        back_up(broken, tables, folder, say=stop)

    assert read_manifest(folder) == first
    with pytest.raises(EndsError):
        back_up(config, tables, folder.with_name("fresh"), say=stop)
    with pytest.raises(ConfigError, match="no whole back-up"):
        restore(other, tables, folder.with_name("fresh"))
    assert back_up(config, tables, folder.with_name("fresh")).tables == first.tables


@IN_MEMORY
def test_the_back_up_of_another_run_or_another_folder_is_refused(tables, made):
    config, other, folder = made
    back_up(config, tables, folder)
    stranger = dataclasses.replace(other, run="stranger")
    with pytest.raises(ConfigError, match="broker --run"):
        restore(stranger, tables, folder)
    with pytest.raises(ConfigError, match="has no tables"):
        back_up(dataclasses.replace(config, run=Run("nobody").name), tables, folder / "x")
    (folder / "state" / "manifest.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(ConfigError, match="another format"):
        restore(other, tables, folder)
