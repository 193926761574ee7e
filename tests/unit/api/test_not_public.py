"""What is not public leaves nowhere: two brokers, one of which never had it, say the same.

One broker got public packets only. The other got the same ones with private epochs in their
histories, and after them private packets: of the same objects and of others, of the same night and
of another, of a solar-system object, on watchlists, near a notice. Whatever leaves the second must
be, byte for byte, what leaves the first.
"""

import difflib
import io
import itertools
import json
import re
import time
from types import SimpleNamespace
from urllib.parse import urlencode

import fastavro
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import whole_app as whole
from fastapi.testclient import TestClient

from broker.alerts.adapters import find_adapters
from broker.alerts.columns import KINDS
from broker.alerts.outgoing import packet_format
from broker.api import Sources
from broker.api.app import PREFIX
from broker.api.errors import ApiError
from broker.archive import Archive
from broker.avro import decode
from broker.batch.transfer import Nights, Question, make_plan
from broker.batch.transfer_packets import packet_columns
from broker.catalog.registry import Catalogs, definitions
from broker.errors import ConfigError
from broker.notices import Window
from broker.ops.night_table import write_night_table
from broker.ops.push_run import ObjectSource, TopicSource
from broker.ops.tns import Reporter, tns_report
from broker.science import Column, LightCurves, Runner, science_module, topic_filter
from broker.science.registry import order_contributions
from broker.simulation.packets import simulate_packets
from broker.spark.enrich import Enricher
from broker.spark.notice_board import NoticeBoard
from broker.spark.stats import BatchStats
from broker.store.alerts import AlertStore, create_tables
from broker.store.ledger import Ledger
from broker.store.memory import MemoryTables
from broker.store.notices import NoticeStore
from broker.store.quarantine import Quarantine
from broker.streaming.notice_intake import NoticeIntake, create_notice_topics
from broker.topics.memory import MemoryTopics
from broker.topics.publish import dead_letters_topic, store_schemas
from broker.topics.topic import Message, OffsetRange, TopicSettings
from broker.types import Run
from broker.watchlists import WatchBoard, Watchlist, read_entries

pytestmark = pytest.mark.slow

RUN = Run("guarded")
N = 4
PRIVATE_MAG = 12.345
OBJECTS = ("ZTF24qmscadj", "ZTF24tpwuksr", "ZTF24wsanvha", "ZTF24zvefgxi")
SECRET, SECRET_ALERT = "ZTF99secret", "6660000000000000001"
NIGHT = "20230420"
NIGHTS = ("20230311", NIGHT, "20230421")
CANDID = "2301100000015000000"


@science_module(version="1.0.0", outputs=(Column("sumFlux", "float64", "nJy", "Of its epochs."),))
def summed(history: LightCurves, n_dia_sources: pd.Series, age_days: pd.Series) -> pd.DataFrame:
    """Say something of every epoch that it sees: what it must not see would show."""
    alerts = pd.Series(history.alert)
    flux = pd.Series(history.flux).fillna(0.0).groupby(alerts).sum()
    count = pd.Series(1.0, alerts.index).groupby(alerts).sum()
    seen = (flux + 1000.0 * count).reindex(range(len(age_days)), fill_value=0.0)
    return pd.DataFrame({"sumFlux": seen.to_numpy() + n_dia_sources + age_days})


@topic_filter(topic="everything", max_pass_fraction=1.0)
def everything(snr: pd.Series) -> pd.Series:
    """Choose all."""
    return snr > -1.0


def edited(packet, change):
    """Return a packet whose record was changed."""
    reader = fastavro.reader(io.BytesIO(packet))
    (record,) = reader
    change(record)
    file = io.BytesIO()
    fastavro.writer(file, reader.writer_schema, [record])
    return file.getvalue()


def untold(record):
    """Leave out of a packet what it tells of the object's past beside the history."""
    if record["objectId"] == OBJECTS[1]:
        record["candidate"]["jdstarthist"] = None
        record["candidate"]["ndethist"] = 0


def with_private_epochs(record):
    """Add to the histories what belongs to partners only, before and between the public epochs."""
    untold(record)
    own = record["candidate"]["jd"]
    told = next(e for e in record["prv_candidates"] if e["magpsf"] is not None)
    for days, program in ((29.9, 2), (3.3, 3), (0.7, 2), (0.6, 0)):
        epoch = {**told, "jd": own - days, "programid": program, "magpsf": PRIVATE_MAG}
        record["prv_candidates"].append(epoch)
    if record.get("fp_hists"):
        good = {**record["fp_hists"][0], "procstatus": "0", "forcediffimflux": 4.2e6}
        record["fp_hists"].append({**good, "jd": own - 5.5, "programid": 2})


def secret(number, **changes):
    """Return a change that makes a packet a private one."""

    def change(record):
        with_private_epochs(record)
        record["candid"] = int(SECRET_ALERT) + number
        record["candidate"] |= {"programid": 2, "magpsf": PRIVATE_MAG, **changes}
        record["candidate"]["jd"] += 0.01 * (number + 1)
        if number >= N:
            record["objectId"] = SECRET

    return change


def packets(with_private):
    plain = list(simulate_packets("ztf", N, 1))
    if not with_private:
        return [edited(packet, untold) for packet in plain]
    made = [edited(packet, with_private_epochs) for packet in plain]
    made += [edited(plain[i % N], secret(i)) for i in range(2 * N)]
    own = next(fastavro.reader(io.BytesIO(plain[0])))["candidate"]["jd"]
    for number, program in ((20, 0), (21, -1), (22, 3)):
        made.append(edited(plain[0], secret(number, programid=program)))
    made.append(edited(plain[1], secret(23, ssnamenr="4242")))
    made.append(edited(plain[2], lambda r: (secret(24)(r), r["candidate"].update(jd=own - 40.0))))
    return made


GCN = {
    "mission": "Test", "id": "GRB 1", "alert_type": "initial", "record_number": 1,
    "trigger_time": "2023-04-20T00:00:00Z", "ra": 29.2, "dec": -18.7, "ra_dec_error": 2.0,
}  # fmt: skip


class World:
    """A broker in memory that did with packets all that a stream does."""

    def __init__(self, folder, with_private):
        self.folder = folder
        self.tables, self.topics = MemoryTables(), MemoryTopics()
        create_tables(self.tables, RUN)
        self.store = AlertStore(self.tables, RUN)
        found = order_contributions((summed, everything), definitions())
        form = packet_format(found.qualified_columns, definitions())
        store_schemas(self.topics, RUN, dict(form.schemas.values()))
        self.topics.create(dead_letters_topic(RUN))
        create_notice_topics(self.topics, RUN, partitions=1)
        self.sources = Sources(
            RUN, tables=self.tables, topics=self.topics, contributions=found,
            archive=Archive(folder / "archive", RUN), catalogs=Catalogs(folder / "catalogs"),
        )  # fmt: skip
        self.parts = whole.whole_app(self.sources, folder)
        self._watch()
        window = Window(0.9, 100.0, 100.0)
        intake = NoticeIntake(topics=self.topics, tables=self.tables, run=RUN, window=window)
        board = NoticeBoard(NoticeStore(self.tables, RUN), RUN, window)
        self._notice(intake, "GRB 1")
        self.enricher = Enricher(
            run=RUN, adapters=find_adapters(), catalogs=self.sources.catalogs,
            contributions=found, runner=Runner(found, catalogs=definitions(), isolate=False),
            store=self.store, packets=form, notices=board,
            watchlists=WatchBoard(self.parts.keeper.book.index, found),
        )  # fmt: skip
        self._run(packets(with_private))
        self._notice(intake, "GRB 2")  # one that comes after the alerts
        nights = folder / "nights"
        for night in NIGHTS:
            path = nights / f"{night}.parquet"
            if not write_night_table(self.store, night, path, outputs=found.qualified_columns):
                path.unlink()
        self.token = self.parts.annotators.add("judge")
        self.client = TestClient(self.parts.app)

    def _watch(self):
        self.owner = self.parts.owners.add("ann")
        rows = "id,ra,dec\n" + "".join(f"s{i},{ra},{dec}\n" for i, (ra, dec) in enumerate(PLACES))
        keeper = self.parts.keeper
        keeper.put(Watchlist("places", "ann", "", radius_arcsec=5.0), read_entries(rows))
        names = "name\n" + "\n".join((*OBJECTS, SECRET)) + "\n"
        keeper.put(Watchlist("names", "ann", ""), read_entries(names))

    def _notice(self, intake, name):
        body = json.dumps({**GCN, "id": name}).encode()
        (at,) = self.topics.send(f"run.{RUN.name}.notices", [Message(body)])
        intake.take([self.topics.get(at)])

    def _run(self, made):
        name = RUN.alerts_topic("ztf")
        self.topics.create(name, TopicSettings(partitions=1))
        places = self.topics.send(name, [Message(p, timestamp_ms=1) for p in made])
        n = len(made)
        columns = {
            "topic": pa.array([name] * n),
            "partition": pa.array([p.partition for p in places], pa.int32()),
            "offset": pa.array([p.offset for p in places], pa.int64()),
            "timestamp": pa.array([1_750_000_000_000_000] * n, pa.timestamp("us", "UTC")),
            "survey": pa.array(["ztf"] * n),
            "schemaId": pa.array([0] * n, pa.int64()),
            "value": pa.array(made, pa.binary()),
        }
        columns |= {k: pa.nulls(n, a.struct) for k, a in find_adapters().items()}
        self.stats = BatchStats()
        batch = pa.RecordBatch.from_pydict(columns)
        self.sent = self.enricher.enrich(batch, batch_id="b-0", stats=self.stats).to_pylist()
        for row in self.sent:
            self.topics.create(row["topic"])
            headers = [(h["key"], h["value"]) for h in row["headers"]]
            message = Message(row["value"], row["key"], headers, timestamp_ms=2)
            self.topics.send(row["topic"], [message], partition=0)
        Ledger(self.tables, RUN).record(
            "alerts", 0, [OffsetRange(name, 0, 0, n)], dict(self.stats.counts), {"seconds": {}}
        )

    def packets_on(self, topic):
        return [
            (m.key, m.value, tuple(m.headers))
            for part in self.topics.ranges(topic)
            for m in self.topics.read(topic, partition=part.partition, first=0, end=part.end)
        ]


PLACES = ((29.19622753, -18.74126302), (148.6876429, 0.8338497), (59.1626935, 62.8011908))


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    """Return the broker that never had anything private, and the one that has."""
    made = []
    for name in ("public", "both"):
        ticks = itertools.count(1_750_000_000 * 10**9, 10**6)
        with pytest.MonkeyPatch.context() as patch:  # so that both are made at the same time
            patch.setattr(time, "time", lambda: 1.75e9)
            patch.setattr(time, "time_ns", lambda ticks=ticks: next(ticks))
            made.append(World(tmp_path_factory.mktemp(name), name == "both"))
    return made


API = PREFIX
SKY = json.dumps({"6": [10]})
CONE = "ra=29.19622753&dec=-18.74126302"
QUESTION = {
    "first": "20230101",
    "last": "20231231",
    "columns": ["diaSourceId", "history", "psfFlux"],
}
CENTRE = "POINT(29.19622753, -18.74126302)"
CIRCLE = f"CIRCLE({CENTRE}, 0.5)"
GETS = [
    *[f"{API}/objects?{q}" for q in ("limit=100", "topic=everything", f"night={NIGHT}", "minSnr=0",
                                    "maxMag=15", "survey=ztf&format=csv")],
    *[f"{API}/alerts?{q}" for q in ("limit=100", "limit=2", "night=20230311", "maxMag=15",
                                   "isSolarSystem=true", "minDetections=29",
                                   "cone=29.19622753,-18.74126302,60", "format=votable",
                                   "topic=watchlist-names", "box=0,360,-90,90")],
    *[f"{API}/{kind}/ztf/{name}{more}"
      for name in (*OBJECTS, SECRET, "ss:4242")
      for kind, more in (("objects", ""), ("objects", "/history"), ("objects", "?format=parquet"),
                         ("objects", "/periodogram"))],
    *[f"{API}/alerts/ztf/{name}{more}"
      for name in (CANDID, SECRET_ALERT, "6660000000000000005")
      for more in ("", "?format=csv", "/cutouts", "/cutouts/science", "/cutouts/science?format=png",
                   "/cutouts/template?format=array", "/cutouts/difference")],
    f"{API}/cone-search?{CONE}&radiusArcsec=3600", f"{API}/cone-search?{CONE}&limit=1",
    f"{API}/vo/cone?RA=29.19622753&DEC=-18.74126302&SR=0.5",
    *[f"{API}/resolve?q={q}" for q in (SECRET, SECRET_ALERT, OBJECTS[0], CANDID)],
    f"{API}/topics", f"{API}/topics/everything/alerts", f"{API}/topics/watchlist-names/alerts",
    f"{API}/topics/everything/alerts?limit=1",
    f"{API}/schemas", f"{API}/modules", f"{API}/catalogs", f"{API}/nights", f"{API}/health",
    f"{API}/statistics/nights", f"{API}/statistics/nights?by=topic",
    f"{API}/statistics/nights?by=survey", f"{API}/statistics/map",
    f"{API}/statistics/map?format=json",
    *[f"{API}/statistics/map?{q}" for q in ("kind=depth", "kind=depth&format=json",
                                           "topic=everything&order=5&format=json")],
    f"{API}/statistics/nights?by=class", "/statistics?topic=everything", "/statistics?maxMag=15",
    f"{API}/solar-system/alerts?name=4242",
    f"{API}/solar-system/around?{CONE}&mjd=60055.1&radiusArcsec=3600",
    f"{API}/skyportal/alerts?object_id={SECRET}", f"{API}/skyportal/alerts?object_id={OBJECTS[0]}",
    f"{API}/skyportal/alerts/{SECRET_ALERT}", f"{API}/skyportal/alerts/{CANDID}",
    f"{API}/watchlists", f"{API}/watchlists/names", f"{API}/watchlists/names/entries",
    f"{API}/watchlists/names/alerts", f"{API}/watchlists/places/alerts",
    f"{API}/unsubscribe?token=none", f"{API}/transfers/0123456789abcdef",
    f"{API}/transfers/0123456789abcdef/manifest",
    f"{API}/transfers/0123456789abcdef/files/part-00000.csv", f"{API}/openapi.json",
    *[f"/tap/sync?{urlencode({'QUERY': query, 'FORMAT': form})}"
      for form in ("csv", "votable")
      for query in ("SELECT * FROM broker.objects", "SELECT * FROM broker.alerts ORDER BY night",
                    f"SELECT * FROM broker.objects WHERE CONTAINS(POINT(ra, dec), {CIRCLE}) = 1",
                    f"SELECT * FROM alerts WHERE DISTANCE(POINT(ra, dec), {CENTRE}) < 0.1",
                    "SELECT COUNT(*) FROM alerts WHERE mag < 15")],
    "/tap", "/tap/tables", "/tap/capabilities", "/tap/availability", "/tap/examples",
    "/tap/async",
    "/tap/async/none", "/tap/async/none/phase", "/tap/async/none/results/result",
    f"{API}/schemas/ids/1", "/schemas/ids/1", f"{API}/sky-maps/none/candidates",
    "/", "/topics", "/topics/everything", "/modules", "/nights", "/health", "/quick-start", "/docs",
    f"/search?q={SECRET}", f"/search?q={SECRET_ALERT}", "/search?q=29.19622753 -18.74126302 600",
    "/find", "/find?topic=everything", "/find?maxMag=15", "/find/go?topic=everything",
    *[f"/objects/ztf/{name}" for name in (*OBJECTS, SECRET)],
    f"/alerts/ztf/{CANDID}", f"/alerts/ztf/{SECRET_ALERT}",
    f"/alerts/ztf/{SECRET_ALERT}/packet", "/schemas", "/schemas/1", "/statistics",
    "/watchlists", "/watchlists/names", "/watchlists/places", "/account", "/account/openid",
    "/account/openid/back",
]  # fmt: skip
"""What is asked for with GET: every address, in ways that would show something."""

COUNTED = [f"{API}/ledger", f"{API}/nights/{NIGHT}", "/nights", f"/nights/{NIGHT}", "/metrics"]
"""The accounts of all messages: of what is not public they have the number, and nothing else."""

REFUSED = [f"{API}/alerts/ztf/{CANDID}/packet"]
"""The packet as it came: it has private epochs, so that nobody gets it."""

POSTS = {
    f"{API}/objects": {"survey": "ztf", "ids": [*OBJECTS, SECRET]},
    f"{API}/transfers/estimate": QUESTION,
    f"{API}/transfers": QUESTION,
}


def said_by(world, method, url, **more):
    with_slashes = world.client.request(method, url, follow_redirects=False, **more)
    kept = ("content-type", "location", "x-total-count", "x-next-cursor", "link")
    heads = {k: v for k, v in with_slashes.headers.items() if k in kept}
    return with_slashes.status_code, heads, with_slashes.content


def test_the_private_broker_really_has_what_must_not_leave(worlds):
    without, having = worlds
    assert having.stats.counts["stored"] == 17
    assert having.stats.counts["notPublic"] == 13
    assert not without.store.object("ztf", SECRET)
    secret_alerts = having.store.object("ztf", SECRET)
    assert secret_alerts
    assert not any(alert["isPublic"] for alert in secret_alerts)
    raw = having.sources.topics.get(next(having.topics.read(
        RUN.alerts_topic("ztf"), partition=0, first=0, end=1)).coordinate).value  # fmt: skip
    record = next(fastavro.reader(io.BytesIO(raw)))
    assert {e["programid"] for e in record["prv_candidates"]} == {0, 1, 2, 3}
    canonical = having.sources.packet(having.sources.alert("ztf", CANDID)).canonical
    assert sum(not e["isPublic"] for e in canonical["history"]) == 4


@pytest.mark.parametrize("url", [url for url in GETS if url not in COUNTED])
def test_nothing_private_is_answered(worlds, url):
    without, having = (said_by(world, "GET", url) for world in worlds)
    assert having == without


@pytest.mark.parametrize("url", POSTS)
def test_nothing_private_is_answered_to_a_question_in_a_body(worlds, url):
    without, having = (said_by(world, "POST", url, json=POSTS[url]) for world in worlds)
    assert without[0] in (200, 202)
    if url.endswith("/transfers"):  # its id and its pieces of work are of the files' making
        pieces = {"id": "", "parts": 0}
        without, having = (json.loads(one[2]) | pieces for one in (without, having))
    assert having == without


def test_nothing_private_is_answered_to_a_search_by_region(worlds):
    answers = []
    for world in worlds:
        found = said_by(world, "POST", f"{API}/alerts/search", content=b'{"0": [0,1,2,3,4,5,6,7]}')
        assert found[0] == 200
        answers.append(found)
    assert answers[0] == answers[1]


@pytest.mark.parametrize("where", ["", f"WHERE CONTAINS(POINT(ra, dec), {CIRCLE}) = 1"])
@pytest.mark.parametrize("table", ["broker.objects", "broker.alerts"])
def test_nothing_private_is_in_the_answer_to_a_query(worlds, table, where):
    form = {"QUERY": f"SELECT * FROM {table} {where} ORDER BY survey, objectId", "FORMAT": "csv"}
    answers = []
    for world in worlds:
        soon = said_by(world, "POST", "/tap/sync", data=form)
        made = world.client.post("/tap/async", data=form | {"PHASE": "RUN"}, follow_redirects=False)
        job = made.headers["location"]
        while "COMPLETED" not in world.client.get(f"{job}?WAIT=30").text:
            now = world.client.get(f"{job}/phase").text
            assert now in ("QUEUED", "EXECUTING", "COMPLETED"), now
        later = world.client.get(f"{job}/results/result")
        assert later.content == soon[2]
        answers.append(soon)
    assert answers[0][0] == 200
    assert answers[0][2].count(b"\n") > 1
    assert answers[0] == answers[1]


@pytest.mark.parametrize("url", COUNTED)
def test_accounts_have_of_private_messages_the_number_alone(worlds, url):
    without, having = (said_by(world, "GET", url) for world in worlds)
    assert without[0] == having[0] == 200
    texts = [re.sub(r"[0-9.,e+-]+", "#", one[2].decode()) for one in (without, having)]
    names = [set(re.findall(r"[A-Za-z]{4,}", text)) for text in texts]
    assert names[1] - names[0] <= {"notPublic"}
    assert SECRET.encode() not in having[2]
    assert b"666000" not in having[2]


@pytest.mark.parametrize("url", REFUSED)
def test_a_packet_with_private_epochs_is_given_to_nobody(worlds, url):
    without, having = (said_by(world, "GET", url) for world in worlds)
    assert without[0] == 200
    assert having[0] == 403


def test_the_page_of_a_packet_shows_its_public_part_alone(worlds):
    url = f"/alerts/ztf/{CANDID}/packet"
    without, having = (said_by(world, "GET", url)[2].decode() for world in worlds)
    changed = [
        line for line in difflib.ndiff(without.splitlines(), having.splitlines()) if line[0] in "+-"
    ]
    assert [line[0] for line in changed] == ["-", "+"]  # how large it is, and that it is not given
    assert "is not handed out" in changed[1]


def test_every_address_of_the_application_is_asked(worlds):
    addresses = whole.addresses(worlds[1].parts.app)
    asked = {
        ("GET", url.partition("?")[0])
        for url in (*GETS, *COUNTED, *REFUSED, f"/alerts/ztf/{CANDID}/packet")
    }
    asked |= {("POST", url) for url in POSTS}
    asked |= {("POST", f"{API}/alerts/search"), ("POST", f"{API}/annotations"),
              ("POST", f"{API}/sky-maps"), ("POST", "/tap/sync"),
              ("POST", "/tap/async")}  # fmt: skip
    writes = {
        ("PUT", f"{API}/watchlists/{{name}}"), ("DELETE", f"{API}/watchlists/{{name}}"),
        ("POST", "/watchlists"), ("POST", "/account"), ("POST", f"{API}/unsubscribe"),
        ("POST", "/tap/async/{job_id}"), ("POST", "/tap/async/{job_id}/{part}"),
        ("DELETE", "/tap/async/{job_id}"),
    }  # fmt: skip
    for method, template in addresses:
        if (method, template) in writes:  # they answer with what was sent
            continue
        form = re.compile(re.sub(r"\{[^}]+\}", "[^/]+", template) + "$")
        assert any(m == method and form.match(url) for m, url in asked), (method, template)


def test_no_public_topic_carries_anything_private(worlds):
    without, having = worlds
    internal = {RUN.alerts_topic("ztf"), dead_letters_topic(RUN)}
    names = set(without.topics.names()) - internal
    assert names == set(having.topics.names()) - internal
    assert {f"run.{RUN.name}.everything.full", f"run.{RUN.name}.watchlist-names.slim",
            f"run.{RUN.name}.public.notice-matches"} <= names  # fmt: skip
    for name in sorted(names):
        assert without.packets_on(name), name
        assert having.packets_on(name) == without.packets_on(name), name


def test_an_annotation_of_a_private_alert_is_refused_as_of_one_that_is_not_there(worlds):
    said = {"annotations": [{"survey": "ztf", "diaSourceId": SECRET_ALERT, "numbers": {"x": 1.0}}]}
    answers = []
    for world in worlds:
        token = {"Authorization": f"Bearer {world.token}"}
        answers.append(said_by(world, "POST", f"{API}/annotations", json=said, headers=token))
    assert answers[0] == answers[1]
    assert answers[1][0] == 404


def test_a_sky_map_finds_nothing_private(worlds):
    answers = []
    for world in worlds:
        made = world.client.post(f"{API}/sky-maps", content=sky_map())
        assert made.status_code == 200, made.text
        name = made.json()["mapId"]
        answers.append(said_by(world, "GET", f"{API}/sky-maps/{name}/candidates?level=0.99"))
    assert answers[0][0] == 200
    assert answers[0] == answers[1]


def test_a_transfer_has_nothing_private_in_rows_histories_and_cutouts(worlds):
    tables = []
    for world in worlds:
        columns = ("diaSourceId", "history", "cutoutScience", "psfFlux", "summed_sumFlux",
                   "nDiaSources")  # fmt: skip
        question = Question("20230101", "20231231", columns=columns[:4])
        nights = Nights.of(world.folder / "nights", question)
        plan = make_plan(question, nights.schema())
        rows = []
        for path in nights.files:
            file = pq.ParquetFile(path)
            for group in range(file.metadata.num_row_groups):
                found = plan.read(file, group)
                archive = KeptOnTopics(world.topics)
                more, absent = packet_columns(archive, found, plan.packet_columns)
                assert absent == 0
                rows += plan.shaped(found, more).to_pylist()
        tables.append(rows)
    assert len(tables[0]) == N
    assert tables[0] == tables[1]


class KeptOnTopics:
    """An archive that still has what stands on topics."""

    def __init__(self, topics):
        self._topics = topics

    def get(self, at):
        found = self._topics.get(at)
        return None if found is None else found.value


def test_nobody_is_told_of_a_private_alert(worlds, tmp_path):
    told = []
    for world in worlds:
        topic = [Message(value, key) for key, value, _ in
                 world.packets_on(f"run.{RUN.name}.everything.slim")]  # fmt: skip
        reader = SimpleNamespace(poll=lambda _, held=topic: held)
        schemas = world.sources.schemas()
        source = TopicSource(
            reader,
            lambda m, known=schemas: decode(
                known[int.from_bytes(m.value[1:5], "big")], m.value[5:]
            ),
        )
        records = [source.fresh()]
        for name in (OBJECTS[0], SECRET):
            path = tmp_path / world.folder.name / name
            path.parent.mkdir(exist_ok=True)
            path.write_text("[]")
            followed = ObjectSource(
                world.store, "ztf", name, path=path, clock=lambda: 0.0, look_every_s=1.0
            )
            records.append([one["diaSourceId"] for one in followed.fresh()])
        told.append(records)
    assert len(told[0][0]) == N
    assert told[0] == told[1]


def test_a_packet_that_does_not_say_whether_it_is_public_is_told_to_nobody():
    reader = SimpleNamespace(poll=lambda _: [Message(b"x", b"k")])
    assert TopicSource(reader, lambda _: {"diaSourceId": "1"}).fresh() == []


def test_a_report_to_the_name_server_has_nothing_private(worlds):
    reports = []
    for world in worlds:
        alerts = world.store.object("ztf", OBJECTS[0])
        history = world.sources.packet(world.sources.alert("ztf", CANDID)).canonical["history"]
        words = [{**e, "kind": KINDS[e["kind"]]} for e in history]
        reports.append(tns_report(alerts, words, Reporter("1", "2", "me")))
    assert reports[0] == reports[1]
    with pytest.raises(ConfigError, match="no public alert"):
        tns_report(worlds[1].store.object("ztf", SECRET), [], Reporter("1", "2", "me"))


def test_a_failure_that_quotes_an_alert_is_not_shown_in_its_words(worlds):
    world = worlds[1]
    quarantine = Quarantine(world.tables, RUN)
    quarantine.record_failure("summed", "1.0.0", f"ValueError: {SECRET} is odd (line 3)")
    for url in (f"{API}/modules", "/modules"):
        text = world.client.get(url).text
        assert "ValueError" in text
        assert SECRET not in text


def test_an_alert_that_went_to_partners_first_shows_its_public_packet_only(tmp_path):
    world = World(tmp_path, with_private=False)
    plain = next(simulate_packets("ztf", 1, 1))
    early = edited(plain, lambda r: r["candidate"].update(programid=2))
    name = RUN.alerts_topic("ztf")
    (at,) = world.topics.send(name, [Message(early)])
    alert = world.sources.alert("ztf", CANDID)
    origins = [{"topic": at.topic, "partition": 0, "offset": at.offset}, *alert["origins"]]
    found = world.sources.packet({**alert, "origins": origins})
    assert found.canonical["isPublic"]
    with pytest.raises(ApiError, match="no packet any more"):
        Sources.packet(fresh(world), {**alert, "origins": origins[:1]})


def fresh(world):
    """Return the sources without what they keep open."""
    s = world.sources
    return Sources(RUN, tables=s.tables, topics=s.topics, archive=s.archive, catalogs=s.catalogs,
                   contributions=s.contributions)  # fmt: skip


def sky_map():
    """Return a map with all its probability everywhere."""
    from astropy.io import fits

    n = 12 * 4**3
    table = fits.BinTableHDU.from_columns(
        [fits.Column("PROB", "D", array=np.full(n, 1.0 / n))],
        header=fits.Header({"ORDERING": "NESTED", "NSIDE": 8, "COORDSYS": "C"}),
    )
    file = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(file)
    return file.getvalue()
