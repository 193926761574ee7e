"""What the benchmark of serving fills, asks and judges; its speed is told by the command alone."""

import http.server
import itertools
import json
import time
from contextlib import contextmanager

import numpy as np
import pytest
from loopback import served

from broker.errors import ServiceError
from broker.ops.serve_bench.asks import PlainReader, question
from broker.ops.serve_bench.fill import PER_OBJECT, SURVEY, TOPIC, add_packets, fill, places
from broker.ops.serve_bench.pace import Pace, Passed, cost_rows
from broker.ops.serve_bench.server import Client
from broker.ops.serve_bench.users import users
from broker.store.alerts import AlertStore, create_tables
from broker.store.memory import MemoryTables
from broker.topics.memory import MemoryTopics
from broker.types import Run
from broker.units import separation_arcsec

ALERTS = 300
RUN = Run("bench")


@pytest.fixture(scope="module")
def tables():
    found = MemoryTables()
    fill(found, RUN, ALERTS, lambda _: None)
    return found


def test_every_alert_is_written_once_and_found_by_its_object(tables):
    store = AlertStore(tables, RUN)

    alerts = list(store.every())

    assert len({alert["diaSourceId"] for alert in alerts}) == len(alerts) == ALERTS
    names = [alert["diaSourceId"] for alert in store.object(SURVEY, "7")]
    assert sorted(names) == ["21", "22", "23"]
    assert sum(TOPIC in alert["topics"] for alert in alerts) == ALERTS // 100


def test_a_filled_run_is_left_as_it_is(tables):
    said = []

    fill(tables, RUN, ALERTS, said.append)

    assert not said


def test_a_cone_around_an_object_finds_it_and_the_plain_reader_reads_its_rows(tables):
    store, plain = AlertStore(tables, RUN), PlainReader(tables, RUN)
    ra, dec = (float(one) for one in places(77))

    (nearest, *_) = store.cone(ra, dec, 5.0)

    assert nearest["diaObjectId"] == "77"
    assert nearest["separation"] < 0.01
    assert plain.object("77")[1] == PER_OBJECT
    assert plain.cone(ra, dec, 5.0) > 0.0


def test_objects_are_spread_evenly():
    _, dec = places(np.arange(20_000))

    inside = np.count_nonzero(dec > -30.0) / 20_000
    expected = 0.5 / np.sin(np.radians(75.0))  # areas go by the sine
    assert inside == pytest.approx(expected, abs=4.0 * np.sqrt(expected * (1 - expected) / 20_000))
    assert dec.max() <= 0.0
    assert dec.min() >= -75.0


def test_packets_stand_where_their_alerts_say():
    tables, topics = MemoryTables(), MemoryTopics()
    create_tables(tables, RUN)

    names = add_packets(topics, tables, RUN, number=6)
    assert add_packets(topics, tables, RUN, number=6) == names  # of a run that was kept

    alerts = [alert for name in names for alert in AlertStore(tables, RUN).object(SURVEY, name)]
    assert len(alerts) >= len(names) > 0
    for alert in alerts:
        (origin,) = alert["origins"]
        (message,) = topics.read(origin["topic"], partition=0, first=origin["offset"],
                                 end=origin["offset"] + 1)  # fmt: skip
        assert message.value


def test_users_ask_for_what_is_there():
    rng = np.random.default_rng(3)

    paths = [question(rng, 900) for _ in range(600)]

    cones = [dict(part.split("=") for part in path.split("?")[1].split("&"))
             for path in paths if path.startswith("/cone-search?")]  # fmt: skip
    numbers = [int(path.rpartition("/")[2]) for path in paths if path.startswith("/objects/")]
    assert len(cones) + len(numbers) == 600
    assert abs(len(cones) - 200) < 4.0 * np.sqrt(600 * 2 / 9)
    assert max(numbers) < 300
    ra, dec = places(np.arange(300))
    for cone in cones:
        distance = separation_arcsec(float(cone["ra"]), float(cone["dec"]), ra, dec)
        assert np.min(distance) < float(cone["radiusArcsec"])


@contextmanager
def answering():
    """A server that has an error for every third question; yields its port and the paths asked."""
    asked, numbers = [], itertools.count(1)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            number = next(numbers)
            asked.append(self.path)
            body = json.dumps({"total": 1}).encode()
            self.send_response(503 if number % 3 == 0 else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with served(Handler) as server:
        yield server.server_port, asked


def test_users_in_a_process_of_their_own_count_answers_and_errors():
    with answering() as (port, asked):
        with users(port, 300, per_s=100.0) as found:
            deadline = time.monotonic() + 60.0
            while len(asked) < 20:
                assert time.monotonic() < deadline
                time.sleep(0.01)

        answers, errors = found.asked.seconds, found.asked.errors
        assert len(answers) + len(errors) == len(asked)
        assert len(errors) >= 6
        assert all("503" in words for words in errors)
        assert found.asked.lasted_s > 0.15


def test_an_error_is_no_answer():
    with answering() as (port, _):
        client = Client(port)
        client.ask("/objects")
        client.ask("/objects")
        with pytest.raises(ServiceError, match="503"):
            client.ask("/objects")
        client.close()


def passed(**changes):
    usual = {"per_s": 280.0, "batch_s": (1.0, 1.1), "busy_ms": 2.0, "core_ms": 3.0,
             "store_ms": 1.0, "server_ms": 0.0}  # fmt: skip
    return Passed(**usual | changes)


def test_a_stream_that_serving_costs_too_much_falls_short():
    alone = [passed(), passed(core_ms=4.0)]  # of different nights: pairs are compared

    def missed(beside):
        return [row.what for row in cost_rows(alone, beside, Pace()) if row.is_met is False]

    assert missed([passed(core_ms=3.2), passed(core_ms=4.2)]) == []
    (what,) = missed([passed(core_ms=3.4), passed(core_ms=4.6)])
    assert "processor time" in what
    (what,) = missed([passed(busy_ms=2.3), passed(busy_ms=2.3, core_ms=4.0)])
    assert "time of batches" in what
    (what,) = missed([passed(per_s=250.0), passed(per_s=250.0, core_ms=4.0)])
    assert "beside users" in what
    assert "alerts/s" in what
