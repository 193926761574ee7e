"""The stream's benchmark: queries 2 and 3 on packets that wait, against reading and decoding alone.

Both are measured in turn in one process, after a first round that only warms up.
"""

import importlib
import itertools
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from broker.alerts.adapters import find_adapters
from broker.catalog.registry import install_catalog
from broker.config import Config
from broker.ops.processes import core_ms, usage
from broker.simulation.packets import simulate_packets
from broker.spark.decode import decode
from broker.spark.session import make_session, stop_session
from broker.store.alerts import create_tables, drop_tables
from broker.store.ledger import Ledger
from broker.store.table import Tables
from broker.streaming.checkpoint import committed, is_caught_up
from broker.streaming.query import checkpoint_path, read_topics, start_query
from broker.topics.topic import Message, Topics, TopicSettings

BASELINE = "baseline"
CATALOG_ROWS = 1_000_000
_QUERIES = ("alerts", "archive")
_SEND = 500
_POLL_S = 0.05
_PATIENCE_S = 900.0

Say = Callable[[str], None]
SparkSession: TypeAlias = Any
DataFrame: TypeAlias = Any
StreamingQuery: TypeAlias = Any
# Spark's own types are imported by those packages only that drive it.


@dataclass(frozen=True)
class Drain:
    """One pass over all packets.

    Parameters
    ----------
    alerts : int
    seconds : float
        From the first batch's beginning until all queries had finished all. [s]
    core_ms : dict
        Processor time for each alert by part of the stack. [ms]
    """

    alerts: int
    seconds: float
    core_ms: dict[str, float]

    @property
    def per_s(self) -> float:
        """Alerts a second."""
        return self.alerts / self.seconds


@dataclass(frozen=True)
class StreamBench:
    """What the benchmark found.

    Parameters
    ----------
    survey : str
    alerts : int
        Packets of each pass.
    kilobytes : float
        Mean size of a packet. [kB]
    full, baseline, transacted, guarded : list of Drain
        Whole path, reading and decoding only, and the whole path in Kafka's transactions, and on a
        Kafka with users over TLS, if that was asked for; measured in turn.
    stages_ms : dict
        Wall-clock time of the Python workers for each alert by stage, of the last pass. [ms]
    pss_mb : dict
        Memory by part after the last pass. [MB]
    """

    survey: str
    alerts: int
    kilobytes: float
    full: list[Drain] = field(default_factory=list)
    baseline: list[Drain] = field(default_factory=list)
    transacted: list[Drain] = field(default_factory=list)
    guarded: list[Drain] = field(default_factory=list)
    stages_ms: dict[str, float] = field(default_factory=dict)
    pss_mb: dict[str, float] = field(default_factory=dict)

    @property
    def full_per_s(self) -> float:
        """Median rate of the whole path."""
        return statistics.median(drain.per_s for drain in self.full)

    @property
    def baseline_per_s(self) -> float:
        """Median rate of reading and decoding."""
        return statistics.median(drain.per_s for drain in self.baseline)

    @property
    def ratio(self) -> float:
        """Whole path over baseline."""
        return self.full_per_s / self.baseline_per_s

    def cost(self, drains: Sequence[Drain]) -> tuple[float, float]:
        """Return time, and processor time, of another way over the whole path's; NaN unasked."""
        pairs = list(zip(drains, self.full, strict=False))
        if not pairs:
            return np.nan, np.nan
        seconds = [one.seconds / other.seconds for one, other in pairs]
        spent = [sum(one.core_ms.values()) / sum(other.core_ms.values()) for one, other in pairs]
        return statistics.median(seconds), statistics.median(spent)


@dataclass(frozen=True)
class _Way:
    """One of the ways that are measured in turn."""

    name: str
    config: Config
    topics: Topics
    queries: Sequence[str]
    drains: list[Drain]


def bench_stream(
    config: Config,
    topics: Topics,
    tables: Tables,
    *,
    survey: str,
    alerts: int,
    rounds: int,
    transactions: bool = False,
    guarded: tuple[Config, Topics] | None = None,
    say: Say = lambda _: None,
) -> StreamBench:
    """Measure the whole path and the baseline in turn.

    Parameters
    ----------
    config : Config
        Of the servers; the benchmark has a run of its own.
    topics, tables : Topics, Tables
        On these servers.
    survey : str
        `ztf` or `lsst` (whose packets have full histories).
    alerts : int
        Packets of each pass.
    rounds : int
        Measured passes of each kind, after one that warms up.
    transactions : bool
        Measure the whole path in Kafka's transactions, too.
    guarded : Config and Topics, optional
        A Kafka with users: measure the whole path on it, too.
    say : callable
        Told what is being done.
    """
    config = bench_config(config, f"bench-{survey}")
    say(f"making {alerts} packets of {survey} and a catalogue of {CATALOG_ROWS} rows")
    size = _fill(config, topics, survey, alerts)
    install_sky(config)
    drop_tables(tables, config.the_run)
    create_tables(tables, config.the_run, config.hbase.regions)
    result = StreamBench(survey, alerts, size / alerts / 1000.0)
    ways = [_Way("whole path", config, topics, _QUERIES, result.full)]
    if transactions:
        once = replace(config, stream=replace(config.stream, transactions=True))
        ways.append(_Way("in transactions", once, topics, _QUERIES, result.transacted))
    if guarded is not None:
        other = replace(config, home=guarded[0].home, kafka=guarded[0].kafka)
        _fill(other, guarded[1], survey, alerts)
        ways.append(_Way("with users and TLS", other, guarded[1], _QUERIES, result.guarded))
    ways.append(_Way("read and decode", config, topics, (BASELINE,), result.baseline))
    spark = make_session(config, "broker-bench")
    try:
        for number in range(rounds + 1):
            for way in ways:
                drain = _drain(spark, way, config, survey, alerts)
                say(f"round {number}, {way.name}: {drain.per_s:.0f} alerts/s")
                if number:
                    way.drains.append(drain)
        stages = _stages(Ledger(tables, config.the_run), alerts)
        memory = {name: part.pss_mb for name, part in usage(config, memory=True).items()}
        return replace(result, stages_ms=stages, pss_mb=memory)
    finally:
        stop_session(spark)


def bench_config(config: Config, run: str) -> Config:
    """Return the settings of a benchmark: a run and a catalogue folder of its own."""
    catalog = replace(config.catalog, path=str(config.home / "bench" / "catalogs"))
    archive = replace(config.archive, path=str(config.home / "bench" / "archive"))
    return replace(config, run=run, catalog=catalog, archive=archive)


def _fill(config: Config, topics: Topics, survey: str, alerts: int) -> int:
    """Put packets on the topic, unless so many are there; return their size. [bytes]"""
    name = config.the_run.alerts_topic(survey)
    for adapter in find_adapters():
        topics.create(config.the_run.alerts_topic(adapter), input_settings(config))
    if sum(part.end - part.first for part in topics.ranges(name)) != alerts:
        topics.delete(name)
        topics.create(name, input_settings(config))
        packets = simulate_packets(survey, alerts, 1, **packet_options(survey))
        partitions = itertools.cycle(range(config.kafka.partitions))
        while chunk := [Message(packet) for packet in itertools.islice(packets, _SEND)]:
            topics.send(name, chunk, next(partitions))
    part = topics.ranges(name)[0]
    sample = list(topics.read(name, partition=0, first=part.first, end=part.first + 200))
    return round(np.mean([len(message.value or b"") for message in sample]) * alerts)


def packet_options(survey: str) -> dict[str, Any]:
    """Return how packets of a survey are made."""
    return {"history": "full"} if survey == "lsst" else {}


def input_settings(config: Config) -> TopicSettings:
    """Return what an input topic is created with."""
    return TopicSettings(partitions=config.kafka.partitions)


def install_sky(config: Config) -> None:
    """Install a reference catalogue of a million rows over the whole sky."""
    rng = np.random.default_rng(1)
    n = CATALOG_ROWS
    rows = pa.table(
        {
            "id": [f"s{i}" for i in range(n)],
            "ra": rng.uniform(0.0, 360.0, n),
            "dec": np.degrees(np.arcsin(rng.uniform(-1.0, 1.0, n))),
            "class": rng.choice(["star", "galaxy", "variable"], n),
            "mag": rng.uniform(14.0, 24.0, n).astype(np.float32),
            "sizeArcsec": rng.uniform(0.5, 4.0, n).astype(np.float32),
            "redshift": rng.uniform(0.0, 1.0, n).astype(np.float32),
        }
    )
    install_catalog(config.catalog_path, "reference", rows, "bench")


def _drain(spark: SparkSession, way: _Way, measured: Config, survey: str, alerts: int) -> Drain:
    """Let queries with new checkpoints take all packets; `measured` names the servers' home."""
    config, names = way.config, way.queries
    for name in names:
        shutil.rmtree(checkpoint_path(config, name), ignore_errors=True)
    before = usage(measured)
    queries = [start_one(spark, config, name, survey) for name in names]
    try:
        wait_through(config, way.topics, names, queries, config.the_run.alerts_topic(survey))
        seconds = time.time() - _began(config, names)
        spent = core_ms(before, usage(measured), alerts)
    finally:
        for query in queries:
            while query.isActive and query.status["isTriggerActive"]:
                time.sleep(_POLL_S)
            query.stop()
    return Drain(alerts, seconds, spent)


def start_one(spark: SparkSession, config: Config, name: str, survey: str) -> StreamingQuery:
    """Start a query by its name, or the baseline."""
    if name == BASELINE:
        return _start_baseline(spark, config, survey)
    query: StreamingQuery = importlib.import_module(f"broker.streaming.{name}").start(spark, config)
    return query


def _start_baseline(spark: SparkSession, config: Config, survey: str) -> StreamingQuery:
    topic = config.the_run.alerts_topic(survey)
    messages = read_topics(
        spark, config, [topic], max_per_trigger=config.stream.max_alerts_per_trigger
    )

    def decode_only(batch: DataFrame, _: int) -> None:
        batch.write.format("noop").mode("overwrite").save()

    return start_query(decode(messages, {topic: survey}), decode_only, name=BASELINE, config=config)


def wait_through(
    config: Config,
    topics: Topics,
    names: Sequence[str],
    queries: Sequence[StreamingQuery],
    topic: str,
) -> None:
    """Wait until queries are through with a topic; RuntimeError if one ends, TimeoutError."""
    available = topics.ranges(topic)
    limit = time.monotonic() + _PATIENCE_S
    while not all(is_caught_up(committed(checkpoint_path(config, n)), available) for n in names):
        for query in queries:
            if not query.isActive:
                raise RuntimeError(f"query {query.name} ended: {query.exception()}")
        if time.monotonic() > limit:
            raise TimeoutError(f"the packets are not through after {_PATIENCE_S:.0f} s")
        time.sleep(_POLL_S)


def _began(config: Config, names: Sequence[str]) -> float:
    """Return when the first batch began: its offsets are written before it runs."""
    files = (checkpoint_path(config, name) / "offsets" / "0" for name in names)
    return min(file.stat().st_mtime for file in files)


def _stages(ledger: Ledger, alerts: int) -> dict[str, float]:
    seconds: dict[str, float] = {}
    count = 0
    for batch in reversed(ledger.batches("alerts")):
        count += sum(part.end - part.first for part in batch.ranges)
        for stage, spent in batch.stats.get("seconds", {}).items():
            seconds[stage] = seconds.get(stage, 0.0) + spent
        if count >= alerts:
            break
    return {stage: spent * 1000.0 / max(count, 1) for stage, spent in sorted(seconds.items())}
