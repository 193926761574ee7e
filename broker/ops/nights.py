"""What is done with a night that is over: its table is written, what is archived is let go."""

from pathlib import Path

from broker.archive import Archive
from broker.catalog.registry import provided_matches
from broker.config import Config
from broker.ops.night_table import write_night_table
from broker.science.installed import installed
from broker.store.alerts import AlertStore
from broker.store.ledger import Ledger
from broker.store.table import Tables
from broker.topics.topic import OffsetRange, Topics

_READERS = ("images", "alerts")
"""The queries that must be through with a message before it is let go."""


def write_night(config: Config, tables: Tables, night: str, path: Path | None = None) -> Path:
    """Write the table of a night's alerts with matches, outputs and topics; return its file.

    Parameters
    ----------
    config : Config
        Names the run and where its nights are kept.
    tables : Tables
        Where the alerts are.
    night : str
        `YYYYMMDD`: of the exposures, noon to noon.
    path : Path, optional
        The Parquet file; default `nights/<run>/<night>.parquet` under the home.
    """
    file = path or config.run_path("nights") / f"{night}.parquet"
    catalogs = provided_matches(config.catalog_path)
    contributions = installed(config)
    matches = [column for columns in catalogs.values() for column in columns]
    store = AlertStore(tables, config.the_run)
    write_night_table(store, night, file, matches=matches, outputs=contributions.qualified_columns)
    return file


def disposable(archive: Archive, ledger: Ledger, topics: Topics) -> list[OffsetRange]:
    """Return what may be deleted from input topics: archived, and consumed by its query.

    Only what lies before the first message that is not archived or not consumed.
    """
    consumed = {
        (part.topic, part.partition): part for query in _READERS for part in ledger.consumed(query)
    }
    known = set(topics.names())
    found = []
    for (topic, partition), ranges in archive.archived().items():
        if topic not in known or (topic, partition) not in consumed:
            continue
        held = {part.partition: part for part in topics.ranges(topic)}[partition]
        done = consumed[topic, partition]
        archived_end = next((end for first, end in ranges if first <= held.first < end), held.first)
        end = min(archived_end, done.end if done.first <= held.first else held.first)
        if end > held.first:
            found.append(OffsetRange(topic, partition, held.first, end))
    return found
