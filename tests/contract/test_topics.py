"""What topics must do, asked of memory and of Kafka."""

import pytest

from broker.errors import ServiceError
from broker.topics.topic import Message, TopicSettings
from broker.types import Coordinate, OffsetRange

ONE = TopicSettings(partitions=1)


def values(topics, name, partition=0, first=0, end=1 << 40):
    return [m.value for m in topics.read(name, partition=partition, first=first, end=end)]


def test_a_new_topic_has_its_partitions_and_no_messages(topics, name):
    topics.create(name, TopicSettings(partitions=3))

    assert topics.ranges(name) == [OffsetRange(name, p, 0, 0) for p in range(3)]
    assert values(topics, name) == []


def test_creating_a_topic_again_leaves_it_as_it_is(topics, name):
    topics.create(name, ONE)
    topics.send(name, [Message(b"kept")])

    topics.create(name, TopicSettings(partitions=5))

    assert len(topics.ranges(name)) == 1
    assert values(topics, name) == [b"kept"]


def test_names_are_sorted_and_hold_what_was_created(topics, name):
    topics.create(name + "-b", ONE)
    topics.create(name + "-a", ONE)
    try:
        found = topics.names()

        assert found == sorted(found)
        assert {name + "-a", name + "-b"} <= set(found)
        assert not [other for other in found if other.startswith("__")]
    finally:
        topics.delete(name + "-a")
        topics.delete(name + "-b")


def test_a_message_comes_back_as_it_was_sent(topics, name):
    topics.create(name, ONE)
    sent = Message(
        b"\x00\xffbody",
        key=b"k\x00",
        headers=[("origin", b"a"), ("origin", b"b"), ("empty", b"")],
        timestamp_ms=1_700_000_000_123,
    )

    (coordinate,) = topics.send(name, [sent])

    (got,) = topics.read(name, partition=0, first=0, end=1)
    assert coordinate == Coordinate(name, 0, 0)
    assert (got.value, got.key, got.timestamp_ms) == (sent.value, sent.key, sent.timestamp_ms)
    assert list(got.headers) == list(sent.headers)
    assert got.header("origin") == b"b"
    assert got.coordinate == coordinate


def test_a_message_without_a_time_gets_the_present_one(topics, name):
    topics.create(name, ONE)
    topics.send(name, [Message(b"x")])

    (got,) = topics.read(name, partition=0, first=0, end=1)

    assert got.timestamp_ms > 1_700_000_000_000


def test_coordinates_are_in_the_order_of_the_messages(topics, name):
    topics.create(name, TopicSettings(partitions=3))
    messages = [Message(b"%d" % i, key=b"%d" % (i % 17)) for i in range(200)]

    coordinates = topics.send(name, messages)

    assert len(coordinates) == 200
    for message, coordinate in zip(messages, coordinates, strict=True):
        assert topics.get(coordinate).value == message.value


def test_messages_of_one_key_keep_their_order_in_one_partition(topics, name):
    topics.create(name, TopicSettings(partitions=4))

    coordinates = topics.send(name, [Message(b"%d" % i, key=b"same") for i in range(50)])

    assert len({c.partition for c in coordinates}) == 1
    assert [c.offset for c in coordinates] == list(range(50))


def test_a_chosen_partition_is_used(topics, name):
    topics.create(name, TopicSettings(partitions=3))

    coordinates = topics.send(name, [Message(b"x", key=b"k")] * 3, partition=2)

    assert [c.partition for c in coordinates] == [2, 2, 2]
    assert [r.end for r in topics.ranges(name)] == [0, 0, 3]


def test_reading_keeps_to_its_bounds(topics, name):
    topics.create(name, ONE)
    topics.send(name, [Message(b"%d" % i) for i in range(10)])

    assert values(topics, name, first=3, end=6) == [b"3", b"4", b"5"]
    assert values(topics, name, first=8, end=100) == [b"8", b"9"]
    assert values(topics, name, first=4, end=4) == []
    assert values(topics, name, first=50, end=60) == []


def test_two_reads_side_by_side_do_not_disturb_each_other(topics, name):
    topics.create(name, ONE)
    topics.send(name, [Message(b"%d" % i) for i in range(20)])
    one = topics.read(name, partition=0, first=0, end=20)
    other = topics.read(name, partition=0, first=10, end=20)

    pairs = [(next(one).value, next(other).value) for _ in range(10)]

    assert pairs == [(b"%d" % i, b"%d" % (i + 10)) for i in range(10)]


def test_a_reader_may_stop_before_the_end(topics, name):
    topics.create(name, ONE)
    topics.send(name, [Message(b"%d" % i) for i in range(5)])

    reader = topics.read(name, partition=0, first=0, end=5)
    next(reader)
    del reader

    assert values(topics, name) == [b"0", b"1", b"2", b"3", b"4"]


def test_get_returns_none_where_nothing_stands(topics, name):
    topics.create(name, ONE)
    topics.send(name, [Message(b"x")])

    assert topics.get(Coordinate(name, 0, 0)).value == b"x"
    assert topics.get(Coordinate(name, 0, 1)) is None
    assert topics.get(Coordinate(name, 0, -1)) is None
    assert topics.get(Coordinate(name, 7, 0)) is None
    assert topics.get(Coordinate(name + "-unknown", 0, 0)) is None


def test_a_tombstone_is_a_message_without_a_body(topics, name):
    topics.create(name, TopicSettings(partitions=1, compacted=True))

    topics.send(name, [Message(b"x", key=b"k"), Message(None, key=b"k")])

    assert values(topics, name) == [b"x", None]


def test_an_offset_is_found_by_time(topics, name):
    topics.create(name, ONE)
    base = 1_700_000_000_000
    for i in range(4):
        topics.send(name, [Message(b"x", timestamp_ms=base + 1000 * i)])

    offsets = [
        topics.offset_at(name, partition=0, timestamp_ms=base + at) for at in (-5, 0, 1, 3000, 3001)
    ]

    assert offsets == [0, 0, 1, 3, 4]


def test_messages_before_an_offset_can_be_deleted(topics, name):
    topics.create(name, ONE)
    topics.send(name, [Message(b"%d" % i) for i in range(6)])

    topics.delete_before(name, partition=0, offset=4)
    topics.delete_before(name, partition=0, offset=2)

    assert topics.ranges(name) == [OffsetRange(name, 0, 4, 6)]
    assert values(topics, name) == [b"4", b"5"]
    assert topics.get(Coordinate(name, 0, 3)) is None


def test_a_deleted_topic_is_gone_and_can_be_made_again_empty(topics, name):
    topics.create(name, ONE)
    topics.send(name, [Message(b"old")])

    topics.delete(name)
    topics.delete(name)

    assert name not in topics.names()
    topics.create(name, ONE)
    assert topics.ranges(name) == [OffsetRange(name, 0, 0, 0)]
    assert topics.send(name, [Message(b"new")]) == [Coordinate(name, 0, 0)]
    assert values(topics, name) == [b"new"]


def test_an_unknown_topic_is_an_error_that_names_it(topics, name):
    with pytest.raises(ServiceError, match=name):
        topics.send(name, [Message(b"x")])
    with pytest.raises(ServiceError, match=name):
        topics.ranges(name)
    with pytest.raises(ServiceError, match=name):
        topics.read(name, partition=0, first=0, end=1)
    with pytest.raises(ServiceError, match=name):
        topics.offset_at(name, partition=0, timestamp_ms=0)


def test_an_unknown_partition_is_an_error(topics, name):
    topics.create(name, ONE)

    with pytest.raises(ServiceError, match="no partition 3"):
        topics.send(name, [Message(b"x")], partition=3)
    with pytest.raises(ServiceError, match="no partition 3"):
        topics.read(name, partition=3, first=0, end=1)


def test_a_message_that_is_too_large_is_refused_and_the_next_is_taken(topics, name):
    topics.create(name, TopicSettings(partitions=1, max_message_bytes=100_000))

    with pytest.raises(ServiceError, match=r"(?i)too ?large"):
        topics.send(name, [Message(b"x" * 200_000)])

    topics.send(name, [Message(b"y" * 50_000)])
    assert values(topics, name) == [b"y" * 50_000]


def test_a_whole_detector_of_32_megabytes_passes(topics, name):
    topics.create(name, ONE)
    body = bytes(range(256)) * 125_000

    (coordinate,) = topics.send(name, [Message(body)])

    assert topics.get(coordinate).value == body


def test_sending_nothing_is_no_error(topics, name):
    topics.create(name, ONE)

    assert topics.send(name, []) == []


def test_topics_survive_being_closed(topics, name):
    topics.create(name, ONE)
    topics.send(name, [Message(b"x")])

    topics.close()

    assert values(topics, name) == [b"x"]
