"""Counts of tasks, on their way to the driver."""

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
