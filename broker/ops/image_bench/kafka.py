"""Raw frames through Kafka and Spark: raw pixels a second of the stream's processors.

What counts is the processor time of Spark's Java process, its Python workers and the driver, in a
stream that has run for a while. There are three ways, each longer than the one before:

to sources
    Frames in Kafka are fetched, unpacked and reduced, their sky is taken off, cosmic rays are
    masked, and sources found and fitted. It is what the requirement and the anchor speak of.
to diaSources
    The pixel pass of query 1: its template is subtracted from each frame too, what changed is
    found, measured, scored and cut out, the image is judged, and its difference kept.
to alerts
    All of query 1: that, and objects, forced fluxes and packets.

Not counted are the servers, and the thread here that looks whether all is done.

It has a run of its own, which it removes; where no Kafka and HBase answer, it starts its own.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from broker.bench_rows import Row, at_least, at_most
from broker.config import Config, load_config
from broker.detection.detect import detect
from broker.detection.differencing.difference import without_sky
from broker.detection.measure import Fits, Noise, fit_sources
from broker.errors import ServiceError
from broker.imaging.calibration_store import CalibrationStore
from broker.imaging.image import RawExposure
from broker.imaging.mask import UNUSABLE
from broker.imaging.message import decode_raw, encode_image
from broker.imaging.psf import GaussianPsf
from broker.imaging.templates import TemplateStore
from broker.ops.image_bench.chain import BIAS, make_night, night_calibration, run_chain
from broker.ops.image_bench.rows import MPIX, SIGMA, make_wcs, seconds
from broker.ops.own_servers import servers
from broker.ops.processes import Usage, usage
from broker.spark.session import make_session, stop_session
from broker.store.alerts import create_tables, drop_tables
from broker.store.ledger import Ledger
from broker.store.objects import DONE, DetectorStore
from broker.streaming import images
from broker.streaming.checkpoint import committed, is_caught_up
from broker.streaming.image_differences import DifferenceFiles
from broker.streaming.query import checkpoint_path, open_tables, start_query
from broker.topics.kafka import KafkaTopics
from broker.topics.topic import Message, Topics, TopicSettings
from broker.types import Coordinate

_RUN = "bench-images"
_SET = "bench"
_DIRECT, _PIXELS = "bench-direct", "bench-pixels"
_SOURCES_SQL = "sources binary, found bigint"
_WARM, _REPEATS, _IMAGES = 4, 24, 8
"""The first ones are for Java's compilers, which take some batches to be done: new images, and
repeats of one, which are soon known as such."""

_POLL_S = 0.1
_PATIENCE_S = 600.0
_LEAST_MB_S = 30.0
_OURS = ("driver", "spark", "python")
"""The stream's own processes; servers are shared with what else uses them."""


@dataclass(frozen=True)
class _Drained:
    cpu_s: float
    parts: dict[str, float]
    clock_s: float = 0.0
    found: int = 0
    not_done: int = 0


def rows(side: int, repeats: int) -> list[Row]:  # noqa: ARG001  a run is long enough to be one
    """Return the speed of raw frames of twice the side through Kafka, Spark and query 1."""
    with servers(replace(load_config(), run=_RUN), "images") as config:
        return _measured(config, 2 * side)


def _measured(config: Config, side: int) -> list[Row]:
    frames = _Frames(config, side)
    with _empty(config) as (topics, tables):
        spark = make_session(config, "bench-images")
        stream = _Stream(spark, config, topics, tables)
        try:
            first = frames.take(_WARM)
            stream.to_alerts(first)
            stream.to_alerts(first[:1] * _REPEATS)
            stream.to_sources(frames.take(_WARM))
            direct = stream.to_sources(frames.take(_IMAGES))
            stream.to_dia_sources(frames.take(_WARM))
            pixels = stream.to_dia_sources(frames.take(_IMAGES))
            whole = stream.to_alerts(frames.take(_IMAGES))
        finally:
            stop_session(spark)
            for kind in ("templates", "calibrations", "differences", "checkpoints"):
                shutil.rmtree(config.run_path(kind), ignore_errors=True)
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    megabytes = frames.size * _IMAGES / MPIX
    what = "images through Kafka and Spark to "
    ways = {"sources": direct, "diaSources": pixels, "alerts": whole}
    not_done = sum(one.not_done for one in ways.values())
    return [
        at_least(f"{what}sources [MB/s/core]", megabytes / direct.cpu_s, _LEAST_MB_S,
                 f"Kira 6.3, raw pixels too; {load}"),
        *(Row(f"{what}{name} [MB/s/core]", megabytes / way.cpu_s, "", "", None)
          for name, way in list(ways.items())[1:]),
        *(row for name, way in ways.items() for row in _times(what + name, way, megabytes)),
        Row(f"{what}diaSources / the chain alone, speed", frames.alone * _IMAGES / pixels.cpu_s,
            "", f"the chain alone {frames.size / MPIX / frames.alone:.0f} MB/s", None),
        at_least(f"{what}sources: as many as without", direct.found / _IMAGES / frames.n_sources,
                 1.0, "1"),
        Row(f"{what}alerts: of an image", whole.found / _IMAGES, "", "", None),
        at_most(f"{what}anything, not done of {3 * _IMAGES}", float(not_done), 0.0, "0"),
    ]  # fmt: skip


def _times(what: str, found: _Drained, megabytes: float) -> list[Row]:
    parts = ", ".join(f"{name} {used / _IMAGES:.2f}" for name, used in found.parts.items())
    return [
        Row(f"{what}, processor time [s/image]", found.cpu_s / _IMAGES, "", parts, None),
        Row(f"{what}, by the clock [MB/s]", megabytes / found.clock_s, "", "", None),
    ]


class _Frames:
    """Raw frames of a night, with the calibrations and the template for them installed.

    `size` is that of a frame; `alone` the processor time of the chain on one, without messages,
    scores and Spark, `n_sources` what is found on one. [bytes, s]
    """

    def __init__(self, config: Config, side: int) -> None:
        raw, layout, masters, template, _ = make_night(side)
        store = TemplateStore(config.run_path("templates"))
        store.put(_SET, [template.image])
        CalibrationStore.beside(store.path).put(_SET, {0: masters})
        self.size = raw.nbytes
        (self.alone,) = seconds(3, lambda: run_chain(raw, layout, masters, template))
        self._first = RawExposure(
            raw,
            make_wcs(side),
            GaussianPsf(SIGMA),
            night_calibration(visit=1),
            BIAS,
            layout=layout,
            calibration_set=_SET,
        )
        found = _sources(encode_image(self._first), CalibrationStore.beside(store.path))
        self.n_sources = found.flux.size
        self._taken = 0

    def take(self, number: int) -> list[Message]:
        """Return the messages of the next visits."""
        visits = range(self._taken + 1, self._taken + number + 1)
        self._taken += number
        return [
            Message(encode_image(replace(self._first, calibration=night_calibration(visit))))
            for visit in visits
        ]


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
    for query in (images.NAME, _DIRECT, _PIXELS):
        shutil.rmtree(checkpoint_path(config, query), ignore_errors=True)
    drop_tables(tables, config.the_run)
    for name in topics.names():
        if name.startswith(f"run.{_RUN}."):
            with suppress(ServiceError):
                topics.delete(name)


def _detecting(store: CalibrationStore) -> Callable[[Any], Any]:
    """Return the function that finds the sources of frames, in the Python workers."""

    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for value in batch.column("value"):
                found = _sources(value.as_py(), store)
                columns = (found.x, found.y, found.flux, found.flux_err)
                table = pa.table(dict(zip(("x", "y", "flux", "fluxErr"), columns, strict=True)))
                sink = pa.BufferOutputStream()
                with pa.ipc.new_stream(sink, table.schema) as writer:
                    writer.write_table(table)
                row = {"sources": [sink.getvalue().to_pybytes()], "found": [table.num_rows]}
                yield pa.RecordBatch.from_pydict(row)

    return work


def _sources(message: bytes, store: CalibrationStore) -> Fits:
    """Return the PSF fits of the sources of a frame as it is."""
    image, card = without_sky(store.image(decode_raw(message)))
    unusable = image.is_masked(UNUSABLE)
    planes = (image.pixels, image.variance)
    sigma, floor = image.psf.sigma, float(card["skySigma"]) ** 2
    peaks = detect(*planes, psf_sigma=sigma, unusable=unusable, negative=False)
    noise = Noise(image.gain, floor)
    at = (peaks.x, peaks.y)
    return fit_sources(*planes, *at, psf_sigma=sigma, noise=noise, unusable=unusable)


class _Stream:
    """A Spark session with queries on frames, and what their processes used."""

    def __init__(self, spark: Any, config: Config, topics: Topics, tables: Any) -> None:
        self._spark, self._config, self._topics = spark, config, topics
        self._ledger = Ledger(tables, config.the_run)
        self._states = DetectorStore(tables, config.the_run)

    def to_alerts(self, messages: list[Message]) -> _Drained:
        """Publish frames, let query 1 take them all, and return what that took."""
        config, (topic,) = self._config, images.input_topics(self._config)
        before = len(self._ledger.batches(images.NAME))
        found = self._drain(topic, messages, images.NAME, lambda: images.start(self._spark, config))
        batches = self._ledger.batches(images.NAME)[before:]
        states = self._states.all()
        return replace(
            found,
            clock_s=sum(batch.stats["seconds"]["batch"] for batch in batches),
            found=sum(batch.counts.get("alerts", 0) for batch in batches),
            not_done=sum(row.status != DONE for row in states),
        )

    def to_sources(self, messages: list[Message]) -> _Drained:
        """Publish frames and let sources be found on them: no template, no alerts."""
        store = CalibrationStore.beside(self._config.run_path("templates"))
        found: list[int] = []

        def each(frame: Any) -> None:
            rows = frame.mapInArrow(_detecting(store), _SOURCES_SQL).collect()
            found.extend(row["found"] for row in rows)

        drained = self._pass(_DIRECT, messages, each)
        return replace(drained, found=sum(found), not_done=len(messages) - len(found))

    def to_dia_sources(self, messages: list[Message]) -> _Drained:
        """Publish frames and let the pixel pass of query 1 take them all: no objects, no alerts."""
        files = DifferenceFiles(self._config.run_path("differences"))
        outcomes: list[str] = []

        def each(frame: Any) -> None:
            for row in images.pixel_pass(frame, self._config).select(*images.LIGHT).collect():
                outcomes.append(json.loads(row["outcome"])["status"])
                files.drop(Coordinate(row["topic"], row["partition"], row["offset"]))

        drained = self._pass(_PIXELS, messages, each)
        return replace(drained, not_done=len(messages) - outcomes.count(DONE))

    def _pass(self, name: str, messages: list[Message], each: Callable[[Any], None]) -> _Drained:
        """Publish frames on a topic of a query's own, and let it take them."""
        topic = self._config.the_run.internal_topic(name)
        self._topics.create(topic, TopicSettings(partitions=2))
        clock_s = []

        def each_batch(frame: Any, _number: int) -> None:
            began = time.perf_counter()
            each(frame)
            clock_s.append(time.perf_counter() - began)

        def start() -> Any:
            frames = images.read_images(self._spark, self._config, [topic])
            return start_query(frames, each_batch, name=name, config=self._config)

        return replace(self._drain(topic, messages, name, start), clock_s=sum(clock_s))

    def _drain(
        self, topic: str, messages: list[Message], name: str, start: Callable[[], Any]
    ) -> _Drained:
        """Publish frames, let a query take them all, and return the processor time of that."""
        for number, message in enumerate(messages):
            self._topics.send(topic, [message], partition=number % 2)
        ranges, checkpoint = self._topics.ranges(topic), checkpoint_path(self._config, name)
        before = usage(self._config)
        query = start()
        own_before = time.thread_time()
        try:
            limit = time.monotonic() + _PATIENCE_S
            while not is_caught_up(committed(checkpoint), ranges):
                if not query.isActive:
                    raise ServiceError(f"query {name} ended: {query.exception()}")
                if time.monotonic() > limit:
                    raise ServiceError(f"the images are not through after {_PATIENCE_S:.0f} s")
                time.sleep(_POLL_S)
            after = usage(self._config)
            own = time.thread_time() - own_before
        finally:
            query.stop()
        nothing = Usage(0.0, 0.0)
        parts = {
            part: after[part].cpu_s - before.get(part, nothing).cpu_s
            for part in _OURS
            if part in after
        }
        parts["driver"] -= own
        return _Drained(sum(parts.values()), parts)
