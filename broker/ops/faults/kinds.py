"""The kinds of faults: what each does to a running broker, and how the operator's tools answer."""

import contextlib
import itertools
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import psutil

from broker.errors import ServiceError
from broker.local import stack
from broker.ops.faults import beside, overload, steps
from broker.ops.faults.bed import Bed

_STEP_S = 240.0
"""How long an armed step may take to be reached. [s]"""
_RESTART_S = 1.0
"""How long a service manager takes to see that a server is gone. [s]"""
_END_S = 10.0
"""How long a server that was paused may take to end itself. [s]"""


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Parameters
    ----------
    doc : str
        What happens.
    strike : callable (Bed, float)
        Does it, and undoes what does not end by itself; the number is how long a pause or a cut
        lasts. [s] Dead servers are started again, a dead stream is not: the bed does that.
    at_random : bool
        Whether the moment is drawn; else it is the step that is reached.
    needs_transactions : bool
        Whether it comes only where packets are sent in transactions.
    is_drawn : bool
        Whether `draw` has it; else it takes long, and comes only when it is named.
    """

    doc: str
    strike: Callable[[Bed, float], None]
    at_random: bool = True
    needs_transactions: bool = False
    is_drawn: bool = True


def _at_step(step: str) -> Callable[[Bed, float], None]:
    def strike(bed: Bed, _: float) -> None:
        steps.arm(bed.folder, step)
        limit = time.monotonic() + _STEP_S
        while not steps.fired(bed.folder):
            if time.monotonic() > limit:
                steps.disarm(bed.folder)
                raise ServiceError(f"no batch came to the step {step} in {_STEP_S:.0f} s")
            time.sleep(0.01)
        bed.kill_stream()

    return strike


def _kill_jvm(bed: Bed, _: float) -> None:
    _kill_one(bed, lambda words: "java" in words[0])


def _kill_worker(bed: Bed, _: float) -> None:
    def is_worker(words: list[str]) -> bool:
        return "broker.spark.daemon" in words

    # The daemon is the parent of its workers and has the same words: the workers are its children.
    daemons = [one for one in bed.stream_parts() if is_worker(_words(one))]
    for daemon in daemons:
        workers = [w for w in daemon.children() if is_worker(_words(w))]
        if workers:
            _end(max(workers, key=lambda w: w.cpu_times().user))
            return
    raise ServiceError("the stream has no Python worker")


def _kill_module(bed: Bed, _: float) -> None:
    _kill_one(bed, lambda words: "broker.science.child" in words)


def _kill_one(bed: Bed, is_it: Callable[[list[str]], bool]) -> None:
    limit = time.monotonic() + _STEP_S
    while time.monotonic() < limit:
        for one in bed.stream_parts():
            words = _words(one)
            if words and is_it(words):
                _end(one)
                return
        time.sleep(0.05)
    raise ServiceError("the stream has no such process")


def _words(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return process.cmdline()
    return []


def _end(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.kill()


def _kill_server(name: str) -> Callable[[Bed, float], None]:
    def strike(bed: Bed, _: float) -> None:
        one = bed.server(name)
        one.kill()
        one.wait(30)
        time.sleep(_RESTART_S)
        stack.up(bed.servers)

    return strike


def _pause(of: Callable[[Bed], list[int]]) -> Callable[[Bed, float], None]:
    def strike(bed: Bed, seconds: float) -> None:
        pids = of(bed)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(seconds)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    return strike


def _pause_server(name: str) -> Callable[[Bed, float], None]:
    def strike(bed: Bed, seconds: float) -> None:
        one = bed.server(name)
        _pause(lambda _: [one.pid])(bed, seconds)
        # A pause beyond its ZooKeeper session, 10 s, ends HBase: it is started again, as by a
        # service manager.
        with contextlib.suppress(psutil.TimeoutExpired):
            one.wait(_END_S)
            stack.up(bed.servers)
            bed.notes.append(f"{name} ended itself and was started again")

    return strike


def _stream_pids(bed: Bed) -> list[int]:
    return [bed.stream_pid, *(one.pid for one in bed.stream_parts())]


def _cut(kind: str) -> Callable[[Bed, float], None]:
    def strike(bed: Bed, seconds: float) -> None:
        bed.relay(kind).cut()
        time.sleep(seconds)
        bed.relay(kind).heal()

    return strike


KINDS: dict[str, Kind] = {
    **{
        step: Kind(f"kill -9 of the stream at the step {step}", _at_step(step), at_random=False)
        for step in steps.STEPS
    },
    **{
        step: Kind(
            f"kill -9 of the stream at the step {step}",
            _at_step(step),
            at_random=False,
            needs_transactions=True,
        )
        for step in steps.TRANSACTION_STEPS
    },
    "stream": Kind("kill -9 of the stream", lambda bed, _: bed.kill_stream()),
    "jvm": Kind("kill -9 of the stream's JVM alone", _kill_jvm),
    "worker": Kind("kill -9 of a Python worker", _kill_worker),
    "module": Kind("kill -9 of the process with contributed code", _kill_module),
    "kafka": Kind("kill -9 of Kafka", _kill_server("kafka")),
    "hbase": Kind("kill -9 of HBase", _kill_server("hbase")),
    "thrift": Kind("kill -9 of the Thrift gateway", _kill_server("thrift")),
    "api": Kind("kill -9 of the API while it is asked", beside.kill_api),
    "images": Kind("kill -9 of the JVM with the images", beside.kill_images_jvm),
    "images-worker": Kind("kill -9 of a worker with an image", beside.kill_images_worker),
    "pause-stream": Kind("SIGSTOP of the stream", _pause(_stream_pids)),
    "pause-kafka": Kind("SIGSTOP of Kafka", _pause_server("kafka")),
    "pause-hbase": Kind("SIGSTOP of HBase", _pause_server("hbase")),
    "cut-kafka": Kind("no network to Kafka", _cut("cut-kafka")),
    "cut-hbase": Kind("no network to HBase", _cut("cut-hbase")),
    "slow-hbase": Kind("every answer of HBase comes late", overload.slow_hbase, is_drawn=False),
    "slow-subscriber": Kind(
        "a subscriber that hardly reads", overload.slow_subscriber, is_drawn=False
    ),
    "disk-full": Kind("Kafka can write no more", overload.disk_full),
    "outage": Kind("the stream is away, alerts go on coming", overload.outage, is_drawn=False),
    "burst": Kind("40,000 alerts at once", overload.burst, is_drawn=False),
}
"""By name; the first are the steps of a micro-batch."""


def usable(*, transactions: bool) -> list[str]:
    """Return the names of the kinds that can come."""
    return [name for name, kind in KINDS.items() if transactions or not kind.needs_transactions]


def draw(n: int, seed: int, *, transactions: bool = False) -> list[str]:
    """Return n kinds in a drawn order: of 100, each step of a batch five times, others four."""
    rng = np.random.default_rng(seed)
    names = [name for name in usable(transactions=transactions) if KINDS[name].is_drawn]
    found: list[str] = []
    for number in itertools.count(1):
        more = names + [name for name in steps.STEPS if number % 3 == 0]
        found += rng.permutation(more).tolist()
        if len(found) >= n:
            break
    return found[:n]
