"""What serving costs a stream: queries 2 and 3 at an even rate, without and with users who ask."""

import itertools
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import psutil

from broker.alerts.adapters import find_adapters
from broker.bench_rows import Row, at_least, at_most
from broker.config import Config
from broker.ops.bench_stream import (
    SparkSession,
    StreamingQuery,
    bench_config,
    input_settings,
    install_sky,
    packet_options,
    start_one,
    wait_through,
)
from broker.ops.processes import usage
from broker.ops.serve_bench.fill import Say
from broker.ops.serve_bench.pace import KEPT, TRIGGER_S, Pace, Passed, cost_rows
from broker.ops.serve_bench.server import Server, p95_ms
from broker.ops.serve_bench.users import Asked, users
from broker.simulation.packets import simulate_packets
from broker.spark.session import make_session, stop_session
from broker.store.alerts import create_tables, drop_tables
from broker.store.table import Tables
from broker.streaming.query import checkpoint_path
from broker.topics.topic import Message, Topics

_QUERIES = ("alerts", "archive")
_STREAM = ("driver", "spark", "python", "modules", "kafka")
_PASS_S = 20.0
_TURNS = ((False, True), (True, False), (False, True))
"""Whether users ask: pairs of passes, neither kind always first, for a stream grows faster."""
_SEND = 500


def beside_stream(
    config: Config,
    topics: Topics,
    tables: Tables,
    server: Server,
    *,
    alerts: int,
    pace: Pace,
    say: Say,
) -> list[Row]:
    """Measure a stream at an even rate, in turn without and with users who ask.

    The packets wait on their topic and every batch takes what would have come in its two seconds:
    so all batches are equal, whoever else is at work.

    Parameters
    ----------
    config : Config
        Names the servers; the stream has a run of its own.
    topics, tables : Topics, Tables
        Kafka and HBase.
    server : Server
        Of the run that the users ask for.
    alerts : int
        How many that run has.
    pace : Pace
    say : callable
        Is told what is being done.
    """
    config = _settings(config, pace)
    number = round(pace.alerts_per_s * _PASS_S)
    say(f"Making {number} packets of {pace.survey} …")
    _send_packets(config, topics, pace.survey, number)
    install_sky(config)
    drop_tables(tables, config.the_run)
    create_tables(tables, config.the_run, config.hbase.regions)
    alone: list[Passed] = []
    beside: list[Passed] = []
    asked: list[Asked] = []
    spark = make_session(config, "broker-bench")
    try:
        _flow(spark, config, topics, server, pace.survey)  # warms up
        for turn in _TURNS:
            for asking in turn:
                if asking:
                    with users(server.port, alerts, per_s=pace.asks_per_s) as one:
                        found = _flow(spark, config, topics, server, pace.survey, without=one.pid)
                    asked.append(one.asked)
                else:
                    found = _flow(spark, config, topics, server, pace.survey)
                (beside if asking else alone).append(found)
                words = "with users" if asking else "alone"
                say(f"{words}: {found.core_ms:.2f} ms of a core for an alert")
    finally:
        stop_session(spark)
    return [*cost_rows(alone, beside, pace), *_asked_rows(alone, beside, asked, pace, number)]


def _settings(config: Config, pace: Pace) -> Config:
    config = bench_config(config, f"bench-serve-{pace.survey}")
    a_batch = round(pace.alerts_per_s * TRIGGER_S)
    stream = replace(config.stream, trigger_s=TRIGGER_S, max_alerts_per_trigger=a_batch)
    return replace(config, stream=stream)


def _send_packets(config: Config, topics: Topics, survey: str, number: int) -> None:
    """Put packets on the topic, unless so many are there."""
    name = config.the_run.alerts_topic(survey)
    for adapter in find_adapters():
        topics.create(config.the_run.alerts_topic(adapter), input_settings(config))
    if sum(part.end - part.first for part in topics.ranges(name)) == number:
        return
    topics.delete(name)
    topics.create(name, input_settings(config))
    packets = simulate_packets(survey, number, 3, **packet_options(survey))
    partitions = itertools.cycle(range(config.kafka.partitions))
    while chunk := [Message(packet) for packet in itertools.islice(packets, _SEND)]:
        topics.send(name, chunk, next(partitions))


def _flow(
    spark: SparkSession,
    config: Config,
    topics: Topics,
    server: Server,
    survey: str,
    without: int | None = None,
) -> Passed:
    """Let queries with new checkpoints take all packets at their pace."""
    for name in _QUERIES:
        shutil.rmtree(checkpoint_path(config, name), ignore_errors=True)
    before = _spent(config, server.pid, without)
    queries = [start_one(spark, config, name, survey) for name in _QUERIES]
    try:
        wait_through(config, topics, _QUERIES, queries, config.the_run.alerts_topic(survey))
        for query in queries:
            while query.status["isTriggerActive"]:
                time.sleep(0.05)
        after = _spent(config, server.pid, without)
        found = [_batches(query) for query in queries]
    finally:
        for query in queries:
            query.stop()
    alerts = sum(rows for rows, _ in found[0])
    parts = [(now - then) * 1000.0 / alerts for then, now in zip(before, after, strict=True)]
    later = [batches[1:] for batches in found]
    seconds = [took for _, took in later[0]]
    rows = sum(n for n, _ in later[0])
    return Passed(
        rows / sum(max(took, TRIGGER_S) for took in seconds),
        seconds,
        sum(sum(s for _, s in one) * 1000.0 / sum(n for n, _ in one) for one in later),
        *parts,
    )


def _batches(query: StreamingQuery) -> list[tuple[int, float]]:
    """Return alerts and time [s] of each batch that had any."""
    return [
        (one["numInputRows"], one["durationMs"]["triggerExecution"] / 1000.0)
        for one in query.recentProgress
        if one["numInputRows"]
    ]


def _spent(config: Config, server: int, without: int | None) -> tuple[float, float, float]:
    """Return the processor time of the stream, of HBase and of the server so far. [s]"""
    parts = {name: one.cpu_s for name, one in usage(config).items()}
    asking = _cpu_s(without) if without is not None else 0.0
    served = _cpu_s(server)
    # Server and users are children of this process, too, and were counted as such.
    stream = sum(parts.get(name, 0.0) for name in _STREAM) - served - asking
    return stream, parts["hbase"] + parts["thrift"], served


def _cpu_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def _asked_rows(
    alone: Sequence[Passed],
    beside: Sequence[Passed],
    asked: Sequence[Asked],
    pace: Pace,
    number: int,
) -> Iterator[Row]:
    times = [took for one in asked for took in one.seconds]
    errors = [error for one in asked for error in one.errors]
    rate = len(times) / sum(one.lasted_s for one in asked)
    what = f"answers beside a stream of {pace.survey}"
    yield at_least(f"{what} [1/s]", rate, KEPT * pace.asks_per_s, f"{pace.asks_per_s:g}")
    yield at_most(f"{what}, errors", len(errors), 0.0, "; ".join(errors[:1]))
    yield Row(f"{what}, p95 [ms]", p95_ms(times))
    for words, key in (("HBase", "store_ms"), ("server", "server_ms")):
        more = sum(getattr(b, key) - getattr(a, key) for a, b in zip(alone, beside, strict=True))
        yield Row(f"processor time of {words} for an answer [ms]", more * number / len(times))
