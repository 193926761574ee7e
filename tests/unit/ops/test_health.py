"""What `broker health` says of parts that work, are not in use, or are broken."""

import dataclasses
import json
import shutil
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from broker.config import Config, ServeConfig
from broker.errors import ServiceError
from broker.ops.health import check_health
from broker.store.alerts import create_tables
from broker.store.ledger import Ledger
from broker.store.memory import MemoryTables
from broker.topics.memory import MemoryTopics
from broker.topics.publish import dead_letter, dead_letters_topic, store_schemas
from broker.topics.topic import Message
from broker.types import Coordinate, OffsetRange


class Silent:
    """A server that does not answer."""

    def __getattr__(self, name):
        def fail(*args, **kwargs):
            raise ServiceError("nothing answers at that port")

        return fail


@pytest.fixture
def config(tmp_path):
    return Config(home=tmp_path, serve=ServeConfig(port=1))


@pytest.fixture
def topics():
    return MemoryTopics()


@pytest.fixture
def tables():
    return MemoryTables()


def states(*parts):
    return {check.part: check.state for check in check_health(*parts)}


def test_an_empty_broker_is_well_and_what_is_not_in_use_is_off(config, topics, tables):
    assert states(config, topics, tables) == {
        "Kafka": "ok",
        "HBase": "ok",
        "schemas": "off",
        "stream": "off",
        "dead letters": "off",
        "API": "off",
        "disk": "ok",
    }


def test_a_server_that_does_not_answer_fails_with_what_to_do_and_the_others_are_looked_at(
    config, topics, tables
):
    found = {check.part: check for check in check_health(config, topics, Silent())}

    assert found["Kafka"].state == "ok"
    assert found["HBase"].state == "failed"
    assert found["HBase"].words == "nothing answers at that port"
    assert "broker up" in found["HBase"].advice
    assert states(config, Silent(), tables)["Kafka"] == "failed"


def test_a_store_that_gives_back_something_else_has_failed(config, topics, tables):
    class Forgetful(MemoryTables):
        def table(self, name):
            table = super().table(name)
            table.get = lambda key: {b"h:token": b"of another day"}
            return table

    assert states(config, topics, Forgetful())["HBase"] == "failed"


@pytest.mark.parametrize(("age_s", "expected"), [(1.0, "ok"), (600.0, "failed")])
def test_messages_that_wait_while_no_batch_ends_are_a_fault(
    config, topics, tables, monkeypatch, age_s, expected
):
    run = config.the_run
    create_tables(tables, run, 1)
    topics.create("alerts.sim")
    topics.send("alerts.sim", [Message(b"a"), Message(b"b")], 0)
    Ledger(tables, run).record("alerts", 0, [OffsetRange("alerts.sim", 0, 0, 1)], {}, {})
    now = time.time()
    monkeypatch.setattr("broker.ops.health.time.time", lambda: now + age_s)

    found = next(c for c in check_health(config, topics, tables) if c.part == "stream")

    assert found.state == expected
    assert "1 messages wait" in found.words


def test_schemas_and_dead_letters_are_counted(config, topics, tables):
    run = config.the_run
    store_schemas(topics, run, {7: {"type": "record", "name": "a", "fields": []}})
    topics.create(dead_letters_topic(run))
    letter = dead_letter(Coordinate("alerts.sim", 0, 1), "decode", "bad", b"x")
    topics.send(dead_letters_topic(run), [letter])

    found = {check.part: check.words for check in check_health(config, topics, tables)}

    assert found["schemas"].startswith("1 schemas")
    assert found["dead letters"] == "1 in the last hour"


@pytest.mark.parametrize(("code", "expected"), [(200, "ok"), (503, "failed")])
def test_the_api_is_asked_for_its_own_health(config, topics, tables, code, expected):
    class Api(BaseHTTPRequestHandler):
        def do_GET(self):
            assert self.path == "/api/v1/health"
            self.send_response(code)
            self.end_headers()
            self.wfile.write(json.dumps({"run": "live", "parts": []}).encode())

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Api)
    threading.Thread(target=server.handle_request, daemon=True).start()
    config = dataclasses.replace(config, serve=ServeConfig(port=server.server_port))

    assert states(config, topics, tables)["API"] == expected
    server.server_close()


def test_a_disk_that_is_nearly_full_is_a_fault(config, topics, tables, monkeypatch):
    usage = shutil.disk_usage("/")._replace(free=500_000_000)
    monkeypatch.setattr("broker.ops.health.shutil.disk_usage", lambda _: usage)

    (disk,) = (check for check in check_health(config, topics, tables) if check.part == "disk")

    assert disk.state == "failed"
    assert "500 MB are free" in disk.words
    assert "make room" in disk.advice
