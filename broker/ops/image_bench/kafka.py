"""Raw frames through Kafka and query 1 to alerts: raw pixels a second of the stream's processors.

It has a run of its own on Kafka and HBase, which it removes; where none answer, it starts its own.
What counts is the processor time of the stream's Java process, Python workers and driver. Not
counted are the servers, and the thread here that looks whether all is done.
"""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from broker.config import Config, load_config
from broker.errors import ServiceError
from broker.imaging.calibration_store import CalibrationStore
from broker.imaging.image import RawExposure
from broker.imaging.message import encode_image
from broker.imaging.psf import GaussianPsf
from broker.imaging.templates import TemplateStore
from broker.ops.bench_rows import Row, at_least, at_most
from broker.ops.image_bench.chain import BIAS, make_night, night_calibration, run_chain
from broker.ops.image_bench.rows import MPIX, SIGMA, make_wcs, seconds
from broker.ops.own_servers import servers
from broker.ops.processes import usage
from broker.spark.session import make_session, stop_session
from broker.store.alerts import create_tables, drop_tables
from broker.store.ledger import Ledger
from broker.store.objects import DONE, DetectorStore
from broker.streaming import images
from broker.streaming.checkpoint import committed, is_caught_up
from broker.streaming.query import checkpoint_path, open_tables
from broker.topics.kafka import KafkaTopics
from broker.topics.topic import Message, Topics, TopicSettings

_RUN = "bench-images"
_SET = "bench"
_WARM, _IMAGES = 2, 8
_PATIENCE_S = 600.0
_LEAST_MB_S = 30.0
_OURS = ("driver", "spark", "python")
"""The stream's own processes; servers are shared with what else uses them."""


@dataclass(frozen=True)
class _Drained:
    cpu_s: float
    clock_s: float
    alerts: int
    not_done: int


def rows(side: int, repeats: int) -> list[Row]:  # noqa: ARG001  a run is long enough to be one
    """Return the speed of raw frames of twice the side through Kafka, Spark and query 1."""
    with servers(replace(load_config(), run=_RUN), "images") as config:
        return _measured(config, 2 * side)


def _measured(config: Config, side: int) -> list[Row]:
    messages, size, alone = _messages(config, side)
    with _empty(config) as (topics, tables):
        spark = make_session(config, "bench-images")
        try:
            _drain(spark, config, topics, tables, messages[:_WARM])
            found = _drain(spark, config, topics, tables, messages[_WARM:])
        finally:
            stop_session(spark)
            for kind in ("templates", "calibrations", "differences", "checkpoints"):
                shutil.rmtree(config.run_path(kind), ignore_errors=True)
    cores = int(os.cpu_count() or 1)
    megabytes = size * _IMAGES / MPIX
    load = f"load {os.getloadavg()[0]:.1f} on {cores} cores"
    what = "images through Kafka, Spark and query 1"
    return [
        at_least(f"{what}, raw pixels [MB/s/core]", megabytes / found.cpu_s, _LEAST_MB_S,
                 f"Kira 6.3, to detection only; {load}"),
        Row(f"{what} / the chain alone, speed", alone * _IMAGES / found.cpu_s, "",
            f"the chain {size / MPIX / alone:.0f} MB/s", None),
        Row(f"{what}, by the clock [MB/s]", megabytes / found.clock_s, "", load, None),
        Row(f"{what}, processor time [s/image]", found.cpu_s / _IMAGES, "", "", None),
        Row(f"{what}, alerts", float(found.alerts), "", "", None),
        at_most(f"{what}, not done of {_IMAGES}", float(found.not_done), 0.0, "0"),
    ]  # fmt: skip


def _messages(config: Config, side: int) -> tuple[list[Message], int, float]:
    """Install calibrations and a template; return raw frames for them, and a frame's bytes.

    Also the processor time of the chain on such a frame without messages, scores, Spark. [s]
    """
    raw, layout, masters, template, _ = make_night(side)
    store = TemplateStore(config.run_path("templates"))
    store.put(_SET, [template.image])
    CalibrationStore.beside(store.path).put(_SET, {0: masters})
    exposures = (
        RawExposure(
            raw,
            make_wcs(side),
            GaussianPsf(SIGMA),
            night_calibration(visit=k + 1),
            BIAS,
            layout=layout,
            calibration_set=_SET,
        )
        for k in range(_WARM + _IMAGES)
    )
    (alone,) = seconds(3, lambda: run_chain(raw, layout, masters, template))
    return [Message(encode_image(one)) for one in exposures], raw.nbytes, alone


@contextmanager
def _empty(config: Config) -> Iterator[tuple[Topics, Any]]:
    """Give empty topics and tables of the run; they are removed afterwards."""
    run = config.the_run
    topics, tables = KafkaTopics(config.kafka.bootstrap), open_tables(config)
    try:
        _remove(topics, tables, config)
        create_tables(tables, run, config.hbase.regions)
        (name,) = images.input_topics(config)
        topics.create(name, TopicSettings(partitions=2))
        yield topics, tables
        _remove(topics, tables, config)
    finally:
        topics.close()
        tables.close()


def _remove(topics: Topics, tables: Any, config: Config) -> None:
    shutil.rmtree(checkpoint_path(config, images.NAME), ignore_errors=True)
    drop_tables(tables, config.the_run)
    for name in topics.names():
        if name.startswith(f"run.{_RUN}."):
            with suppress(ServiceError):
                topics.delete(name)


def _drain(
    spark: Any, config: Config, topics: Topics, tables: Any, messages: list[Message]
) -> _Drained:
    """Publish frames, then let the query take them all; return what that took."""
    run, (name,) = config.the_run, images.input_topics(config)
    for number, message in enumerate(messages):
        topics.send(name, [message], partition=number % 2)
    done_before = len(Ledger(tables, run).batches(images.NAME))
    ranges, before = topics.ranges(name), _cpu_s(config)
    query = images.start(spark, config)
    own_before = time.thread_time()
    try:
        limit = time.monotonic() + _PATIENCE_S
        while not is_caught_up(committed(checkpoint_path(config, images.NAME)), ranges):
            if not query.isActive:
                raise ServiceError(f"query images ended: {query.exception()}")
            if time.monotonic() > limit:
                raise ServiceError(f"the images are not through after {_PATIENCE_S:.0f} s")
            time.sleep(0.05)
        spent = _cpu_s(config) - before - (time.thread_time() - own_before)
    finally:
        query.stop()
    batches = Ledger(tables, run).batches(images.NAME)[done_before:]
    states = DetectorStore(tables, run).all()
    return _Drained(
        spent,
        sum(batch.stats["seconds"]["batch"] for batch in batches),
        sum(row.n_alerts for row in states),
        sum(row.status != DONE for row in states),
    )


def _cpu_s(config: Config) -> float:
    parts = usage(config)
    return sum(parts[name].cpu_s for name in _OURS if name in parts)
