"""What only a Kafka server can show."""

import pickle
import time

import pytest
from kafka import KafkaProducer

from broker.errors import ServiceError
from broker.topics.kafka import KafkaTopics
from broker.topics.topic import Message, TopicSettings

pytestmark = pytest.mark.servers


def test_a_read_ends_although_the_last_offset_is_a_marker(kafka_topics, stack):
    """A committed transaction leaves a marker that no reader gets, at an offset of its own."""
    name = "contract-marker"
    kafka_topics.create(name, TopicSettings(partitions=1))
    try:
        producer = KafkaProducer(
            bootstrap_servers=stack.kafka.bootstrap, transactional_id="contract-marker"
        )
        producer.init_transactions()
        producer.begin_transaction()
        producer.send(name, b"inside")
        producer.commit_transaction()
        producer.close()

        limit = time.monotonic() + 20.0  # the server writes the marker after it has answered
        while kafka_topics.ranges(name)[0].end < 2 and time.monotonic() < limit:
            time.sleep(0.05)
        got = list(kafka_topics.read(name, partition=0, first=0, end=2))

        assert kafka_topics.ranges(name)[0].end == 2
        assert [m.value for m in got] == [b"inside"]
        assert kafka_topics.get(got[0].coordinate) == got[0]
    finally:
        kafka_topics.delete(name)


def test_a_pickled_client_works(kafka_topics):
    copy = pickle.loads(pickle.dumps(kafka_topics))
    name = "contract-pickle"
    copy.create(name)
    try:
        copy.send(name, [Message(b"x", key=b"k")])
        assert sum(r.end - r.first for r in kafka_topics.ranges(name)) == 1
    finally:
        copy.delete(name)
        copy.close()


def test_a_topic_made_again_has_another_id(kafka_topics):
    name = "contract-id"
    kafka_topics.create(name)
    first = kafka_topics.topic_id(name)
    kafka_topics.delete(name)
    kafka_topics.create(name)
    try:
        assert kafka_topics.topic_id(name) != first
    finally:
        kafka_topics.delete(name)


def test_a_server_that_is_not_there_is_named_in_the_error():
    nobody = KafkaTopics("127.0.0.1:1", timeout_s=1.0)

    with pytest.raises(ServiceError, match=r"127\.0\.0\.1:1"):
        nobody.names()
