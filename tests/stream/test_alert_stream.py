"""Queries 2 and 3 on real Kafka, Spark and HBase: packets of all surveys, good and bad."""

import dataclasses
import json

import numpy as np
import pytest
from sim_packets import sim_packet

from broker.archive import Archive
from broker.avro import decode, unframe
from broker.config import ArchiveConfig, StreamConfig
from broker.ops.metrics import METRICS, Metrics
from broker.simulation.packets import simulate_packets
from broker.store.alerts import AlertStore
from broker.store.audit import audit
from broker.store.ledger import Ledger
from broker.streaming.query import run_queries
from broker.topics.publish import read_all, read_dead_letters, read_schemas, schemas_topic
from broker.topics.topic import Message, TopicSettings
from broker.types import Coordinate

N_EACH = 60


def bad_packets(good):
    return [
        b"",
        np.random.default_rng(3).bytes(500),
        good[: len(good) // 2],
        b"\x00\x00\x00\x00\x01" + good[5:],
        b"\x07" + good[1:],
    ]


class Night:
    """A night's packets of all surveys, run through the queries once."""

    def __init__(self, config, topics, tables):
        self.config, self.topics, self.tables = config, topics, tables
        self.run = config.the_run
        self.sent = {}
        for survey in ("ztf", "lsst"):
            good = list(simulate_packets(survey, N_EACH, 11))
            self._send(survey, [*good, *bad_packets(good[0]), good[5]])
        own = [sim_packet(i) for i in range(1, N_EACH + 1)]
        nowhere = [sim_packet(900, ra=float("nan")), sim_packet(901, dec=-91.0)]
        self._send("sim", [*own, *nowhere, *bad_packets(own[0]), own[5]])
        self.summary = run_queries(config, ["archive", "alerts"], until_idle=True)

    def _send(self, survey, packets):
        topic = self.run.alerts_topic(survey)
        self.topics.create(topic, TopicSettings(partitions=2))
        coordinates = self.topics.send(topic, [Message(packet) for packet in packets])
        self.sent |= dict(zip(coordinates, packets, strict=True))

    @property
    def store(self):
        return AlertStore(self.tables, self.run)

    def public(self):
        """Return the packets on all public topics of the run: (topic, message)."""
        names = [n for n in self.topics.names() if n.startswith(f"run.{self.run.name}.")]
        return [
            (name, message)
            for name in names
            if name.endswith((".slim", ".full"))
            for message in read_all(self.topics, name)
        ]


@pytest.fixture(scope="module")
def night(stack, kafka_topics, hbase_tables, tmp_path_factory):
    config = dataclasses.replace(
        stack,
        home=tmp_path_factory.mktemp("night"),
        run="t-night",
        stream=StreamConfig(idle_s=0.0, max_alerts_per_trigger=25),
        archive=ArchiveConfig(str(tmp_path_factory.mktemp("archive"))),
    )
    return Night(config, kafka_topics, hbase_tables)


def test_each_packet_ends_in_exactly_one_place(night):
    letters = list(read_dead_letters(night.topics, night.run))

    found = audit(
        "alerts",
        Ledger(night.tables, night.run).consumed("alerts"),
        origins=night.store.origins(),
        dead_letters=[letter.origin for letter in letters],
    )

    assert found.problems == ()
    counts = {
        row.topic.rsplit(".", 1)[1]: (
            row.consumed,
            row.stored,
            row.duplicates,
            row.dead_letters,
            row.missing,
        )
        for row in found.rows
    }
    assert counts == {
        "ztf": (N_EACH + 6, N_EACH, 1, 5, 0),
        "lsst": (N_EACH + 6, N_EACH, 1, 5, 0),
        "sim": (N_EACH + 8, N_EACH, 1, 7, 0),
    }


def test_a_dead_letter_has_its_bytes_and_a_reason(night):
    letters = list(read_dead_letters(night.topics, night.run))

    assert len(letters) == 17
    for letter in letters:
        assert (letter.value or b"") == night.sent[letter.origin]
        assert letter.reason
        assert letter.stage == "decode"
    assert any("ra is missing or NaN" in letter.reason for letter in letters)


def test_packets_can_be_read_with_kafka_alone(night):
    schemas = read_schemas(night.topics, schemas_topic(night.run))
    packets = night.public()

    assert packets
    for topic, message in packets:
        schema_id, body = unframe(message.value)
        record = decode(schemas[schema_id], body)
        assert message.key == f"{record['survey']}|{record['diaSourceId']}".encode()
        assert topic.split(".")[2] in record["topics"]
        assert ("history" in record) == topic.endswith(".full")


def test_topics_agree_with_what_is_stored(night):
    by_topic = {}
    for topic, message in night.public():
        by_topic.setdefault(topic.split(".")[2:][0], set()).add(message.key)
    stored = {}
    for survey, dia_source_id, _ in night.store.origins():
        for topic in night.store.alert(survey, dia_source_id)["topics"]:
            stored.setdefault(topic, set()).add(f"{survey}|{dia_source_id}".encode())

    assert by_topic == stored


def test_every_packet_that_came_is_in_the_archive(night):
    archive = Archive(night.config.archive_path, night.run)

    for coordinate, packet in night.sent.items():
        assert archive.get(coordinate) == packet
    assert archive.surveys() == ["lsst", "sim", "ztf"]
    assert sum(end - first for r in archive.archived().values() for first, end in r) == len(
        night.sent
    )


def test_the_ledger_says_what_each_batch_did(night):
    ledger = Ledger(night.tables, night.run)
    batches = ledger.batches("alerts")

    assert len(batches) == night.summary["queries"]["alerts"]["batches"] >= 3
    total = sum(batch.counts["consumed"] for batch in batches)
    assert total == len(night.sent) == night.summary["queries"]["alerts"]["messages"]
    for batch in batches:
        places = batch.counts.get("stored", 0) + batch.counts.get("deadLetters", 0)
        assert places == batch.counts["consumed"] == sum(r.end - r.first for r in batch.ranges)
        assert json.loads(json.dumps(batch.stats))["seconds"]["batch"] > 0.0


def test_a_second_run_finds_nothing_to_do_and_a_replay_is_not_archived(night):
    topic = night.run.alerts_topic("sim")
    origin = str(Coordinate("alerts.sim", 0, 3)).encode()
    night.topics.send(topic, [Message(sim_packet(950), headers=(("origin", origin),))])

    summary = run_queries(night.config, ["alerts", "archive"], until_idle=True)

    assert [q["messages"] for q in summary["queries"].values()] == [1, 1]
    assert night.store.alert("sim", "950") is not None
    archive = Archive(night.config.archive_path, night.run)
    assert sum(end - first for r in archive.archived().values() for first, end in r) == len(
        night.sent
    )


def test_metrics_of_a_real_night_have_values_for_all_that_is_watched(night):
    page = Metrics(
        night.run, topics=night.topics, tables=night.tables, folder=night.config.home
    ).page()

    with_values = {line.split("{")[0] for line in page.splitlines() if not line.startswith("#")}
    # Only where something has failed, or a topic floods.
    quiet = {"module_failures_total", "module_quarantined", "throttled_total"}
    for name, (kind, _) in METRICS.items():
        suffixes = ("_bucket", "_count", "_sum") if kind == "histogram" else ("",)
        assert name in quiet or {f"nightjar_{name}{end}" for end in suffixes} <= with_values, name
    imbalance = [line for line in page.splitlines() if line.startswith("nightjar_ledger_imb")]
    assert [line.rsplit(" ", 1)[1] for line in imbalance] == ["0"]
