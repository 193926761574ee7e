"""Counts of tasks, on their way to the driver."""

import pytest

from broker.spark.stats import BatchStats


def test_statistics_of_tasks_add_up():
    total, one = BatchStats(), BatchStats({"stored": 2}, {"store": 0.5}, {"m": (1, "first")})

    total.add(one).add(
        BatchStats({"stored": 3, "deadLetters": 1}, {"store": 0.25}, {"m": (2, "last")})
    )
    total.add(BatchStats(peak_mb={"m": 3.0})).add(BatchStats(peak_mb={"m": 2.0, "n": 1.0}))

    assert total.counts == {"stored": 5, "deadLetters": 1}
    assert total.seconds == {"store": 0.75}
    assert total.failures == {"m": (3, "last")}
    assert total.peak_mb == {"m": 3.0, "n": 1.0}
    assert one.counts == {"stored": 2}


def test_times_of_arrival_of_tasks_become_one_histogram_of_latency():
    total, one = BatchStats(), BatchStats()
    one.arrive([100_000, 100_020, 99_000])
    total.add(one)
    total.arrive([40_000, 500_000])

    found = total.latency(now_s=100.3)

    by_bound = dict(zip([*found["bounds"], "more"], found["counts"], strict=True))
    assert {bound: n for bound, n in by_bound.items() if n} == {0.5: 3, 2.0: 1, 300.0: 1}
    assert found["sum"] == pytest.approx(0.25 + 0.25 + 1.25 + 60.25)
    assert total.latency(1e9)["counts"][-1] == 5
