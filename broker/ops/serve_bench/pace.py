"""A stream's even pace, and what it costs beside users."""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from broker.bench_rows import Row, at_least, at_most

TRIGGER_S = 2.0
"""Between two batches. [s]"""

KEPT = 0.98
"""Of the users' rate that must be kept up: this share, at least."""

_MOST_COST = 1.10
"""The stream beside users, over the stream alone."""


@dataclass(frozen=True)
class Pace:
    """What users and a stream do beside each other.

    Parameters
    ----------
    survey : str
        Whose packets.
    alerts_per_s : float
        What the stream takes.
    asks_per_s : float
        What the users ask.
    """

    survey: str = "ztf"
    alerts_per_s: float = 280.0
    asks_per_s: float = 20.0


@dataclass(frozen=True)
class Passed:
    """One pass over all packets, its first batches left out.

    Parameters
    ----------
    per_s : float
        Alerts that were taken. [1/s]
    batch_s : sequence of float
        How long the batches of query 2 took. [s]
    busy_ms : float
        Time of the batches of both queries for an alert. [ms]
    core_ms : float
        Processor time of the stream and of Kafka for an alert. [ms]
    store_ms, server_ms : float
        Processor time of HBase with its gateway, and of the server, for an alert. [ms]
    """

    per_s: float
    batch_s: Sequence[float]
    busy_ms: float
    core_ms: float
    store_ms: float
    server_ms: float


def cost_rows(alone: Sequence[Passed], beside: Sequence[Passed], pace: Pace) -> Iterator[Row]:
    """Yield how the stream keeps its pace, and what it costs beside users over alone.

    Ratios are medians over pairs of passes, one after the other.
    """
    pairs = list(zip(alone, beside, strict=True))
    name = f"stream of {pace.survey}"
    for words, passes in (("alone", alone), ("beside users", beside)):
        middle = statistics.median(took for one in passes for took in one.batch_s)
        rate = statistics.median(one.per_s for one in passes)
        anchor = f"{pace.alerts_per_s:g} at most; batches of {TRIGGER_S:g} s take {middle:.2f} s"
        yield Row(f"{name} {words} [alerts/s]", rate, anchor=anchor)
    kept = statistics.median(b.per_s / a.per_s for a, b in pairs)
    yield at_least(f"{name}, alerts/s beside users / alone", kept, 1.0 / _MOST_COST)
    for words, key in (("processor time", "core_ms"), ("time of batches", "busy_ms")):
        ratio = statistics.median(getattr(b, key) / getattr(a, key) for a, b in pairs)
        anchor = f"{statistics.median(getattr(a, key) for a in alone):.2f} ms an alert alone"
        what = f"{name}, {words} beside users / alone"
        yield at_most(what, ratio, _MOST_COST, anchor)
