"""What the ledger and the quarantine must remember, on memory and on HBase."""

import uuid

import pytest

from broker.store.ledger import Ledger
from broker.store.quarantine import Quarantine
from broker.types import OffsetRange


@pytest.fixture
def query():
    return f"query-{uuid.uuid4().hex[:8]}"


def span(first, end, partition=0, topic="alerts.ztf"):
    return OffsetRange(topic, partition, first, end)


def test_what_was_consumed_is_merged_per_partition(tables, store_run, query):
    ledger = Ledger(tables, store_run)
    ledger.record(query, 0, [span(0, 10), span(5, 7, partition=1)], {"stored": 12}, {})
    ledger.record(query, 1, [span(10, 300), span(7, 7, partition=1)], {}, {})
    ledger.record(query, 2, [span(400, 401), span(0, 2, topic="alerts.sim")], {}, {})

    assert Ledger(tables, store_run).consumed(query) == [
        span(0, 2, topic="alerts.sim"),
        span(0, 300),
        span(400, 401),
        span(5, 7, partition=1),
    ]


def test_recording_a_batch_again_changes_nothing(tables, store_run, query):
    ledger = Ledger(tables, store_run)
    for _ in range(2):
        ledger.record(query, 3, [span(0, 10), span(0, 4, partition=1)], {"stored": 14}, {"s": 1.5})

    (batch,) = ledger.batches(query)

    assert (batch.query, batch.batch_id) == (query, 3)
    assert batch.ranges == (span(0, 10), span(0, 4, partition=1))
    assert batch.counts == {"stored": 14}
    assert batch.stats == {"s": 1.5}
    assert batch.recorded_ms > 1_700_000_000_000
    assert ledger.consumed(query) == [span(0, 10), span(0, 4, partition=1)]


def test_a_shorter_recording_does_not_hide_a_longer_one(tables, store_run, query):
    ledger = Ledger(tables, store_run)
    ledger.record(query, 0, [span(0, 100)], {}, {})
    ledger.record(query, 0, [span(0, 40)], {}, {})

    assert ledger.consumed(query) == [span(0, 100)]


def test_batches_are_in_their_order_and_empty_ones_leave_no_trace(tables, store_run, query):
    ledger = Ledger(tables, store_run)
    for i in range(3):
        ledger.record(query, i, [span(10 * i, 10 * i + 10)], {"n": i}, {})
    ledger.record(query, 3, [span(30, 30)], {}, {})
    ledger.record(query, 4, [], {}, {})

    assert [batch.counts for batch in ledger.batches(query)] == [{"n": 0}, {"n": 1}, {"n": 2}]


def test_queries_do_not_meet(tables, store_run, query):
    ledger = Ledger(tables, store_run)
    ledger.record(query, 0, [span(0, 1)], {}, {})
    ledger.record(query + "2", 0, [span(5, 6)], {}, {})

    assert ledger.consumed(query) == [span(0, 1)]
    assert {query, query + "2"} <= set(ledger.queries())
    assert ledger.consumed("unknown") == ledger.batches("unknown") == []


def test_repeated_failure_leads_to_quarantine_until_release(tables, store_run, query):
    quarantine = Quarantine(tables, store_run, failures_to_quarantine=3)
    for i in range(3):
        assert f"{query}@1.0" not in quarantine.quarantined()
        quarantine.record_failure(query, "1.0", f"raised {i}")

    assert f"{query}@1.0" in Quarantine(tables, store_run, failures_to_quarantine=3).quarantined()
    (status,) = [s for s in quarantine.status() if s.name == query]
    assert (status.version, status.failures, status.quarantined) == ("1.0", 3, True)
    assert status.reason == "raised 2"

    assert quarantine.release(query) == 1
    assert f"{query}@1.0" not in quarantine.quarantined()
    quarantine.record_failure(query, "1.0", "raised again")
    (status,) = [s for s in quarantine.status() if s.name == query]
    assert (status.failures, status.quarantined) == (1, False)


def test_a_new_version_starts_with_a_clean_slate(tables, store_run, query):
    quarantine = Quarantine(tables, store_run, failures_to_quarantine=1)
    quarantine.record_failure(query, "1.0", "raised")
    quarantine.record_failure(query + "b", "1.0", "raised")

    assert f"{query}@1.0" in quarantine.quarantined()
    assert f"{query}@1.1" not in quarantine.quarantined()
    assert quarantine.release("unknown") == 0


def test_what_is_newer_is_read_with_its_batches_and_new_partitions_are_found(
    tables, store_run, query
):
    ledger = Ledger(tables, store_run)
    ledger.record(query, 0, [span(0, 10), span(0, 4, partition=1)], {"stored": 14}, {})
    ledger.record(query, 1, [span(10, 20)], {"stored": 10}, {})
    ledger.record(query, 2, [span(0, 2, partition=11), span(20, 21)], {"stored": 3}, {})

    everything = list(ledger.newer(query, {}))
    newer = list(ledger.newer(query, {("alerts.ztf", 0): 10, ("alerts.ztf", 1): 4}))

    assert [part for part, _ in everything] == [
        span(0, 10),
        span(10, 20),
        span(20, 21),
        span(0, 4, partition=1),
        span(0, 2, partition=11),
    ]
    assert sorted(batch.batch_id for _, batch in everything if batch) == [0, 1, 2]
    assert [part for part, _ in newer] == [span(10, 20), span(20, 21), span(0, 2, partition=11)]
    assert sorted(batch.batch_id for _, batch in newer if batch) == [1, 2]
    ends = {("alerts.ztf", 0): 21, ("alerts.ztf", 1): 4, ("alerts.ztf", 11): 2}
    assert list(ledger.newer(query, ends)) == []
