"""The stream is killed in the middle of a batch and started again."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict

import pytest
from sim_packets import sim_packet

from broker.archive import Archive
from broker.config import ArchiveConfig, StreamConfig
from broker.store.alerts import AlertStore
from broker.store.audit import audit
from broker.store.ledger import Ledger
from broker.topics.publish import read_all, read_dead_letters
from broker.topics.topic import Message, TopicSettings

N_PACKETS = 3000
CODE = (
    "import pickle, sys; from broker.streaming.query import run_queries;"
    "run_queries(pickle.load(open(sys.argv[1], 'rb')), ['alerts', 'archive'], until_idle=True)"
)


def start(config, folder):
    import pickle

    recipe = folder / "config.pickle"
    recipe.write_bytes(pickle.dumps(config))
    return subprocess.Popen(
        [sys.executable, "-c", CODE, str(recipe)],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=(folder / "stream.err").open("ab"),
    )


def published(topics, run):
    names = [n for n in topics.names() if n.startswith(f"run.{run.name}.")]
    return {
        name: list(read_all(topics, name)) for name in names if name.endswith((".slim", ".full"))
    }


def n_published(topics, run):
    return sum(
        part.end - part.first
        for name in topics.names()
        if name.startswith(f"run.{run.name}.") and name.endswith((".slim", ".full"))
        for part in topics.ranges(name)
    )


def kill_in_mid_batch(process, topics, run):
    """Kill as soon as packets leave: rows are stored, the batch is neither published nor done."""
    before = n_published(topics, run)
    limit = time.monotonic() + 120.0
    while n_published(topics, run) == before:
        assert process.poll() is None, "the stream ended before it could be killed"
        assert time.monotonic() < limit, "the stream published nothing"
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)


@pytest.mark.timeout(420)
def test_a_stream_killed_in_mid_batch_loses_nothing_and_stores_nothing_twice(
    stack, kafka_topics, hbase_tables, tmp_path, run
):
    config = dataclasses.replace(
        stack,
        home=tmp_path,
        run=run.name,
        stream=StreamConfig(idle_s=0.0, max_alerts_per_trigger=1000),
        archive=ArchiveConfig(str(tmp_path / "archive")),
    )
    topic = run.alerts_topic("sim")
    kafka_topics.create(topic, TopicSettings(partitions=2))
    packets = [sim_packet(number, is_moving=True) for number in range(1, N_PACKETS + 1)]
    coordinates = kafka_topics.send(topic, [Message(packet) for packet in packets])

    for _ in range(2):
        kill_in_mid_batch(start(config, tmp_path), kafka_topics, run)
    assert start(config, tmp_path).wait(240) == 0, (tmp_path / "stream.err").read_text()

    found = audit(
        "alerts",
        Ledger(hbase_tables, run).consumed("alerts"),
        origins=AlertStore(hbase_tables, run).origins(),
        dead_letters=[letter.origin for letter in read_dead_letters(kafka_topics, run)],
    )
    (row,) = found.rows
    assert found.problems == ()
    assert (row.consumed, row.stored, row.duplicates, row.missing) == (N_PACKETS, N_PACKETS, 0, 0)
    archive = Archive(config.archive_path, run)
    assert [archive.get(coordinate) for coordinate in coordinates] == packets
    night = [packet for n in archive.nights("sim") for _, _, packet in archive.packets("sim", n)]
    assert Counter(night) == Counter(packets)
    assert_repeats_are_equal(published(kafka_topics, run))


def assert_repeats_are_equal(topics):
    """Hold each key to one body, and the two variants of a topic to the same keys."""
    keys = {}
    repeats = 0
    for name, messages in topics.items():
        bodies = defaultdict(set)
        for message in messages:
            bodies[message.key].add(message.value)
        assert all(len(values) == 1 for values in bodies.values())
        repeats += len(messages) - len(bodies)
        keys[name] = set(bodies)
    assert repeats > 0, "no batch was repeated after its packets had left: the kill came too early"
    moving = next(name for name in topics if name.endswith("solar-system.slim"))
    assert len(keys[moving]) == N_PACKETS
    for name in keys:
        assert keys[name] == keys[name.rsplit(".", 1)[0] + ".full"]
