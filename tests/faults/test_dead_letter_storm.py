"""Nothing but bad messages for a while, then a schema that was missing is dropped in."""

import dataclasses
import itertools

import numpy as np
import pytest

from broker.config import StreamConfig
from broker.ops.accounts import accounts_of
from broker.simulation.packets import simulate_packets
from broker.streaming.query import run_queries
from broker.topics.publish import read_dead_letters
from broker.topics.topic import Message, TopicSettings

N_BAD = 3000


def bad(rng, packets):
    """Yield rubbish of all sizes, and packets that are cut short."""
    for number in itertools.count():
        if number % 3:
            yield rng.bytes(int(rng.integers(0, 3000)))
        else:
            packet = packets[number % len(packets)]
            yield packet[: int(rng.integers(1, len(packet)))]


@pytest.mark.timeout(420)
def test_a_storm_of_bad_messages_is_kept_and_does_not_stop_the_good_ones(
    stack, kafka_topics, hbase_tables, tmp_path, run
):
    config = dataclasses.replace(
        stack, home=tmp_path, run=run.name, stream=StreamConfig(idle_s=0.0)
    )
    topic = run.alerts_topic("ztf")
    kafka_topics.create(topic, TopicSettings(partitions=2))
    good = list(simulate_packets("ztf", 20, 8))
    storm = list(itertools.islice(bad(np.random.default_rng(4), good), N_BAD))
    sent = kafka_topics.send(topic, [Message(packet) for packet in [*storm, *good]])

    summary = run_queries(config, ["alerts"], until_idle=True)

    assert summary["queries"]["alerts"]["restarts"] == 0
    letters = {letter.origin: letter for letter in read_dead_letters(kafka_topics, run)}
    for coordinate, packet in zip(sent[:N_BAD], storm, strict=True):
        assert (letters[coordinate].value or b"") == packet
        assert letters[coordinate].reason
    assert len(letters) == N_BAD
    accounts = accounts_of(kafka_topics, hbase_tables, run)
    assert accounts.is_closed
    assert (accounts.total.stored, accounts.total.dead_letters) == (len(good), N_BAD)
