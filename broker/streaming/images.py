"""Query 1: images to alerts. Reads like the picture: pixels in parallel, association in one place.

The order of side effects in a micro-batch makes a repeat harmless: (1) diaSources with their
objects, then forced fluxes, to HBase, image by image in the order of time, acknowledged;
(2) packets and dead letters in one Kafka write; (3) what became of each detector; (4) the ledger;
then Spark commits.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache

import pyarrow as pa
from pyspark import StorageLevel
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql.streaming import StreamingQuery

from broker.config import Config
from broker.imaging.templates import TemplateStore
from broker.spark.messages import OUTGOING_SQL, MessageRows, Source
from broker.spark.stats import latency_of
from broker.spark.write import write_messages
from broker.store.alerts import create_tables
from broker.store.forced import ForcedStore
from broker.store.ledger import Ledger
from broker.store.objects import FAILED, AssociationStore, DetectorStore
from broker.streaming.checkpoint import batch_ranges
from broker.streaming.image_alerts import (
    Associated,
    alert_messages,
    associate_images,
    detector_rows,
    drop_repeats,
    image_dead_letter,
)
from broker.streaming.image_differences import DifferenceFiles
from broker.streaming.image_forced import ForcedPhotometry
from broker.streaming.image_retry import SURVEY, ImageWork, retry_no_template
from broker.streaming.image_steps import (
    ImageMessage,
    ImageOutcome,
    outcome_from_row,
    outcome_to_row,
    process_image,
    table_from_bytes,
)
from broker.streaming.night_versions import NightVersions
from broker.streaming.query import (
    checkpoint_path,
    create_topics,
    open_tables,
    read_topics,
    start_query,
)
from broker.streaming.writer import become_writer
from broker.topics.kafka import KafkaTopics
from broker.topics.publish import dead_letters_topic
from broker.types import IMAGES, Coordinate

NAME = "images"

_FETCH_MB = 64
"""A message is a whole detector, up to 32 MB."""

_PIXELS_SQL = (
    "topic string, partition int, offset bigint, timestampMs bigint, outcome string, "
    "sources binary, cutouts binary, value binary"
)
LIGHT = ("topic", "partition", "offset", "timestampMs", "outcome", "sources")
"""Columns of the pixel pass that the driver looks at."""

_LOG = logging.getLogger(__name__)

Batches = Iterator[pa.RecordBatch]


def input_topics(config: Config) -> list[str]:
    """Return the topic with images."""
    return [config.the_run.internal_topic(IMAGES)]


def start(spark: SparkSession, config: Config) -> StreamingQuery:
    """Start the query; what it writes to is made first.

    Images that had no template are processed first, if there are new templates since.

    Raises
    ------
    ServiceError
        If Kafka or HBase does not answer.
    ConfigError
        If another process writes this run's objects.
    """
    become_writer(config)
    prepare(config)
    images = read_images(spark, config, input_topics(config))
    return start_query(images, _each_batch(config), name=NAME, config=config)


def read_images(spark: SparkSession, config: Config, names: Sequence[str]) -> DataFrame:
    """Return a stream of the messages of topics with images."""
    session = spark.newSession()  # with settings of its own: a message is megabytes
    session.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", "1")
    return read_topics(
        session,
        config,
        names,
        max_per_trigger=config.stream.max_images_per_trigger,
        fetch_mb=_FETCH_MB,
    ).select("topic", "partition", "offset", "timestamp", "value")


def pixel_pass(images: DataFrame, config: Config) -> DataFrame:
    """Return what the workers make of images, one row an image: `LIGHT`, and what is heavy."""
    return images.mapInArrow(_pixel_pass(config), _PIXELS_SQL)


def prepare(config: Config) -> None:
    """Make the topics and tables that are missing; process images that waited for templates."""
    run = config.the_run
    topics, tables = KafkaTopics(config.kafka.bootstrap), open_tables(config)
    try:
        out = [run.alerts_topic(SURVEY), dead_letters_topic(run)]
        create_topics(topics, config, [*input_topics(config), *out])
        create_tables(tables, run, config.hbase.regions)
        _differences(config).clear()
        retry_no_template(ImageWork.of(run, topics=topics, tables=tables, home=config.run_path))
    finally:
        topics.close()
        tables.close()


def _templates(config: Config) -> TemplateStore:
    return TemplateStore(config.run_path("templates"))


def _differences(config: Config) -> DifferenceFiles:
    return DifferenceFiles(config.run_path("differences"))


def _each_batch(config: Config) -> Callable[[DataFrame, int], None]:
    """Return what is done with a micro-batch of images."""
    tables, run = open_tables(config), config.the_run
    associations, detectors = AssociationStore(tables, run), DetectorStore(tables, run)
    forced = ForcedPhotometry(ForcedStore(tables, run), _differences(config))
    ledger = Ledger(tables, run)
    checkpoint = checkpoint_path(config, NAME)

    def each_batch(images: DataFrame, batch_id: int) -> None:
        began = time.perf_counter()
        pixels = pixel_pass(images, config).persist(StorageLevel.MEMORY_AND_DISK)
        try:
            outcomes = drop_repeats(_outcome(row) for row in pixels.select(*LIGHT).collect())
            seen = time.perf_counter()
            associated = associate_images(outcomes, store=associations, forced=forced)
            joined = time.perf_counter()
            write_messages(
                pixels.mapInArrow(_packaging(config, outcomes, associated), OUTGOING_SQL),
                config.kafka.bootstrap,
            )
        finally:
            pixels.unpersist()
        for one in associated:
            forced.drop(one.coordinate)
        detectors.put(detector_rows(outcomes, detectors))
        counts = _counts(outcomes, associated)
        done = time.perf_counter()
        seconds = {"pixels": seen - began, "associate": joined - seen, "publish": done - joined}
        ranges = batch_ranges(checkpoint, batch_id)
        seconds["batch"] = done - began
        ages = [time.time() - outcome.timestamp_ms / 1000.0 for outcome in outcomes]
        measured = {"seconds": seconds, "latency": latency_of(ages)}
        ledger.record(NAME, batch_id, ranges, counts, measured)
        _LOG.info("batch %d: %s, %s", batch_id, counts, seconds)

    return each_batch


def _counts(outcomes: list[ImageOutcome], associated: list[Associated]) -> dict[str, int]:
    counts = Counter(outcome.status for outcome in outcomes)
    counts["alerts"] = sum(one.sources.num_rows for one in associated)
    counts["late"] = sum(sum(one.sources["isLate"].to_pylist()) for one in associated)
    return dict(counts)


@cache
def _worker_parts(config: Config) -> tuple[TemplateStore, NightVersions, DetectorStore]:
    """Return what a Python worker keeps from batch to batch."""
    templates = _templates(config)
    return templates, NightVersions(templates), DetectorStore(open_tables(config), config.the_run)


def _pixel_pass(config: Config) -> Callable[[Batches], Batches]:
    """Return the function that makes diaSources of images, in the Python workers."""

    def work(batches: Batches) -> Batches:
        templates, versions, detectors = _worker_parts(config)
        for batch in batches:
            source = Source.of(batch)
            for row, value in enumerate(batch.column("value")):
                message = ImageMessage(
                    source.coordinate(row), value.as_py(), source.timestamp_ms(row)
                )
                outcome = process_image(
                    message,
                    templates=templates,
                    versions=versions,
                    detectors=detectors,
                    differences=_differences(config),
                )
                yield outcome_to_row(outcome, message.value if outcome.status == FAILED else None)

    return work


def _outcome(row: Row) -> ImageOutcome:
    coordinate = Coordinate(row["topic"], row["partition"], row["offset"])
    return outcome_from_row(coordinate, row["timestampMs"], row["outcome"], row["sources"])


def _packaging(
    config: Config, outcomes: list[ImageOutcome], associated: list[Associated]
) -> Callable[[Batches], Batches]:
    """Return the function that makes packets and dead letters, in the Python workers."""
    to_topic = config.the_run.alerts_topic(SURVEY)
    dead_topic = dead_letters_topic(config.the_run)
    done = {one.coordinate: one for one in associated}
    failed = {one.coordinate: one for one in outcomes if one.status == FAILED}

    def work(batches: Batches) -> Batches:
        for batch in batches:
            for row in batch.to_pylist():
                at = Coordinate(row["topic"], row["partition"], row["offset"])
                out = MessageRows()
                if at in done:
                    for message in alert_messages(done[at], table_from_bytes(row["cutouts"])):
                        out.add(to_topic, message)
                elif at in failed:
                    out.add(dead_topic, image_dead_letter(failed[at], row["value"]))
                yield from out.table().to_batches()

    return work
