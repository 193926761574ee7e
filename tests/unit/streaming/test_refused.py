import json

import pyarrow as pa
import pytest

from broker.spark.stats import BatchStats
from broker.streaming.refused import refused_before, without
from broker.topics.memory import MemoryTopics
from broker.topics.publish import dead_letter, dead_letters_topic
from broker.topics.topic import TopicSettings
from broker.types import Coordinate, Run

RUN = Run("night")
BEGAN_MS = 1_700_000_000_000


def offsets(folder, batch, tree):
    folder = folder / "offsets"
    folder.mkdir(exist_ok=True)
    settings = json.dumps({"batchTimestampMs": BEGAN_MS})
    (folder / str(batch)).write_text("\n".join(["v1", settings, json.dumps(tree)]))


@pytest.fixture
def checkpoint(tmp_path):
    """A batch that is finished, to offset 4, and one that was begun, to 9."""
    offsets(tmp_path, 0, {"a": {"0": 4}})
    offsets(tmp_path, 1, {"a": {"0": 9}})
    (tmp_path / "commits").mkdir()
    (tmp_path / "commits" / "0").write_text("v1\n{}")
    return tmp_path


@pytest.fixture
def topics():
    found = MemoryTopics()
    found.create(dead_letters_topic(RUN), TopicSettings(partitions=2))
    return found


def refuse(topics, offset, topic="a"):
    letter = dead_letter(Coordinate(topic, 0, offset), "decode", "bad", b"x")
    topics.send(dead_letters_topic(RUN), [letter])


def test_what_a_batch_that_was_begun_has_refused_is_found(checkpoint, topics):
    for offset in (3, 4, 8, 8, 9):
        refuse(topics, offset)
    refuse(topics, 5, topic="b")

    batch, found = refused_before(topics, RUN, checkpoint)

    assert (batch, found) == (1, {Coordinate("a", 0, 4), Coordinate("a", 0, 8)})


def test_a_batch_that_is_finished_has_nothing_to_repeat(checkpoint, topics):
    refuse(topics, 5)
    (checkpoint / "commits" / "1").write_text("v1\n{}")

    assert refused_before(topics, RUN, checkpoint) == (-1, frozenset())


def test_before_the_first_batch_nothing_is_refused(tmp_path, topics):
    assert refused_before(topics, RUN, tmp_path) == (-1, frozenset())
    assert refused_before(MemoryTopics(), RUN, tmp_path) == (-1, frozenset())


def test_refused_messages_are_left_out_and_counted():
    batch = pa.table(
        {
            "topic": ["a", "a", "b"],
            "partition": pa.array([0, 0, 0], pa.int32()),
            "offset": pa.array([4, 5, 4], pa.int64()),
            "value": [b"1", b"2", b"3"],
        }
    )
    stats = BatchStats()

    left = without(batch, frozenset({Coordinate("a", 0, 4)}), stats)

    assert left.column("value").to_pylist() == [b"2", b"3"]
    assert stats.counts == {"consumed": 1, "deadLetters": 1}
    assert without(batch, frozenset(), stats) is batch
