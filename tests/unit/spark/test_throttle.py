"""A topic that floods is held back to its share, visibly, and the same way when repeated."""

import json

import numpy as np

from broker.spark.stats import BatchStats
from broker.spark.throttle import HEADER, FloodWatch, Share, let_out
from broker.store.ledger import Batch
from broker.types import OffsetRange

KEYS = [f"ztf|{i}".encode() for i in range(20_000)]


def ranges(i):
    return (OffsetRange("alerts.ztf", 0, 100 * i, 100 * (i + 1)),)


def batch(i, passed, held=0, alerts=100):
    counts = {"stored": alerts, "topic:a": passed, "throttled:a": held, "topic:b": 1}
    return Batch("alerts", i, ranges(i), counts)


def test_a_topic_floods_only_beyond_chance_and_when_enough_was_seen():
    assert not Share("a", 0.1, 999, 999, 0, 1000).is_flood  # too few to judge
    assert not Share("a", 0.1, 1000, 100, 0, 1000).is_flood
    assert not Share("a", 0.1, 1000, 140, 0, 1000).is_flood  # 4.2 sigma
    assert Share("a", 0.1, 1000, 160, 0, 1000).is_flood
    assert not Share("a", 1.0, 1000, 1000, 0, 1000).is_flood


def test_what_goes_out_is_its_declared_share_and_the_same_every_time():
    share = Share("a", 0.1, 1000, 500, 0, 1000)  # half pass, a tenth may
    first, second = ([share.keeps(key) for key in KEYS] for _ in range(2))

    assert share.kept == 0.2
    assert first == second
    sigma = np.sqrt(0.2 * 0.8 / len(KEYS))
    assert abs(np.mean(first) - 0.2) < 4.0 * sigma


def test_nothing_is_held_back_unseen():
    share = Share("a", 0.1, 1000, 500, 0, 1000)
    stats = BatchStats()

    out = {key: list(let_out({"a": share}, ["a", "b"], key, stats)) for key in KEYS}

    assert stats.counts["topic:a"] + stats.counts["throttled:a"] == len(KEYS)
    assert stats.counts["topic:b"] == len(KEYS)
    for went in out.values():
        assert went[-1] == ("b", ())
        for topic, headers in went[:-1]:
            assert topic == "a"
            ((name, text),) = headers
            assert name == HEADER
            assert json.loads(text) == {"share": 0.5, "limit": 0.1, "alerts": 1000, "kept": 0.2}


def test_passes_that_were_held_back_count_and_it_ends_with_the_flood():
    watch = FloodWatch({"a": 0.1, "b": 0.1}, [batch(i, 10, held=40) for i in range(10)], 1000)

    assert watch.floods(ranges(10))["a"].share == 0.5
    assert set(watch.floods(ranges(10))) == {"a"}
    for i in range(10, 20):
        watch.note(ranges(i), batch(i, 5).counts)
    assert watch.floods(ranges(20)) == {}


def test_a_batch_that_is_repeated_is_judged_as_before():
    history = [batch(i, 5 if i < 7 else 90) for i in range(15)]
    watch = FloodWatch({"a": 0.1}, history, 1000)
    before = watch.floods(ranges(15))
    watch.note(ranges(15), batch(15, 100).counts)  # it was recorded, and is repeated after all

    restarted = FloodWatch({"a": 0.1}, [*history, batch(15, 100)], 1000)

    assert before["a"].passed == 2 * 5 + 8 * 90
    assert watch.floods(ranges(15)) == before == restarted.floods(ranges(15))
    assert watch.floods(ranges(16))["a"].passed == 5 + 8 * 90 + 100
