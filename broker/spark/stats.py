"""What is counted and timed in a batch, in the workers, and added up in the driver."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

LATENCY_BOUNDS_S = (0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 60.0, 300.0, 3600.0)
"""Upper bounds of the classes of latency; what is slower is in one more. [s]"""

_BIN_MS = 100
"""Times of arrival are kept to this."""


@dataclass
class BatchStats:
    """Counts and times; two of them add up.

    Parameters
    ----------
    counts : dict
        By name; packets of a topic under `topic:<name>`.
    seconds : dict
        Time by stage, and of each contribution under `module:<name>`. [s]
    failures : dict
        By contribution, how many batches it failed in, and the last reason.
    peak_mb : dict
        By contribution, the memory it took at most. [MiB]
    arrivals : dict
        How many messages came in each tenth of a second, by its number since 1970.
    """

    counts: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    failures: dict[str, tuple[int, str]] = field(default_factory=dict)
    peak_mb: dict[str, float] = field(default_factory=dict)
    arrivals: dict[int, int] = field(default_factory=dict)

    def count(self, name: str, n: int = 1) -> None:
        """Add to a count."""
        if n:
            self.counts[name] = self.counts.get(name, 0) + n

    def spend(self, stage: str, seconds: float) -> None:
        """Add to a stage's time. [s]"""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    def fail(self, name: str, reason: str, n: int = 1) -> None:
        """Add to a contribution's failures."""
        self.failures[name] = (self.failures.get(name, (0, ""))[0] + n, reason)

    def take_memory(self, name: str, peak_mb: float) -> None:
        """Remember what a contribution took, if it is more than before. [MiB]"""
        self.peak_mb[name] = max(peak_mb, self.peak_mb.get(name, 0.0))

    def arrive(self, timestamps_ms: ArrayLike) -> None:
        """Note when messages came to their topic. [ms since 1970]"""
        bins, numbers = np.unique(np.asarray(timestamps_ms) // _BIN_MS, return_counts=True)
        self._arrive(zip(bins.tolist(), numbers.tolist(), strict=True))

    def _arrive(self, pairs: Iterable[tuple[int, int]]) -> None:
        for at, n in pairs:
            self.arrivals[at] = self.arrivals.get(at, 0) + n

    def latency(self, now_s: float) -> dict[str, Any]:
        """Return a histogram of how long ago the messages came, by wire names.

        Parameters
        ----------
        now_s : float
            When all that is to be done with them is done. [s since 1970]
        """
        return latency_of(
            [(now_s * 1000.0 - (at + 0.5) * _BIN_MS) / 1000.0 for at in self.arrivals],
            list(self.arrivals.values()),
        )

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time of a block to a stage."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.spend(stage, time.perf_counter() - began)

    def add(self, other: "BatchStats") -> "BatchStats":
        """Add another's numbers to these; returns these."""
        for name, n in other.counts.items():
            self.count(name, n)
        for name, seconds in other.seconds.items():
            self.spend(name, seconds)
        for name, (n, reason) in other.failures.items():
            self.fail(name, reason, n)
        for name, peak_mb in other.peak_mb.items():
            self.take_memory(name, peak_mb)
        self._arrive(other.arrivals.items())
        return self


def latency_of(spans_s: ArrayLike, numbers: ArrayLike | None = None) -> dict[str, Any]:
    """Return a histogram of latencies, by wire names: bounds, counts, sum.

    Parameters
    ----------
    spans_s : array_like
        Latencies; clocks that disagree make no negative ones. [s]
    numbers : array_like, optional
        How many messages each stands for; default one.
    """
    spans = np.maximum(np.asarray(spans_s, np.float64), 0.0)
    weights = np.ones(spans.shape) if numbers is None else np.asarray(numbers, np.float64)
    classes = np.searchsorted(LATENCY_BOUNDS_S, spans)
    counts = np.bincount(classes, weights, minlength=len(LATENCY_BOUNDS_S) + 1)
    return {
        "bounds": list(LATENCY_BOUNDS_S),
        "counts": [int(n) for n in counts],
        "sum": float((spans * weights).sum()),
    }
