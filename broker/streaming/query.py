"""Running the queries: one Spark session, a supervisor that restarts them, a polite end."""

import importlib
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from py4j.protocol import Py4JError
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming import StreamingQuery

from broker.alerts.adapters import look_for_schemas
from broker.config import Config
from broker.errors import ConfigError, ServiceError
from broker.local.split import presplit
from broker.spark.session import make_session, stop_session
from broker.store.hbase import HBaseTables
from broker.streaming.checkpoint import (
    Offsets,
    committed,
    first_offsets,
    is_caught_up,
    last_commit,
)
from broker.streaming.reason import reason_of
from broker.topics.kafka import KafkaTopics
from broker.topics.kafka_access import java_options
from broker.topics.topic import Topics, TopicSettings

QUERIES = ("images", "alerts", "archive", "notices")
"""The queries in the order in which data pass them."""

_LOG = logging.getLogger(__name__)
_POLL_S = 0.2
_RESTARTS = 5
"""How often in a row a query that gets nothing done is started again."""
_LONGEST_PAUSE_S = 30.0
_STOP_TIMEOUT_S = 120.0

_SETTINGS = {"spark.scheduler.mode": "FAIR"}
"""A long batch of one query does not hold up the others."""

_stopping = threading.Event()
"""Set once the process shall end: a batch that has not begun yet then does not begin."""


class QueryModule(Protocol):
    """What `broker/streaming/<name>.py` defines."""

    def start(self, spark: SparkSession, config: Config) -> StreamingQuery:
        """Start the query; called again after a failure."""
        ...

    def input_topics(self, config: Config) -> list[str]:
        """Return the topics it reads."""
        ...


class StoppingError(Exception):
    """Raised in the place of a batch that would begin while the process ends."""


def checkpoint_path(config: Config, name: str) -> Path:
    """Return the folder of a query's checkpoint."""
    return config.run_path("checkpoints") / name


def open_tables(config: Config) -> HBaseTables:
    """Return the tables in HBase; those that are made get their regions at once."""
    hbase = config.hbase
    return HBaseTables(
        hbase.host, hbase.thrift_port, timeout_s=hbase.timeout_s, presplit=presplit(config)
    )


def create_topics(topics: Topics, config: Config, names: Sequence[str]) -> None:
    """Create the topics that are missing, with the configured number of partitions."""
    known = set(topics.names())
    for name in names:
        if name not in known:
            topics.create(name, TopicSettings(partitions=config.kafka.partitions))


def read_topics(
    spark: SparkSession,
    config: Config,
    names: Sequence[str],
    *,
    max_per_trigger: int,
    fetch_mb: int = 8,
) -> DataFrame:
    """Return a stream of messages: topic, partition, offset, timestamp, key, value, headers.

    Parameters
    ----------
    spark : SparkSession
        The session.
    config : Config
        Where Kafka is.
    names : sequence of str
        Topics, which must exist.
    max_per_trigger : int
        Messages a micro-batch takes at most.
    fetch_mb : int
        Bytes asked for at once, of one partition. [MB]
    """
    return (
        spark.readStream.format("kafka")
        .options(**java_options(config.kafka.bootstrap))
        .option("subscribe", ",".join(names))
        .option("startingOffsets", "earliest")
        .option("failOnDataLoss", "true")
        .option("includeHeaders", "true")
        .option("maxOffsetsPerTrigger", str(max_per_trigger))
        .option("kafka.max.partition.fetch.bytes", str(fetch_mb << 20))
        .option("kafka.fetch.max.bytes", str(fetch_mb << 21))
        .option("kafka.receive.buffer.bytes", str(1 << 20))
        .load()
        .drop("timestampType")
    )


def start_query(
    frame: DataFrame,
    each_batch: Callable[[DataFrame, int], None],
    *,
    name: str,
    config: Config,
    trigger_s: float | None = None,
) -> StreamingQuery:
    """Start a query that gives each micro-batch to a function, in the run's checkpoint.

    Parameters
    ----------
    frame : DataFrame
        A stream.
    each_batch : callable (DataFrame, int) -> None
        Does all that a batch has to do; when it returns, the batch is finished for good.
    name : str
        Name of the query and of its checkpoint.
    config : Config
        Where the checkpoint is, and how often to look for new input.
    trigger_s : float, optional
        Time between batches; default `stream.trigger_s`. [s]
    """

    def guarded(batch: DataFrame, batch_id: int) -> None:
        if _stopping.is_set():
            raise StoppingError(f"batch {batch_id} of {name} waits for the next start")
        each_batch(batch, batch_id)

    look_for_schemas(config.home)
    seconds = config.stream.trigger_s if trigger_s is None else trigger_s
    query: StreamingQuery = (
        frame.writeStream.queryName(f"{config.run}-{name}")
        .foreachBatch(guarded)
        .option("checkpointLocation", str(checkpoint_path(config, name)))
        .trigger(processingTime=f"{round(seconds * 1000)} milliseconds")
        .start()
    )
    return query


def run_queries(
    config: Config,
    queries: Sequence[str],
    *,
    until_idle: bool = False,
    input_is_complete: Callable[[], bool] = lambda: True,
) -> dict[str, Any]:
    """Run queries in this process until SIGTERM or Ctrl-C, or until all input is through.

    A query that fails is started again from its checkpoint, after a pause that grows; one that
    fails several times without finishing a batch ends them all.

    Parameters
    ----------
    config : Config
        The settings.
    queries : sequence of str
        Some of `QUERIES`.
    until_idle : bool
        End when each query, in the order in which data pass them, has finished every message of
        its topics and nothing new has come for `stream.idle_s`.
    input_is_complete : callable
        With `until_idle`: whether whoever fills the topics has finished; before, idle is no end.

    Returns
    -------
    dict
        `seconds`, and by query `batches`, `messages` and `restarts` of this call.

    Raises
    ------
    ConfigError
        If a query is not known or the set-up cannot work.
    ServiceError
        If a server does not answer at the start, or a query fails again and again.
    """
    unknown = sorted(set(queries) - set(QUERIES))
    if unknown:
        raise ConfigError(f"there is no query {unknown[0]}; there are {', '.join(QUERIES)}")
    began = time.monotonic()
    _stopping.clear()
    topics = KafkaTopics(config.kafka.bootstrap)
    topics.names()  # asked before Spark is started, which takes longer than to be refused
    is_own = SparkSession.getActiveSession() is None
    spark = make_session(config, f"stream-{config.run}", settings=_SETTINGS)
    running = [_Supervised(name, spark, config) for name in QUERIES if name in queries]
    with _signals():
        try:
            for one in running:
                one.start()
            idle_s = config.stream.idle_s if until_idle else None
            _watch(running, topics, idle_s=idle_s, input_is_complete=input_is_complete)
        except (Py4JError, OSError):
            if not _stopping.is_set():  # else Spark's process got the signal too, and was quicker
                raise
        finally:
            _stopping.set()
            for one in running:
                one.stop()
            if is_own:
                stop_session(spark)
            _stopping.clear()  # a query that is started otherwise in this process may run
            topics.close()
    summary: dict[str, Any] = {one.name: one.summary() for one in running}
    return {"seconds": time.monotonic() - began, "queries": summary}


def _watch(
    running: Sequence["_Supervised"],
    topics: Topics,
    *,
    idle_s: float | None,
    input_is_complete: Callable[[], bool],
) -> None:
    """Return when the process shall end, or when nothing has been left to do for `idle_s`."""
    idle_since: float | None = None
    while not _stopping.wait(_POLL_S):
        for one in running:
            one.check()
        if idle_s is None or not input_is_complete():
            continue
        # In the order of the data: what an earlier query gives a later one is there once the
        # earlier one has finished its batch. While a batch is in work, Kafka need not be asked.
        if any(one.is_busy for one in running) or not all(
            one.is_caught_up(topics) for one in running
        ):
            idle_since = None
            continue
        now = time.monotonic()
        idle_since = now if idle_since is None else idle_since
        if now - idle_since >= idle_s:
            return


@dataclass
class _Progress:
    """Where a query stood when this process began."""

    batch: int
    offsets: Offsets


class _Supervised:
    """One query and how often it had to be started."""

    def __init__(self, name: str, spark: SparkSession, config: Config) -> None:
        self.name = name
        self._spark, self._config = spark, config
        self._module: QueryModule = importlib.import_module(f"broker.streaming.{name}")
        self._checkpoint = checkpoint_path(config, name)
        self._query: StreamingQuery | None = None
        self._begin = self._progress()
        self._restarts = self._failures = 0
        self._batch_at_failure = self._begin.batch
        self._not_before = 0.0

    def start(self) -> None:
        """Start the query."""
        self._query = self._module.start(self._spark, self._config)

    def check(self) -> None:
        """Start the query again if it has failed, and its pause is over."""
        if self._query is not None and self._query.isActive:
            return
        if self._query is not None:
            self._note_failure(self._query)
        if time.monotonic() >= self._not_before:
            self._restarts += 1
            try:
                self.start()
            except ServiceError as error:
                _LOG.warning("query %s does not start: %s", self.name, error)
                self._pause(str(error))

    def _note_failure(self, query: StreamingQuery) -> None:
        reason = reason_of(query.exception())
        _LOG.warning("query %s has failed: %s", self.name, reason)
        self._query = None
        batch = self._progress().batch
        if batch > self._batch_at_failure:
            self._failures = 0
        self._batch_at_failure = batch
        self._pause(reason)

    def _pause(self, reason: str) -> None:
        self._failures += 1
        if self._failures > _RESTARTS:
            raise ServiceError(
                f"query {self.name} fails again and again: {reason}", query=self.name
            )
        self._not_before = time.monotonic() + min(2.0 ** (self._failures - 1), _LONGEST_PAUSE_S)

    def stop(self) -> None:
        """End the query when the batch in work is finished."""
        query = self._query
        if query is None:
            return
        limit = time.monotonic() + _STOP_TIMEOUT_S
        try:
            while self.is_busy and time.monotonic() < limit:
                time.sleep(0.02)
            query.stop()
        except (Py4JError, OSError):
            _LOG.warning(
                "query %s: Spark's process has ended; a batch in work is done again at the next "
                "start",
                self.name,
            )

    @property
    def is_busy(self) -> bool:
        """Whether a batch is in work, or being looked for."""
        query = self._query
        return query is not None and query.isActive and bool(query.status["isTriggerActive"])

    def is_caught_up(self, topics: Topics) -> bool:
        """Whether it has finished all that is on its topics."""
        if self._query is None:
            return False
        available = [
            part for name in self._module.input_topics(self._config) for part in topics.ranges(name)
        ]
        return is_caught_up(committed(self._checkpoint), available)

    def summary(self) -> dict[str, Any]:
        """Return what it did since this process began."""
        now = self._progress()
        before = first_offsets(self._checkpoint) | self._begin.offsets
        messages = sum(end - before.get(place, 0) for place, end in now.offsets.items())
        return {
            "batches": now.batch - self._begin.batch,
            "messages": messages,
            "restarts": self._restarts,
        }

    def _progress(self) -> _Progress:
        batch = last_commit(self._checkpoint)
        return _Progress(-1 if batch is None else batch, committed(self._checkpoint))


@contextmanager
def _signals() -> Iterator[None]:
    """Let SIGTERM and Ctrl-C ask for a polite end, while this is the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(_number: int, _frame: FrameType | None) -> None:
        _stopping.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
