"""Query 2: alerts to science. Reads like the picture: in, decode, one pass, out, ledger."""

import functools
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming import StreamingQuery

from broker.alerts.adapters import find_adapters
from broker.alerts.outgoing import VARIANTS, PacketFormat, packet_format
from broker.catalog.registry import provided_matches
from broker.config import Config
from broker.science import Contributions
from broker.science.installed import installed
from broker.spark.decode import decode
from broker.spark.messages import OUTGOING_SQL
from broker.spark.outbox import Outbox
from broker.spark.rows import contribution_labels
from broker.spark.stats import BatchStats
from broker.spark.throttle import FloodWatch, Share
from broker.spark.worker import enricher_for
from broker.spark.write import StatsCollector, write_messages
from broker.store.alerts import create_tables
from broker.store.ledger import Ledger
from broker.store.quarantine import Quarantine
from broker.streaming.checkpoint import batch_ranges, checkpoint_id, divide
from broker.streaming.notice_intake import create_notice_topics
from broker.streaming.query import (
    checkpoint_path,
    create_topics,
    open_tables,
    read_topics,
    start_query,
)
from broker.streaming.refused import refused_before, without
from broker.topics.kafka import KafkaTopics
from broker.topics.kafka_transaction import progress_group
from broker.topics.publish import store_schemas
from broker.types import DEAD_LETTERS, Coordinate
from broker.watchlists import MOST_SHARE, WatchBoard, WatchBook

NAME = "alerts"

_LOG = logging.getLogger(__name__)


def input_topics(config: Config) -> list[str]:
    """Return the topics with alerts, one a survey."""
    return [config.the_run.alerts_topic(survey) for survey in find_adapters()]


def start(spark: SparkSession, config: Config) -> StreamingQuery:
    """Start the query; what it writes to is made first.

    Raises
    ------
    ConfigError
        If contributions or catalogues cannot be used.
    ServiceError
        If Kafka or HBase does not answer.
    """
    catalogs = provided_matches(config.catalog_path)
    contributions = installed(config)
    prepare(config, contributions, packet_format(contributions.qualified_columns, catalogs))
    each_batch = _each_batch(spark, config, contributions)
    return start_query(read_surveys(spark, config), each_batch, name=NAME, config=config)


def read_surveys(spark: SparkSession, config: Config) -> DataFrame:
    """Return a stream of all surveys' messages; a batch takes its most of each of them.

    Each survey is a source of its own, with a bound of its own: what one has waiting delays
    another's by its share of one batch, however much it is. A single source would divide a batch
    by what waits. A checkpoint of other sources is brought into this layout.
    """
    sources = [[name] for name in sorted(input_topics(config))]
    if divide(checkpoint_path(config, NAME), sources):
        _LOG.info("the checkpoint of %s has now %d sources", NAME, len(sources))
    most = config.stream.max_alerts_per_trigger
    frames = [read_topics(spark, config, names, max_per_trigger=most) for names in sources]
    return functools.reduce(DataFrame.union, frames)


def prepare(config: Config, contributions: Contributions, packets: PacketFormat) -> None:
    """Make the topics and tables that are missing, and store the schemas before any packet."""
    run = config.the_run
    book = WatchBook(config.run_path("watchlists"))
    book.refresh()
    watched = [one.topic for one in book.all()]
    public = [
        run.public_topic(topic, variant)
        for topic in (*contributions.topics, *watched)
        for variant in VARIANTS
    ]
    topics = KafkaTopics(config.kafka.bootstrap)
    tables = open_tables(config)
    try:
        names = [*input_topics(config), run.internal_topic(DEAD_LETTERS), *public]
        create_topics(topics, config, names)
        store_schemas(topics, run, dict(packets.schemas.values()))
        create_notice_topics(topics, run, partitions=config.kafka.partitions)
        create_tables(tables, run, config.hbase.regions)
    finally:
        topics.close()
        tables.close()


def _each_batch(
    spark: SparkSession, config: Config, contributions: Contributions
) -> Callable[[DataFrame, int], None]:
    """Return what is done with a micro-batch, in the order that makes a repeat harmless."""
    collector = StatsCollector(spark.sparkContext)
    tables = open_tables(config)
    ledger = Ledger(tables, config.the_run)
    quarantine = Quarantine(
        tables,
        config.the_run,
        failures_to_quarantine=config.science.failures_to_quarantine,
    )
    versions = contribution_labels(contributions)
    limits = {chosen.topic: chosen.max_pass_fraction for chosen in contributions.filters}
    watch = FloodWatch(limits, ledger.batches(NAME), config.science.flood_alerts)
    board = WatchBoard(WatchBook(config.run_path("watchlists")).index, contributions)
    checkpoint, by_workers = checkpoint_path(config, NAME), config.stream.transactions
    surveys = {config.the_run.alerts_topic(survey): survey for survey in find_adapters()}
    repeated, refused = _refused(config)

    def each_batch(messages: DataFrame, batch_id: int) -> None:
        began = time.perf_counter()
        collector.take()  # what an attempt that failed has left
        ranges = batch_ranges(checkpoint, batch_id)
        # Decoders of surveys that sent nothing are left out: each costs some 10 ms a task.
        decoded = decode(messages, {r.topic: surveys[r.topic] for r in ranges})
        # Lists come and go between two batches.
        limits.update({one.topic: MOST_SHARE for one in board.lists() if not one.is_private})
        # Stored in the pass, then published; a batch is in the ledger only after both.
        outgoing = decoded.mapInArrow(
            _enrich(
                config,
                f"{config.run}-{batch_id}",
                collector.accumulator,
                floods := watch.floods(ranges),
                progress_group(config.run, NAME, checkpoint_id(checkpoint)) if by_workers else "",
                refused if batch_id == repeated else frozenset(),
            ),
            OUTGOING_SQL,
        )
        write_messages(outgoing, config.kafka.bootstrap, by_workers=by_workers)
        stats = collector.take()
        stats.spend("batch", time.perf_counter() - began)
        measured = {
            "seconds": stats.seconds,
            "failures": stats.failures,
            "peakMb": stats.peak_mb,
            "latency": stats.latency(time.time()),
            "throttled": {topic: [flood.share, flood.kept] for topic, flood in floods.items()},
        }
        ledger.record(NAME, batch_id, ranges, stats.counts, measured)
        watch.note(ranges, stats.counts)
        for name, (_, reason) in stats.failures.items():
            quarantine.record_failure(name, versions[name], reason)
        _LOG.info("batch %d: %s, %s", batch_id, stats.counts, stats.seconds)

    return each_batch


def _refused(config: Config) -> tuple[int, frozenset[Coordinate]]:
    topics = KafkaTopics(config.kafka.bootstrap)
    try:
        return refused_before(topics, config.the_run, checkpoint_path(config, NAME))
    finally:
        topics.close()


def _enrich(
    config: Config, batch_id: str, accumulator: Any, floods: Mapping[str, Share], group: str,
    refused: frozenset[Coordinate],
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:  # fmt: skip
    """Return the function that runs in the Python workers; with a group, it sends by itself."""

    def enrich(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        enricher = enricher_for(config)
        stats = BatchStats()

        def work(batch: pa.RecordBatch | pa.Table) -> pa.Table:
            rest = without(batch, refused, stats)
            return enricher.enrich(rest, batch_id=batch_id, stats=stats, floods=floods)

        if group:
            name = f"{config.run}.{NAME}"
            with Outbox(config.kafka.bootstrap, name=name, group=group) as outbox:
                for batch in batches:
                    outbox.take(batch, work)
                outbox.commit()
        else:
            for batch in batches:
                yield from work(batch).to_batches()
        accumulator.add(stats)

    return enrich
