"""Users who ask at an even rate, in a process of their own."""

import http.client
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from broker.errors import ServiceError
from broker.ops.serve_bench.asks import question
from broker.ops.serve_bench.server import Client

_USERS = 8
_END_S = 120.0
_NICE = 19
"""Users have machines of their own; here they take what the broker leaves."""


@dataclass(frozen=True)
class Asked:
    """What users found.

    Parameters
    ----------
    seconds : list of float
        How long each answer took. [s]
    errors : list of str
        What came in the place of an answer.
    lasted_s : float
        How long they asked. [s]
    """

    seconds: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    lasted_s: float = 0.0


@dataclass
class Users:
    """Users at work: their process, and what they found once they have ended."""

    pid: int
    asked: Asked = field(default_factory=Asked)


@contextmanager
def users(port: int, alerts: int, *, per_s: float) -> Iterator[Users]:
    """Let users ask, evenly, until the block ends; what they found stands in `asked` then.

    Parameters
    ----------
    port : int
        Of the server.
    alerts : int
        How many its run has.
    per_s : float
        What they ask in all. [1/s]
    """
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_ask, args=(port, alerts, per_s, theirs), daemon=True)
    process.start()
    found = Users(process.pid or 0)
    try:
        ours.recv()  # they have begun
        yield found
        ours.send("end")
        if not ours.poll(_END_S):
            raise ServiceError("the users do not come to an end")
        found.asked = ours.recv()
        process.join()
    finally:
        process.kill()
        process.join()


def _ask(port: int, alerts: int, per_s: float, pipe: Any) -> None:
    os.nice(_NICE)
    end, found = threading.Event(), Asked()

    def user(number: int) -> None:
        rng, client = np.random.default_rng(number), Client(port)
        every_s = _USERS / per_s
        due = time.perf_counter() + number / per_s
        while not end.wait(max(0.0, due - time.perf_counter())):
            try:
                found.seconds.append(client.ask(question(rng, alerts))[0])
            except (ServiceError, OSError, http.client.HTTPException) as error:
                found.errors.append(str(error))
            due += every_s
        client.close()

    threads = [threading.Thread(target=user, args=(number,)) for number in range(_USERS)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    pipe.send("begun")
    pipe.recv()
    end.set()
    for thread in threads:
        thread.join()
    pipe.send(Asked(found.seconds, found.errors, time.perf_counter() - began))
