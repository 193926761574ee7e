"""A survey sends a schema that no one knows: dead letters, then its file, then alerts."""

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
from broker.errors import ServiceError
from broker.simulation.packets import simulate_packets
from broker.store.alerts import AlertStore
from broker.store.audit import audit
from broker.store.ledger import Ledger
from broker.topics.publish import dead_letters_topic, read_dead_letters
from broker.topics.topic import Message, TopicSettings

N = 5
CODE = (
    "import pickle, sys; from broker.streaming.query import run_queries;"
    "run_queries(pickle.load(open(sys.argv[1], 'rb')), ['alerts'], until_idle=False)"
)


def wait_for(condition, process, log, limit_s=240.0):
    began = time.monotonic()
    while not condition():
        assert process.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() - began < limit_s, log.read_text()[-3000:]
        time.sleep(0.3)


@pytest.mark.timeout(600)
def test_a_new_schema_is_a_dead_letter_until_its_file_is_dropped_in(
    stack, kafka_topics, hbase_tables, tmp_path, run
):
    config = dataclasses.replace(
        stack, home=tmp_path, run=run.name, stream=StreamConfig(idle_s=0.0)
    )
    (tmp_path / "config.pickle").write_bytes(pickle.dumps(config))
    schema = json.loads(json.dumps(avro.read_schema("lsst/11.1")).replace("v11_1", "v12_0"))
    schema["fields"].append({"name": "brandNew", "type": ["null", "double"], "default": None})
    known = list(simulate_packets("lsst", N, 1, versions=["11.1"], history="short"))
    records = [avro.decode(avro.read_schema("lsst/11.1"), avro.unframe(p)[1]) for p in known]
    packets = [avro.frame(1200, avro.encode(schema, r | {"brandNew": 0.5})) for r in records]
    topic = run.alerts_topic("lsst")
    kafka_topics.create(topic, TopicSettings(partitions=1))
    kafka_topics.send(topic, [Message(packet) for packet in packets])
    store, log = AlertStore(hbase_tables, run), tmp_path / "stream.err"

    def letters():
        if dead_letters_topic(run) not in kafka_topics.names():
            return []
        return list(read_dead_letters(kafka_topics, run))

    def origins():
        try:
            return list(store.origins())
        except ServiceError:  # the stream makes the tables
            return []

    process = subprocess.Popen(
        [sys.executable, "-c", CODE, str(tmp_path / "config.pickle")],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=log.open("ab"),
    )
    try:
        wait_for(lambda: len(letters()) == N, process, log)
        assert {x.reason for x in letters()} == {"schema id 1200 is not known for survey lsst"}
        assert sorted(x.value for x in letters()) == sorted(packets)

        (tmp_path / "12.0.avsc").write_text(json.dumps(schema))
        env = {
            "BROKER_HOME": str(tmp_path),
            "BROKER_KAFKA__PORT": str(stack.kafka.port),
            "BROKER_KAFKA__CONTROLLER_PORT": str(stack.kafka.controller_port),
        }
        for words in (
            ["schema", "add", "lsst", str(tmp_path / "12.0.avsc")],
            ["dead-letter", "reinject"],
        ):
            done = CliRunner().invoke(
                cli, ["--run", run.name, *words], env=env, catch_exceptions=False
            )
            assert done.exit_code == 0, done.output

        wait_for(lambda: len(origins()) == N, process, log)
        ledger = Ledger(hbase_tables, run)
        wait_for(
            lambda: sum(r.end - r.first for r in ledger.consumed("alerts")) == 2 * N, process, log
        )
        os.killpg(process.pid, signal.SIGTERM)  # Spark's process gets it as well
        assert process.wait(120) == 0, log.read_text()[-3000:]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)

    ids = {str(record["diaSource"]["diaSourceId"]) for record in records}
    assert {dia_source_id for _, dia_source_id, _ in origins()} == ids
    found = audit(
        "alerts",
        ledger.consumed("alerts"),
        origins=iter(origins()),
        dead_letters=[letter.origin for letter in letters()],
    )
    assert found.problems == ()
    assert len(letters()) == N
