import json

import pytest

from broker.errors import ServiceError
from broker.streaming.checkpoint import (
    batch_ranges,
    committed,
    first_offsets,
    is_caught_up,
    last_commit,
)
from broker.types import OffsetRange


def write(path, offsets, lines=("v1", "{}")):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*lines, json.dumps(offsets)]))


@pytest.fixture
def checkpoint(tmp_path):
    """Two finished batches and one that was begun, on two topics."""
    write(tmp_path / "sources" / "0" / "0", {"a": {"0": 5, "1": 0}}, ("v1",))
    write(tmp_path / "offsets" / "0", {"a": {"0": 9, "1": 0}})
    write(tmp_path / "offsets" / "1", {"a": {"0": 9, "1": 4}})
    write(tmp_path / "offsets" / "2", {"a": {"0": 12, "1": 4}, "b": {"0": 3}})
    for batch in (0, 1):
        write(tmp_path / "commits" / str(batch), {})
    (tmp_path / "commits" / ".1.crc").write_text("")
    return tmp_path


def test_the_first_batch_begins_where_the_source_began(checkpoint):
    assert batch_ranges(checkpoint, 0) == [OffsetRange("a", 0, 5, 9)]


def test_a_batch_takes_what_lies_between_its_end_and_that_of_the_one_before(checkpoint):
    assert batch_ranges(checkpoint, 1) == [OffsetRange("a", 1, 0, 4)]


def test_a_topic_that_is_new_is_taken_from_its_beginning(checkpoint):
    assert batch_ranges(checkpoint, 2) == [OffsetRange("a", 0, 9, 12), OffsetRange("b", 0, 0, 3)]


def test_ranges_of_all_batches_meet_without_gap_or_overlap(checkpoint):
    seen = {}
    for batch in range(3):
        for r in batch_ranges(checkpoint, batch):
            assert seen.get((r.topic, r.partition), r.first) == r.first
            seen[r.topic, r.partition] = r.end

    assert seen == {("a", 0): 12, ("a", 1): 4, ("b", 0): 3}


def test_a_batch_that_was_only_begun_is_not_finished(checkpoint):
    assert last_commit(checkpoint) == 1
    assert committed(checkpoint) == {("a", 0): 9, ("a", 1): 4}


def test_an_unknown_batch_is_an_error(checkpoint):
    with pytest.raises(ServiceError, match="has no batch 7"):
        batch_ranges(checkpoint, 7)


def test_before_the_first_batch_nothing_is_finished(tmp_path):
    assert last_commit(tmp_path) is None
    assert committed(tmp_path) == first_offsets(tmp_path) == {}


@pytest.mark.parametrize(
    ("available", "expected"),
    [
        ([OffsetRange("a", 0, 5, 9), OffsetRange("a", 1, 0, 4)], True),
        ([OffsetRange("a", 0, 5, 10)], False),
        ([OffsetRange("new", 0, 0, 1)], False),
        ([OffsetRange("new", 0, 0, 0)], True),
        ([], True),
    ],
)
def test_a_query_is_caught_up_when_all_that_is_there_is_finished(checkpoint, available, expected):
    assert is_caught_up(committed(checkpoint), available) is expected
