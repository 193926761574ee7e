import os
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.archive import ROWS, Archive
from broker.archive import files as archive_files
from broker.types import Coordinate, Run

NOON_MS = 1_750_075_200_000  # 2025-06-16 12:00 UTC
TOPIC = "alerts.ztf"


def rows_of(packets, first=0, timestamps=None):
    timestamps = timestamps or [NOON_MS + 1000 * i for i in range(len(packets))]
    offsets = range(first, first + len(packets))
    return pa.record_batch(
        [
            pa.array(offsets, pa.int64()),
            pa.array(timestamps, pa.int64()),
            pa.array(packets, pa.binary()),
        ],
        schema=ROWS,
    )


def all_files(folder):
    return {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(0, 2000), min_size=1, max_size=30),
    cuts=st.sets(st.integers(0, 29), max_size=4),
    seed=st.integers(0, 2**32 - 1),
)
def test_packets_come_back_as_they_went_in(tmp_path_factory, sizes, cuts, seed):
    archive = Archive(tmp_path_factory.mktemp("archive"), Run())
    rng = np.random.default_rng(seed)
    packets = [rng.bytes(size) for size in sizes]
    whole = rows_of(packets, first=7)
    bounds = [0, *sorted(c for c in cuts if 0 < c < len(sizes)), len(sizes)]

    archive.write(TOPIC, 1, (whole.slice(a, b - a) for a, b in pairwise(bounds)))

    read = list(archive.packets("ztf", "20250616"))
    assert [packet for _, _, packet in read] == packets
    assert [c for c, _, _ in read] == [Coordinate(TOPIC, 1, 7 + i) for i in range(len(packets))]
    assert [archive.get(c) for c, _, _ in read] == packets
    assert archive.archived() == {(TOPIC, 1): [(7, 7 + len(packets))]}


def test_an_offset_outside_the_archive_has_no_packet(tmp_path):
    archive = Archive(tmp_path, Run())
    archive.write(TOPIC, 0, [rows_of([b"a", b"b"], first=10)])

    for offset in (9, 12):
        assert archive.get(Coordinate(TOPIC, 0, offset)) is None
    assert archive.get(Coordinate(TOPIC, 1, 10)) is None
    assert archive.get(Coordinate("alerts.lsst", 0, 10)) is None


def test_a_repeated_batch_leaves_the_same_bytes(tmp_path):
    archive = Archive(tmp_path, Run())
    batch = rows_of([b"one", b"", b"three"])

    archive.write(TOPIC, 0, [batch])
    before = all_files(tmp_path)
    archive.write(TOPIC, 0, [batch])

    assert all_files(tmp_path) == before


def test_files_that_overlap_give_each_packet_once(tmp_path):
    archive = Archive(tmp_path, Run())
    packets = [bytes([i]) * (i + 1) for i in range(20)]
    whole = rows_of(packets)

    for first, end in ((0, 10), (5, 15), (6, 8), (15, 20), (0, 20)):
        archive.write(TOPIC, 0, [whole.slice(first, end - first)])

    assert [packet for _, _, packet in archive.packets("ztf", "20250616")] == packets
    assert [archive.get(Coordinate(TOPIC, 0, i)) for i in range(20)] == packets
    assert archive.archived() == {(TOPIC, 0): [(0, 20)]}


def test_a_batch_over_noon_is_split_into_its_nights(tmp_path):
    archive = Archive(tmp_path, Run())
    packets = [b"before", b"after", b"late before", b"late after"]
    times = [NOON_MS - 1, NOON_MS, NOON_MS - 5, NOON_MS + 5]

    archive.write(TOPIC, 0, [rows_of(packets, timestamps=times)])

    assert archive.nights("ztf") == ["20250615", "20250616"]
    assert [p for _, _, p in archive.packets("ztf", "20250615")] == [b"before", b"late before"]
    assert [p for _, _, p in archive.packets("ztf", "20250616")] == [b"after", b"late after"]
    assert [archive.get(Coordinate(TOPIC, 0, i)) for i in range(4)] == packets
    assert archive.archived() == {(TOPIC, 0): [(0, 4)]}


def test_partitions_are_merged_in_the_order_of_arrival(tmp_path):
    archive = Archive(tmp_path, Run())
    archive.write(TOPIC, 0, [rows_of([b"1", b"3"], timestamps=[NOON_MS + 1, NOON_MS + 3])])
    archive.write(TOPIC, 1, [rows_of([b"2", b"4"], timestamps=[NOON_MS + 2, NOON_MS + 4])])

    assert [p for _, _, p in archive.packets("ztf", "20250616")] == [b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize("step", ["fsync", "first rename", "second rename"])
def test_a_writer_killed_before_the_last_rename_leaves_nothing_to_read(tmp_path, monkeypatch, step):
    archive = Archive(tmp_path, Run())
    batch = rows_of([b"one", b"two"])
    pid = os.fork()
    if pid == 0:  # the child dies where a kill -9 would strike
        renames = []
        replace = archive_files.Path.replace

        def dying_replace(path, target):
            renames.append(target)
            if step == "first rename" or len(renames) == 2:
                os._exit(9)
            return replace(path, target)

        if step == "fsync":
            archive_files.os.fsync = lambda handle: os._exit(9)
        archive_files.Path.replace = dying_replace
        archive.write(TOPIC, 0, [batch])
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9

    assert archive.get(Coordinate(TOPIC, 0, 0)) is None
    assert list(archive.packets("ztf", "20250616")) == []

    archive.clean()
    archive.write(TOPIC, 0, [batch])
    assert [p for _, _, p in archive.packets("ztf", "20250616")] == [b"one", b"two"]
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_failure_while_rows_come_in_leaves_no_file(tmp_path):
    archive = Archive(tmp_path, Run())

    def broken():
        yield rows_of([b"one"])
        raise RuntimeError("the source is gone")

    with pytest.raises(RuntimeError, match="the source is gone"):
        archive.write(TOPIC, 0, broken())
    assert all_files(tmp_path) == {}


def test_each_run_has_its_own_folder_and_the_same_surveys(tmp_path):
    replay = Run("replay-1")
    archive = Archive(tmp_path, replay)

    archive.write(replay.alerts_topic("ztf"), 0, [rows_of([b"x"])])
    archive.write(replay.internal_topic("ccd-images"), 0, [rows_of([b"y"])])

    assert archive.surveys() == ["ccd-images", "ztf"]
    assert Archive(tmp_path, Run()).surveys() == []


def test_a_reader_sees_what_another_process_writes_later(tmp_path):
    writer, reader = Archive(tmp_path, Run()), Archive(tmp_path, Run())
    for i in range(20):
        writer.write(TOPIC, 0, [rows_of([b"%d" % i], first=i)])

        assert reader.get(Coordinate(TOPIC, 0, i)) == b"%d" % i
