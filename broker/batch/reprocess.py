"""Archived nights once more through science modules: outputs of a new version, for old alerts.

The packets go the way that they went live: decoded by the same decoder, matched, through the same
runner, and stored under module and version. So the same alert gets the same bytes, however often
this is done; nothing is published, and nothing else of an alert changes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from broker.alerts.adapters import find_adapters
from broker.archive import Archive
from broker.config import Config
from broker.errors import AlertError, ConfigError
from broker.science.contract import SHADOW
from broker.science.installed import installed
from broker.science.registry import Contributions
from broker.spark.decode import decode
from broker.spark.stats import BatchStats
from broker.spark.worker import refiller_for
from broker.spark.write import StatsCollector
from broker.types import Run

_PACKETS_SQL = (
    "topic string, partition int, offset bigint, timestamp timestamp, value binary, survey string"
)
_ROWS = 500
_PACKETS = pa.schema(
    [
        ("topic", pa.string()),
        ("partition", pa.int32()),
        ("offset", pa.int64()),
        ("timestamp", pa.timestamp("us", "UTC")),
        ("value", pa.binary()),
        ("survey", pa.string()),
    ]
)


@dataclass(frozen=True)
class Reprocessed:
    """What came of a night.

    Parameters
    ----------
    modules : tuple of str
        Those whose outputs were stored, with their versions.
    packets, stored, not_stored, unreadable : int
        Packets in the archive; alerts that got outputs; alerts that are in no table and so got
        none; packets that cannot be read.
    failures : dict
        By module: in how many batches it failed, and the last reason.
    seconds : dict
        Time of the workers by stage. [s]
    """

    modules: tuple[str, ...]
    packets: int
    stored: int
    not_stored: int
    unreadable: int
    failures: dict[str, tuple[int, str]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


def reprocess(
    spark: Any,
    config: Config,
    *,
    nights: Sequence[str],
    modules: Sequence[str],
    surveys: Sequence[str] = (),
) -> Reprocessed:
    """Run modules on archived nights and add their outputs to the alerts that are stored.

    Parameters
    ----------
    spark : SparkSession
        With the decoder's jars.
    config : Config
        Names the run, whose archive is read and whose tables are written.
    nights : sequence of str
        `YYYYMMDD`.
    modules : sequence of str
        Names; those that end in `@next` are versions beside the ones in use.
    surveys : sequence of str
        Only these; default all.

    Raises
    ------
    ConfigError
        If there is no such module.
    AlertError
        If the archive has none of these nights.
    """
    names = tuple(dict.fromkeys(modules))
    chosen = [m.label for m in _chosen(installed(config), names)]
    archive = Archive(config.archive_path, config.the_run)
    known = sorted(set(find_adapters()) & set(surveys or archive.surveys()))
    parts = [
        (survey, night) for survey in known for night in nights if night in archive.nights(survey)
    ]
    absent = sorted(set(nights) - {night for _, night in parts})
    if absent:
        raise AlertError(
            f"the archive of run {config.run} has no alerts of night {', '.join(absent)}; its "
            f"newest nights are {', '.join(archive.nights()[-5:]) or 'none'}"
        )
    collector = StatsCollector(spark.sparkContext)
    tasks = spark.createDataFrame(parts, "survey string, night string").repartition(len(parts))
    packets = tasks.mapInArrow(_reader(config), _PACKETS_SQL)
    topics = {config.the_run.alerts_topic(survey): survey for survey in known}
    done = decode(packets.drop("survey"), topics).mapInArrow(
        _refiller(config, names, frozenset(chosen), collector.accumulator), "stored bigint"
    )
    done.foreach(lambda _: None)
    stats = collector.take()
    return _summary(tuple(chosen), stats)


def _chosen(found: Contributions, names: Sequence[str]) -> list[Any]:
    shadows = {shadow.name: shadow for shadow in found.shadows}
    for name in names:
        if name.endswith(SHADOW) and name not in shadows:
            known = ", ".join(shadows) or "none"
            raise ConfigError(f"no version runs beside {name!r}; there are {known}", name=name)
    return [shadows[name] if name in shadows else found.module(name) for name in names]


def _summary(modules: tuple[str, ...], stats: BatchStats) -> Reprocessed:
    counts = stats.counts
    return Reprocessed(
        modules=modules,
        packets=counts.get("consumed", 0),
        stored=counts.get("stored", 0),
        not_stored=counts.get("notStored", 0),
        unreadable=counts.get("deadLetters", 0),
        failures=stats.failures,
        seconds=stats.seconds,
    )


Step = Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]


def _reader(config: Config) -> Step:
    """Return what yields the packets of (survey, night) rows, in a worker."""

    def read(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        archive = Archive(config.archive_path, Run(config.run))
        for batch in batches:
            for row in batch.to_pylist():
                yield from _packets(archive, row["survey"], row["night"])

    return read


def _packets(archive: Archive, survey: str, night: str) -> Iterator[pa.RecordBatch]:
    rows: list[tuple[Any, ...]] = []

    def made() -> pa.RecordBatch:
        arrays = [
            pa.array(column, kind)
            for column, kind in zip(zip(*rows, strict=True), _PACKETS.types, strict=True)
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=_PACKETS)

    for at, timestamp_ms, packet in archive.packets(survey, night):
        rows.append((at.topic, at.partition, at.offset, 1000 * timestamp_ms, packet, survey))
        if len(rows) == _ROWS:
            yield made()
            rows.clear()
    if rows:
        yield made()


def _refiller(
    config: Config, names: tuple[str, ...], labels: frozenset[str], accumulator: Any
) -> Step:
    """Return what runs the modules and stores their outputs, in a worker."""

    def refill(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        enricher = refiller_for(config, names)
        stats = BatchStats()
        for batch in batches:
            enricher.refill(batch, labels=labels, stats=stats)
        accumulator.add(stats)
        yield pa.RecordBatch.from_pydict({"stored": [stats.counts.get("stored", 0)]})

    return refill
