"""A run whose tables an earlier version made: what is missing is made from what is there."""

import every_table
import pytest

from broker.config import Config
from broker.errors import ConfigError
from broker.ops.upgrade import upgrade
from broker.store.alerts import AlertStore
from broker.store.tables import create_tables, drop_tables
from broker.types import Run

LATER = ("index", "moving", "forced", "retraction", "notice", "annotation")
"""Tables that the first version had not."""


@pytest.fixture
def config(tables, tmp_path, run):
    create_tables(tables, run)
    every_table.fill(tables, run)
    yield Config(home=tmp_path, run=run.name)
    drop_tables(tables, run)


def said_of_alerts(tables, run):
    index = AlertStore(tables, run)._index
    nights = {
        night: {
            "ids": sorted(index.entries(night).texts["diaSourceId"].to_pylist()),
            "labels": {
                label: sorted(bits.tolist()) for label, bits in index.entries(night).labels.items()
            },
            "counted": sorted(index.counted(night).numbers["number"].tolist()),
        }
        for night in index.nights()
    }
    moving = list(tables.table(run.table("moving")).scan_timed())
    return nights, {t: index.nights(topic=t) for t in ("fast", "young")}, moving


def test_tables_that_are_missing_are_made_and_filled_from_the_alerts(tables, config, run):
    whole = said_of_alerts(tables, run)
    for name in LATER:
        tables.drop(run.table(name))

    done = upgrade(config, tables)

    assert done.tables == tuple(sorted(LATER))
    assert (done.alerts, done.indexed, done.bodies) == (3, 3, 1)
    assert said_of_alerts(tables, run) == whole
    again = upgrade(config, tables)
    assert (again.tables, again.alerts, again.indexed, again.bodies) == ((), 3, 0, 0)
    assert said_of_alerts(tables, run) == whole


@pytest.mark.parametrize("tables", ["memory"], indirect=True)
def test_a_run_that_was_indexed_from_some_night_on_gets_the_nights_before(tables, config, run):
    whole = said_of_alerts(tables, run)
    table = tables.table(run.table("index"))
    older = [key for key, _ in table.scan() if b"20251120" in key]
    for key in older:
        table.delete(key)
    # In HBase a deletion hides what is written with its timestamp again: take a fresh table.
    kept = [(key, {c: v}, t) for key, cells in table.scan_timed() for c, (t, v) in cells.items()]
    tables.drop(run.table("index"))
    create_tables(tables, run)
    tables.table(run.table("index")).put_timed(kept)

    done = upgrade(config, tables)

    assert (done.tables, done.indexed) == ((), 2)
    assert said_of_alerts(tables, run) == whole


@pytest.mark.parametrize("tables", ["memory"], indirect=True)
def test_a_run_without_tables_is_refused(tables, config):
    with pytest.raises(ConfigError, match="nothing to upgrade"):
        upgrade(Config(home=config.home, run=Run("nobody").name), tables)
