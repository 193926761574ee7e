"""Notices and alerts meet once, whichever comes first, on every back end."""

import dataclasses
import json
import uuid

import numpy as np
import pyarrow as pa
import pytest

from broker.alerts.adapters import find_adapters
from broker.alerts.packet import encode_sim
from broker.notices import Ellipse, Notice, Window
from broker.notices.wire import notice_matches_topic, notices_topic
from broker.spark.notice_board import NoticeBoard
from broker.store.alerts import AlertStore
from broker.store.memory import MemoryTables
from broker.store.notices import NoticeStore
from broker.store.table import Family
from broker.streaming.notice_intake import NoticeIntake, create_notice_topics
from broker.topics.memory import MemoryTopics
from broker.topics.publish import read_all, read_dead_letters
from broker.topics.topic import Message
from broker.types import Coordinate, Run

WINDOW = Window(0.9, 1.0, 10.0)
TABLES = {"alert": "cmtpo", "alert_id": "k", "sky": "k", "meta": "v", "notice": "n"}
TABLES |= {"index": "bn", "moving": "k"}


def gcn(name="GRB 1", **changes):
    values = {
        "mission": "Test", "id": name, "alert_type": "initial", "record_number": 1,
        "trigger_time": "2025-11-20T03:04:05Z", "ra": 359.5, "dec": 80.0, "ra_dec_error": 1.0,
        **changes,
    }  # fmt: skip
    return json.dumps({k: v for k, v in values.items() if v is not None}).encode()


TRIGGER = 60999.0 + (3 * 3600 + 4 * 60 + 5 + 37) / 86400  # the time above, TAI


class Desk:
    """A run of its own, with ways to let notices and alerts come."""

    def __init__(self, topics, tables):
        self.topics, self.tables = topics, tables
        self.run = Run(f"n{uuid.uuid4().hex[:12]}")
        for name, families in TABLES.items():
            tables.create(self.run.table(name), [Family(f) for f in families])
        create_notice_topics(topics, self.run, partitions=2)
        self.alerts, self.notices = AlertStore(tables, self.run), NoticeStore(tables, self.run)
        self.intake = NoticeIntake(topics=topics, tables=tables, run=self.run, window=WINDOW)
        self.board = NoticeBoard(self.notices, self.run, WINDOW)

    def close(self):
        for name in TABLES:
            self.tables.drop(self.run.table(name))
        for name in self.topics.names():
            if name.startswith(f"run.{self.run.name}."):
                self.topics.delete(name)

    def send(self, *bodies):
        """Put notices on their topic; return the batch that a query would get."""
        name = notices_topic(self.run)
        sent = self.topics.send(name, [Message(body) for body in bodies])
        return [self.topics.get(at) for at in sent]

    def notice(self, *bodies):
        return self.intake.take(self.send(*bodies))

    def alert(self, *places):
        """Let alerts come, as the query of alerts does: match, store, pairs."""
        table = canonical(places)
        columns = self.board.match(*(table.column(n) for n in ("ra", "dec", "midpointMjdTai")))
        self.store(table)
        self.topics.send(notice_matches_topic(self.run), list(self.board.pairs(table)))
        return columns.to_pylist()

    def store(self, table):
        self.alerts.put(
            table, outputs=table.select([]), topics=[[]] * table.num_rows, provenance={}
        )

    def pairs(self):
        return list(read_all(self.topics, notice_matches_topic(self.run)))

    def pair_keys(self):
        return sorted(message.key.decode() for message in self.pairs())

    def letters(self):
        return list(read_dead_letters(self.topics, self.run))


def canonical(places):
    adapter = find_adapters()["sim"]
    tables = []
    for number, ra, dec, days, *public in places:
        source = {
            "diaSourceId": number, "visit": 7, "detector": 1, "diaObjectId": 500 + number,
            "midpointMjdTai": TRIGGER + days, "ra": ra, "dec": dec, "psfFlux": 1000.0,
            "psfFluxErr": 50.0, "snr": 20.0, "band": "r", "reliability": 0.9,
        }  # fmt: skip
        packet = encode_sim({"diaSourceId": number, "diaSource": source})
        table = adapter.decode_one(packet, Coordinate("t", 0, number))
        if public:
            at = table.column_names.index("isPublic")
            table = table.set_column(at, table.schema.field(at), pa.array(public))
        tables.append(table)
    return pa.concat_tables(tables)


@pytest.fixture
def desk():
    return Desk(MemoryTopics(), MemoryTables())


@pytest.fixture
def each_desk(topics, tables):
    """A desk on every back end; making its tables takes seconds on a server."""
    desk = Desk(topics, tables)
    yield desk
    desk.close()


INSIDE = (1, 0.5, 80.1, 2.0)
OTHERS = ((2, 0.5, 70.0, 2.0), (3, 0.5, 80.1, -2.0), (4, 0.5, 80.1, 11.0))


def test_a_notice_before_the_alert_gives_columns_and_one_pair(desk):
    counts = desk.notice(gcn())
    columns = desk.alert(INSIDE, *OTHERS)

    expected = {"consumed": 1, "stored": 1, "duplicates": 0, "deadLetters": 0, "noticePairs": 0}
    assert counts == expected
    assert [row["noticesMatch"] for row in columns] == [1, 0, -1, -1]
    assert columns[0]["noticesId"] == "Test:GRB 1:initial:1"
    assert columns[0]["noticesDelay"] == pytest.approx(2.0, abs=1e-8)
    assert desk.pair_keys() == ["Test:GRB 1:initial:1|sim|1"]


def test_a_notice_after_the_alert_gives_the_same_pair(each_desk):
    columns = each_desk.alert(INSIDE, *OTHERS)
    counts = each_desk.notice(gcn())

    assert [row["noticesMatch"] for row in columns] == [-1] * 4
    assert counts["noticePairs"] == 1
    assert each_desk.pair_keys() == ["Test:GRB 1:initial:1|sim|1"]
    backward = each_desk.pairs()[0].value
    each_desk.alert(INSIDE)
    assert [m.value for m in each_desk.pairs()] == [backward, backward]


@pytest.mark.slow
def test_random_alerts_give_the_same_pairs_in_both_orders(desk):
    rng = np.random.default_rng(8)
    n = 300
    ra, dec, days = rng.uniform([-15, 77, -3], [15, 83, 12], (n, 3)).T
    alerts = [(i + 1, float(ra[i] % 360.0), float(dec[i]), float(days[i])) for i in range(n)]
    inside = Ellipse(359.5, 80.0, 1.0, 1.0).level(ra % 360.0, dec) <= 0.9
    expected = {1 + i for i in np.flatnonzero(inside & (days >= -1.0) & (days <= 10.0))}

    desk.alert(*alerts[:150])
    desk.notice(gcn())
    desk.alert(*alerts[150:])

    found = [int(key.rsplit("|", 1)[1]) for key in desk.pair_keys()]
    assert len(expected) > 10
    assert min(expected) <= 150 < max(expected)
    assert sorted(found) == sorted(expected)


def test_a_repeated_batch_gives_no_second_pair_to_who_drops_keys(each_desk):
    each_desk.alert(INSIDE)
    batch = each_desk.send(gcn())

    first = each_desk.intake.take(batch)
    again = each_desk.intake.take(batch)  # the process died before its offsets were kept

    assert first == again
    assert len(each_desk.pairs()) == 2
    assert len({(m.key, m.value) for m in each_desk.pairs()}) == 1
    assert [len(origins) for _, _, origins in each_desk.notices.origins()] == [1]


def test_an_alert_stored_while_the_notice_is_taken_in_is_not_missed(desk):
    # Each side writes before it looks; here they do so in every order in which that can happen.
    table = canonical([INSIDE])
    for steps in ("sSLp", "SsLp", "SspL", "sSpL", "sLp", "spL"):
        other = Desk(desk.topics, desk.tables)
        try:
            batch = other.send(gcn())
            notice = other.intake._keep(batch[0].value, batch[0].coordinate)
            other.notices.announce("g")
            seen = []
            for step in steps:
                if step == "s":
                    other.store(table)
                elif step == "L":
                    seen += other.board.pairs_of(notice, other.alerts)
                elif step == "p":
                    seen += other.board.pairs(table)
            assert {m.key for m in seen} == {b"Test:GRB 1:initial:1|sim|1"}, steps
        finally:
            other.close()


def test_what_is_not_public_makes_no_pair_in_either_direction(desk):
    hidden = (9, 0.5, 80.1, 2.0, False)
    desk.alert(hidden)
    desk.notice(gcn())
    desk.alert(hidden)

    assert desk.pairs() == []


def test_bad_notices_are_dead_letters_and_the_good_one_between_them_counts(desk):
    desk.alert(INSIDE)
    counts = desk.notice(b"{", gcn(), gcn(ra=400.0), b"<!DOCTYPE a><a/>", gcn())

    assert counts == {
        "consumed": 5, "stored": 1, "duplicates": 1, "deadLetters": 3, "noticePairs": 1,
    }  # fmt: skip
    letters = desk.letters()
    assert sorted(letter.origin.offset for letter in letters) == [0, 2, 3]
    assert {letter.stage for letter in letters} == {"notice"}
    assert all(letter.reason for letter in letters)
    assert desk.pair_keys() == ["Test:GRB 1:initial:1|sim|1"]


def test_another_notice_of_the_same_name_is_refused(desk):
    desk.notice(gcn())
    desk.notice(gcn(ra=20.0))

    (letter,) = desk.letters()
    assert "there is another notice" in letter.reason


def test_an_update_takes_the_place_of_what_it_updates(each_desk):
    each_desk.notice(gcn())
    each_desk.notice(gcn(alert_type="update", record_number=2, ra=180.0, dec=-40.0))

    columns = each_desk.alert(INSIDE, (2, 180.0, -40.2, 1.0))

    assert [row["noticesId"] for row in columns] == [None, "Test:GRB 1:update:2"]
    assert each_desk.pair_keys() == ["Test:GRB 1:initial:1|sim|1", "Test:GRB 1:update:2|sim|2"]


def test_a_retraction_ends_an_event(desk):
    desk.notice(gcn())
    desk.notice(gcn(alert_type="retraction", record_number=2, ra=None, dec=None))

    columns = desk.alert(INSIDE)

    assert columns[0]["noticesMatch"] == -1
    assert desk.pairs() == []


def test_what_cites_an_update_is_of_the_event_of_the_first(desk):
    where = Ellipse(0.0, 0.0, 1.0, 1.0)
    first = Notice("ivo://a#1", "ivo://a#1", "initial", False, "a", 1.0, 1.0, where)
    second = dataclasses.replace(
        first, notice_id="ivo://a#2", event="ivo://a#1", cites="ivo://a#1", kind="update"
    )
    desk.notices.put(first, Coordinate("n", 0, 0))
    desk.notices.put(second, Coordinate("n", 0, 1))

    third = dataclasses.replace(second, notice_id="ivo://a#3", cites="ivo://a#2", event="ivo://a#2")

    assert desk.intake._with_event(third).event == "ivo://a#1"


def test_notices_are_found_by_the_time_of_their_events(desk):
    times = ("2025-11-01T00:00:00Z", "2025-11-20T00:00:00Z", "2026-01-01T00:00:00Z")
    for i, time in enumerate(times):
        desk.notice(gcn(f"E{i}", trigger_time=time))

    found = desk.notices.between(60990.0, 61010.0)

    assert [known.notice.event for known in found] == ["Test:E1"]
    assert [n.event for n in desk.notices.all()] == ["Test:E0", "Test:E1", "Test:E2"]
