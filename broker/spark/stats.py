"""What is counted and timed in a batch, in the workers, and added up in the driver."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


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
    """

    counts: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    failures: dict[str, tuple[int, str]] = field(default_factory=dict)
    peak_mb: dict[str, float] = field(default_factory=dict)

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
        return self
