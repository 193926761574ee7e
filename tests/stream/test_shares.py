"""A survey that is live beside another's backlog; and a checkpoint of the layout before."""

import dataclasses
import time
from collections import Counter

import pytest

from broker.config import StreamConfig
from broker.streaming.alerts import NAME, input_topics, read_surveys
from broker.streaming.checkpoint import committed, is_caught_up, last_commit
from broker.streaming.query import checkpoint_path, read_topics, start_query
from broker.topics.topic import Message, TopicSettings

MOST, BACKLOG, LIVE = 40, 400, 20


def wait_for(condition, query):
    limit = time.monotonic() + 120.0
    while not condition():
        assert query.isActive, query.exception()
        assert time.monotonic() < limit
        time.sleep(0.05)


@pytest.mark.timeout(420)
def test_all_that_is_live_is_taken_beside_a_backlog_also_with_an_old_checkpoint(
    spark, stack, kafka_topics, tmp_path, run
):
    config = dataclasses.replace(
        stack,
        home=tmp_path,
        run=run.name,
        stream=StreamConfig(max_alerts_per_trigger=MOST, trigger_s=0.1),
    )
    full, live = run.alerts_topic("ztf"), run.alerts_topic("sim")
    checkpoint = checkpoint_path(config, NAME)
    for topic in input_topics(config):
        kafka_topics.create(topic, TopicSettings(partitions=2))

    def send(topic, n):
        kafka_topics.send(topic, [Message(b"%d" % number) for number in range(n)])

    send(full, BACKLOG)
    send(live, LIVE)
    batches = {}

    def note(frame, batch_id):
        rows = frame.select("topic", "partition", "offset").collect()
        batches[batch_id] = sorted(tuple(row) for row in rows)

    def note_one_and_fail(frame, batch_id):
        note(frame, batch_id)
        if batch_id:
            raise RuntimeError("begun, and not finished")

    # As it was: all surveys are one source. A batch is divided by what waits.
    one = read_topics(spark, config, input_topics(config), max_per_trigger=MOST)
    query = start_query(one, note_one_and_fail, name=NAME, config=config)
    with pytest.raises(Exception, match="begun, and not finished"):
        query.awaitTermination(120)
    assert last_commit(checkpoint) == 0
    assert Counter(topic for topic, _, _ in batches[0])[live] <= 4
    begun = batches[1]

    send(live, LIVE)
    query = start_query(read_surveys(spark, config), note, name=NAME, config=config)
    ranges = [part for topic in input_topics(config) for part in kafka_topics.ranges(topic)]
    try:
        wait_for(lambda: is_caught_up(committed(checkpoint), ranges), query)
    finally:
        query.stop()

    assert batches[1] == begun, "the batch that was begun has what it had"
    taken = Counter(topic for topic, _, _ in batches[2])
    n_before = sum(topic == live for batch in (0, 1) for topic, _, _ in batches[batch])
    assert taken[live] == 2 * LIVE - n_before
    assert MOST - 2 < taken[full] <= MOST  # Spark rounds each partition's share down
    places = [place for batch in batches.values() for place in batch]
    assert len(places) == len(set(places)) == BACKLOG + 2 * LIVE
