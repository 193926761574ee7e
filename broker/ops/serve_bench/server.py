"""`broker serve` in a process of its own, and one who asks it."""

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from broker.config import Config
from broker.errors import ServiceError
from broker.types import Run

_START_S = 60.0
_IDLE_S = 2.0
"""The server ends a connection that was idle for 5 s; ours is made anew before that."""

_API = "/api/v1"


@dataclass(frozen=True)
class Server:
    """Where a server is, and which process."""

    port: int
    pid: int


class Client:
    """One user with one connection."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._used = 0.0

    def ask(self, path: str, body: Any = None) -> tuple[float, Any]:
        """Return how long an answer of the API took [s], and the answer.

        Raises
        ------
        ServiceError
            If it is no answer.
        """
        data = None if body is None else json.dumps(body)
        took, text = self._send("GET" if data is None else "POST", f"{_API}{path}", data)
        return took, json.loads(text)

    def page(self, path: str) -> tuple[float, str]:
        """Return how long a page of the portal took [s], and the page.

        Raises
        ------
        ServiceError
            If it is no page.
        """
        took, text = self._send("GET", path, None)
        return took, text.decode()

    def _send(self, method: str, path: str, data: str | None) -> tuple[float, bytes]:
        if time.perf_counter() - self._used > _IDLE_S:
            self._connection.close()
        began = time.perf_counter()
        headers = {"Content-Type": "application/json"} if data else {}
        self._connection.request(method, path, data, headers)
        answer = self._connection.getresponse()
        text = answer.read()
        self._used = time.perf_counter()
        if answer.status != http.HTTPStatus.OK:
            raise ServiceError(f"{path}: {answer.status} {text[:200]!r}")
        return self._used - began, text

    def close(self) -> None:
        """End the connection."""
        self._connection.close()


def p95_ms(seconds: Sequence[float]) -> float:
    """Return what 95 in 100 answers do not exceed. [ms]"""
    return float(np.percentile(seconds, 95.0)) * 1000.0


@contextmanager
def serving(config: Config, run: Run) -> Iterator[Server]:
    """Serve a run in a process of its own, without limits of requests.

    Raises
    ------
    ServiceError
        If it does not come up.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "broker.cli", "--run", run.name, "serve", "--port", str(port)]
    unlimited = {"BROKER_SERVE__REQUESTS_PER_S": "1000000", "BROKER_SERVE__BURST": "1000000"}
    home = {"BROKER_HOME": str(config.home)}
    process = subprocess.Popen(command, env=os.environ | home | unlimited)
    try:
        _wait(process, port)
        yield Server(port, process.pid)
    finally:
        process.terminate()
        process.wait()


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServiceError(f"the server ended with {process.returncode}")
        try:
            Client(port).ask("/modules")
        except (OSError, http.client.HTTPException):
            time.sleep(0.2)
        else:
            return
    raise ServiceError(f"the server did not answer for {_START_S:g} s")
