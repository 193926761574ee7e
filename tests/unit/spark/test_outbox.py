"""What a task sends by itself: what an earlier attempt committed is worked on, and not sent."""

from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pytest

from broker.spark import outbox
from broker.spark.messages import MessageRows
from broker.spark.outbox import Outbox, messages_of
from broker.topics.topic import Message


class Server:
    """What Kafka keeps: committed messages, and how far each partition was read."""

    def __init__(self):
        self.messages, self.done, self.shut_out = [], {}, []

    @contextmanager
    def begin(self, name, *, group, place):
        self.shut_out.append((name, group, place))
        yield Transaction(self, place)


class Transaction:
    def __init__(self, server, place):
        self.done, self._server, self._place = server.done.get(place, 0), server, place
        self._held = []

    def send(self, messages):
        self._held += messages

    def commit(self, done):
        self._server.messages += self._held
        self._server.done[self._place] = self.done = done


@pytest.fixture
def server(monkeypatch):
    made = Server()
    monkeypatch.setattr(outbox, "sender_for", lambda _: made)
    return made


def batch(rows):
    """Return an Arrow batch of (topic, partition, offset)."""
    topics, partitions, offsets = zip(*rows, strict=True)
    return pa.RecordBatch.from_pydict(
        {
            "topic": pa.array(topics),
            "partition": pa.array(partitions, pa.int32()),
            "offset": pa.array(offsets, pa.int64()),
        }
    )


class Work:
    """Stores each row, and makes a message of it."""

    def __init__(self):
        self.stored = []

    def __call__(self, part):
        rows = MessageRows()
        for row in part.to_pylist():
            place = f"{row['topic']}/{row['partition']}/{row['offset']}"
            self.stored.append(place)
            rows.add("out", Message(place.encode(), b"key", (("origin", place.encode()),)))
        return rows.table()


def attempt(batches, *, dies=False):
    """Work on batches as a task does; return what was stored."""
    work = Work()
    with Outbox("nowhere", name="n", group="g") as box:
        for part in batches:
            box.take(part, work)
        if not dies:
            box.commit()
    return work.stored


def test_a_task_that_is_repeated_stores_again_and_sends_nothing(server):
    rows = [("a", 0, k) for k in range(6)]
    batches = [batch(rows[:4]), batch(rows[4:])]

    first = attempt(batches)
    sent = list(server.messages)
    again = attempt(batches)

    assert first == again == [f"a/0/{k}" for k in range(6)]
    assert server.messages == sent
    assert [message.value.decode() for _, message in sent] == first
    assert server.done == {("a", 0): 6}
    assert server.shut_out == [("n", "g", ("a", 0))] * 2


def test_a_task_that_dies_before_its_commit_has_sent_nothing(server):
    batches = [batch([("a", 0, 0), ("a", 0, 1)])]

    attempt(batches, dies=True)
    assert server.messages == []
    attempt(batches)

    assert len(server.messages) == 2


def test_each_partition_is_counted_by_itself_and_only_what_is_new_is_sent(server):
    attempt([batch([("a", 0, 0), ("a", 1, 5)])])
    rng = np.random.default_rng(1)
    rows = [("a", 0, k) for k in range(4)] + [("a", 1, k) for k in (5, 6)] + [("b", 0, 2)]

    stored = attempt([batch([rows[i] for i in rng.permutation(len(rows))])])

    expected = {f"{topic}/{partition}/{offset}" for topic, partition, offset in rows}
    assert set(stored) == expected
    assert len(stored) == len(expected)
    sent = [message.value.decode() for _, message in server.messages]
    assert sorted(sent) == sorted(expected)
    assert server.done == {("a", 0): 4, ("a", 1): 7, ("b", 0): 3}


def test_rows_are_the_messages_that_they_were_made_of():
    rows = MessageRows()
    made = [
        ("one", Message(b"v", b"k", (("a", b"1"), ("b", b"2")))),
        ("two", Message(None, b"k2", ())),
        ("one", Message(b"", None, (("c", b""),))),
    ]
    for topic, message in made:
        rows.add(topic, message)

    assert list(messages_of(rows.table())) == made
