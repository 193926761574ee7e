"""A stream is killed behind its dead letters; they are sent again before its batch is repeated."""

import dataclasses
import json
import os
import pickle
import signal
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

from broker import avro
from broker.cli.main import cli
from broker.config import StreamConfig
from broker.ops.accounts import accounts_of
from broker.ops.faults import steps
from broker.simulation.packets import simulate_packets
from broker.topics.publish import read_dead_letters
from broker.topics.topic import Message, TopicSettings

N = 5


@pytest.fixture
def set_up(stack, tmp_path, run):
    config = dataclasses.replace(
        stack, home=tmp_path, run=run.name, stream=StreamConfig(idle_s=0.0)
    )
    schema = json.loads(json.dumps(avro.read_schema("lsst/11.1")).replace("v11_1", "v12_0"))
    (tmp_path / "12.0.avsc").write_text(json.dumps(schema))
    known = list(simulate_packets("lsst", 2 * N, 1, versions=["11.1"], history="short"))
    new = [avro.frame(1200, avro.unframe(packet)[1]) for packet in known[:N]]
    return config, new, known[N:]


def killed_at(step, config, folder):
    """Run the stream until it dies at a step."""
    (folder / "config.pickle").write_bytes(pickle.dumps(config))
    steps.arm(folder, step)
    command = ["-m", "broker.ops.faults.child", str(folder / "config.pickle"), "alerts"]
    with (folder / "stream.err").open("ab") as errors:
        process = subprocess.Popen(
            [sys.executable, *command], start_new_session=True, stderr=errors
        )
    try:
        began = time.monotonic()
        while process.poll() is None and time.monotonic() - began < 300.0:
            time.sleep(0.1)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)
    assert steps.fired(folder), (folder / "stream.err").read_text()[-3000:]


@pytest.mark.timeout(600)
def test_an_alert_sent_again_before_its_batch_is_repeated_counts_once(
    set_up, kafka_topics, hbase_tables, tmp_path, run
):
    config, new, known = set_up
    topic = run.alerts_topic("lsst")
    kafka_topics.create(topic, TopicSettings(partitions=1))
    kafka_topics.send(topic, [Message(packet) for packet in new + known])
    killed_at("published", config, tmp_path)
    first = list(read_dead_letters(kafka_topics, run))
    assert sorted(letter.value for letter in first) == sorted(new)

    env = {
        "BROKER_HOME": str(tmp_path),
        "BROKER_KAFKA__PORT": str(config.kafka.port),
        "BROKER_KAFKA__CONTROLLER_PORT": str(config.kafka.controller_port),
    }
    for words in (
        ["schema", "add", "lsst", str(tmp_path / "12.0.avsc")],
        ["dead-letter", "reinject"],
    ):
        done = CliRunner().invoke(cli, ["--run", run.name, *words], env=env, catch_exceptions=False)
        assert done.exit_code == 0, done.output
    # In a process of its own, as it is without the kill: what this one knows of schemas stays.
    code = (
        "import pickle, sys; from broker.streaming.query import run_queries;"
        "run_queries(pickle.load(open(sys.argv[1], 'rb')), ['alerts'], until_idle=True)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "config.pickle")],
        capture_output=True, timeout=300, check=False, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]

    accounts = accounts_of(kafka_topics, hbase_tables, run)
    assert accounts.problems == ()
    total = accounts.total
    assert (total.consumed, total.stored, total.duplicates) == (3 * N, 2 * N, 0)
    assert (total.dead_letters, total.missing) == (N, 0)
    assert len(list(read_dead_letters(kafka_topics, run))) == N
