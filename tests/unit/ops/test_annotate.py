"""Annotations, asked of a local server that is slow, fails, lies and hangs up."""

import http.server
import json
import threading
import time
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from loopback import served

from broker.alerts.columns import BY_NAME, Column
from broker.avro import decode, unframe
from broker.errors import AlertError, ConfigError
from broker.ops.annotate import (
    Annotator,
    annotation_filter,
    annotation_schemas,
    annotations_topic,
)
from broker.ops.annotate_answer import Names, read_answer
from broker.ops.annotate_service import ConeService, Patience
from broker.store.annotations import AnnotationStore
from broker.store.memory import MemoryTables
from broker.store.tables import create_tables
from broker.topics.memory import MemoryTopics
from broker.topics.publish import read_all
from broker.topics.topic import Message
from broker.types import Run
from broker.units import separation_arcsec

RUN = Run("note")
NAMES = Names(numbers={"redshift": "z"}, texts={"kind": "otype"})
QUICK = Patience(timeout_s=0.4, tries=3, pause_s=0.01, per_s=1e6, failures_to_rest=1000)


class Remote:
    """A catalogue behind HTTP, and how it behaves."""

    def __init__(self):
        self.rows = [(10.0, -5.0, "star", 0.25, "QSO")]
        self.behave = []
        self.asked = []
        remote = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                query = {k.upper(): v[0] for k, v in parse_qs(urlsplit(self.path).query).items()}
                remote.asked.append(tuple(float(query[k]) for k in ("RA", "DEC", "SR")))
                how = remote.behave.pop(0) if remote.behave else remote.answer
                how(self)

            def log_message(self, *_):
                pass

        self.handler = Handler

    def inside(self):
        ra, dec, radius = self.asked[-1]
        return [r for r in self.rows if separation_arcsec(ra, dec, r[0], r[1]) <= 3600 * radius]

    def answer(self, handler):
        names = ("ra", "dec", "id", "z", "otype")
        body = json.dumps({"metadata": [{"name": n} for n in names], "data": self.inside()})
        send(handler, body.encode())


def send(handler, body, status=200, length=None, **headers):
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def slow(handler):
    time.sleep(0.8)


def drips(handler):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(20):
        try:
            handler.wfile.write(b"[")
        except OSError:
            return
        time.sleep(0.1)


def hangs_up(handler):
    handler.close_connection = True
    handler.connection.close()


def cuts_short(handler):
    send(handler, b'[{"ra": 1', length=500)


def fails(handler):
    send(handler, b"oops", status=500)


def refuses(handler):
    send(handler, b"no", status=404)


def is_busy(handler):
    send(handler, b"later", status=429, Retry_After="7")


def lies(handler):
    send(handler, b'[{"ra": 200.0, "dec": 50.0, "id": "far", "z": 1, "otype": "x"}]')


def talks_html(handler):
    send(handler, b"<html><body>Welcome</body></html>")


def sends_much(handler):
    send(handler, b"[" + b" " * (9 << 20) + b"]")


def says_nothing(handler):
    send(handler, b"")


@pytest.fixture
def remote():
    remote = Remote()
    with served(remote.handler) as remote.server:
        remote.url = f"http://127.0.0.1:{remote.server.server_port}/scs?catalog=x"
        yield remote


def service(remote, **more):
    return ConeService(
        remote.url, **{"radius_arcsec": 2.0, "names": NAMES, "patience": QUICK} | more
    )


def test_match_and_no_match_are_told_apart(remote):
    asked = service(remote)

    near, far = asked.ask(10.0, -5.0 + 1.5 / 3600), asked.ask(10.0, -5.0 + 2.5 / 3600)

    assert (near.status, near.entry.id, near.entry.numbers) == ("match", "star", {"redshift": 0.25})
    assert near.entry.texts == {"kind": "QSO"}
    assert near.separation == pytest.approx(1.5, abs=1e-6)
    assert far.status == "no-match"


@pytest.mark.parametrize("behaviour", [fails, hangs_up, cuts_short, slow, is_busy])
def test_what_may_pass_is_tried_again(remote, behaviour):
    pauses = []
    remote.behave = [behaviour]

    answer = service(remote, sleep=pauses.append).ask(10.0, -5.0)

    assert answer.status == "match"
    assert len(remote.asked) == 2
    assert len(pauses) == 1
    assert pauses[0] == 7.0 if behaviour is is_busy else pauses[0] <= 0.01


@pytest.mark.parametrize(
    ("behaviour", "reason", "questions"),
    [
        (fails, "500", 3),
        (hangs_up, "RemoteDisconnected|ConnectionReset", 3),
        (cuts_short, "bytes", 3),
        (slow, "within 0.4 s", 3),
        (drips, "within 0.4 s", 3),
        (refuses, "404", 1),
        (lies, "answers something else", 1),
        (talks_html, "no VOTable", 1),
        (sends_much, "longer than 8 MB", 1),
        (says_nothing, "empty", 1),
    ],
)
def test_what_does_not_pass_is_a_failure_and_no_missing_match(remote, behaviour, reason, questions):
    remote.behave = [behaviour] * questions
    began = time.monotonic()

    asked = service(remote)
    answer = asked.ask(10.0, -5.0)

    assert answer.status == "failed"
    assert any(part in answer.reason for part in reason.split("|"))
    assert asked.questions == len(remote.asked) == questions
    assert time.monotonic() - began < 10.0  # three times 0.4 s; a server that hangs holds no one
    assert asked.ask(10.0, -5.0).status == "match"  # a failure is not remembered


def test_a_server_that_is_not_there_is_a_failure(remote):
    remote.server.shutdown()
    remote.server.server_close()

    assert service(remote).ask(10.0, -5.0).status == "failed"


def test_without_a_position_nothing_is_asked(remote):
    asked = service(remote)

    for ra, dec in ((None, 1.0), (float("nan"), 1.0), (1.0, 91.0)):
        assert asked.ask(ra, dec).status == "not-asked"
    assert remote.asked == []


def test_a_service_that_fails_is_left_alone_for_a_while(remote):
    now = [0.0]
    patience = Patience(tries=1, per_s=1e6, failures_to_rest=2, rest_s=60.0)
    remote.behave = [fails] * 2
    asked = service(remote, patience=patience, clock=lambda: now[0])

    said = [asked.ask(ra, -5.0).status for ra in (1.0, 2.0, 3.0)]
    now[0] = 61.0

    assert said == ["failed", "failed", "not-asked"]
    assert len(remote.asked) == 2
    assert asked.ask(10.0, -5.0).status == "match"


def test_questions_keep_the_rate(remote):
    now, waits = [0.0], []

    def sleep(seconds):
        waits.append(seconds)
        now[0] += seconds

    patience = Patience(per_s=4.0, max_wait_s=30.0)
    asked = service(remote, patience=patience, clock=lambda: now[0], sleep=sleep)
    for i in range(9):
        asked.ask(20.0 + i, 0.0)

    assert now[0] == pytest.approx(2.0)
    assert waits == pytest.approx([0.25] * 8)


def test_a_turn_that_is_too_far_is_not_waited_for(remote):
    patience = Patience(per_s=0.01, max_wait_s=30.0)
    asked = service(remote, patience=patience, sleep=lambda _: None)

    assert [asked.ask(ra, 0.0).status for ra in (20.0, 30.0)] == ["no-match", "not-asked"]


def test_what_is_remembered_is_as_exact_as_what_is_asked(remote):
    # Places all over the sky, borders and poles too; each with the answer of a loop over all rows.
    rng = np.random.default_rng(3)
    for dec0 in (0.0, 41.81, 60.0, 89.999, -89.9999):
        remote.rows = [
            (float(ra) % 360.0, float(min(max(dec, -90.0), 90.0)), f"s{i}", 0.0, "")
            for i, (ra, dec) in enumerate(
                zip(
                    45.0 + rng.normal(0, 6 / 3600, 80) / max(np.cos(np.radians(dec0)), 1e-4),
                    dec0 + rng.normal(0, 6 / 3600, 80),
                    strict=True,
                )
            )
        ]
        remote.asked.clear()
        asked = service(remote)
        for _ in range(60):
            ra = float(45.0 + rng.normal(0, 6 / 3600) / max(np.cos(np.radians(dec0)), 1e-4)) % 360.0
            dec = float(np.clip(dec0 + rng.normal(0, 6 / 3600), -90, 90))
            distances = [float(separation_arcsec(ra, dec, r[0], r[1])) for r in remote.rows]
            best = int(np.argmin(distances))

            answer = asked.ask(ra, dec)

            expected = f"s{best}" if distances[best] <= 2.0 else None
            assert (answer.entry.id if answer.entry else None) == expected
        assert len(remote.asked) < 60


def test_several_threads_may_ask(remote):
    asked = service(remote)
    answers = []
    threads = [
        threading.Thread(target=lambda i=i: answers.append(asked.ask(10.0 + i, -5.0).status))
        for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10.0)

    assert sorted(answers) == ["match", *["no-match"] * 7]


def test_an_address_that_is_none_is_refused():
    for url in ("file:///etc/passwd", "ftp://a/b", "nothing", "http://"):
        with pytest.raises(ConfigError, match="no address"):
            ConeService(url, radius_arcsec=1.0)


VOTABLE = """<?xml version="1.0"?><VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3">
<RESOURCE type="results"><INFO name="QUERY_STATUS" value="{status}">words</INFO><TABLE>
<FIELD name="RAJ2000" ucd="pos.eq.ra;meta.main" datatype="double"/>
<FIELD name="DEJ2000" ucd="POS_EQ_DEC_MAIN" datatype="double"/>
<FIELD name="source" ucd="meta.id;meta.main" datatype="char" arraysize="*"/>
<FIELD name="z" datatype="double"/><FIELD name="otype" datatype="char" arraysize="*"/>
<DATA><TABLEDATA><TR><TD>10.0</TD><TD>-5.0</TD><TD>star</TD><TD/><TD>QSO</TD></TR></TABLEDATA></DATA>
</TABLE></RESOURCE></VOTABLE>"""


@pytest.mark.parametrize(
    "body",
    [
        VOTABLE.format(status="OK"),
        '[{"RA": 10, "dec": -5, "id": "star", "z": null, "otype": "QSO"}]',
        '{"data": [{"ra": 10, "dec": -5, "id": "star", "z": null, "otype": "QSO"}]}',
        "# words\nid,ra,dec,z,otype\nstar,10.0,-5.0,,QSO\n",
    ],
)
def test_each_form_of_answer_says_the_same(body):
    (entry,) = read_answer(body.encode(), NAMES)

    assert (entry.ra, entry.dec, entry.id) == (10.0, -5.0, "star")
    assert (entry.numbers, entry.texts) == ({"redshift": None}, {"kind": "QSO"})


def test_a_votable_of_another_library_is_read():
    import io

    from astropy.table import Table

    table = Table({"ra": [10.0], "dec": [-5.0], "id": ["star"], "z": [0.5], "otype": ["QSO"]})
    sink = io.BytesIO()
    table.write(sink, format="votable")

    (entry,) = read_answer(sink.getvalue(), NAMES)

    assert (entry.ra, entry.id, entry.numbers["redshift"]) == (10.0, "star", 0.5)


@pytest.mark.parametrize("body", ["[]", '{"data": []}', "id,ra,dec,z,otype\n"])
def test_a_table_without_rows_is_an_answer(body):
    assert read_answer(body.encode(), NAMES) == []


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (VOTABLE.format(status="ERROR"), "says ERROR: words"),
        (VOTABLE.format(status="OVERFLOW"), "says OVERFLOW"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><VOTABLE/>', "DOCTYPE"),
        ("<VOTABLE/>", "without a table"),
        ("<VOTABLE><TABLE><DATA><BINARY2/></DATA></TABLE></VOTABLE>", "binary"),
        ('{"error": "no"}', "without a list of rows"),
        ("[1]", "no objects"),
        ("[" * 100_000, "no JSON"),
        ("Internal error", "no column"),
        ("id,ra,dec\nstar,10,-5\n", "no column otype"),
        ("id,ra,dec,z,otype\nstar,10\n", "2 values, not 5"),
        ("id,ra,dec,z,otype\nstar,ten,-5,1,a\n", "'ten'"),
        ("id,ra,dec,z,otype\nstar,nan,-5,1,a\n", "'nan'"),
        ("id,ra,dec,z,otype\nstar,10,-95,1,a\n", "-95"),
        ('id,ra,dec,z,otype\n"star,10,-5,1,a\n', "no table"),
    ],
)
def test_what_is_no_answer_is_refused(body, reason):
    with pytest.raises(AlertError, match=reason):
        read_answer(body.encode(), NAMES)


class Desk:
    """An annotator on memory, with alerts as JSON."""

    def __init__(self, asked, where=None):
        self.topics, self.tables = MemoryTopics(), MemoryTables()
        create_tables(self.tables, RUN)
        self.store = AnnotationStore(self.tables, RUN)
        columns = {c.python_name: c for c in BY_NAME.values()}
        columns["rise_rate"] = Column("riseRate", "float32", "", "")
        chosen = None
        if where:
            chosen = annotation_filter(where, "run.note.chosen.slim", columns=columns, names=NAMES)
        self.annotator = Annotator(
            asked,
            name="simbad",
            store=self.store,
            topics=self.topics,
            run=RUN,
            read=lambda message: json.loads(message.value),
            clock=lambda: 61000.0,
            chosen=chosen,
        )

    def said(self):
        (schema,) = annotation_schemas().values()
        return {
            m.key: decode(schema, unframe(m.value)[1])
            for m in read_all(self.topics, annotations_topic(RUN))
        }


def alert(number, ra, dec=-5.0, **more):
    record = {"survey": "sim", "diaSourceId": str(number), "diaObjectId": f"o{number}",
              "ra": ra, "dec": dec, "snr": 10.0 * number, **more}  # fmt: skip
    return Message(
        json.dumps(record).encode(), key=b"sim|%d" % number, headers=(("survey", b"sim"),)
    )


def test_the_four_states_are_stored_and_published(remote):
    desk = Desk(service(remote, patience=Patience(tries=1, per_s=1e6, failures_to_rest=99)))
    remote.behave = []

    desk.annotator.annotate([alert(1, 10.0), alert(2, 50.0), alert(3, None)])
    remote.behave = [fails]
    desk.annotator.annotate([alert(4, 60.0)])

    states = {key.decode(): row["status"] for key, row in desk.said().items()}
    assert states == {
        "sim|1|simbad": "match",
        "sim|2|simbad": "no-match",
        "sim|3|simbad": "not-asked",
        "sim|4|simbad": "failed",
    }
    for key, row in desk.said().items():
        (stored,) = desk.store.of_alert(*key.decode().split("|")[:2])
        assert (stored.status, stored.reason) == (row["status"], row["reason"])
        assert bool(row["reason"]) == (row["status"] in ("failed", "not-asked"))
    assert desk.said()[b"sim|1|simbad"]["numbers"] == {"redshift": 0.25}


def test_a_repeat_asks_no_second_time_and_sends_the_same_bytes(remote):
    desk = Desk(service(remote))
    first = desk.annotator.annotate([alert(1, 10.0)])

    other = Annotator(
        service(remote), name="simbad", store=desk.store, topics=desk.topics, run=RUN,
        read=lambda message: json.loads(message.value), clock=lambda: 62000.0,
    )  # fmt: skip
    again = other.annotate([alert(1, 10.0)])

    assert (first["remembered"], again["remembered"]) == (0, 1)
    assert len(remote.asked) == 1
    sent = list(read_all(desk.topics, annotations_topic(RUN)))
    assert len(sent) == 2
    assert len({(m.key, m.value) for m in sent}) == 1


def test_a_failure_is_asked_again_and_the_answer_replaces_it(remote):
    desk = Desk(service(remote, patience=Patience(tries=1, per_s=1e6)))
    remote.behave = [fails]

    desk.annotator.annotate([alert(1, 10.0)])
    assert desk.store.of_alert("sim", "1")[0].status == "failed"
    desk.annotator.annotate([alert(1, 10.0)])

    assert desk.store.of_alert("sim", "1")[0].status == "match"


@pytest.mark.parametrize(
    ("where", "chosen"),
    [
        ("annotation_status = 'match'", [1]),
        ("annotation_status = 'no-match' AND snr > 25", [3]),
        ("annotation_redshift > 0.2 AND annotation_kind = 'QSO'", [1]),
        ("annotation_redshift > 0.3", []),
        ("NOT annotation_redshift > 0.3", [1]),
        ("annotation_separation < 1 OR rise_rate > 5", [1, 2]),
    ],
)
def test_a_filter_reads_the_packet_and_the_annotation(remote, where, chosen):
    desk = Desk(service(remote), where)
    alerts = [alert(1, 10.0), alert(2, 50.0, modules={"m": {"riseRate": 6.0}}), alert(3, 60.0)]

    counts = desk.annotator.annotate(alerts)

    sent = list(read_all(desk.topics, "run.note.chosen.slim"))
    assert sorted(m.key for m in sent) == [b"sim|%d" % i for i in chosen]
    assert counts["chosen"] == len(chosen)
    for message in sent:
        original = next(a for a in alerts if a.key == message.key)
        assert message.value == original.value
        assert json.loads(message.header("annotation"))["service"] == "simbad"


def test_a_filter_on_a_column_that_there_is_not_is_refused(remote):
    with pytest.raises(ConfigError, match="there is no column annotation_mass"):
        Desk(service(remote), "annotation_mass > 1")


class Given:
    """A reader of given messages that remembers what was committed."""

    def __init__(self, messages):
        self.waiting, self.noted, self.committed = [messages], [], []

    def poll(self, timeout_s):
        return self.waiting.pop() if self.waiting else []

    def handled(self, message):
        self.noted.append(message.key)

    def commit(self):
        self.committed = list(self.noted)


def test_progress_is_committed_after_the_answers_are_out(remote):
    desk = Desk(service(remote))
    reader = Given([alert(i, 10.0 + i) for i in range(1, 251)])
    ticks = iter(range(1000))

    counts = desk.annotator.run(reader, idle_s=0.0, monotonic=lambda: float(next(ticks)))

    assert counts["alerts"] == 250 == len(desk.said())
    assert len(reader.committed) == 250
