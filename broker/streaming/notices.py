"""Query 4: notices of events, joined to the alerts that are stored.

Notices are few and small, so the driver handles a batch by itself; offsets, dead letters and the
ledger are as in the other queries.
"""

import time
from collections.abc import Callable

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming import StreamingQuery

from broker.config import Config
from broker.notices.wire import notices_topic
from broker.spark.worker import notice_window
from broker.store.alerts import create_tables
from broker.store.ledger import Ledger
from broker.streaming.checkpoint import batch_ranges
from broker.streaming.notice_intake import NoticeIntake, create_notice_topics
from broker.streaming.query import checkpoint_path, open_tables, read_topics, start_query
from broker.topics.kafka import KafkaTopics
from broker.topics.topic import Message
from broker.types import Coordinate

NAME = "notices"

_MAX_PER_TRIGGER = 8
"""A notice with a map inside may have 32 MB, and a batch stands in the driver's memory."""


def input_topics(config: Config) -> list[str]:
    """Return the topic of notices."""
    return [notices_topic(config.the_run)]


def start(spark: SparkSession, config: Config) -> StreamingQuery:
    """Start the query; what it writes to is made first.

    Raises
    ------
    ServiceError
        If Kafka or HBase does not answer.
    """
    topics = KafkaTopics(config.kafka.bootstrap)
    tables = open_tables(config)
    create_notice_topics(topics, config.the_run, partitions=config.kafka.partitions)
    create_tables(tables, config.the_run, config.hbase.regions)
    intake = NoticeIntake(
        topics=topics,
        tables=tables,
        run=config.the_run,
        window=notice_window(config),
        maps=config.notice_maps_path,
    )
    messages = read_topics(spark, config, input_topics(config), max_per_trigger=_MAX_PER_TRIGGER)
    each_batch = _each_batch(config, intake, Ledger(tables, config.the_run))
    return start_query(messages, each_batch, name=NAME, config=config)


def _each_batch(
    config: Config, intake: NoticeIntake, ledger: Ledger
) -> Callable[[DataFrame, int], None]:
    """Return what is done with a micro-batch: all of its effects, then the ledger."""
    checkpoint = checkpoint_path(config, NAME)

    def each_batch(messages: DataFrame, batch_id: int) -> None:
        began = time.perf_counter()
        rows = messages.select("topic", "partition", "offset", "timestamp", "key", "value")
        taken = [
            Message(
                None if row["value"] is None else bytes(row["value"]),
                key=None if row["key"] is None else bytes(row["key"]),
                timestamp_ms=int(row["timestamp"].timestamp() * 1000),
                coordinate=Coordinate(row["topic"], row["partition"], row["offset"]),
            )
            for row in rows.collect()
        ]
        counts = intake.take(sorted(taken, key=_offset))
        seconds = {"seconds": {"batch": time.perf_counter() - began}}
        ledger.record(NAME, batch_id, batch_ranges(checkpoint, batch_id), counts, seconds)

    return each_batch


def _offset(message: Message) -> tuple[int, int]:
    at = message.coordinate
    return (0, 0) if at is None else (at.partition, at.offset)
