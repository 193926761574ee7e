"""Packets sent in transactions: whoever reads what is committed gets each exactly once."""

import signal
import subprocess
import sys

import pytest
from kafka import KafkaConsumer, TopicPartition

from broker.config import Config, load_config
from broker.ops.faults import bench_faults
from broker.topics.kafka_transaction import TransactionalSender
from broker.topics.topic import Message, TopicSettings

pytestmark = pytest.mark.servers

CHOSEN = ("sent", "committed", "published")
SENDER = """
import os, signal, sys
from broker.topics.kafka_transaction import TransactionalSender
from broker.topics.topic import Message

bootstrap, topic, last = sys.argv[1:]
with TransactionalSender(bootstrap).begin("t", group=topic, place=(topic, 0)) as transaction:
    transaction.send((topic, Message(b"first", b"%d" % k)) for k in range(50))
    transaction.flush()
    if last == "sent":
        os.kill(os.getpid(), signal.SIGKILL)
    transaction.commit(50)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def read(bootstrap, topic, level):
    """Read a partition to its end with the plain client, not through ours."""
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap, isolation_level=level, auto_offset_reset="earliest"
    )
    part = TopicPartition(topic, 0)
    try:
        consumer.assign([part])
        consumer.seek_to_beginning(part)
        end = consumer.end_offsets([part])[part]
        found = []
        while consumer.position(part) < end:
            for records in consumer.poll(timeout_ms=500).values():
                found += [(record.key, record.value) for record in records]
        return found
    finally:
        consumer.close()


@pytest.mark.parametrize("last", ["sent", "committed"])
def test_a_sender_killed_around_its_commit_leaves_each_message_once(stack, kafka_topics, run, last):
    topic = run.public_topic("twice", "slim")
    kafka_topics.create(topic, TopicSettings(partitions=1))
    bootstrap = stack.kafka.bootstrap
    killed = subprocess.run(
        [sys.executable, "-c", SENDER, bootstrap, topic, last], timeout=120, check=False
    )
    assert killed.returncode == -signal.SIGKILL

    with TransactionalSender(bootstrap).begin("t", group=topic, place=(topic, 0)) as transaction:
        assert transaction.done == (0 if last == "sent" else 50)
        left = range(transaction.done, 60)
        transaction.send((topic, Message(b"first", b"%d" % k)) for k in left)
        transaction.commit(60)

    once = [(b"%d" % k, b"first") for k in range(60)]
    assert read(bootstrap, topic, "read_committed") == once
    every = read(bootstrap, topic, "read_uncommitted")
    assert len(every) == (110 if last == "sent" else 60)
    # What is open or dropped is not there for the rest of the broker either.
    (part,) = kafka_topics.ranges(topic)
    ours = kafka_topics.read(topic, partition=0, first=part.first, end=part.end)
    assert [(message.key, message.value) for message in ours] == once


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    config = Config(home=tmp_path_factory.mktemp("once"), cache=load_config().cache)
    return bench_faults(config, CHOSEN, seed=6, transactions=True, say=print)


@pytest.mark.parametrize("kind", CHOSEN)
@pytest.mark.timeout(900)
def test_a_stream_killed_around_a_commit_sends_nothing_twice(bench, kind):
    (row,) = (row for row in bench.rows if row.kind == kind)

    assert row.problem == ""
    assert row.recovery_s is not None
    assert (row.lost, row.twice, row.repeats, row.unequal) == (0, 0, 0, 0)
    assert row.entered > 0


def test_rows_and_packets_are_those_of_an_undisturbed_run(bench):
    assert bench.differences == []
