"""The bytes of what was refused, from the letter, the topic or the archive."""

import pytest

from broker.archive import Archive
from broker.ops.packets import whole_letter
from broker.topics.memory import MemoryTopics
from broker.topics.publish import dead_letter, read_dead_letter
from broker.topics.topic import Message, TopicSettings
from broker.types import Coordinate, Run

RUN = Run("night")


@pytest.fixture
def topics():
    found = MemoryTopics()
    found.create("in", TopicSettings(partitions=1))
    return found


def letter(origin, value=None):
    return read_dead_letter(dead_letter(origin, "canonical", "odd", value))


def test_a_letter_with_its_bytes_is_taken_as_it_is(topics, tmp_path):
    mine = letter(Coordinate("in", 0, 99), b"bytes")

    assert whole_letter(Archive(tmp_path, RUN), topics, mine) is mine


def test_the_message_of_a_letter_without_bytes_is_read_from_its_topic(topics, tmp_path):
    (origin,) = topics.send("in", [Message(b"a packet", key=b"its key")])

    found = whole_letter(Archive(tmp_path, RUN), topics, letter(origin))

    assert (found.value, found.key, found.origin) == (b"a packet", b"its key", origin)


def test_a_message_that_is_kept_nowhere_is_not_made_up(topics, tmp_path):
    assert whole_letter(Archive(tmp_path, RUN), topics, letter(Coordinate("in", 0, 5))) is None
