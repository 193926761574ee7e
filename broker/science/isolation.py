"""The parent's side of the process that runs contributed code.

The child is started as a program of its own, never forked: a Spark worker has threads and
connections that must not be copied. It gets a clean environment, limits, and three files in memory
without names; it is killed with all that it started.
"""

import contextlib
import json
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa

from broker.errors import ServiceError
from broker.science.child import OUT_OF_MEMORY, PASSES, receive, send
from broker.science.execute import FAILED, TIMED_OUT, BatchResult, Verdict
from broker.science.registry import Contributions
from broker.science.shared_memory import RunningSlot, SharedTable, anonymous_file

_START_S = 120.0
_LOOK_EVERY_S = 0.02
_AWAY_S = 1.0
"""Looks that lie further apart than this: we stood still ourselves. [s]"""

_STDERR_KEPT = 1 << 20

_ENVIRONMENT = {
    "PATH": os.defpath,
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",
    # One thread: a worker has one core, and every pool of threads takes address space.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    # Large arrays come from the heap, not each from a fresh mapping that is paged in anew.
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": "33554432",
    "MALLOC_TRIM_THRESHOLD_": "134217728",
}


class ChildEndedError(Exception):
    """The child ended or was killed in the middle of a batch.

    Parameters
    ----------
    task : int
        What it was running, -1 if nothing.
    verdict : (str, str)
        What is to be said of that task.
    is_killed : bool
        Whether someone else than we killed it: an operator, or the machine for want of memory.
    """

    def __init__(self, task: int, verdict: Verdict, *, is_killed: bool = False) -> None:
        super().__init__(verdict[1])
        self.task = task
        self.verdict = verdict
        self.is_killed = is_killed


class Watch:
    """How long something has taken, without the time for which this process stood still itself.

    A machine that was suspended, or a process that was stopped, must not make a task late.

    Parameters
    ----------
    now : float
        The monotonic clock. [s]
    """

    def __init__(self, now: float) -> None:
        self._looked = now
        self._away: list[tuple[float, float]] = []

    def spent_s(self, since: float, now: float) -> float:
        """Return the time since a moment; to be asked often, for it tells pauses by its calls. [s]

        Parameters
        ----------
        since, now : float
            The monotonic clock. [s]
        """
        if now - self._looked > _AWAY_S:
            self._away.append((self._looked, now))
        self._looked = now
        return now - since - sum(max(0.0, end - max(begin, since)) for begin, end in self._away)


class Child:
    """One running child process.

    Parameters
    ----------
    contributions : Contributions
        What it will run.
    memory_mb : int
        Address space that it may add to what it starts with. [MiB]

    Raises
    ------
    ServiceError
        If it does not start.
    """

    def __init__(self, contributions: Contributions, *, memory_mb: int) -> None:
        self.memory_mb = memory_mb
        self.settled_mb: float | None = None
        """What its first batch added, which loads libraries and models. [MiB]"""
        self.grown_mb = 0.0
        """What it has added in all. [MiB]"""
        self._request = SharedTable(anonymous_file("broker-request"))
        self._answer = SharedTable(anonymous_file("broker-answer"))
        self._slot = RunningSlot(anonymous_file("broker-slot"))
        self._slot.set(-1, 0.0)
        self._stderr = anonymous_file("broker-stderr")
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = self._start(theirs)
        self._finalizer = weakref.finalize(self, kill, self._process)
        self._control.settimeout(_START_S)
        try:
            send(self._control, pickle.dumps(contributions))
            ready = receive(self._control)
        except OSError:
            ready = None
        if ready is None:
            said = self.said()
            self.close()
            raise ServiceError(f"the process for science modules did not start: {said}")

    def _start(self, theirs: socket.socket) -> subprocess.Popen[bytes]:
        descriptors = [s.descriptor for s in (self._request, self._answer, self._slot)]
        arguments = [theirs.fileno(), *descriptors, os.getpid(), self.memory_mb]
        path = os.pathsep.join(os.path.abspath(p) for p in sys.path)  # noqa: PTH100 - "" is here
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "broker.science.child", *map(str, arguments)],
            env={**_ENVIRONMENT, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._stderr,
            pass_fds=[theirs.fileno(), *descriptors],
            start_new_session=True,
            cwd="/",
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it can take a batch."""
        return self._process.poll() is None

    @property
    def leaks(self) -> bool:
        """Whether later batches took a third of the memory that the first one left."""
        settled = self.settled_mb or 0.0
        return self.grown_mb - settled > (self.memory_mb - settled) / 3.0

    def run(
        self, batch: pa.Table, *, skip: Mapping[str, Verdict], budget_s: Callable[[int], float]
    ) -> BatchResult:
        """Run one batch and wait for it.

        Parameters
        ----------
        batch : pa.Table
            The columns that are needed.
        skip : mapping
            Those that are not to be run, with what is said of them.
        budget_s : callable
            How long the task of a number may take; -1 is what lies between tasks. [s]

        Raises
        ------
        ChildEndedError
            If it ended, or had to be killed because a task took too long.
        """
        size = self._request.write(batch)
        sent = time.monotonic()
        self._slot.set(-1, sent)
        try:
            send(self._control, json.dumps({"size": size, "skip": dict(skip)}).encode())
            self._wait(sent, budget_s)
            message = receive(self._control)
        except OSError:
            message = None
        if message is None:
            raise self._ended()
        return self._result(json.loads(message))

    def _wait(self, sent: float, budget_s: Callable[[int], float]) -> None:
        """Return when there is an answer or the child has ended; kill it when time is up."""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        watch = Watch(time.monotonic())
        while not poll.poll(_LOOK_EVERY_S * 1000) and self.is_alive:
            task, since = self._slot.get()
            allowed = budget_s(task)
            if watch.spent_s(max(since, sent), time.monotonic()) > allowed:
                kill(self._process)
                raise ChildEndedError(task, (TIMED_OUT, f"was still running after {allowed:.3g} s"))

    def _ended(self) -> ChildEndedError:
        task = self._slot.get()[0]
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5.0)
        kill(self._process)
        status = self._process.returncode
        if status == OUT_OF_MEMORY:
            reason = f"used more than {self.memory_mb} MiB of memory"
        elif status < 0:
            reason = f"its process was ended by {signal.Signals(-status).name}"
        else:
            reason = f"ended its process with status {status}"
        return ChildEndedError(task, (FAILED, reason), is_killed=status == -signal.SIGKILL)

    def _result(self, report: dict[str, Any]) -> BatchResult:
        table = self._answer.read(report["size"])
        if os.fstat(self._stderr).st_size > _STDERR_KEPT:
            os.ftruncate(self._stderr, 0)
        self.grown_mb = float(report["grown_mb"])
        if self.settled_mb is None:
            self.settled_mb = self.grown_mb
        result = BatchResult(
            verdicts={name: (status, why) for name, (status, why) in report["verdicts"].items()},
            seconds=report["seconds"],
            peak_mb=report["peak_mb"],
        )
        for name in table.column_names:
            column = table.column(name).combine_chunks()
            if name.startswith(PASSES):
                passed = column.to_numpy(zero_copy_only=False)
                result.passes[name.removeprefix(PASSES)] = passed
            else:
                # The next answer is written over this one: what is kept must be copied.
                result.columns[name] = pa.concat_arrays([column, column[:0]])
        return result

    def said(self) -> str:
        """Return the end of what it wrote to standard error."""
        size = os.fstat(self._stderr).st_size
        return os.pread(self._stderr, 2000, max(0, size - 2000)).decode("utf-8", "replace").strip()

    def close(self) -> None:
        """End the child and release what is shared with it."""
        self._finalizer()
        self._control.close()
        self._request.close()
        self._answer.close()
        self._slot.close()
        os.close(self._stderr)


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a child and all that it started, and wait until it is gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)  # it leads a session and group of its own
    process.wait()
