"""Faults beside the alerts query: the API while people ask, and the query of the images."""

import contextlib
import dataclasses
import http.client
import itertools
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import psutil

from broker.config import Config
from broker.errors import ServiceError
from broker.imaging.templates import TemplateStore
from broker.ops.accounts import accounts_of
from broker.ops.faults.bed import Bed
from broker.simulation.observatory import make_templates, simulate_night, template_version
from broker.simulation.settings import TEST
from broker.store.alerts import AlertStore
from broker.store.forced import ForcedStore
from broker.store.memory import MemoryTables
from broker.store.objects import AssociationStore, DetectorStore
from broker.store.tables import create_tables
from broker.streaming.checkpoint import committed, is_caught_up, last_commit
from broker.streaming.image_alerts import alert_messages, associate_images
from broker.streaming.image_differences import DifferenceFiles
from broker.streaming.image_forced import ForcedPhotometry
from broker.streaming.image_steps import ImageMessage, process_image
from broker.streaming.night_versions import NightVersions
from broker.streaming.query import checkpoint_path
from broker.topics.publish import read_all
from broker.topics.topic import Message, TopicSettings
from broker.types import IMAGES, Coordinate

_PATIENCE_S = 900.0
"""Images on a busy machine, with loops compiled anew, take minutes. [s]"""

_POLL_S = 0.05
_SURVEY = dataclasses.replace(TEST, bands=("r",), visits_per_band=4, transient_density=200_000.0)
_numbers = itertools.count(1)


def kill_api(bed: Bed, _: float) -> None:
    """Kill the API while it is asked; started again, it answers the same."""
    alert = next(iter(AlertStore(bed.tables, bed.servers.the_run).every()), None)
    if alert is None:
        raise ServiceError("there is no alert to ask for")
    path = f"/api/v1/alerts/{alert['survey']}/{alert['diaSourceId']}"
    api = _Api(bed.servers)
    try:
        before = api.wait(path)
        with api.asked(path) as answers:
            _until(lambda: len(answers) >= 3, "the API is not asked")
            api.kill()
            _until(lambda: answers[-1] is None, "a killed API answers")
            api.start()
            after = api.wait(path)
        others = {answer for answer in answers if answer is not None} - {before}
        if after != before or others:
            raise ServiceError("the API answers otherwise after it was killed")
        bed.notes.append(f"{len(answers)} questions, {answers.count(None)} not answered")
    finally:
        api.kill()


class _Api:
    """`broker serve` as a process of its own."""

    def __init__(self, config: Config) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self._port = probe.getsockname()[1]
        self._config = config
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it."""
        config = self._config
        settings = {
            "BROKER_HOME": config.home,
            "BROKER_KAFKA__PORT": config.kafka.port,
            "BROKER_HBASE__THRIFT_PORT": config.hbase.thrift_port,
            "BROKER_SERVE__REQUESTS_PER_S": 100_000,
        }
        command = ["--run", config.run, "serve", "--port", str(self._port)]
        with (config.home / "api.err").open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "broker.cli", *command],
                env=os.environ | {name: str(value) for name, value in settings.items()},
                stderr=errors,
            )

    def kill(self) -> None:
        """Kill it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)

    def ask(self, path: str) -> str | None:
        """Return the whole body of an answer; None if there is none."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30.0)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read().decode()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()
        return json.dumps(json.loads(body), sort_keys=True) if answer.status == 200 else None

    def wait(self, path: str) -> str:
        """Return its first answer."""
        found: list[str] = []

        def is_there() -> bool:
            answer = self.ask(path)
            found.extend([answer] if answer is not None else [])
            return bool(found)

        _until(is_there, "the API does not answer")
        return found[0]

    @contextlib.contextmanager
    def asked(self, path: str) -> Iterator[list[str | None]]:
        """Ask all the time; give the list of answers."""
        answers: list[str | None] = []
        stopping = threading.Event()

        def ask() -> None:
            while not stopping.wait(0.02):
                answers.append(self.ask(path))

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        try:
            yield answers
        finally:
            stopping.set()
            thread.join(60.0)


def kill_images_jvm(bed: Bed, _: float) -> None:
    """Kill the JVM of the images query in the middle of a batch."""
    _images(bed, "java")


def kill_images_worker(bed: Bed, _: float) -> None:
    """Kill a Python worker of the images query in the middle of a batch."""
    _images(bed, "broker.spark.daemon")


def _images(bed: Bed, victim: str) -> None:
    """Run a few images, kill a process once a batch has begun, and compare with a calm pass."""
    number = next(_numbers)
    config = replace(bed.config, run=f"pictures-{number}")
    seed, run = 100 + number, config.the_run
    store = TemplateStore(config.run_path("templates"))
    store.put(template_version(seed, _SURVEY), list(make_templates(seed, _SURVEY)))
    messages = [one.message for one in simulate_night(seed=seed, settings=_SURVEY).exposures()]
    topic = run.internal_topic(IMAGES)
    bed.topics.create(topic, TopicSettings(partitions=config.kafka.partitions))
    stream = _Images(config)
    try:
        stream.start()
        at = bed.topics.send(topic, messages)
        checkpoint = checkpoint_path(config, "images")
        _until(lambda: (checkpoint / "offsets" / "0").exists(), "no batch of images began")
        stream.kill(victim)
        struck = last_commit(checkpoint) is None
        ranges = bed.topics.ranges(topic)

        def is_through() -> bool:
            stream.start()
            return is_caught_up(committed(checkpoint), ranges)

        _until(is_through, "the images do not come through")
    finally:
        stream.kill()
    accounts = accounts_of(bed.topics, bed.tables, run)
    if not accounts.is_closed or accounts.total.consumed != len(messages):
        raise ServiceError(f"the ledger of the images does not close: {accounts.total}")
    sent = Counter(m.value for m in read_all(bed.topics, run.alerts_topic("sim")))
    calm = _calm(config, messages, at)
    if set(sent) != calm or not calm:
        raise ServiceError(f"{len(set(sent) ^ calm)} of {len(calm)} packets are not as undisturbed")
    bed.notes.append(
        f"{len(messages)} images, {len(calm)} packets, {sum(sent.values()) - len(calm)} repeats, "
        f"killed {'in' if struck else 'after'} the first batch"
    )


class _Images:
    """The images query as a process of its own."""

    def __init__(self, config: Config) -> None:
        self._folder = config.run_path("stream")
        self._folder.mkdir(parents=True)
        (self._folder / "config.pickle").write_bytes(pickle.dumps(config))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it unless it runs."""
        if self._process is not None and self._process.poll() is None:
            return
        command = ["-m", "broker.ops.faults.child", str(self._folder / "config.pickle"), "images"]
        with (self._folder / "stream.err").open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, *command], start_new_session=True, stderr=errors
            )

    def kill(self, word: str = "") -> None:
        """Kill it, or the process below it whose command has a word."""
        if self._process is None:
            return
        if not word:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(30)
            return
        found: list[psutil.Process] = []

        def is_found() -> bool:
            found.extend(_below(psutil.Process(self._process.pid), word) if self._process else [])
            return bool(found)

        _until(is_found, f"the images query has no process {word}")
        with contextlib.suppress(psutil.NoSuchProcess):
            found[-1].kill()


def _below(process: psutil.Process, word: str) -> list[psutil.Process]:
    """Return processes with a word in their command, children after their parents."""
    found = []
    for one in process.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if any(word in part.rpartition("/")[2] or word == part for part in one.cmdline()[:4]):
                found.append(one)
    return found


def _calm(config: Config, messages: Sequence[Message], at: Sequence[Coordinate]) -> set[bytes]:
    """Return the packets that the same steps make, without Spark and servers."""
    tables, run = MemoryTables(), config.the_run
    create_tables(tables, run)
    store = TemplateStore(config.run_path("templates"))
    differences = DifferenceFiles(config.run_path("calm"))
    outcomes = [
        process_image(
            ImageMessage(coordinate, message.value, 0),
            templates=store,
            versions=NightVersions(store),
            detectors=DetectorStore(tables, run),
            differences=differences,
        )
        for coordinate, message in zip(at, messages, strict=True)
    ]
    cutouts = {outcome.coordinate: outcome.cutouts for outcome in outcomes}
    forced = ForcedPhotometry(ForcedStore(tables, run), differences)
    return {
        message.value or b""
        for one in associate_images(outcomes, store=AssociationStore(tables, run), forced=forced)
        for message in alert_messages(one, cutouts[one.coordinate])
    }


def _until(is_so: Callable[[], bool], words: str) -> None:
    limit = time.monotonic() + _PATIENCE_S
    while not is_so():
        if time.monotonic() > limit:
            raise ServiceError(f"{words} for {_PATIENCE_S:.0f} s")
        time.sleep(_POLL_S)
