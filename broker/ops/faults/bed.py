"""Where faults are made: servers, a stream and a load of its own, all of which may be killed."""

import contextlib
import itertools
import pickle
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from os import killpg
from pathlib import Path

import numpy as np
import psutil

from broker.alerts.packet import encode_sim
from broker.config import Config
from broker.errors import ServiceError
from broker.local import stack
from broker.ops.faults.proxy import Relay
from broker.simulation.packets import simulate_packets
from broker.store.hbase import HBaseTables
from broker.streaming.checkpoint import committed, is_caught_up, last_commit
from broker.streaming.query import checkpoint_path
from broker.topics.kafka import KafkaTopics
from broker.topics.topic import Message, TopicSettings
from broker.types import Run

SURVEYS = ("sim", "ztf")
QUERIES = ("alerts", "archive")
BAD_SHARE = 0.03
"""Share of the messages that are no packets, and must end as dead letters."""

_PORTS = (20_000, 32_000)
BURST_ALERTS = 40_000
"""Of a few seconds of Rubin, all at once."""

_POLL_S = 0.05
_STOP_S = 120.0
"""How long the load goes on trying to send, once it shall stop. [s]"""

_RELAYED = {"cut-kafka": "kafka", "cut-hbase": "hbase"}


def bed_config(config: Config, *, transactions: bool = False) -> Config:
    """Return settings of servers under the home of others, with free ports of their own.

    Clients reach Kafka at its advertised port and HBase at the port of the web server, which is
    not started: there are the relays.
    """
    ports = itertools.filterfalse(
        _is_taken, iter(lambda: random.SystemRandom().randrange(*_PORTS), 0)
    )
    unique = list(itertools.islice(dict.fromkeys(itertools.islice(ports, 40)), 8))
    home = config.home / "bench" / "faults"
    shutil.rmtree(home, ignore_errors=True)
    kafka = replace(
        config.kafka, port=unique[0], advertised_port=unique[1], controller_port=unique[2]
    )
    hbase = replace(
        config.hbase,
        thrift_port=unique[3],
        zookeeper_port=unique[4],
        master_port=unique[5],
        region_server_port=unique[6],
    )
    stream = replace(
        config.stream,
        max_alerts_per_trigger=200,
        max_records_per_batch=40,
        trigger_s=0.3,
        transactions=transactions,
    )
    # A flood is judged by the batches before: it would tell a killed run from an undisturbed one.
    science = replace(config.science, flood_alerts=10**9)
    return replace(
        config,
        home=home,
        run="faults",
        kafka=kafka,
        hbase=hbase,
        stream=stream,
        science=science,
        serve=replace(config.serve, port=unique[7]),
    )


def _is_taken(port: int) -> bool:
    with contextlib.closing(socket.socket()) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


class Bed:
    """Servers behind relays, a stream in a process of its own, and a load.

    Parameters
    ----------
    config : Config
        Of the servers, as `bed_config` makes it.
    seed : int
        Chooses the packets.
    """

    def __init__(self, config: Config, seed: int) -> None:
        self.servers = config
        self.folder = config.home / "stream"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.load = Load(self, seed)
        self.restarts = 0
        self.batch = 0
        """Alerts that a batch takes at most, from the stream's next start; 0: as configured."""
        self.burst_alerts = BURST_ALERTS
        self.notes: list[str] = []
        """What a fault tells beside what is proved."""
        self._relays: dict[str, Relay] = {}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def config(self) -> Config:
        """The settings that clients have: the relays in the place of the servers."""
        kafka = replace(self.servers.kafka, port=self.servers.kafka.advertised_port)
        hbase = replace(self.servers.hbase, thrift_port=self._relays["hbase"].port)
        serve = replace(self.servers.serve, port=self.servers.hbase.thrift_port)
        stream = self.servers.stream
        if self.batch:
            stream = replace(stream, max_alerts_per_trigger=self.batch, max_records_per_batch=500)
        return replace(self.servers, kafka=kafka, hbase=hbase, serve=serve, stream=stream)

    def open(self) -> None:
        """Start the servers and make the topics."""
        kafka = self.servers.kafka
        self._relays["kafka"] = Relay(kafka.advertised_port, kafka.port)
        self._relays["hbase"] = Relay(self.servers.serve.port, self.servers.hbase.thrift_port)
        stack.up(self.servers)
        self.topics = KafkaTopics(kafka.bootstrap)
        self.tables = HBaseTables("127.0.0.1", self.servers.hbase.thrift_port, timeout_s=60.0)
        for name in self.inputs(self.servers.the_run):
            self.topics.create(name, TopicSettings(partitions=kafka.partitions))

    def close(self) -> None:
        """Stop everything that this has started; files are deleted."""
        self.load.stop()
        self.kill_stream()
        if self._relays:
            with contextlib.suppress(AttributeError):
                self.topics.close()
                self.tables.close()
            stack.down(self.servers)
            for relay in self._relays.values():
                relay.close()
        shutil.rmtree(self.servers.home, ignore_errors=True)

    @contextmanager
    def running(self) -> Iterator["Bed"]:
        """Open, and close whatever happens."""
        try:
            self.open()
            yield self
        finally:
            self.close()

    @staticmethod
    def inputs(run: Run) -> list[str]:
        """Return the topics that are filled."""
        return [run.alerts_topic(survey) for survey in SURVEYS]

    def server(self, name: str) -> psutil.Process:
        """Return the process of a server."""
        (pid,) = (row.pid for row in stack.status(self.servers) if row.name == name)
        if pid is None:
            raise ServiceError(f"{name} does not run", service=name)
        return psutil.Process(pid)

    def relay(self, kind: str) -> Relay:
        """Return the relay that a kind of fault cuts."""
        return self._relays[_RELAYED[kind]]

    def start_stream(self) -> None:
        """Start the stream unless it runs."""
        if self.stream_runs():
            return
        recipe = self.folder / "config.pickle"
        recipe.write_bytes(pickle.dumps(self.config))
        with (self.folder / "stream.err").open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "broker.ops.faults.child", str(recipe)],
                start_new_session=True,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
        self.restarts += 1

    def stream_runs(self) -> bool:
        """Return whether the stream's process is alive."""
        return self._process is not None and self._process.poll() is None

    @property
    def stream_pid(self) -> int:
        """The process that drives the queries; its number is that of its group too."""
        if self._process is None:
            raise ServiceError("the stream was not started")
        return self._process.pid

    def stream_parts(self) -> list[psutil.Process]:
        """Return all processes below the driver."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.stream_pid).children(recursive=True)
        return []

    def kill_stream(self) -> None:
        """Kill driver and JVM at once, without a word."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(30)

    def ends(self) -> dict[tuple[str, int], int]:
        """Return where the input topics end."""
        names = self.inputs(self.servers.the_run)
        return {(p.topic, p.partition): p.end for n in names for p in self.topics.ranges(n)}

    def finished(self, query: str) -> dict[tuple[str, int], int]:
        """Return what a query has finished."""
        return committed(checkpoint_path(self.config, query))

    def wait_for(self, ends: dict[tuple[str, int], int], patience_s: float) -> float | None:
        """Keep the stream running until alerts has finished all that stood before `ends`.

        Parameters
        ----------
        ends : dict
            Offsets by topic and partition.
        patience_s : float
            How long the query may finish nothing at all. [s]

        Returns
        -------
        float or None
            How long that took; None if the query came to a stop before. [s]
        """
        began = time.monotonic()

        def is_reached() -> bool:
            done = self.finished("alerts")
            return all(done.get(place, 0) >= end for place, end in ends.items())

        return time.monotonic() - began if self._wait_until(is_reached, patience_s) else None

    def drain(self, patience_s: float) -> bool:
        """Return whether both queries come to the end of the topics."""
        ranges = [r for n in self.inputs(self.servers.the_run) for r in self.topics.ranges(n)]
        return self._wait_until(
            lambda: all(is_caught_up(self.finished(query), ranges) for query in QUERIES), patience_s
        )

    def _wait_until(self, is_reached: Callable[[], bool], patience_s: float) -> bool:
        """Keep the stream running until something is reached, or no query finishes anything."""
        before, limit = self.progress(), time.monotonic() + patience_s
        while not is_reached():
            self.start_stream()
            now = self.progress()
            if now != before:
                before, limit = now, time.monotonic() + patience_s
            elif time.monotonic() > limit:
                return False
            time.sleep(_POLL_S)
        return True

    def progress(self) -> tuple[int | None, ...]:
        """Return the newest batch that each query has finished."""
        return tuple(last_commit(checkpoint_path(self.config, query)) for query in QUERIES)


class Load:
    """A paced small night: packets of two surveys and rubbish, sent until they are acknowledged.

    A chunk whose acknowledgement did not come is sent again, so a packet may be on its topic
    twice; that is a duplicate in the ledger.
    """

    def __init__(self, bed: Bed, seed: int, *, per_s: float = 20.0) -> None:
        self.sent: dict[str, list[bytes]] = {survey: [] for survey in SURVEYS}
        """All that was acknowledged, in the order of sending, each once."""
        self.only: str | None = None
        """The survey that alone is sent; None: all."""
        self._bed, self._seed, self._per_s = bed, seed, per_s
        self._number, self._lock = 0, threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def burst(self, n: int) -> None:
        """Send n messages at once."""
        self.send(self.make(n))

    def send(self, made: dict[str, list[bytes]]) -> None:
        """Send what `make` has made."""
        for survey, packets in made.items():
            if self.only in (None, survey):
                self._send(survey, packets)

    def start(self) -> None:
        """Send at an even pace from now on."""
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop sending; all that was sent is acknowledged."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        step = max(1, round(self._per_s / 4.0))
        while not self._stopping.wait(0.25):
            self.burst(step)

    def make(self, n: int) -> dict[str, list[bytes]]:
        """Return the next n messages, by survey."""
        with self._lock:
            first, self._number = self._number, self._number + n
        rng = np.random.default_rng([self._seed, first])
        n_ztf = n // 3
        made = {
            "sim": [_sim_packet(number) for number in range(first + 1, first + 1 + n - n_ztf)],
            "ztf": list(simulate_packets("ztf", n_ztf, self._seed, first=first)),
        }
        for packets in made.values():
            for i in np.flatnonzero(rng.random(len(packets)) < BAD_SHARE):
                packets[i] = rng.bytes(200) if rng.random() < 0.5 else packets[i][:-40]
        return made

    def _send(self, survey: str, packets: Sequence[bytes]) -> None:
        name = self._bed.servers.the_run.alerts_topic(survey)
        messages = [Message(packet) for packet in packets]
        began = time.monotonic()
        while True:
            try:
                self._bed.topics.send(name, messages)
            except ServiceError:
                if self._stopping.wait(0.2) and time.monotonic() - began > _STOP_S:
                    return  # to a server that nobody has started again
                continue
            self.sent[survey] += packets
            return


def _sim_packet(number: int) -> bytes:
    """Return a packet of a solar-system object, which passes a filter and leaves."""
    source = {
        "diaSourceId": number,
        "visit": 7,
        "detector": 1,
        "diaObjectId": 10_000_000 + number,
        "midpointMjdTai": 61_000.25,
        "ra": (0.01 * number) % 360.0,
        "dec": -5.0,
        "psfFlux": 1000.0 + number % 97,
        "psfFluxErr": 50.0,
        "snr": 20.0,
        "band": "r",
        "reliability": 0.9,
    }
    moving = {"ssObjectId": number, "ephOffset": 0.5}
    return encode_sim({"diaSourceId": number, "diaSource": source, "ssSource": moving})


def tail(path: Path, lines: int = 12) -> str:
    """Return the end of a text file."""
    return "\n".join(path.read_text("utf-8", "replace").splitlines()[-lines:])
