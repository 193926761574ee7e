"""Query 3: the raw packets of every input topic, to files by survey and night."""

import time
from collections.abc import Callable, Iterator
from itertools import groupby, pairwise
from operator import itemgetter
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812
from pyspark.sql.streaming import StreamingQuery

from broker.alerts.adapters import find_adapters
from broker.archive import ORIGIN_HEADER, Archive
from broker.config import Config
from broker.spark.messages import Source
from broker.store.alerts import create_tables
from broker.store.ledger import Ledger
from broker.streaming.checkpoint import batch_ranges
from broker.streaming.query import (
    checkpoint_path,
    create_topics,
    open_tables,
    read_topics,
    start_query,
)
from broker.topics.kafka import KafkaTopics
from broker.types import IMAGES

NAME = "archive"

_TRIGGERS = 6
"""The archive looks for input this many times more seldom than the alerts do: a burst is
published first, and files are not tiny."""

_WRITTEN = "archived long, bytes long, files long"

Place = tuple[str, int]


def input_topics(config: Config) -> list[str]:
    """Return every topic whose messages are kept: images, and the alerts of each survey."""
    run = config.the_run
    return [run.internal_topic(IMAGES), *(run.alerts_topic(survey) for survey in find_adapters())]


def start(spark: SparkSession, config: Config) -> StreamingQuery:
    """Start the query.

    Raises
    ------
    ServiceError
        If Kafka or HBase does not answer.
    """
    names = input_topics(config)
    topics = KafkaTopics(config.kafka.bootstrap)
    tables = open_tables(config)
    try:
        create_topics(topics, config, names)
        create_tables(tables, config.the_run, config.hbase.regions)
    finally:
        topics.close()
        tables.close()
    Archive(config.archive_path, config.the_run).clean()
    messages = read_topics(
        spark,
        config,
        names,
        max_per_trigger=_TRIGGERS * config.stream.max_alerts_per_trigger,
    )
    trigger_s = _TRIGGERS * config.stream.trigger_s
    return start_query(messages, _each_batch(config), name=NAME, config=config, trigger_s=trigger_s)


def _each_batch(config: Config) -> Callable[[DataFrame, int], None]:
    """Return what is done with a micro-batch: files first, then the ledger."""
    ledger = Ledger(open_tables(config), config.the_run)
    checkpoint = checkpoint_path(config, NAME)

    def each_batch(messages: DataFrame, batch_id: int) -> None:
        began = time.perf_counter()
        first_time = messages.filter(~_is_replayed()).select(
            "topic", "partition", "offset", "timestamp", "value"
        )
        written = first_time.mapInArrow(_write(config), _WRITTEN).collect()
        counts = {
            name: sum(row[name] for row in written) for name in ("archived", "bytes", "files")
        }
        seconds = {"seconds": {"batch": time.perf_counter() - began}}
        ledger.record(NAME, batch_id, batch_ranges(checkpoint, batch_id), counts, seconds)

    return each_batch


def _is_replayed() -> Any:
    of_origin = F.exists("headers", lambda header: header["key"] == ORIGIN_HEADER)
    return F.coalesce(of_origin, F.lit(False))


def _write(config: Config) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Return the function that runs in the Python workers: a file a partition and night."""

    def write(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        archive = Archive(config.archive_path, config.the_run)
        parts = (part for batch in batches for part in _by_place(batch))
        for (topic, partition), group in groupby(parts, key=itemgetter(0)):
            files = archive.write(topic, partition, (rows for _, rows in group))
            counts = [sum(len(f.index) for f in files), sum(f.size for f in files), len(files)]
            names = [column.split()[0] for column in _WRITTEN.split(", ")]
            yield pa.record_batch([pa.array([n], pa.int64()) for n in counts], names=names)

    return write


def _by_place(batch: pa.RecordBatch) -> Iterator[tuple[Place, pa.RecordBatch]]:
    """Cut a batch where the partition changes; within one, offsets rise."""
    source = Source.of(batch)
    topics = np.asarray(source.topics)
    changes = (topics[1:] != topics[:-1]) | (np.diff(source.partitions) != 0)
    bounds = [0, *(np.flatnonzero(changes) + 1).tolist(), batch.num_rows]
    for first, end in pairwise(bounds):
        if end > first:
            rows = pa.record_batch(
                [
                    pa.array(source.offsets[first:end]),
                    pa.array(source.timestamps_ms[first:end]),
                    batch.column("value").slice(first, end - first),
                ],
                names=["offset", "timestamp_ms", "value"],
            )
            yield (source.topics[first], int(source.partitions[first])), rows
