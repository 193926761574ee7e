"""The report of a night: gathered from the ledger, sent by mail and to a web-hook."""

import email
import json
import socketserver
from email import policy
from http.server import BaseHTTPRequestHandler

import pytest
from loopback import served

from broker.config import PushConfig
from broker.ops.night_duty import night_on_duty
from broker.ops.push_send import mail, post
from broker.spark.stats import latency_of
from broker.store.alerts import create_tables
from broker.store.ledger import Ledger
from broker.store.memory import MemoryTables
from broker.topics.memory import MemoryTopics
from broker.topics.publish import dead_letter, dead_letters_topic
from broker.topics.topic import Message
from broker.types import Coordinate, OffsetRange, Run, night_of
from broker.units import unix_s_to_mjd_tai

RUN = Run("t-duty")
TOPIC = RUN.alerts_topic("ztf")


@pytest.fixture
def servers():
    """A night: two batches of 3 and 2 messages, all of them bad."""
    topics, tables = MemoryTopics(), MemoryTables()
    create_tables(tables, RUN)
    topics.create(TOPIC)
    topics.create(dead_letters_topic(RUN))
    topics.send(TOPIC, [Message(b"rubbish")] * 5, partition=0)
    return topics, tables


def record(tables, first, end, seconds, *, failures=()):
    counts = {"deadLetters": end - first, "topic:fast": 4, "throttled:fast": 1}
    stats = {
        "seconds": {"batch": seconds},
        "latency": latency_of([0.1] * (end - first)),
        "failures": {name: [1, "it raised"] for name in failures},
    }
    Ledger(tables, RUN).record("alerts", end, [OffsetRange(TOPIC, 0, first, end)], counts, stats)


def bury(topics, offsets):
    letters = [
        dead_letter(Coordinate(TOPIC, 0, k), "decode", "no packet", b"rubbish") for k in offsets
    ]
    topics.send(dead_letters_topic(RUN), letters)


def tonight(tables):
    (first, *_) = Ledger(tables, RUN).batches("alerts")
    return night_of(float(unix_s_to_mjd_tai(first.recorded_ms / 1000.0)))


def test_a_night_is_told_by_its_batches_and_dead_letters(servers):
    topics, tables = servers
    record(tables, 0, 3, 1.0, failures=["rise_rate"])
    record(tables, 3, 5, 3.0)
    bury(topics, range(5))

    night = night_on_duty(topics, tables, RUN, tonight(tables))

    (alerts,) = night.queries
    assert (alerts.batches, alerts.messages, alerts.batch_p50_s) == (2, 5, 2.0)
    assert 0.1 <= alerts.latency_p95_s < 10.0
    assert night.published == {"fast": 8}
    assert night.throttled == {"fast": 2}
    assert night.dead_letters == {"decode": 5}
    assert night.reasons == [("no packet", 5)]
    assert night.failures == {"rise_rate": 1}
    assert night.is_good
    assert "5 messages, all accounted for" in night.subject
    assert "5 x no packet" in night.text
    assert json.loads(json.dumps(night.as_json(), allow_nan=False))["ledger"]["missing"] == 0


def test_no_reason_names_an_alert_or_its_place(servers):
    topics, tables = servers
    record(tables, 0, 3, 1.0)
    record(tables, 3, 5, 3.0)
    reasons = (
        "alert 6660000000000000005 of ZTF18abcdefg is odd",
        "ra 150.12345 dec -2.5e-3 is odd",
        "alert 6660000000000000006 of ZTF18abcdefh is odd",
    )
    letters = [dead_letter(Coordinate(TOPIC, 0, k), "decode", reason, b"rubbish")
               for k, reason in enumerate(reasons)]  # fmt: skip
    topics.send(dead_letters_topic(RUN), letters)

    night = night_on_duty(topics, tables, RUN, tonight(tables))

    assert night.reasons == [("alert … of … is odd", 2), ("ra … dec … is odd", 1)]
    for said in (night.text, json.dumps(night.as_json())):
        assert not any(name in said for name in ("666000", "ZTF18", "150.1", "2.5e"))


def test_a_message_that_is_missing_stands_in_the_subject(servers):
    topics, tables = servers
    record(tables, 0, 5, 1.0)
    bury(topics, range(4))

    night = night_on_duty(topics, tables, RUN, tonight(tables))

    assert not night.is_good
    assert night.subject.endswith("1 MISSING")


def test_another_night_has_nothing_of_it(servers):
    topics, tables = servers
    record(tables, 0, 5, 1.0)
    bury(topics, range(5))

    night = night_on_duty(topics, tables, RUN, "20200101")

    assert not night.queries
    assert not night.dead_letters
    assert night.accounts.total.consumed == 0


class Mails(socketserver.StreamRequestHandler):
    """As much of a mail server as a client needs."""

    def handle(self):
        self.wfile.write(b"220 here\r\n")
        while line := self.rfile.readline():
            if line.upper().startswith(b"DATA"):
                self.wfile.write(b"354 go on\r\n")
                self.server.got.append(b"".join(iter(self.rfile.readline, b".\r\n")))
            quits = line.upper().startswith(b"QUIT")
            self.wfile.write(b"221 bye\r\n" if quits else b"250 yes\r\n")


class Hooks(BaseHTTPRequestHandler):
    """Keeps what is posted."""

    def do_POST(self):
        size = int(self.headers["Content-Length"])
        self.server.got.append(json.loads(self.rfile.read(size)))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture(params=[Mails, Hooks])
def receiver(request):
    with served(request.param) as server:
        server.got = []
        yield request.param, server


def test_it_goes_out_by_mail_and_to_a_hook(servers, receiver):
    topics, tables = servers
    record(tables, 0, 5, 1.0)
    bury(topics, range(5))
    night = night_on_duty(topics, tables, RUN, tonight(tables))
    kind, server = receiver
    port = server.server_address[1]

    if kind is Mails:
        mail(PushConfig(smtp_port=port), "me@example.org", night.subject, night.text)
        sent = email.message_from_bytes(server.got[0], policy=policy.default)
        assert sent["Subject"] == night.subject
        assert sent["To"] == "me@example.org"
        assert sent.get_content().split() == night.text.split()
    else:
        post(f"http://127.0.0.1:{port}/hook", night.as_json())
        assert server.got[0]["deadLetters"] == {"decode": 5}
        assert server.got[0]["text"] == night.text
