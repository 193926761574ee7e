"""Rows of every layout that was ever stored are read for good: they are kept here as they were.

After a change of layout, `test_what_is_written_now_is_kept` fails: write the rows of today beside
the others, under the next number, with the environment variable KEEP_ROWS=1.
"""

import base64
import json
import os
from pathlib import Path

import pytest

from broker.store.memory import MemoryTables
from broker.store.tables import create_tables
from broker.types import Run

KEPT = sorted(Path(__file__).with_name("rows").glob("*.json"), key=lambda p: int(p.stem))
RUN = Run("kept")


def text(value):
    return base64.b64encode(value).decode()


def as_json(value):
    return json.loads(json.dumps(value))


def rows_of(tables):
    def cells_of(cells):
        return {text(column): [stamp, text(v)] for column, (stamp, v) in sorted(cells.items())}

    return {
        name.removeprefix("kept."): [
            [text(key), cells_of(cells)] for key, cells in tables.table(name).scan_timed()
        ]
        for name in tables.names()
    }


def is_said(kept, now):
    """Whether all that was said is said again; what a later version adds is no harm."""
    if isinstance(kept, dict):
        return all(name in now and is_said(value, now[name]) for name, value in kept.items())
    if isinstance(kept, list):
        return len(kept) == len(now) and all(map(is_said, kept, now))
    return kept == now or (kept != kept and now != now)  # NaN


@pytest.fixture
def tables():
    made = MemoryTables()
    create_tables(made, RUN)
    return made


def test_every_table_of_a_run_is_among_the_kept_rows(tables):
    newest = json.loads(KEPT[-1].read_text())
    assert set(newest["rows"]) == {name.removeprefix("kept.") for name in tables.names()}
    assert all(newest["rows"].values())


@pytest.mark.parametrize("path", KEPT, ids=lambda p: p.stem)
def test_rows_that_were_stored_once_are_read_as_they_were(path, tables, every_table):
    kept = json.loads(path.read_text())
    for name, rows in kept["rows"].items():
        tables.table(RUN.table(name)).put_timed(
            (base64.b64decode(key), {base64.b64decode(column): base64.b64decode(value)}, stamp)
            for key, cells in rows
            for column, (stamp, value) in cells.items()
        )

    said = as_json(every_table.read(tables, RUN))

    for name, value in kept["said"].items():
        assert is_said(value, said[name]), f"{name}: {said[name]} was {value}"


def test_what_is_written_now_is_kept(tables, every_table):
    every_table.fill(tables, RUN)
    now = {"rows": rows_of(tables), "said": as_json(every_table.read(tables, RUN))}
    if os.environ.get("KEEP_ROWS"):
        number = int(KEPT[-1].stem) + 1 if KEPT else 1
        path = Path(__file__).with_name("rows") / f"{number}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(now, separators=(",", ":")) + "\n")
    kept = json.loads(KEPT[-1].read_text())

    assert shapes(now["rows"]) == shapes(kept["rows"]), "keep the new layout, as is said above"


def shapes(tables):
    """All but the bytes of the index, which are compressed by a library of any version."""

    def shape(name, cells):
        return {c: [stamp, "" if name == "index" else v] for c, (stamp, v) in cells.items()}

    return {
        name: [[key, shape(name, cells)] for key, cells in rows] for name, rows in tables.items()
    }
