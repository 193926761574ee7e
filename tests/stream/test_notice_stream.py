"""Notices before and after their alerts, through the real queries; and after a crash."""

import dataclasses
import json
import shutil

import pytest

from broker.alerts.packet import encode_sim
from broker.client import Schemas, read_topic
from broker.config import StreamConfig
from broker.notices.wire import notice_matches_topic, notices_topic
from broker.ops.accounts import accounts_of
from broker.store.alerts import AlertStore
from broker.store.ledger import Ledger
from broker.streaming.query import checkpoint_path, run_queries
from broker.topics.publish import read_all, read_dead_letters, schemas_topic
from broker.topics.topic import Message, TopicSettings


def gcn(name, ra, **changes):
    values = {
        "mission": "Test", "id": name, "trigger_time": "2025-11-20T00:00:00Z", "ra": ra,
        "dec": -5.0, "ra_dec_error": 0.5, "record_number": 1, **changes,
    }  # fmt: skip
    return json.dumps(values).encode()


def sim_packet(number, ra, days):
    source = {
        "diaSourceId": number, "visit": 7, "detector": 1, "diaObjectId": 500 + number,
        "midpointMjdTai": 60_999.0 + days, "ra": ra, "dec": -5.0, "psfFlux": 1000.0,
        "psfFluxErr": 50.0, "snr": 20.0, "band": "r", "reliability": 0.9,
    }  # fmt: skip
    return encode_sim({"diaSourceId": number, "diaSource": source})


@pytest.mark.timeout(420)
def test_each_pair_comes_once_whichever_is_first_and_again_after_a_crash(
    stack, kafka_topics, hbase_tables, tmp_path, run
):
    config = dataclasses.replace(
        stack, home=tmp_path, run=run.name, stream=StreamConfig(idle_s=0.0)
    )
    kafka_topics.create(notices_topic(run), TopicSettings(partitions=1))
    kafka_topics.create(run.alerts_topic("sim"), TopicSettings(partitions=2))

    def send(topic, *bodies):
        kafka_topics.send(topic, [Message(body) for body in bodies])
        run_queries(config, ["alerts", "notices"], until_idle=True)

    # A notice, then alerts in its region and time (1), too late (2), elsewhere (3).
    send(notices_topic(run), gcn("A", 10.0), b"{not json", gcn("A", 10.0))
    send(
        run.alerts_topic("sim"),
        sim_packet(1, 10.2, 1.0), sim_packet(2, 10.2, 40.0), sim_packet(3, 20.2, 2.0),
    )  # fmt: skip
    # A notice that comes after its alert (3).
    send(notices_topic(run), gcn("B", 20.0))

    def pairs():
        schemas = Schemas(kafka_topics, schemas_topic(run))
        found = read_topic(kafka_topics, notice_matches_topic(run), schemas=schemas)
        return sorted((p.record["event"], p.record["diaSourceId"]) for p in found)

    assert pairs() == [("Test:A", "1"), ("Test:B", "3")]
    store = AlertStore(hbase_tables, run)
    readings = [store.alert("sim", str(i))["noticesMatch"] for i in (1, 2, 3)]
    assert readings == [1, -1, 0]
    alert = store.alert("sim", "1")
    assert alert["noticesId"] == "Test:A:initial:1"
    assert alert["noticesSeparation"] == pytest.approx(717.3, abs=0.2)  # 720" times cos(5 deg)
    (letter,) = read_dead_letters(kafka_topics, run)
    assert (letter.stage, letter.origin.offset) == ("notice", 1)

    # As after a crash before the offsets were kept: both queries do everything again.
    before = sum(1 for _ in read_all(kafka_topics, notice_matches_topic(run)))
    shutil.rmtree(checkpoint_path(config, "notices"))
    shutil.rmtree(checkpoint_path(config, "alerts"))
    run_queries(config, ["alerts", "notices"], until_idle=True)

    messages = list(read_all(kafka_topics, notice_matches_topic(run)))
    assert len(messages) > before
    assert len({(m.key, m.value) for m in messages}) == 2
    assert pairs() == [("Test:A", "1"), ("Test:B", "3")]
    accounts = accounts_of(kafka_topics, hbase_tables, run)
    row = {row.query: row for row in accounts.rows}["notices"]
    assert (row.consumed, row.stored, row.duplicates, row.dead_letters) == (4, 2, 1, 1)
    assert accounts.is_closed
    counts = Ledger(hbase_tables, run).batches("notices")[0].counts
    assert counts["consumed"] == counts["stored"] + counts["duplicates"] + counts["deadLetters"]
