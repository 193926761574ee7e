"""A stream under an even load: whether memory, handles, checkpoint and latency stay flat."""

import contextlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import psutil
from numpy.typing import ArrayLike

from broker.config import Config
from broker.errors import ServiceError
from broker.ops.faults.bed import Bed, bed_config
from broker.ops.faults.proof import Finding, Published, look
from broker.ops.trend import trend_of
from broker.store.ledger import Ledger
from broker.streaming.query import checkpoint_path

_EVERY_S = 5.0
_WARM_SHARE = 0.4
"""Of the time, before anything is judged: code is compiled, caches fill."""

_PATIENCE_S = 240.0
_HOUR_S = 3600.0
_SIGMAS = 3.0

MOST_PER_HOUR = {"memory": 0.15, "handles": 0.05, "checkpoint": 0.15, "latency": 0.3}
"""Growth in an hour, as a share of the mean, that would be too much."""

_UNITS = {"memory": "MB", "handles": "", "checkpoint": "kB", "latency": "s"}

Say = Callable[[str], None]


@dataclass(frozen=True)
class Slope:
    """How something changes with time.

    Parameters
    ----------
    what, unit : str
    mean : float
        Over the time that is judged.
    per_hour, error : float
        Change in an hour as a share of the mean, and its standard error.
    most : float
        What would be too much.
    """

    what: str
    unit: str
    mean: float
    per_hour: float
    error: float
    most: float

    @property
    def verdict(self) -> str:
        """`flat`, `grows`, or `open` where the time was too short to tell."""
        if self.per_hour - _SIGMAS * self.error > self.most:
            return "grows"
        return "flat" if self.per_hour + _SIGMAS * self.error <= self.most else "open"


@dataclass(frozen=True)
class Soak:
    """What a soak found.

    Parameters
    ----------
    seconds : float
    alerts, batches : int
        Finished.
    slopes : tuple of Slope
    finding : Finding
        What stands where afterwards.
    """

    seconds: float
    alerts: int
    batches: int
    slopes: tuple[Slope, ...]
    finding: Finding

    @property
    def is_good(self) -> bool:
        """Whether nothing grows for certain, and nothing is lost or twice."""
        return self.finding.is_good and all(one.verdict != "grows" for one in self.slopes)


def slope_of(what: str, times_s: ArrayLike, values: ArrayLike) -> Slope:
    """Return how much something grows in an hour.

    Parameters
    ----------
    what : str
        One of `MOST_PER_HOUR`.
    times_s : array_like, shape (n,)
        [s]
    values : array_like, shape (n,)

    Raises
    ------
    ServiceError
        If there are too few values.
    """
    found = trend_of(times_s, values)
    scale = _HOUR_S / found.mean if found.mean else 0.0
    return Slope(
        what,
        _UNITS[what],
        found.mean,
        found.slope * scale,
        found.error * scale,
        MOST_PER_HOUR[what],
    )


def bench_soak(config: Config, minutes: float, *, seed: int = 0, say: Say = lambda _: None) -> Soak:
    """Run a stream on servers of its own under an even load, and watch it.

    Parameters
    ----------
    config : Config
        Settings; servers with a home below its own and free ports are started for this.
    minutes : float
        How long, after a first batch. [minutes]
    seed : int
        Chooses the packets.
    say : callable
        Told what is seen.

    Raises
    ------
    ServiceError
        If the stream stands still.
    """
    bed = Bed(bed_config(config), seed)
    with bed.running():
        bed.load.burst(200)
        if not bed.drain(_PATIENCE_S):
            raise ServiceError("the stream does not come to the end of its topics")
        bed.load.start()
        began = time.time()
        samples = _watch(bed, began, 60.0 * minutes, say)
        bed.load.stop()
        if not bed.drain(_PATIENCE_S):
            raise ServiceError("the stream does not come to the end of its topics")
        finding = look(bed, Published(bed.topics, bed.servers.the_run))
        judged = began + _WARM_SHARE * 60.0 * minutes
        batches = [
            one
            for one in Ledger(bed.tables, bed.servers.the_run).batches("alerts")
            if judged < one.recorded_ms / 1000.0
        ]
        late = [one for one in samples if one[0] > judged]
        times = [one[0] for one in late]
        slopes = [
            slope_of(name, times, [one[i] for one in late])
            for i, name in enumerate(("memory", "handles", "checkpoint"), 1)
        ]
        ages = [
            (one.recorded_ms / 1000.0, latency["sum"] / max(sum(latency["counts"]), 1))
            for one in batches
            if (latency := one.stats.get("latency"))
        ]
        slopes.append(slope_of("latency", *zip(*ages, strict=True)))
        return Soak(time.time() - began, finding.entered, len(batches), tuple(slopes), finding)


def _watch(
    bed: Bed, began: float, seconds: float, say: Say
) -> list[tuple[float, float, float, float]]:
    """Return time, memory, handles and size of the checkpoints, every few seconds."""
    samples = []
    starts = bed.restarts
    while time.time() - began < seconds:
        time.sleep(_EVERY_S)
        if not bed.stream_runs() or bed.restarts != starts:
            raise ServiceError("the stream ended in mid-soak")
        parts = (psutil.Process(bed.stream_pid), *bed.stream_parts())
        samples.append((time.time(), *usage_of(parts), _checkpoint_kb(bed)))
        at, memory, handles, size = samples[-1]
        if len(samples) % 12 == 0:
            say(f"{at - began:.0f} s: {memory:.0f} MB, {handles} handles, checkpoint {size:.0f} kB")
    return samples


def usage_of(
    processes: Iterable[psutil.Process], *, least_age_s: float = _EVERY_S
) -> tuple[float, float]:
    """Return memory and open handles of processes, without those that are just being started.

    Between fork and exec a child has its parent's memory and handles, which are no more for it.

    Parameters
    ----------
    processes : iterable of psutil.Process
        Those that have ended count for nothing.
    least_age_s : float
        Younger ones count for nothing. [s]

    Returns
    -------
    memory : float
        [MB]
    handles : float
    """
    memory = handles = 0.0
    for one in processes:
        with contextlib.suppress(psutil.Error):
            if time.time() - one.create_time() < least_age_s:
                continue
            now, files = one.memory_info().rss, one.num_fds()
            memory, handles = memory + now / 1e6, handles + files
    return memory, handles


def _checkpoint_kb(bed: Bed) -> float:
    total = 0
    for file in checkpoint_path(bed.config, "alerts").parent.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += file.stat().st_size
    return total / 1000.0
