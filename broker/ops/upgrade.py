"""A run of an earlier version brought up to this one: tables that are missing, and what is in them.

All that is made here follows from the alerts that are stored; nothing that is there is changed.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from broker.catalog.definition import match_name
from broker.catalog.orbits import PREDICTED
from broker.config import Config
from broker.errors import ConfigError
from broker.store import keys
from broker.store.alerts import AlertStore
from broker.store.blocks import alert_number, entries_of
from broker.store.index import AlertIndex
from broker.store.layouts import STAMP
from broker.store.moving import moving_rows
from broker.store.table import Tables
from broker.store.tables import create_tables
from broker.types import Run

_AT_ONCE = 5000
_PREDICTED = match_name("", PREDICTED[0].name)


@dataclass(frozen=True)
class Upgrade:
    """What was missing, and is there now.

    Parameters
    ----------
    tables : tuple of str
        Tables that were made, without the run's name.
    alerts : int
        Alerts of the run.
    indexed : int
        Those that searches and counts did not find before.
    bodies : int
        Cells of bodies of the solar system that were not there before.
    """

    tables: tuple[str, ...]
    alerts: int
    indexed: int
    bodies: int


def upgrade(config: Config, tables: Tables) -> Upgrade:
    """Make the tables that a run lacks, and index the alerts that are not indexed.

    It may be done while the run's stream works, and again: then nothing is missing.

    Parameters
    ----------
    config : Config
        The run, and how many regions new tables have.
    tables : Tables
        Where its tables are.

    Raises
    ------
    ConfigError
        If the run has no alerts' table: there is nothing to upgrade.
    """
    run = config.the_run
    before = set(tables.names())
    if run.table("alert") not in before:
        raise ConfigError(f"run {run.name} has no tables: there is nothing to upgrade")
    create_tables(tables, run, config.hbase.regions)
    prefix = run.table("")
    made = {name for name in tables.names() if name.startswith(prefix)} - before
    index = AlertIndex(tables, run)
    known = _indexed(index)
    alerts = indexed = bodies = 0
    for part in _parts(AlertStore(tables, run).every()):
        alerts += len(part)
        new = [r for r in part if alert_number(r["survey"], r["diaSourceId"]) not in known]
        indexed += len(new)
        if new:
            index.put(entries_of(new))
        bodies += _add_bodies(tables, run, part)
    return Upgrade(tuple(sorted(n.removeprefix(prefix) for n in made)), alerts, indexed, bodies)


def _indexed(index: AlertIndex) -> set[int]:
    return {
        number
        for night in index.nights()
        for number in index.counted(night).numbers["number"].tolist()
    }


def _parts(records: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    iterator = iter(records)
    while part := list(itertools.islice(iterator, _AT_ONCE)):
        yield part


def _add_bodies(tables: Tables, run: Run, records: list[dict[str, Any]]) -> int:
    """Write what is missing of the bodies that alerts are; return how many cells."""
    found: dict[bytes, dict[bytes, bytes]] = {}
    names = {name for record in records for name in record if name.endswith(_PREDICTED)}
    for name in sorted(names):
        catalog = name.removesuffix(_PREDICTED)
        columns = (match_name(catalog, "match"), match_name(catalog, "id"), name)
        batch = pa.table({c: pa.array([r.get(c) for r in records]) for c in columns})
        found.update(moving_rows(batch, [_key(record) for record in records]))
    table = tables.table(run.table("moving"))
    there = table.get_many(sorted(found))
    missing = [(key, row) for key, row in found.items() if key not in there]
    table.put(missing, STAMP)
    return len(missing)


def _key(record: Mapping[str, Any]) -> bytes:
    names = (record["diaObjectId"], record["ssObjectId"], record["diaSourceId"])
    (at_us,) = keys.time_us([record["midpointMjdTai"]]).tolist()
    return keys.alert_key(record["survey"], keys.object_part(*names), at_us, record["diaSourceId"])
