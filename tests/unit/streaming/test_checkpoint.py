import contextlib
import json
from pathlib import Path

import pytest

from broker.errors import ConfigError, ServiceError
from broker.streaming.checkpoint import (
    batch_ranges,
    committed,
    divide,
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


@pytest.fixture
def spark_files(tmp_path):
    """A checkpoint of one source, as Spark writes it, with sums of its files."""
    topics = {"a": {"0": 5, "1": 0}, "b": {"0": 1}}
    write(tmp_path / "sources" / "0" / "0", topics, ("\0v1",))
    for batch in range(3):
        write(tmp_path / "offsets" / str(batch), {**topics, "a": {"0": 9 + batch, "1": batch}})
    for file in [*tmp_path.glob("*/*"), *tmp_path.glob("sources/*/*")]:
        if file.is_file():
            file.with_name(f".{file.name}.crc").write_bytes(b"crc")
    return tmp_path


def said(checkpoint):
    return (
        first_offsets(checkpoint),
        [batch_ranges(checkpoint, batch) for batch in range(3)],
        committed(checkpoint),
    )


def test_a_checkpoint_in_parts_says_what_it_said(spark_files):
    before = said(spark_files)

    assert divide(spark_files, [["new"], ["a"], ["b"]])

    assert said(spark_files) == before
    lines = (spark_files / "offsets" / "2").read_text().splitlines()
    assert lines == ["v1", "{}", "-", '{"a":{"0":11,"1":2}}', '{"b":{"0":1}}']
    assert not (spark_files / "sources" / "0").joinpath("0").exists()
    assert (spark_files / "sources" / "2" / "0").read_text() == '\0v1\n{"b":{"0":1}}'
    assert not list(spark_files.rglob(".*"))


def test_a_checkpoint_that_is_in_parts_stays_as_it_is(spark_files):
    assert divide(spark_files, [["a"], ["b"]])
    files = {f: f.read_bytes() for f in spark_files.rglob("*") if f.is_file()}

    assert not divide(spark_files, [["a"], ["b"]])

    assert files == {f: f.read_bytes() for f in spark_files.rglob("*") if f.is_file()}


@pytest.mark.parametrize("files", range(1, 6))
def test_dividing_that_was_cut_short_is_finished_by_the_next(spark_files, files, monkeypatch):
    before, left = said(spark_files), [files]
    replace = Path.replace

    def replace_some(file, target):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return replace(file, target)

    with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr(Path, "replace", replace_some)
        divide(spark_files, [["a"], ["b"], ["c"]])
    assert said(spark_files) == before

    divide(spark_files, [["a"], ["b"], ["c"]])

    assert said(spark_files) == before
    assert not divide(spark_files, [["a"], ["b"], ["c"]])


def test_a_checkpoint_of_a_survey_that_is_gone_is_an_error(spark_files):
    with pytest.raises(ConfigError, match="has read b, which no survey sends"):
        divide(spark_files, [["a"]])


def test_where_nothing_was_read_there_is_nothing_to_divide(tmp_path):
    assert not divide(tmp_path, [["a"], ["b"]])
    assert not list(tmp_path.iterdir())
