"""Many users at once."""

import http.client
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np

from broker.bench_rows import Row, at_most
from broker.errors import ServiceError
from broker.ops.serve_bench.asks import PlainReader, question
from broker.ops.serve_bench.fill import PER_OBJECT
from broker.ops.serve_bench.server import Client, p95_ms
from broker.store.table import Tables
from broker.types import Run

_EACH = 10
"""What each user asks, one after the other."""

Step = Callable[[np.random.Generator], float]


def ask_at_once(port: int, tables: Tables, run: Run, *, alerts: int, users: int) -> Iterator[Row]:
    """Let many users ask at once; then let as many threads read objects plainly.

    Parameters
    ----------
    port : int
        Of the server.
    tables : Tables
        HBase, with as many connections as the server has.
    run : Run
    alerts : int
        How many it has.
    users : int
    """

    def asking() -> Step:
        client = Client(port)
        return lambda rng: client.ask(question(rng, alerts))[0]

    def reading() -> Step:
        plain = PlainReader(tables, run)
        return lambda rng: plain.object(str(rng.integers(0, alerts // PER_OBJECT)))[0]

    times, errors, per_s = _crowd(users, asking)
    _, _, plain_per_s = _crowd(users, reading)
    yield at_most(f"errors of {users} users at once", len(errors), 0.0, "; ".join(errors[:1]))
    if times:
        yield Row(f"answers to {users} users, p95 [ms]", p95_ms(times))
        anchor = f"{users} threads read {plain_per_s:.0f} objects/s plainly"
        yield Row(f"answers to {users} users [1/s]", per_s, "", anchor)
        yield Row(f"answers to {users} users / plain reads", per_s / plain_per_s)


def _crowd(users: int, make: Callable[[], Step]) -> tuple[list[float], list[str], float]:
    """Return times [s] and errors of what all users do, and how many a second."""
    times: list[float] = []
    errors: list[str] = []

    def user(seed: int) -> None:
        rng, step = np.random.default_rng(seed), make()
        for _ in range(_EACH):
            try:
                times.append(step(rng))
            except (ServiceError, OSError, http.client.HTTPException) as error:
                errors.append(str(error))

    threads = [threading.Thread(target=user, args=(seed,)) for seed in range(users)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times, errors, len(times) / (time.perf_counter() - began)
