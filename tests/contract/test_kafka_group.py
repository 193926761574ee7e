"""Members of a group on a real Kafka share a topic and go on where the group stopped."""

import contextlib
import itertools
import time

import fastavro
import pytest

from broker.avro import encode, frame
from broker.client import subscribe
from broker.config import Config, KafkaConfig
from broker.errors import ServiceError
from broker.topics.kafka_group import group_lag, read_plainly
from broker.topics.publish import read_schemas, schemas_topic, store_schemas
from broker.topics.topic import Message, TopicSettings

SCHEMA = {"type": "record", "name": "Alert", "fields": [{"name": "number", "type": "long"}]}


def packets(numbers, timestamp_ms=None):
    return [
        Message(
            frame(7, encode(SCHEMA, {"number": n})),
            key=str(n).encode(),
            timestamp_ms=timestamp_ms,
        )
        for n in numbers
    ]


@pytest.fixture
def topic(kafka_topics, run):
    name = run.public_topic("young-supernova", "slim")
    kafka_topics.create(name, TopicSettings(partitions=2))
    store_schemas(kafka_topics, run, {7: SCHEMA})
    yield name
    kafka_topics.delete(name)


@pytest.fixture
def config(stack, run):
    return Config(run=run.name, kafka=KafkaConfig(port=stack.kafka.port))


def test_a_group_goes_on_where_it_stopped_and_repeats_what_was_not_handled(
    kafka_topics, topic, config
):
    kafka_topics.send(topic, packets(range(5)), partition=0)
    settings = {"since": "earliest", "group": "one", "idle_s": 20.0, "config": config}

    with subscribe("young-supernova", **settings) as alerts:
        first = [alert["number"] for alert in itertools.islice(alerts, 3)]
    with subscribe("young-supernova", **{**settings, "idle_s": 2.0}) as alerts:
        rest = [alert["number"] for alert in alerts]
        lag = alerts.lag()

    assert first == [0, 1, 2]
    assert rest == [2, 3, 4]  # during the handling of 2 the first one left
    assert lag == 0


def test_a_new_group_begins_at_a_time(kafka_topics, topic, config):
    now_ms = int(time.time() * 1000)
    kafka_topics.send(topic, packets([1, 2], now_ms - 7_200_000), partition=0)
    kafka_topics.send(topic, packets([3, 4], now_ms), partition=0)

    with subscribe(
        "young-supernova", since="-1h", group="new", idle_s=2.0, config=config
    ) as alerts:
        found = [alert["number"] for alert in alerts]

    assert found == [3, 4]


def test_two_members_share_the_partitions(kafka_topics, topic, config):
    kafka_topics.send(topic, packets(range(10)), partition=0)
    kafka_topics.send(topic, packets(range(10, 20)), partition=1)
    settings = {"since": "earliest", "group": "both", "config": config}

    with contextlib.ExitStack() as stack:
        members = [stack.enter_context(subscribe(topic, **settings)) for _ in range(2)]
        deadline = time.monotonic() + 180.0
        owned = [set(), set()]
        while [len(one) for one in owned] != [1, 1]:  # both take part in sharing out
            assert time.monotonic() < deadline, owned
            for number, member in enumerate(members):
                member._reader.poll(0.1)
                parts = member._reader._consumer.assignment()
                owned[number] = {part.partition for part in parts}

    assert owned[0] | owned[1] == {0, 1}


def test_an_unknown_topic_is_said(config, kafka_topics):
    with pytest.raises(ServiceError, match="there is no topic"):
        subscribe("nothing", group="one", config=config)


def test_without_a_group_a_subscription_leaves_no_trace(kafka_topics, topic, config):
    kafka_topics.send(topic, packets([1]), partition=0)

    for _ in range(2):
        with subscribe(topic, since="earliest", idle_s=0.5, config=config) as alerts:
            assert [alert["number"] for alert in alerts] == [1]


def test_a_group_can_be_moved_to_a_time_and_its_lag_is_told_from_outside(
    kafka_topics, topic, config
):
    for n in range(4):
        kafka_topics.send(topic, packets([n], timestamp_ms=1000 * (n + 1)), partition=0)
    settings = {"since": "earliest", "group": "moved", "idle_s": 2.0, "config": config}

    with subscribe("young-supernova", **settings) as alerts:
        first = [alert["number"] for alert in alerts]
        alerts.seek("1970-01-01T00:00:03Z")
        again = [alert["number"] for alert in alerts]
    kafka_topics.send(topic, packets([9]), partition=0)
    rows = group_lag(config.kafka.bootstrap, topic, "moved")

    assert (first, again) == ([0, 1, 2, 3], [2, 3])
    assert [(row["committed"], row["lag"]) for row in rows] == [(4, 1), (None, 0)]


def test_a_plain_consumer_of_ten_lines_reads_the_packets(kafka_topics, topic, config):
    kafka_topics.send(topic, packets(range(3)), partition=0)
    schemas = read_schemas(kafka_topics, schemas_topic(config.the_run))
    parsed = {number: fastavro.parse_schema(schema) for number, schema in schemas.items()}

    found = read_plainly(config.kafka.bootstrap, topic, parsed, number=3, column="number")

    assert found == [0, 1, 2]
