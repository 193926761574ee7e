"""What an operator wants to read in the morning: one night of a run, in a mail or a web-hook."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from broker.ops.accounts import QUERIES, Accounts, accounts_of
from broker.store.ledger import Batch, Ledger
from broker.store.quarantine import Quarantine
from broker.store.table import Tables
from broker.topics.publish import read_dead_letters
from broker.topics.topic import Topics
from broker.types import Run, night_of
from broker.units import unix_s_to_mjd_tai

_MOST_REASONS = 5
_NAMES = re.compile(r"\b(?=\w*\d)\w{6,}\b|[-+]?\d+\.\d+(?:e[-+]?\d+)?")
"""What may name an alert or its place: words of six and more with a digit, and fractions."""


@dataclass(frozen=True)
class QueryNight:
    """What one query did in a night.

    Parameters
    ----------
    query : str
    batches, messages : int
        Finished.
    batch_p50_s, batch_p95_s : float
        Time that a batch took; NaN where it is not recorded. [s]
    latency_p50_s, latency_p95_s : float
        From the input topic to the end of the batch; an upper bound, since latencies are counted
        in classes; NaN where it is not recorded. [s]
    """

    query: str
    batches: int
    messages: int
    batch_p50_s: float
    batch_p95_s: float
    latency_p50_s: float
    latency_p95_s: float


@dataclass(frozen=True)
class NightOnDuty:
    """A night of a run, as batches of the ledger tell it.

    Parameters
    ----------
    run, night : str
        Which; a night is from noon to noon (UTC).
    queries : sequence of QueryNight
        Those that finished something.
    published, throttled : mapping of str to int
        Alerts by topic: sent, and held back because the topic flooded.
    dead_letters : mapping of str to int
        By stage.
    reasons : sequence of (str, int)
        Why, the most frequent first; names and positions of alerts are left out.
    failures : mapping of str to int
        Batches in which a module or filter failed.
    quarantined : sequence of str
        Who may not run now.
    accounts : Accounts
        Where the night's messages ended.
    """

    run: str
    night: str
    queries: Sequence[QueryNight]
    published: Mapping[str, int]
    throttled: Mapping[str, int]
    dead_letters: Mapping[str, int]
    reasons: Sequence[tuple[str, int]]
    failures: Mapping[str, int]
    quarantined: Sequence[str]
    accounts: Accounts = field(repr=False)

    @property
    def is_good(self) -> bool:
        """Whether every message of the night stands in exactly one place."""
        return self.accounts.is_closed

    @property
    def subject(self) -> str:
        """One line."""
        total = self.accounts.total
        words = "all accounted for" if self.is_good else f"{total.missing} MISSING"
        if not self.is_good and not total.missing:
            words = f"{len(self.accounts.problems)} PROBLEMS in the ledger"
        return f"Night {self.night}, run {self.run}: {total.consumed} messages, {words}"

    @property
    def text(self) -> str:
        """All of it, to be read."""
        total = self.accounts.total
        lines = [self.subject, ""]
        lines += [
            f"{one.query}: {one.messages} messages in {one.batches} batches"
            f"{_spans('a batch', one.batch_p50_s, one.batch_p95_s)}"
            f"{_spans('latency up to', one.latency_p50_s, one.latency_p95_s)}"
            for one in self.queries
        ]
        lines += [
            f"ledger: stored {total.stored}, duplicates {total.duplicates}, dead letters "
            f"{total.dead_letters}, without template {total.no_template}, missing {total.missing}; "
            f"{self.accounts.unread} wait"
        ]
        parts: tuple[tuple[str, Mapping[str, int]], ...] = (
            ("published", self.published),
            ("held back", self.throttled),
            ("dead letters", self.dead_letters),
            ("modules that failed, batches", self.failures),
        )
        lines += [f"{name}: {_counts(counts)}" for name, counts in parts if counts]
        lines += [f"  {number} x {reason}" for reason, number in self.reasons]
        lines += [f"quarantined: {', '.join(self.quarantined)}"] if self.quarantined else []
        return "\n".join([*lines, ""])

    def as_json(self) -> dict[str, Any]:
        """All of it for a program, by wire names; numbers that are not known are null."""
        rows = [
            {
                _camel(k): (None if isinstance(v, float) and not np.isfinite(v) else v)
                for k, v in asdict(one).items()
            }
            for one in self.queries
        ]
        return {
            "run": self.run,
            "night": self.night,
            "isGood": self.is_good,
            "queries": rows,
            "published": dict(self.published),
            "throttled": dict(self.throttled),
            "deadLetters": dict(self.dead_letters),
            "reasons": [{"reason": reason, "number": n} for reason, n in self.reasons],
            "moduleFailures": dict(self.failures),
            "quarantined": list(self.quarantined),
            "ledger": self.accounts.total.as_json(),
            "unread": self.accounts.unread,
            "text": self.text,
        }


def night_on_duty(topics: Topics, tables: Tables, run: Run, night: str) -> NightOnDuty:
    """Gather what happened in one night of a run.

    Parameters
    ----------
    topics, tables : Topics, Tables
        Where the run's messages and rows are.
    run : Run
        The run.
    night : str
        `YYYYMMDD`: batches that were finished between its noon and the next (UTC).

    Raises
    ------
    ServiceError
        If a server does not answer.
    """
    batches = _batches(tables, run, night)
    stages: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for letter in read_dead_letters(topics, run):
        if _is_of(letter.timestamp_ms, night):
            stages[letter.stage] += 1
            reasons[_said_of_none(letter.reason)] += 1
    counts: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    for batch in batches.get("alerts", ()):
        counts.update(batch.counts)
        failures.update(batch.stats.get("failures", {}).keys())
    return NightOnDuty(
        run=run.name,
        night=night,
        queries=[_query_night(name, found) for name, found in batches.items() if found],
        published=_named(counts, "topic:"),
        throttled=_named(counts, "throttled:"),
        dead_letters=dict(stages),
        reasons=reasons.most_common(_MOST_REASONS),
        failures=dict(failures),
        quarantined=_quarantined(tables, run),
        accounts=accounts_of(topics, tables, run, night=night),
    )


def _said_of_none(reason: str) -> str:
    """Return why in words without names and numbers: it leaves by mail, also of private alerts."""
    first = reason.splitlines()[0] if reason else "no reason"
    return _NAMES.sub("…", first)[:120]


def _batches(tables: Tables, run: Run, night: str) -> dict[str, list[Batch]]:
    if run.table("ledger") not in tables.names():
        return {}
    ledger = Ledger(tables, run)
    return {
        query: [one for one in ledger.batches(query) if _is_of(one.recorded_ms, night)]
        for query in QUERIES
    }


def _is_of(time_ms: int, night: str) -> bool:
    return night_of(float(unix_s_to_mjd_tai(time_ms / 1000.0))) == night


def _query_night(query: str, batches: Sequence[Batch]) -> QueryNight:
    spans = [batch.stats.get("seconds", {}).get("batch", np.nan) for batch in batches]
    known = [span for span in spans if np.isfinite(span)]
    p50, p95 = np.percentile(known, (50, 95)) if known else (np.nan, np.nan)
    return QueryNight(
        query,
        len(batches),
        sum(part.end - part.first for batch in batches for part in batch.ranges),
        float(p50),
        float(p95),
        *(_latency(batches, share) for share in (0.5, 0.95)),
    )


def _latency(batches: Sequence[Batch], share: float) -> float:
    """Return the upper end of the class in which a share of the latencies lies. [s]"""
    found = [one.stats["latency"] for one in batches if one.stats.get("latency")]
    if not found:
        return float("nan")
    counts = np.sum([one["counts"] for one in found], axis=0)
    bounds = [*found[0]["bounds"], np.inf]
    return float(bounds[int(np.searchsorted(np.cumsum(counts), share * counts.sum()))])


def _quarantined(tables: Tables, run: Run) -> list[str]:
    if run.table("quarantine") not in tables.names():
        return []
    return sorted(Quarantine(tables, run).quarantined())


def _named(counts: Mapping[str, int], prefix: str) -> dict[str, int]:
    return {
        name.removeprefix(prefix): number
        for name, number in sorted(counts.items())
        if name.startswith(prefix)
    }


def _spans(what: str, p50: float, p95: float) -> str:
    return f"; {what}: p50 {p50:.1f} s, p95 {p95:.1f} s" if np.isfinite(p50) else ""


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in sorted(counts.items()))


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
