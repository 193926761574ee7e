"""The process that runs contributed code: started by `isolation.py`, gone with its parent.

What it sends back is data only, JSON and Arrow: nothing that the parent would run.
"""

import ctypes
import json
import os
import pickle
import resource
import signal
import socket
import struct
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow as pa

from broker.science.contract import Reference
from broker.science.execute import BatchResult, Models, run_batch, tasks_of
from broker.science.memory import PeakMemory
from broker.science.registry import Contributions
from broker.science.shared_memory import RunningSlot, SharedTable

OUT_OF_MEMORY = 77
"""Exit status of a child that could not get the memory a task asked for."""

PASSES = "passes:"
"""Prefix of a filter's column in the answer."""

_PR_SET_PDEATHSIG = 1
_LENGTH = struct.Struct("<Q")
_MIB = 1 << 20


def send(control: socket.socket, message: bytes) -> None:
    """Send one message with its length in front."""
    control.sendall(_LENGTH.pack(len(message)) + message)


def receive(control: socket.socket) -> bytes | None:
    """Return the next message; None if the other side has gone."""
    head = _receive_exactly(control, _LENGTH.size)
    return None if head is None else _receive_exactly(control, _LENGTH.unpack(head)[0])


def _receive_exactly(control: socket.socket, size: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < size:
        part = control.recv(min(size - len(parts), 1 << 20))
        if not part:
            return None
        parts += part
    return bytes(parts)


def main(arguments: list[str]) -> None:
    """Serve batches until the parent closes the control socket."""
    control_fd, request_fd, answer_fd, slot_fd, parent, memory_mb = map(int, arguments)
    end_with_parent(parent)
    pa.set_cpu_count(1)  # its work is measured and limited; other cores have other children
    control = socket.socket(fileno=control_fd)
    request, answer, slot = SharedTable(request_fd), SharedTable(answer_fd), RunningSlot(slot_fd)
    contributions: Contributions = pickle.loads(receive(control) or b"")  # noqa: S301 - our parent's
    load(contributions)
    started_with = limit_resources(memory_mb)
    send(control, b"{}")
    models, memory = Models(), PeakMemory()
    while (message := receive(control)) is not None:
        asked = json.loads(message)
        result = run_batch(
            contributions,
            request.read(asked["size"]),
            models,
            skip={name: (status, reason) for name, (status, reason) in asked["skip"].items()},
            announce=lambda task: slot.set(task, time.monotonic()),
            out_of_memory=lambda: os._exit(OUT_OF_MEMORY),
            memory=memory,
        )
        size = answer.write(_table(result))
        send(control, _report(result, size=size, grown=_address_space() - started_with))


def load(contributions: Contributions) -> None:
    """Import what contributions are made of, so that libraries do not count as their memory."""
    for task in tasks_of(contributions):
        if isinstance(task.function, Reference):
            task.function.find()


def _table(result: BatchResult) -> pa.Table:
    passes = {PASSES + topic: pa.array(passed) for topic, passed in result.passes.items()}
    return pa.table({**result.columns, **passes})


def _report(result: BatchResult, *, size: int, grown: int) -> bytes:
    report: dict[str, Any] = {
        "size": size,
        "verdicts": result.verdicts,
        "seconds": result.seconds,
        "peak_mb": result.peak_mb,
        "grown_mb": grown / _MIB,
    }
    return json.dumps(report).encode()


def end_with_parent(parent: int) -> None:
    """Make sure that this process ends when its parent does, however that dies."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # it died before we asked
        os._exit(0)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(0)


def limit_resources(memory_mb: int) -> int:
    """Limit what this process may add to its address space; return what it has. [bytes]"""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    now = _address_space()
    if now:
        limit = now + memory_mb * _MIB
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return now


def _address_space() -> int:
    """Return the size of the address space, 0 where the system does not say. [bytes]"""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return 0
    return int(statm.read_text(encoding="ascii").split()[0]) * resource.getpagesize()


if __name__ == "__main__":
    main(sys.argv[1:])
