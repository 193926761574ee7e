"""The report of a simulated night: what came out, against what was put in."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from broker.alerts.packet import decode_sim
from broker.ops.accounts import Accounts
from broker.simulation.scores import Scores, compare_with_truth
from broker.store.ledger import Batch
from broker.topics.topic import Message, Topics
from broker.types import Coordinate, Run

PUBLISHED_HEADER = b"imageTimestampMs"
_SOURCE = ("visit", "detector", "ra", "dec", "raErr", "decErr", "psfFlux", "psfFluxErr",
           "reliability", "snr", "diaSourceId", "diaObjectId")  # fmt: skip

_PULL_SIGMAS, _MANY_PULLS = 4.0, 300
"""A small night's few pulls scatter by more than the demo's may be off."""

Marks = Mapping[tuple[str, int], int]
"""Where topics ended at some moment: offsets by (topic, partition)."""


@dataclass(frozen=True)
class Requirement:
    """One figure, and whether it is good enough."""

    name: str
    value: float
    wanted: str
    is_met: bool


@dataclass(frozen=True)
class NightReport:
    """What a night brought.

    Parameters
    ----------
    night : str
        Its label.
    counts : dict
        `images`, `alerts`, `packets`, `stored`, `deadLetters`.
    topics : dict
        Packets on each filter's topic, repeats left out.
    scores : Scores
        Against the truth.
    latency_s : tuple of float
        p50 and p95 from an image's publication to a packet of it on a topic; NaN without any. [s]
    alerts_per_s, megabytes_per_s : float
        Of query 2, while it worked.
    seconds : float
        From the start of the queries to their end. [s]
    accounts : Accounts
        The run's ledger.
    picture : Path or None
        One object, drawn.
    """

    night: str
    counts: dict[str, int]
    topics: dict[str, int]
    scores: Scores
    latency_s: tuple[float, float]
    alerts_per_s: float
    megabytes_per_s: float
    seconds: float
    accounts: Accounts
    picture: Path | None = None
    requirements: tuple[Requirement, ...] = field(default_factory=tuple)

    @property
    def is_good(self) -> bool:
        """Whether every requirement is met."""
        return all(requirement.is_met for requirement in self.requirements)


def marks_of(topics: Topics, names: Iterable[str]) -> dict[tuple[str, int], int]:
    """Return where topics end now; those that do not exist yet are left out."""
    known = set(topics.names())
    return {
        (part.topic, part.partition): part.end
        for name in names
        if name in known
        for part in topics.ranges(name)
    }


def new_since(topics: Topics, name: str, marks: Marks) -> Iterator[Message]:
    """Yield what a topic holds that came after the marks were taken."""
    for part in topics.ranges(name):
        first = max(part.first, marks.get((name, part.partition), 0))
        yield from topics.read(name, partition=part.partition, first=first, end=part.end)


def sources_of(topics: Topics, run: Run, marks: Marks) -> tuple[pa.Table, dict[Coordinate, int]]:
    """Return the diaSources of new simulated alerts, each once, and when their images came.

    Returns
    -------
    sources : pa.Table
        A row a diaSource, as `compare_with_truth` takes it.
    published_ms : dict
        Publication time of its image by the coordinate of an alert. [ms since 1970]
    """
    rows: dict[int, dict[str, Any]] = {}
    published: dict[Coordinate, int] = {}
    for message in new_since(topics, run.alerts_topic("sim"), marks):
        source = decode_sim(message.value or b"")["diaSource"]
        rows[source["diaSourceId"]] = {key: source[key] for key in _SOURCE}
        stamp = message.header(PUBLISHED_HEADER.decode())
        if message.coordinate is not None and stamp is not None:
            published[message.coordinate] = int(stamp)
    columns: dict[str, list[Any]] = {key: [row[key] for row in rows.values()] for key in _SOURCE}
    return pa.table(columns), published


def latencies(
    topics: Topics, names: Iterable[str], marks: Marks, published: Mapping[Coordinate, int]
) -> tuple[dict[str, int], list[float]]:
    """Return new packets by topic, repeats left out, and the time from image to packet. [s]"""
    counts: dict[str, int] = {}
    spans: list[float] = []
    for name in names:
        keys: set[bytes | None] = set()
        for message in new_since(topics, name, marks):
            keys.add(message.key)
            origin = _coordinate(message.header("origin"))
            if origin is not None and origin in published and message.timestamp_ms is not None:
                spans.append((message.timestamp_ms - published[origin]) / 1000.0)
        counts[name] = len(keys)
    return counts, spans


def _coordinate(text: bytes | None) -> Coordinate | None:
    if text is None:
        return None
    topic, partition, offset = text.decode().rsplit("/", 2)
    return Coordinate(topic, int(partition), int(offset))


def percentiles(spans: Sequence[float]) -> tuple[float, float]:
    """Return p50 and p95; NaN of nothing."""
    if not spans:
        return float("nan"), float("nan")
    p50, p95 = np.percentile(spans, (50, 95))
    return float(p50), float(p95)


def rates(batches: Iterable[Batch], megabytes: float) -> tuple[float, float]:
    """Return alerts and megabytes a second while query 2 worked on these batches."""
    seconds = messages = 0.0
    for batch in batches:
        seconds += batch.stats.get("seconds", {}).get("batch", 0.0)
        messages += sum(part.end - part.first for part in batch.ranges)
    return (messages / seconds, megabytes / seconds) if seconds else (float("nan"), float("nan"))


def score_night(sources: pa.Table, truth_file: Path) -> Scores:
    """Compare a night's diaSources with its truth."""
    return compare_with_truth(sources, pq.read_table(truth_file))


def requirements_of(scores: Scores, accounts: Accounts) -> tuple[Requirement, ...]:
    """Return what a night must reach."""
    position_pull = float(np.hypot(scores.ra_pull, scores.dec_pull) / np.sqrt(2.0))
    missing = accounts.total.missing
    return (
        Requirement("messages missing", missing, "0", missing == 0),
        Requirement("ledger problems", len(accounts.problems), "0", accounts.is_closed),
        Requirement("messages unread", accounts.unread, "0", accounts.unread == 0),
        _at_least("completeness at S/N > 8", scores.completeness(8.0), 0.95),
        _at_least("completeness at S/N 5–6", scores.completeness(5.0, 6.0), 0.5),
        _near_one("rms of flux pulls", scores.flux_pull, scores.n_pulls),
        _near_one("rms of position pulls", position_pull, 2 * scores.n_pulls),
        Requirement("false share after the reliability cut", 1.0 - scores.purity, "< 0.1",
                    bool(scores.purity > 0.9)),
    )  # fmt: skip


def _at_least(name: str, value: float, least: float) -> Requirement:
    return Requirement(name, value, f">= {least:g}", bool(value >= least))


def _near_one(name: str, value: float, number: int) -> Requirement:
    """Require an rms of pulls of 0.9 to 1.15; of a few pulls, four standard errors around 1."""
    low, high = 0.9, 1.15
    if number < _MANY_PULLS:
        scatter = _PULL_SIGMAS / np.sqrt(2.0 * max(number, 1))
        low, high = max(0.0, min(low, 1.0 - scatter)), max(high, 1.0 + scatter)
    return Requirement(name, value, f"{low:.3g}–{high:.3g}", bool(low <= value <= high))
