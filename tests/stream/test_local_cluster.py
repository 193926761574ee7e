"""The installed wheel on a cluster of two executors, one of them killed: the same bytes."""

import importlib.util
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from broker.simulation.packets import simulate_packets
from broker.topics.publish import read_all
from broker.topics.topic import Message, TopicSettings
from broker.types import Run

pytestmark = pytest.mark.servers

N = 1200
CLUSTER, LOCAL = "local-cluster[2,1,2048]", "local[2,4]"

_spec = importlib.util.spec_from_file_location(
    "wheel", Path(__file__).parents[1] / "end_to_end" / "test_wheel.py"
)
_wheel = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_wheel)
wheel, installed = _wheel.wheel, _wheel.installed


def environment(stack, home, run, master):
    """Return the settings of the installed command; nothing of the checkout is in them."""
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("BROKER_", "PYTHON"))}
    return kept | {
        "BROKER_HOME": str(home),
        "BROKER_CACHE": str(stack.cache),
        "BROKER_RUN": run.name,
        "BROKER_KAFKA__PORT": str(stack.kafka.port),
        "BROKER_HBASE__THRIFT_PORT": str(stack.hbase.thrift_port),
        "BROKER_HBASE__ZOOKEEPER_PORT": str(stack.hbase.zookeeper_port),
        "BROKER_STREAM__MASTER": master,
        "BROKER_STREAM__DRIVER_MEMORY_MB": "1024",
        "BROKER_STREAM__MAX_ALERTS_PER_TRIGGER": "200",
        "BROKER_STREAM__IDLE_S": "0",
        "BROKER_SCIENCE__FLOOD_ALERTS": "1000000000",
        "BROKER_LOG__LEVEL": "WARNING",
    }


def start(installed, folder, environ):
    return subprocess.Popen(
        [installed / "broker", "stream", "alerts", "--until-idle", "--json"],
        cwd=folder,
        env=environ,
        stdout=(folder / "out.json").open("wb"),
        stderr=(folder / "err.txt").open("wb"),
        start_new_session=True,
    )


def executors(process):
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            words = child.cmdline()
        except psutil.Error:
            continue
        if any("CoarseGrainedExecutorBackend" in word for word in words):
            found.append(child)
    return found


def outcome(topics, tables, run):
    """Return rows without where they stood, and packets by topic and key."""
    rows = {
        key: {name: value for name, value in row.items() if name[:2] != b"o:"}
        for key, row in tables.table(run.table("alert")).scan()
    }
    packets = {}
    for name in topics.names():
        if name.startswith(f"run.{run.name}.") and name.endswith((".slim", ".full")):
            for message in read_all(topics, name):
                place = (name.removeprefix(f"run.{run.name}."), message.key)
                assert packets.setdefault(place, message.value) == message.value
    return rows, packets


@pytest.mark.timeout(900)
def test_a_killed_executor_changes_no_byte(stack, kafka_topics, hbase_tables, installed, tmp_path):
    packets = list(simulate_packets("ztf", N, 21))
    runs = {CLUSTER: Run("t-cluster"), LOCAL: Run("t-local")}
    processes = {}
    for master, run in runs.items():
        folder = tmp_path / run.name
        folder.mkdir()
        name = run.alerts_topic("ztf")
        kafka_topics.create(name, TopicSettings(partitions=2))
        kafka_topics.send(name, [Message(packet) for packet in packets])
        process = start(installed, folder, environment(stack, folder / "home", run, master))
        processes[master] = process
        try:
            if master == CLUSTER:
                kill_an_executor_at_work(process, folder / "home" / "checkpoints" / run.name)
            assert process.wait(300) == 0, (folder / "err.txt").read_text()[-3000:]
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        summary = json.loads((folder / "out.json").read_text())
        assert summary["queries"]["alerts"]["messages"] == N

    cluster, local = (outcome(kafka_topics, hbase_tables, run) for run in runs.values())
    assert len(cluster[0]) == N
    assert cluster[1], "no alert passed a filter"
    assert cluster == local


def kill_an_executor_at_work(process, checkpoint):
    """Kill one of the two as soon as a batch is through and another has begun."""
    limit = time.monotonic() + 300.0
    alerts = checkpoint / "alerts"
    while not (alerts / "commits" / "0").exists() or not (alerts / "offsets" / "1").exists():
        assert process.poll() is None, "the stream ended before an executor could be killed"
        assert time.monotonic() < limit, "no batch was finished"
        time.sleep(0.02)
    found = executors(process)
    assert len(found) == 2
    found[0].kill()
