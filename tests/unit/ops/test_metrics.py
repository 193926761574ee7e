"""Metrics of a run in memory: right numbers, read once, and a text that can be parsed."""

import re

import pytest

from broker.errors import ServiceError
from broker.ops.metrics import METRICS, Metrics
from broker.spark.stats import latency_of
from broker.store.alerts import create_tables
from broker.store.ledger import Ledger
from broker.store.memory import MemoryTables
from broker.store.quarantine import Quarantine
from broker.topics.memory import MemoryTopics
from broker.topics.topic import Message, TopicSettings
from broker.types import OffsetRange, Run

RUN = Run("metrics")
LINE = re.compile(r'^(\w+)\{((?:\w+="(?:[^"\\]|\\.)*",?)*)\} (\S+)$')


def parse(page):
    """Return values by (name, labels) as a strict reader of the format sees them."""
    values = {}
    for line in page.splitlines():
        if line.startswith("#"):
            continue
        name, labels, value = LINE.match(line).groups()
        key = (name, frozenset(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels)))
        assert key not in values, f"{key} stands twice"
        values[key] = float(value)
    return values


def value(page, name, **labels):
    return parse(page)[f"nightjar_{name}", frozenset(labels.items())]


@pytest.fixture
def broker(tmp_path):
    topics, tables = MemoryTopics(), MemoryTables()
    create_tables(tables, RUN, 1)
    topics.create("a", TopicSettings(partitions=2))
    topics.send("a", [Message(b"x")] * 10, 0)
    topics.send("a", [Message(b"x")] * 5, 1)
    return topics, tables, Metrics(RUN, topics=topics, tables=tables, folder=tmp_path / "none")


def record(tables, batch_id, ranges, counts, spans=(0.7,)):
    stats = {
        "seconds": {"batch": 3.0, "store": 0.5, "module:rise": 0.25},
        "latency": latency_of(spans),
        "failures": {"rise": [2, "raised"]},
        "peakMb": {"rise": 3.0},
    }
    Ledger(tables, RUN).record("alerts", batch_id, ranges, counts, stats)


def without_disk(page):
    """Return a page but for the free space, which others change."""
    return [line for line in page.splitlines() if not line.startswith("nightjar_disk")]


def test_batches_add_up_and_each_is_counted_once(broker):
    _, tables, metrics = broker
    counts = {"consumed": 6, "stored": 5, "deadLetters": 1, "topic:sn": 2, "throttled:sn": 1}
    record(tables, 0, [OffsetRange("a", 0, 0, 4), OffsetRange("a", 1, 0, 2)], counts, (0.7, 4.0))
    metrics.page()
    record(tables, 0, [OffsetRange("a", 0, 0, 4), OffsetRange("a", 1, 0, 2)], counts)  # again
    record(tables, 1, [OffsetRange("a", 1, 2, 4)], {"stored": 1})

    page = metrics.page()

    assert value(page, "consumed_total", query="alerts", topic="a") == 8
    assert value(page, "outcomes_total", query="alerts", outcome="stored") == 6
    assert value(page, "batches_total", query="alerts") == 2
    assert value(page, "published_total", topic="sn") == 2
    assert value(page, "throttled_total", topic="sn") == 1
    assert value(page, "lag_messages", query="alerts", topic="a") == 6 + 1
    assert value(page, "stage_seconds_total", query="alerts", stage="store") == 1.0
    assert value(page, "module_seconds_total", module="rise") == 0.5
    assert value(page, "module_failures_total", module="rise") == 4
    assert value(page, "module_peak_bytes", module="rise") == 3 << 20
    # Of the second batch one message stands nowhere: the imbalance shows it.
    assert value(page, "ledger_imbalance_messages", query="alerts") == 1
    assert without_disk(page) == without_disk(metrics.page())


def test_histograms_are_cumulative_and_end_with_all(broker):
    _, tables, metrics = broker
    record(tables, 0, [OffsetRange("a", 0, 0, 3)], {"stored": 3}, (0.7, 4.0, 1e6))

    page = metrics.page()

    of = {bound: value(page, "latency_seconds_bucket", query="alerts", le=bound)
          for bound in ("0.5", "1.0", "5.0", "3600.0", "+Inf")}  # fmt: skip
    assert of == {"0.5": 0, "1.0": 1, "5.0": 2, "3600.0": 2, "+Inf": 3}
    assert value(page, "latency_seconds_count", query="alerts") == 3
    assert value(page, "latency_seconds_sum", query="alerts") == pytest.approx(1_000_004.7)
    assert value(page, "batch_seconds_bucket", query="alerts", le="2.0") == 0
    assert value(page, "batch_seconds_bucket", query="alerts", le="5.0") == 1


def test_quarantine_and_servers_are_told(broker, tmp_path):
    topics, tables, metrics = broker
    quarantine = Quarantine(tables, RUN)
    for _ in range(20):
        quarantine.record_failure("rise", "1.0", "raised")
    assert value(metrics.page(), "module_quarantined", module="rise", version="1.0") == 1

    def gone():
        raise ServiceError("gone")

    tables.names = gone
    page = Metrics(RUN, topics=topics, tables=tables, folder=tmp_path).page()
    assert value(page, "up", part="hbase") == 0
    assert value(page, "up", part="kafka") == 1
    assert value(page, "dead_letters") == 0


def test_each_metric_has_help_and_type_and_a_label_may_hold_anything(broker):
    _, tables, metrics = broker
    record(tables, 0, [OffsetRange('quo"te\\', 0, 0, 1)], {"stored": 1})

    page = metrics.page()

    assert value(page, "consumed_total", query="alerts", topic='quo\\"te\\\\') == 1
    for name, (kind, _) in METRICS.items():
        assert f"# TYPE nightjar_{name} {kind}\n" in page
        assert (kind == "counter") == name.endswith("_total")
