"""Packets go into files once each, with every column of their schema, and are read back equal."""

import json

import fastavro
import pyarrow.parquet as pq
import pytest

from broker.avro import encode, frame
from broker.client import Schemas, Subscription
from broker.client.readers import LooseReader
from broker.errors import ConfigError
from broker.topics.memory import MemoryTopics
from broker.topics.publish import schemas_topic, store_schemas
from broker.topics.topic import Message, TopicSettings
from broker.types import Run

RUN = Run("filers")
TOPIC = RUN.public_topic("young-supernova", "full")
EPOCH = {
    "type": "record",
    "name": "Epoch",
    "fields": [{"name": "mjd", "type": "double"}, {"name": "flux", "type": ["null", "float"]}],
}
OLD = {
    "type": "record",
    "name": "Alert",
    "fields": [
        {"name": "diaSourceId", "type": "long"},
        {"name": "cutout", "type": ["null", "bytes"]},
        {"name": "history", "type": {"type": "array", "items": EPOCH}},
        {"name": "newest", "type": ["null", "Epoch"]},
    ],
}
NEW = {**OLD, "fields": [*OLD["fields"], {"name": "colour", "type": ["null", "float"]}]}


def record(number):
    epoch = {"mjd": 60000.5, "flux": None}
    return {
        "diaSourceId": 2**62 + number,
        "cutout": b"\x00\xff" if number % 2 else None,
        "history": [epoch] * number,
        "newest": epoch if number else None,
    }


def packet(number, schema_id=1):
    made = record(number) | ({"colour": None} if schema_id == 2 else {})
    body = encode(OLD if schema_id == 1 else NEW, made)
    return Message(frame(schema_id, body), key=str(number).encode())


@pytest.fixture
def topics():
    made = MemoryTopics()
    made.create(TOPIC, TopicSettings(partitions=2))
    store_schemas(made, RUN, {1: OLD, 2: NEW})
    return made


def save(topics, folder, form, **settings):
    reader = LooseReader(topics, TOPIC, "earliest")
    alerts = Subscription(reader, schemas=Schemas(topics, schemas_topic(RUN)), idle_s=0.0)
    with alerts:
        return list(alerts.save(folder, form=form, **settings))


READ = {
    "parquet": lambda path: pq.read_table(path).to_pylist(),
    "avro": lambda path: list(fastavro.reader(path.open("rb"))),
    "jsonl": lambda path: [json.loads(line) for line in path.read_text().splitlines()],
}


@pytest.mark.parametrize("form", ["parquet", "avro", "jsonl"])
def test_files_give_back_what_the_packets_hold(topics, tmp_path, form):
    topics.send(TOPIC, [packet(n) for n in range(4)], partition=0)
    topics.send(TOPIC, [packet(n) for n in (2, 7)], partition=1)  # 2 is a repeat

    files = save(topics, tmp_path, form)

    found = sorted((r for f in files for r in READ[form](f)), key=lambda r: r["diaSourceId"])
    expected = [record(n) for n in (0, 1, 2, 3, 7)]
    if form == "jsonl":
        for one in expected:
            one["cutout"] = "AP8=" if one["cutout"] else None
    assert found == expected


def test_a_folder_gets_each_alert_once_however_often_it_is_gone_on_with(topics, tmp_path):
    topics.send(TOPIC, [packet(n) for n in range(3)], partition=0)
    first = save(topics, tmp_path, "parquet")
    topics.send(TOPIC, [packet(n) for n in range(3, 5)], partition=0)
    second = save(topics, tmp_path, "parquet")
    third = save(topics, tmp_path, "parquet")

    assert [len(READ["parquet"](path)) for path in (*first, *second)] == [3, 2]
    assert third == []
    assert not list(tmp_path.glob(".*"))


def test_packets_of_two_schemas_are_in_two_files_each_with_its_columns(topics, tmp_path):
    topics.send(TOPIC, [packet(0), packet(1, 2), packet(2, 2)], partition=0)

    old, new = save(topics, tmp_path, "parquet")

    assert pq.read_schema(old).names == [f["name"] for f in OLD["fields"]]
    assert pq.read_schema(new).names == [f["name"] for f in NEW["fields"]]
    assert str(pq.read_schema(new).field("colour").type) == "float"  # though all are null


def test_an_unknown_format_is_refused(topics, tmp_path):
    with pytest.raises(ConfigError, match="parquet, avro, jsonl"):
        save(topics, tmp_path, "xls")


def test_a_reader_can_be_moved_to_a_time(topics):
    for at in (1000, 2000, 3000):
        topics.send(TOPIC, [Message(packet(at).value, str(at).encode(), timestamp_ms=at)])
    reader = LooseReader(topics, TOPIC, "latest")
    alerts = Subscription(reader, schemas=Schemas(topics, schemas_topic(RUN)), idle_s=0.0)

    alerts.seek("1970-01-01T00:00:02Z")
    found = [alert["diaSourceId"] - 2**62 for alert in alerts]

    assert sorted(found) == [2000, 3000]
