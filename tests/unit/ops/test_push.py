"""People are told of each alert, not too often, by mail, hook and chat, and can end it."""

import email
import http.server
import json
import socketserver
import stat
from email import policy

import pytest
from fastapi.testclient import TestClient
from loopback import served

from broker.api import make_app
from broker.api.push import add_push
from broker.config import PushConfig
from broker.errors import ConfigError, ServiceError
from broker.ops.annotate_http import MomentaryError
from broker.ops.push import PushBook, PushSubscription
from broker.ops.push_run import ObjectSource, Pusher, TopicSource
from broker.ops.push_send import Digest, sender
from broker.topics.topic import Message


def alert(number, **more):
    return {
        "survey": "ztf", "diaSourceId": str(2**62 + number), "diaObjectId": "ZTF26abc",
        "midpointMjdTai": 61000.0 + number, "band": "g", "ra": 10.0, "dec": -5.0,
        "psfFlux": 100.0, "psfFluxErr": float("nan"), "snr": 9.5, "reliability": None,
        "isPublic": True, **more,
    }  # fmt: skip


class Mails(socketserver.StreamRequestHandler):
    """As much of SMTP as one message needs."""

    def handle(self):
        self.wfile.write(b"220 here\r\n")
        while line := self.rfile.readline():
            word = line[:4].upper()
            if word == b"RCPT" and self.server.refuse:
                self.wfile.write(self.server.refuse)
            elif word == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                lines = iter(self.rfile.readline, b".\r\n")
                self.server.got.append(b"".join(lines))
                self.wfile.write(b"250 taken\r\n")
            elif word == b"QUIT":
                self.wfile.write(b"221 bye\r\n")
                return
            else:
                self.wfile.write(b"250 yes\r\n")


class Hooks(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.headers["Content-Type"], json.loads(body)))
        self.send_response(self.server.status)
        if self.server.status == 429:
            self.send_header("Retry-After", "120")
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture
def mails():
    with served(Mails) as server:
        server.got, server.refuse = [], b""
        yield server


@pytest.fixture
def hooks():
    with served(Hooks) as server:
        server.got, server.status = [], 204
        yield server


def digest(kind, address, number=2, shown=2):
    one = PushSubscription("mine", kind, address, topic="young-supernova")
    link = "http://b/api/v1/unsubscribe?token=t"
    return Digest(one, [alert(n) for n in range(shown)], number, "http://b", link)


def test_a_mail_names_the_alerts_and_can_be_ended_with_one_click(mails):
    config = PushConfig(smtp_port=mails.server_address[1], sender="broker@example.org")

    sender(config)(digest("email", "me@example.org", number=7))

    (raw,) = mails.got
    mail = email.message_from_bytes(raw, policy=policy.default)
    text = mail.get_content()
    assert mail["To"] == "me@example.org"
    assert mail["Subject"] == "7 alerts: topic young-supernova"
    assert mail["List-Unsubscribe"] == "<http://b/api/v1/unsubscribe?token=t>"
    assert mail["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert text.count("http://b/object/ztf/ZTF26abc") == 2
    assert "and 5 more" in text


def test_a_hook_gets_json_and_a_chat_its_text(hooks):
    address = f"http://127.0.0.1:{hooks.server_address[1]}/hook"

    for kind in ("webhook", "chat"):
        sender(PushConfig())(digest(kind, address))

    (kind, hook), (_, chat) = hooks.got
    assert kind == "application/json"
    assert [one["diaSourceId"] for one in hook["alerts"]] == [str(2**62), str(2**62 + 1)]
    assert hook["alerts"][0]["psfFluxErr"] is None
    assert (hook["number"], hook["topic"]) == (2, "young-supernova")
    assert set(chat) == {"text"}
    assert "2 alerts: topic young-supernova" in chat["text"]


def test_who_is_busy_is_asked_again_later_and_a_refusal_is_an_error(mails, hooks):
    config = PushConfig(smtp_port=mails.server_address[1])
    address = f"http://127.0.0.1:{hooks.server_address[1]}/hook"
    hooks.status, mails.refuse = 429, b"550 no such person\r\n"

    with pytest.raises(MomentaryError) as busy:
        sender(config)(digest("webhook", address))
    with pytest.raises(ServiceError, match="550"):
        sender(config)(digest("email", "no@example.org"))

    assert busy.value.data["retry_after_s"] == 120.0


class Given:
    """A member of a group whose messages are given by the test."""

    def __init__(self):
        self.coming, self.noted, self.committed = [], [], []

    def poll(self, timeout_s):
        found, self.coming = self.coming, []
        return found

    def handled(self, message):
        self.noted.append(message.key)

    def commit(self):
        self.committed = list(self.noted)

    def close(self):
        pass


@pytest.fixture
def told(tmp_path):
    """A pusher with a clock and a recipient that the test moves."""

    class Scene:
        now, sent, error = 0.0, [], None
        reader, book = Given(), PushBook(tmp_path / "push")

        def send(self, one):
            if self.error:
                raise self.error
            self.sent.append((self.now, [a["diaSourceId"] for a in one.alerts], one.number))

        def come(self, *numbers, **more):
            self.reader.coming += [
                Message(json.dumps(alert(n, **more)).encode(), key=str(n).encode()) for n in numbers
            ]

    scene = Scene()
    scene.sent = []
    scene.book.add(
        PushSubscription("mine", "email", "me@example.org", topic="t", every_s=60.0, most=2)
    )
    source = TopicSource(scene.reader, lambda m: json.loads(m.value))
    scene.pusher = Pusher(
        scene.book, open_source=lambda _: source, send=scene.send, url="http://b",
        clock=lambda: scene.now,
    )  # fmt: skip
    return scene


def test_messages_come_not_more_often_than_wanted_and_hide_nothing(told):
    told.come(1)
    told.pusher.turn()
    told.come(2, 3, 4)
    for told.now in (1.0, 59.0, 60.0, 61.0):
        told.pusher.turn()

    ids = [str(2**62 + n) for n in range(5)]
    assert told.sent == [(0.0, ids[1:2], 1), (60.0, ids[2:4], 3)]
    assert told.reader.committed == [b"1", b"2", b"3", b"4"]


def test_nothing_is_committed_before_it_was_sent_and_what_failed_is_told_later(told):
    told.come(1)
    told.error = MomentaryError("busy", retry_after_s=30.0)
    told.pusher.turn()
    assert told.reader.committed == []

    told.error = None
    for told.now in (10.0, 29.0, 30.0):
        told.pusher.turn()

    assert [at for at, *_ in told.sent] == [30.0]
    assert told.reader.committed == [b"1"]


def test_alerts_that_are_not_public_and_repeats_are_not_told(told):
    told.come(1, isPublic=False)
    told.come(2, 2)
    told.pusher.turn()

    assert [ids for _, ids, _ in told.sent] == [[str(2**62 + 2)]]


def test_an_ended_subscription_is_told_no_more(told):
    told.pusher.turn()
    told.book.remove("mine")
    told.come(1)
    told.pusher.turn()

    assert told.sent == []


def test_a_followed_object_is_told_of_new_alerts_once_also_after_a_restart(tmp_path):
    stored = [alert(0)]

    class Store:
        def object(self, survey, name):
            return list(stored)

    def source():
        path = tmp_path / "x.sent.json"
        settings = {"path": path, "clock": lambda: 0.0, "look_every_s": 0.0}
        return ObjectSource(Store(), "ztf", "ZTF26abc", **settings)

    first = source()
    assert first.fresh() == []
    stored += [alert(1), alert(2, isPublic=False)]
    assert [a["midpointMjdTai"] for a in first.fresh()] == [61001.0]
    again = source()  # it died before it told
    assert [a["midpointMjdTai"] for a in again.fresh()] == [61001.0]
    again.told()
    assert source().fresh() == []


def test_a_token_ends_its_own_subscription_by_post_alone(tmp_path):
    book = PushBook(tmp_path / "push")
    for name in ("mine", "yours"):
        book.add(PushSubscription(name, "email", "me@example.org", topic="t"))
    app = make_app(None, requests_per_s=1e6, burst=10**6)
    add_push(app, book, prefix="/api/v1")
    url = f"/api/v1/unsubscribe?token={book.token('mine')}"

    with TestClient(app) as client:
        page = client.get(url)
        after_get = [one.name for one in book.all()]
        forged = client.post(url[:-1] + ("0" if url[-1] != "0" else "1"))
        mixed = client.post(
            f"/api/v1/unsubscribe?token={book.token('yours').split('.')[0]}."
            f"{book.token('mine').split('.')[1]}"
        )
        done = client.post(url)
        again = client.post(url)

    assert page.status_code == 200
    assert after_get == ["mine", "yours"]
    assert (forged.status_code, mixed.status_code) == (403, 403)
    assert (done.status_code, again.status_code) == (200, 200)
    assert [one.name for one in book.all()] == ["yours"]


def test_files_with_secrets_are_for_their_owner_alone(tmp_path):
    book = PushBook(tmp_path / "push")
    path = book.add(PushSubscription("mine", "chat", "https://chat.example.org/x", topic="t"))
    book.token("mine")

    modes = {stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "push").iterdir()}
    assert modes == {0o600}
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        book.all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "../x"}, {"kind": "fax"}, {"address": "not mail"}, {"topic": ""},
        {"every_s": 1.0}, {"address": "a@b\nBcc: c@d"}, {"kind": "webhook"},
    ],
)  # fmt: skip
def test_a_subscription_that_cannot_work_is_refused(wrong):
    right = {"name": "mine", "kind": "email", "address": "me@example.org", "topic": "t"}
    with pytest.raises(ConfigError):
        PushSubscription(**(right | wrong))
