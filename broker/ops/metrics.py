"""The broker's numbers in the text format that Prometheus reads.

Counters follow from the ledger, which is written when a batch is finished: so they survive a
crash, never run ahead of the data, and count a repeated batch once. Each look reads what is new.
"""

import shutil
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from broker import __version__
from broker.errors import BrokerError
from broker.store.ledger import Batch, Ledger
from broker.store.quarantine import Quarantine
from broker.store.table import Tables
from broker.topics.publish import dead_letters_topic
from broker.topics.topic import Topics
from broker.types import Run

PREFIX = "nightjar"

METRICS: dict[str, tuple[str, str]] = {
    "info": ("gauge", "Version and run; always 1."),
    "up": ("gauge", "Whether a server answers, by part."),
    "disk_free_bytes": ("gauge", "Free space where the data are."),
    "lag_messages": ("gauge", "Messages on an input topic that a query has not finished."),
    "consumed_total": ("counter", "Messages that a query has finished, by topic."),
    "outcomes_total": ("counter", "What became of messages, by query and outcome."),
    "ledger_imbalance_messages": (
        "gauge",
        "Messages finished by a query less those that its batches say ended somewhere.",
    ),
    "batches_total": ("counter", "Batches that a query has finished."),
    "last_batch_timestamp_seconds": ("gauge", "When a query finished its newest batch."),
    "batch_seconds": ("histogram", "Time that a batch took, by query."),
    "latency_seconds": ("histogram", "From a message's input topic to the end of its batch."),
    "stage_seconds_total": ("counter", "Time that stages took in the workers, by query."),
    "module_seconds_total": ("counter", "Time that a science module or filter took."),
    "module_failures_total": ("counter", "Batches that a science module or filter failed in."),
    "module_peak_bytes": ("gauge", "Memory that a module took at most."),
    "module_quarantined": ("gauge", "Whether a module or filter may not run."),
    "published_total": ("counter", "Alerts that went to a topic."),
    "throttled_total": ("counter", "Alerts that a flood kept from a topic."),
    "dead_letters": ("gauge", "Dead letters on their topic."),
}
"""Kind and help of every metric, by its name without the prefix."""

ENDS = {
    "alerts": ("stored", "deadLetters"),
    "images": ("done", "failed", "no-template", "duplicate"),
    "notices": ("stored", "duplicates", "deadLetters"),
}
"""The counts of a batch that add up to what it consumed, by query."""

_BATCH_BOUNDS_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0)

Labels = tuple[tuple[str, str], ...]


class Totals:
    """What the batches of the ledger add up to.

    Parameters
    ----------
    ledger : Ledger
        Where they are recorded.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.values: dict[tuple[str, Labels], float] = defaultdict(float)
        self.ends: dict[str, dict[tuple[str, int], int]] = {}
        self._ledger = ledger

    def update(self) -> None:
        """Add the batches that are new."""
        for query in self._ledger.queries():
            ends = self.ends.setdefault(query, {})
            for part, batch in self._ledger.newer(query, dict(ends)):
                place = (part.topic, part.partition)
                ends[place] = max(part.end, ends.get(place, 0))
                self._add("consumed_total", part.end - part.first, query=query, topic=part.topic)
                if query in ENDS:
                    self._add("ledger_imbalance_messages", part.end - part.first, query=query)
                if batch is not None:
                    self._take(batch)

    def _take(self, batch: Batch) -> None:
        query = batch.query
        self._add("batches_total", 1, query=query)
        newest = ("last_batch_timestamp_seconds", (("query", query),))
        self.values[newest] = max(self.values[newest], batch.recorded_ms / 1000.0)
        for name, n in batch.counts.items():
            kind, _, of = name.partition(":")
            if kind in ("topic", "throttled") and of:
                metric = "published_total" if kind == "topic" else "throttled_total"
                self._add(metric, n, topic=of)
                continue
            self._add("outcomes_total", n, query=query, outcome=name)
            if name in ENDS.get(query, ()):
                self._add("ledger_imbalance_messages", -n, query=query)
        self._take_stats(query, batch.stats)

    def _take_stats(self, query: str, stats: Mapping[str, Any]) -> None:
        for name, seconds in stats.get("seconds", {}).items():
            kind, _, of = name.partition(":")
            if of:
                self._add("module_seconds_total", seconds, module=of)
            elif name == "batch":
                self._observe("batch_seconds", _BATCH_BOUNDS_S, _one(seconds), seconds, query)
            else:
                self._add("stage_seconds_total", seconds, query=query, stage=kind)
        if latency := stats.get("latency"):
            counts = latency["counts"]
            self._observe("latency_seconds", latency["bounds"], counts, latency["sum"], query)
        for name, (n, _) in stats.get("failures", {}).items():
            self._add("module_failures_total", n, module=name)
        for name, peak_mb in stats.get("peakMb", {}).items():
            at = ("module_peak_bytes", (("module", name),))
            self.values[at] = max(self.values[at], peak_mb * (1 << 20))

    def _observe(self, name: str, bounds: Any, counts: Any, total: float, query: str) -> None:
        seen = 0
        for bound, n in zip([*bounds, "+Inf"], counts, strict=True):
            seen += n
            self._add(f"{name}_bucket", seen, query=query, le=str(bound))
        self._add(f"{name}_count", seen, query=query)
        self._add(f"{name}_sum", total, query=query)

    def _add(self, metric: str, n: float, **labels: str) -> None:
        self.values[metric, tuple(labels.items())] += n


def _one(seconds: float) -> list[int]:
    at = sum(seconds > bound for bound in _BATCH_BOUNDS_S)
    return [int(i == at) for i in range(len(_BATCH_BOUNDS_S) + 1)]


class Metrics:
    """The metrics of a run, as a page of text; may be asked from several threads.

    Parameters
    ----------
    run : Run
        What is measured.
    topics, tables : Topics, Tables
        On its servers.
    folder : Path
        Where the data are; whose disk may get full.
    """

    def __init__(self, run: Run, *, topics: Topics, tables: Tables, folder: Path) -> None:
        self._run, self._topics, self._tables, self._folder = run, topics, tables, folder
        self._totals = Totals(Ledger(tables, run))
        self._lock = threading.Lock()

    def page(self) -> str:
        """Return all metrics; those of a server that does not answer are left as they were."""
        with self._lock:
            now = self._now()
            now |= {(name, labels): v for (name, labels), v in self._totals.values.items()}
            return "".join(_lines(now))

    def _now(self) -> dict[tuple[str, Labels], float]:
        """Return what is looked up, and bring the totals up to date."""
        run = self._run
        values: dict[tuple[str, Labels], float] = {
            ("info", (("version", __version__), ("run", run.name))): 1.0,
            ("disk_free_bytes", ()): float(_free(self._folder)),
        }
        for part, look in (("hbase", self._hbase), ("kafka", self._kafka)):
            try:
                values |= look()
                up = 1.0
            except BrokerError:
                up = 0.0
            values["up", (("part", part),)] = up
        return values

    def _hbase(self) -> dict[tuple[str, Labels], float]:
        names = set(self._tables.names())
        run = self._run
        if run.table("ledger") in names:
            self._totals.update()
        if run.table("quarantine") not in names:
            return {}
        status = Quarantine(self._tables, run).status()
        return {
            ("module_quarantined", (("module", one.name), ("version", one.version))): float(
                one.quarantined
            )
            for one in status
        }

    def _kafka(self) -> dict[tuple[str, Labels], float]:
        values: dict[tuple[str, Labels], float] = defaultdict(float)
        names = set(self._topics.names())
        for query, ends in self._totals.ends.items():
            for topic in {topic for topic, _ in ends} & names:
                lag = sum(
                    max(0, part.end - max(part.first, ends.get((topic, part.partition), 0)))
                    for part in self._topics.ranges(topic)
                )
                values["lag_messages", (("query", query), ("topic", topic))] = float(lag)
        dead = dead_letters_topic(self._run)
        parts = self._topics.ranges(dead) if dead in names else []
        values["dead_letters", ()] = float(sum(part.end - part.first for part in parts))
        return values


def _free(folder: Path) -> int:
    place = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(place).free


def _lines(values: Mapping[tuple[str, Labels], float]) -> Iterator[str]:
    by_metric: dict[str, list[tuple[str, Labels, float]]] = defaultdict(list)
    for (name, labels), value in values.items():
        by_metric[_metric_of(name)].append((name, labels, value))
    for metric, (kind, words) in METRICS.items():
        yield f"# HELP {PREFIX}_{metric} {words}\n# TYPE {PREFIX}_{metric} {kind}\n"
        for name, labels, value in by_metric.get(metric, ()):
            inside = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels)
            yield f"{PREFIX}_{name}{{{inside}}} {value:.17g}\n"


def _metric_of(name: str) -> str:
    for suffix in ("_bucket", "_count", "_sum"):
        if METRICS.get(name.removesuffix(suffix), ("",))[0] == "histogram":
            return name.removesuffix(suffix)
    return name


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
