"""Schemas and dead letters stand on topics so that anyone can read them."""

import pytest

from broker.errors import AlertError
from broker.topics.memory import MemoryTopics
from broker.topics.publish import (
    dead_letter,
    dead_letters_topic,
    read_all,
    read_dead_letter,
    read_dead_letters,
    read_schemas,
    schemas_topic,
    store_schemas,
)
from broker.topics.topic import Message, TopicSettings
from broker.types import Coordinate, Run

ORIGIN = Coordinate("alerts.ztf", 1, 2**40)


def schema(name):
    return {"type": "record", "name": name, "fields": [{"name": "x", "type": "int"}]}


def test_schemas_are_stored_once_by_id():
    topics, run = MemoryTopics(), Run()

    assert store_schemas(topics, run, {7: schema("a"), 5: schema("b")}) == [5, 7]
    assert store_schemas(topics, run, {7: schema("a"), 9: schema("c")}) == [9]

    name = schemas_topic(run)
    assert read_schemas(topics, name) == {5: schema("b"), 7: schema("a"), 9: schema("c")}
    assert len(list(read_all(topics, name))) == 3


def test_only_the_live_run_writes_to_the_public_topic():
    assert schemas_topic(Run()) == "public.schemas"
    assert schemas_topic(Run("test")) == "run.test.public.schemas"


@pytest.mark.parametrize("value", [b"", b"\x00\xff" * 50, None])
@pytest.mark.parametrize("key", [None, b"k"])
def test_a_dead_letter_says_where_it_stood_and_why_it_failed(value, key):
    topics, run = MemoryTopics(), Run("r")
    topics.create(dead_letters_topic(run), TopicSettings(partitions=1))
    message = dead_letter(ORIGIN, "decode", "magic byte is 0x5a, µ", value, key=key)
    topics.send(dead_letters_topic(run), [message])

    (got,) = read_dead_letters(topics, run)

    assert (got.origin, got.stage, got.reason) == (ORIGIN, "decode", "magic byte is 0x5a, µ")
    assert got.value == value
    assert got.key == key or (value is None and got.key == str(ORIGIN).encode())
    assert got.timestamp_ms > 1_700_000_000_000
    assert got.coordinate == Coordinate(dead_letters_topic(run), 0, 0)


def test_a_very_long_reason_is_cut_and_still_readable():
    got = read_dead_letter(dead_letter(ORIGIN, "s", "é" * 5000, b"x"))

    assert got.reason.startswith("é" * 900)
    assert len(got.reason) <= 1001


@pytest.mark.parametrize(
    "message",
    [
        Message(b"x"),
        Message(b"x", headers=[("topic", b"t"), ("partition", b"one"), ("offset", b"1")]),
    ],
)
def test_another_message_is_no_dead_letter(message):
    with pytest.raises(AlertError, match="no dead letter"):
        read_dead_letter(message)


def test_a_run_without_dead_letters_has_none():
    assert list(read_dead_letters(MemoryTopics(), Run("new"))) == []
