import numpy as np
import pyarrow as pa
import pytest

from broker.archive import ORIGIN_HEADER, ROWS, Archive
from broker.errors import ConfigError, ServiceError
from broker.replay import Rate, from_archive, from_files, parse_rate, replay
from broker.topics.memory import MemoryTopics
from broker.topics.topic import TopicSettings
from broker.types import Coordinate, Run

TO = "run.again.alerts.ztf"


class Clock:
    """A clock that only goes when someone waits."""

    def __init__(self):
        self.now = 100.0
        self.waits = []

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.waits.append(seconds)
        self.now += seconds


@pytest.fixture
def topics():
    made = MemoryTopics()
    made.create(TO, TopicSettings(partitions=2))
    return made


def messages(topics):
    return [
        message
        for part in topics.ranges(TO)
        for message in topics.read(TO, partition=part.partition, first=part.first, end=part.end)
    ]


def test_files_are_published_as_the_bytes_they_are(tmp_path, topics):
    contents = [b"", b"\x00\x01", np.random.default_rng(1).bytes(5000)]
    for i, content in enumerate(contents):
        (tmp_path / f"{i}.avro").write_bytes(content)

    played = replay(topics, from_files(sorted(tmp_path.iterdir())), to=TO)

    assert sorted(m.value for m in messages(topics)) == sorted(contents)
    assert all(m.header(ORIGIN_HEADER) is None for m in messages(topics))
    assert (played.packets, played.bytes) == (3, 5002)


def test_a_night_of_the_archive_comes_with_its_origin_in_order(tmp_path, topics):
    archive = Archive(tmp_path, Run())
    noon_ms = 1_750_075_200_000
    for partition in (0, 1):
        rows = pa.record_batch(
            [
                pa.array([5, 6, 7], pa.int64()),
                pa.array([noon_ms + 10 * i + partition for i in range(3)], pa.int64()),
                pa.array([b"%d-%d" % (partition, i) for i in range(3)], pa.binary()),
            ],
            schema=ROWS,
        )
        archive.write("alerts.ztf", partition, [rows])

    replay(topics, from_archive(archive, survey="ztf", night="20250616"), to=TO)

    for partition in (0, 1):
        read = list(topics.read(TO, partition=partition, first=0, end=10))
        assert [m.value for m in read] == [b"%d-%d" % (partition, i) for i in range(3)]
        assert [m.header(ORIGIN_HEADER) for m in read] == [
            str(Coordinate("alerts.ztf", partition, 5 + i)).encode() for i in range(3)
        ]


def test_a_rate_per_second_is_kept(topics):
    clock = Clock()
    packets = [(b"x", None, None)] * 50

    played = replay(
        topics, packets, to=TO, rate=Rate(per_second=10.0), clock=clock, sleep=clock.sleep
    )

    assert played.seconds == pytest.approx(4.9)  # the last of 50 is due 49 tenths after the first
    assert max(clock.waits) == pytest.approx(0.1)


def test_gaps_between_arrivals_are_kept_at_a_speed(topics):
    clock = Clock()
    times_ms = [0, 1000, 31_000]
    sent_at = []

    replay(
        topics,
        [(b"x", t, None) for t in times_ms],
        to=TO,
        rate=Rate(speed_up=10.0),
        advance=lambda n: sent_at.append((clock(), n)),
        clock=clock,
        sleep=clock.sleep,
    )

    assert [n for _, n in sent_at] == [1, 1, 1]
    assert [t - 100.0 for t, _ in sent_at] == pytest.approx([0.0, 0.1, 3.1])


def test_a_replay_ends_before_the_first_packet_of_its_end(topics):
    packets = [(b"%d" % t, t, None) for t in (10, 20, 30, 40)]

    played = replay(topics, packets, to=TO, until_ms=30)

    assert played.packets == 2
    assert sorted(m.value for m in messages(topics)) == [b"10", b"20"]


@pytest.mark.parametrize(
    ("text", "rate"),
    [("max", Rate()), ("100/s", Rate(per_second=100.0)), ("2.5x", Rate(speed_up=2.5))],
)
def test_rates_are_read_as_typed(text, rate):
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "fast", "0/s", "-1x", "10", "x"])
def test_any_other_rate_is_refused(text):
    with pytest.raises(ConfigError, match="use max, 100/s or 10x"):
        parse_rate(text)


def test_a_night_that_is_not_there_names_those_that_are(tmp_path):
    with pytest.raises(ConfigError, match="no packets of ztf for night 20250101; there are: none"):
        list(from_archive(Archive(tmp_path, Run()), survey="ztf", night="20250101"))


def test_a_topic_that_does_not_exist_is_an_error():
    with pytest.raises(ServiceError, match="no topic"):
        replay(MemoryTopics(), [(b"x", None, None)], to="nowhere")
