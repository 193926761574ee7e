"""A subscription gives each alert once, and forgets none that was not handled."""

import itertools

import pytest

from broker.avro import encode, frame
from broker.client import Schemas, Subscription
from broker.client.subscription import LooseReader, full_name
from broker.config import Config
from broker.errors import ConfigError
from broker.topics.memory import MemoryTopics
from broker.topics.publish import schemas_topic, store_schemas
from broker.topics.topic import Message, TopicSettings
from broker.types import Run

RUN = Run("subscribers")
TOPIC = RUN.public_topic("young-supernova", "slim")
OLD = {"type": "record", "name": "Alert", "fields": [{"name": "diaSourceId", "type": "long"}]}
NEW = {**OLD, "fields": [*OLD["fields"], {"name": "colour", "type": "float"}]}


def packet(number, *, schema_id=1, key=None, timestamp_ms=None):
    record = {"diaSourceId": 2**62 + number, "colour": 0.5}
    body = encode(OLD if schema_id == 1 else NEW, record)
    key = key or str(number).encode()
    return Message(frame(schema_id, body), key=key, timestamp_ms=timestamp_ms)


@pytest.fixture
def topics():
    made = MemoryTopics()
    made.create(TOPIC, TopicSettings(partitions=2))
    store_schemas(made, RUN, {1: OLD, 2: NEW})
    return made


class RememberingReader(LooseReader):
    """A reader that remembers, as a consumer group does, what was handled and committed."""

    def __init__(self, topics, name, since="earliest"):
        super().__init__(topics, name, since)
        self.noted, self.committed = [], []

    def handled(self, message):
        self.noted.append(message.key)

    def commit(self):
        self.committed = list(self.noted)


def subscription(topics, *, reader=None, since="earliest", idle_s=0.0):
    reader = reader or LooseReader(topics, TOPIC, since)
    return Subscription(reader, schemas=Schemas(topics, schemas_topic(RUN)), idle_s=idle_s)


def test_alerts_come_once_though_a_killed_broker_sent_them_twice(topics):
    topics.send(TOPIC, [packet(n) for n in (1, 2, 3)], partition=0)
    topics.send(TOPIC, [packet(2), packet(3), packet(4)], partition=0)

    with subscription(topics) as alerts:
        found = [alert["diaSourceId"] - 2**62 for alert in alerts]

    assert found == [1, 2, 3, 4]


def test_an_alert_is_committed_only_when_the_next_one_is_asked_for(topics):
    topics.send(TOPIC, [packet(n) for n in (1, 2, 3)], partition=0)
    reader = RememberingReader(topics, TOPIC)

    with subscription(topics, reader=reader) as alerts:
        for _ in itertools.islice(alerts, 2):
            pass  # the second one is taken, and what is done with it may fail

    assert reader.committed == [b"1"]


def test_an_error_in_the_loop_leaves_its_alert_to_come_again(topics):
    topics.send(TOPIC, [packet(n) for n in (1, 2, 3)], partition=0)
    reader = RememberingReader(topics, TOPIC)

    with pytest.raises(ZeroDivisionError), subscription(topics, reader=reader) as alerts:  # noqa: PT012
        for alert in alerts:
            1 / (alert["diaSourceId"] - 2**62 - 2)

    assert reader.committed == [b"1"]


def test_what_comes_while_it_waits_is_given(topics):
    topics.send(TOPIC, [packet(1)], partition=0)
    with subscription(topics, idle_s=30.0) as alerts:
        records = iter(alerts)
        assert next(records)["diaSourceId"] == 2**62 + 1

        topics.send(TOPIC, [packet(2)], partition=1)

        assert next(records)["diaSourceId"] == 2**62 + 2


def test_latest_is_what_comes_from_now_on(topics):
    topics.send(TOPIC, [packet(1)], partition=0)
    with subscription(topics, since="latest", idle_s=30.0) as alerts:
        topics.send(TOPIC, [packet(2)], partition=0)

        assert next(iter(alerts))["diaSourceId"] == 2**62 + 2


def test_a_time_is_a_starting_point(topics):
    topics.send(TOPIC, [packet(n, timestamp_ms=1000 * n) for n in (1, 2, 3)], partition=0)

    with subscription(topics, since="1970-01-01T00:00:02") as alerts:
        found = [alert["diaSourceId"] - 2**62 for alert in alerts]

    assert found == [2, 3]


def test_packets_of_a_newer_schema_are_read_and_each_schema_is_fetched_once(topics):
    topics.send(TOPIC, [packet(n, schema_id=1 + n % 2) for n in range(20)], partition=0)
    fetched = []
    read = topics.read
    topics.read = lambda name, **where: (fetched.append(name), read(name, **where))[1]

    with subscription(topics) as alerts:
        colours = [alert.get("colour") for alert in alerts]

    assert colours == [None, 0.5] * 10
    assert fetched.count(schemas_topic(RUN)) == 1


def test_frames_are_committed_when_the_next_one_is_asked_for(topics):
    topics.send(TOPIC, [packet(n) for n in (1, 2, 3, 3, 4, 5)], partition=0)
    reader = RememberingReader(topics, TOPIC)

    with subscription(topics, reader=reader) as alerts:
        frames = alerts.frames(rows=2)
        first, second = next(frames), next(frames)

        assert list(first["diaSourceId"] - 2**62) == [1, 2]
        assert list(second["diaSourceId"] - 2**62) == [3, 4]
        assert reader.committed == [b"1", b"2"]
        assert [len(frame) for frame in frames] == [1]
    assert reader.committed[-1] == b"5"


def test_the_lag_is_what_was_not_read(topics):
    with subscription(topics) as alerts:
        topics.send(TOPIC, [packet(n) for n in range(5)], partition=1)

        assert alerts.lag() == 5
        list(alerts)
        assert alerts.lag() == 0


def test_names_of_topics_are_completed_by_run_and_variant():
    config = Config(run="subscribers")

    assert full_name(config, "young-supernova") == TOPIC
    assert full_name(config, "young-supernova", full=True).endswith(".full")
    assert full_name(config, "public.a.slim") == "public.a.slim"
    assert full_name(config, "public.notice-matches") == "public.notice-matches"


def test_a_starting_point_that_is_none_is_refused(topics):
    with pytest.raises(ConfigError, match="no starting point"):
        LooseReader(topics, TOPIC, "yesterday")
