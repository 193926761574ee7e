"""A topic that floods and the packets of a watchlist say so to who reads them."""

import json
from contextlib import contextmanager

import pytest
from click.testing import CliRunner

from broker.avro import encode, frame
from broker.cli import topic_packets
from broker.cli.main import cli
from broker.spark.throttle import Share
from broker.topics.memory import MemoryTopics
from broker.topics.publish import store_schemas
from broker.topics.topic import Message, TopicSettings
from broker.types import Run

RUN = Run("flooded")
SCHEMA = {"type": "record", "name": "Alert", "fields": [{"name": "diaSourceId", "type": "long"}]}
FLOOD = Share("bright", 0.05, alerts=1000, passed=400, held=0, enough=10)


@pytest.fixture
def read(monkeypatch):
    """Read the topic of a run in memory as a person does."""
    topics = MemoryTopics()
    store_schemas(topics, RUN, {1: SCHEMA})
    name = RUN.public_topic("bright", "slim")
    topics.create(name, TopicSettings(partitions=1))
    watched = json.dumps({"list": "stars", "entry": "mine", "separation": 0.72, "entries": 1})
    for number, headers in enumerate(((), (FLOOD.header,), (("watchlist", watched.encode()),))):
        value = frame(1, encode(SCHEMA, {"diaSourceId": number}))
        topics.send(name, [Message(value, key=str(number).encode(), headers=headers)])

    @contextmanager
    def made(_):
        yield topics

    monkeypatch.setattr(topic_packets, "topics_of", made)
    return lambda *more: CliRunner().invoke(
        cli, ["--run", RUN.name, "topic", "read", "bright", *more], catch_exceptions=False
    )


def test_lines_of_json_have_what_is_noted_on_a_packet_and_no_more(read):
    first, throttled, watched = map(json.loads, read("--json").output.splitlines())

    assert first == {"diaSourceId": 0}
    assert throttled["throttled"] == json.loads(FLOOD.header[1])
    assert watched["watchlist"]["entry"] == "mine"


def test_a_table_says_what_part_goes_out(read):
    table = read().output.replace("\n", " ")

    assert "throttled" in table
    assert "12.5 % of 40 %" in table
    assert "stars, mine" in table
    assert "0.72 arcsec" in table


def test_a_table_without_notes_has_no_column_for_them(read):
    assert "throttled" not in read("--limit", "1").output
