"""Only what is archived and consumed may leave an input topic."""

import pyarrow as pa
import pytest

from broker.archive import ROWS, Archive
from broker.ops.nights import disposable
from broker.store.ledger import Ledger
from broker.store.memory import MemoryTables
from broker.store.tables import create_tables
from broker.topics.memory import MemoryTopics
from broker.topics.topic import Message, OffsetRange, TopicSettings
from broker.types import Run

RUN = Run("test")
TOPIC = RUN.alerts_topic("ztf")


@pytest.fixture
def world(tmp_path):
    """Ten messages on one partition, an empty archive, an empty ledger."""
    topics, tables = MemoryTopics(), MemoryTables()
    topics.create(TOPIC, TopicSettings(partitions=1))
    topics.send(TOPIC, [Message(b"packet %d" % i) for i in range(10)])
    create_tables(tables, RUN)
    return topics, Archive(tmp_path, RUN), Ledger(tables, RUN)


def keep(archive, first, end):
    """Archive some offsets."""
    rows = {
        "offset": list(range(first, end)),
        "timestamp_ms": [1_700_000_000_000] * (end - first),
        "value": [b"packet"] * (end - first),
    }
    archive.write(TOPIC, 0, [pa.table(rows, schema=ROWS)])


@pytest.mark.parametrize(
    ("archived", "consumed", "end"),
    [((0, 6), (0, 10), 6), ((0, 10), (0, 4), 4), ((2, 10), (0, 10), 0), ((0, 10), (3, 10), 0)],
)
def test_what_goes_ends_at_the_first_message_not_archived_or_not_consumed(
    world, archived, consumed, end
):
    topics, archive, ledger = world
    keep(archive, *archived)
    ledger.record("alerts", 0, [OffsetRange(TOPIC, 0, *consumed)], {}, {})

    parts = disposable(archive, ledger, topics)

    assert parts == ([OffsetRange(TOPIC, 0, 0, end)] if end else [])


def test_what_has_gone_already_is_not_named_again(world):
    topics, archive, ledger = world
    keep(archive, 0, 6)
    ledger.record("alerts", 0, [OffsetRange(TOPIC, 0, 0, 10)], {}, {})
    topics.delete_before(TOPIC, partition=0, offset=4)

    assert disposable(archive, ledger, topics) == [OffsetRange(TOPIC, 0, 4, 6)]


def test_without_an_archive_nothing_goes(world):
    topics, archive, ledger = world
    ledger.record("alerts", 0, [OffsetRange(TOPIC, 0, 0, 10)], {}, {})

    assert disposable(archive, ledger, topics) == []
