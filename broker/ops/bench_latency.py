"""The stream's latency: from a packet on its input topic to a packet on an output topic."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from broker.alerts.adapters import find_adapters
from broker.config import Config
from broker.ops.bench_stream import (
    Say,
    bench_config,
    input_settings,
    install_sky,
    packet_options,
    start_one,
    wait_through,
)
from broker.science.installed import installed
from broker.simulation.packets import simulate_packets
from broker.spark.session import make_session, stop_session
from broker.store.alerts import drop_tables
from broker.store.table import Tables
from broker.streaming.query import checkpoint_path
from broker.topics.topic import Message, Topics
from broker.types import Run


def bench_latency(
    config: Config,
    topics: Topics,
    tables: Tables,
    *,
    survey: str = "ztf",
    per_s: float = 100.0,
    seconds: float = 60.0,
    say: Say = lambda _: None,
) -> tuple[float, float, int]:
    """Measure the time from a packet on its input topic to a packet on an output topic.

    Packets come at an even pace, the trigger is 1 s, and the first third only warms up.

    Returns
    -------
    p50, p95 : float
        [s]
    n : int
        Output packets that this is of.
    """
    config = bench_config(config, "bench-paced")
    config = replace(config, stream=replace(config.stream, trigger_s=1.0))
    run = config.the_run
    shutil.rmtree(checkpoint_path(config, "alerts").parent, ignore_errors=True)
    _clean(topics, tables, run)
    install_sky(config)
    for adapter in find_adapters():
        topics.create(run.alerts_topic(adapter), input_settings(config))
    say(f"sending {per_s:.0f} packets/s for {seconds:.0f} s")
    packets = list(simulate_packets(survey, round(per_s * seconds), 2, **packet_options(survey)))
    spark = make_session(config, "broker-bench")
    try:
        query = start_one(spark, config, "alerts", survey)
        _pump(topics, run.alerts_topic(survey), packets, per_s)
        wait_through(config, topics, ("alerts",), [query], run.alerts_topic(survey))
        query.stop()
    finally:
        stop_session(spark)
    spans = _spans(topics, run, config)
    p50, p95 = np.percentile(spans, (50, 95))
    return float(p50), float(p95), len(spans)


def _clean(topics: Topics, tables: Tables, run: Run) -> None:
    drop_tables(tables, run)
    for name in topics.names():
        if name.startswith(f"run.{run.name}."):
            topics.delete(name)


def _pump(topics: Topics, name: str, packets: Sequence[bytes], per_s: float) -> None:
    began = time.monotonic()
    step = max(1, round(per_s / 20.0))
    for i in range(0, len(packets), step):
        time.sleep(max(0.0, began + i / per_s - time.monotonic()))
        topics.send(name, [Message(packet) for packet in packets[i : i + step]])


def _spans(topics: Topics, run: Run, config: Config) -> list[float]:
    """Return the time from input to output of each packet published, the first third left out."""
    found: list[tuple[int, float]] = []
    for topic in installed(config).topics:
        name = run.public_topic(topic, "slim")
        for part in topics.ranges(name):
            for message in topics.read(
                name, partition=part.partition, first=part.first, end=part.end
            ):
                came = int(message.header("ingestTimestamp") or 0)
                found.append((came, ((message.timestamp_ms or 0) - came) / 1000.0))
    found.sort()
    cut = len(found) // 3
    return [span for _, span in found[cut:]]
