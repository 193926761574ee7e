"""One Arrow pass, in process, with tables in memory: every packet ends in exactly one place."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from broker.alerts.adapters import find_adapters
from broker.alerts.outgoing import packet_format
from broker.alerts.packet import encode_sim
from broker.avro import decode, schema_id, unframe
from broker.catalog.registry import Catalogs, definitions
from broker.errors import AlertError
from broker.science import Column, Runner, science_module, topic_filter
from broker.science.registry import order_contributions
from broker.spark.enrich import Enricher
from broker.spark.stats import BatchStats
from broker.spark.throttle import Share
from broker.store.alerts import AlertStore, create_tables
from broker.store.memory import MemoryTables
from broker.topics.publish import read_dead_letter
from broker.topics.topic import Message
from broker.types import Run

RUN = Run("test")
MJD = 61_000.25


@science_module(version="1.2.0", outputs=(Column("doubleSnr", "float32", "", "Twice snr."),))
def doubled(snr: pd.Series) -> pd.DataFrame:
    return pd.DataFrame({"doubleSnr": 2.0 * snr})


@science_module(version="0.1.0", outputs=(Column("never", "float64", "", "Never there."),))
def broken(snr: pd.Series) -> pd.DataFrame:
    raise RuntimeError("no luck")


@topic_filter(topic="bright", max_pass_fraction=1.0)
def bright(double_snr: pd.Series) -> pd.Series:
    return double_snr > 20.0


@topic_filter(topic="positive", max_pass_fraction=1.0)
def positive(is_negative: pd.Series) -> pd.Series:
    return ~is_negative


def sim_packet(number, **changes):
    source = {
        "diaSourceId": number,
        "visit": 7,
        "detector": 1,
        "diaObjectId": 500 + number,
        "midpointMjdTai": MJD,
        "ra": 10.0 + 0.01 * number,
        "dec": -5.0,
        "psfFlux": 1000.0,
        "psfFluxErr": 50.0,
        "snr": 20.0,
        "band": "r",
        **changes,
    }
    return encode_sim({"diaSourceId": number, "diaSource": source, "cutoutScience": b"FITS"})


def decoded_batch(packets, survey="sim", first=0):
    """Return what the stream's decoding makes of packets: bytes only where it fails."""
    adapter = find_adapters()[survey]
    structs, values, ids = [], [], []
    for packet in packets:
        try:
            identifier, record = adapter.read(packet)
            one = pa.array([record], adapter.struct)
            usable = not adapter.to_canonical(one, _origins(1, identifier)).problems
        except AlertError:
            identifier, record, usable = 0, None, False
        structs.append(record)
        values.append(None if usable else packet)
        ids.append(identifier)
    n = len(packets)
    columns = {
        "topic": pa.array([RUN.alerts_topic(survey)] * n),
        "partition": pa.array([1] * n, pa.int32()),
        "offset": pa.array(range(first, first + n), pa.int64()),
        "timestamp": pa.array(
            [1_750_000_000_000_000 + i for i in range(n)], pa.timestamp("us", "UTC")
        ),
        "survey": pa.array([survey] * n),
        "schemaId": pa.array(ids, pa.int64()),
        "value": pa.array(values, pa.binary()),
    }
    for name, other in find_adapters().items():
        columns[name] = (
            pa.array(structs, other.struct) if name == survey else pa.nulls(n, other.struct)
        )
    return pa.RecordBatch.from_pydict(columns)


def _origins(n, identifier):
    row = {"topic": "t", "partition": 0, "offset": 0, "schemaId": identifier}
    return pa.array([row] * n)


class Bench:
    """An enricher on memory, and ways to look at what it made."""

    def __init__(self, path, contributions=(doubled, broken, bright, positive)):
        found = order_contributions(contributions, definitions())
        self.tables = MemoryTables()
        create_tables(self.tables, RUN)
        self.store = AlertStore(self.tables, RUN)
        self.packets = packet_format(found.qualified_columns, definitions())
        self.enricher = Enricher(
            run=RUN,
            adapters=find_adapters(),
            catalogs=Catalogs(path),
            contributions=found,
            runner=Runner(found, catalogs=definitions(), isolate=False),
            store=self.store,
            packets=self.packets,
        )
        self.stats = BatchStats()

    def run(self, batch, batch_id="test-0"):
        rows = self.enricher.enrich(batch, batch_id=batch_id, stats=self.stats).to_pylist()
        return [
            (
                row["topic"],
                Message(row["value"], row["key"], [(h["key"], h["value"]) for h in row["headers"]]),
            )
            for row in rows
        ]

    def letters(self, sent):
        return [read_dead_letter(m) for topic, m in sent if topic == "run.test.dead-letters"]

    def record(self, message, variant):
        identifier, schema = self.packets.schemas[variant]
        found, body = unframe(message.value)
        assert found == identifier == schema_id(schema)
        return decode(schema, body)


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def of_topic(sent, topic):
    return [message for name, message in sent if name == topic]


def test_an_alert_is_stored_and_goes_to_each_topic_that_it_passes(bench):
    batch = decoded_batch([sim_packet(1), sim_packet(2, snr=5.0), sim_packet(3, isNegative=True)])

    sent = bench.run(batch)

    keys = {
        topic: [m.key for m in of_topic(sent, f"run.test.{topic}")]
        for topic in ("bright.slim", "bright.full", "positive.slim", "positive.full")
    }
    assert keys == {
        "bright.slim": [b"sim|1", b"sim|3"],
        "bright.full": [b"sim|1", b"sim|3"],
        "positive.slim": [b"sim|1", b"sim|2"],
        "positive.full": [b"sim|1", b"sim|2"],
    }
    stored = bench.store.alert("sim", "1")
    assert stored["topics"] == ["bright", "positive"]
    assert stored["outputs"] == {"doubled@1.2.0": {"doubleSnr": 40.0}}
    assert stored["origins"][0]["offset"] == 0
    assert bench.stats.counts == {
        "consumed": 3,
        "stored": 3,
        "published": 3,
        "topic:bright": 2,
        "topic:positive": 2,
    }


def test_a_packet_says_what_was_measured_matched_and_computed(bench):
    sent = bench.run(decoded_batch([sim_packet(1)]))

    slim = bench.record(of_topic(sent, "run.test.bright.slim")[0], "slim")
    full = bench.record(of_topic(sent, "run.test.bright.full")[0], "full")
    assert slim == {name: full[name] for name in slim}
    assert set(full) - set(slim) == {
        "history",
        "cutoutScience",
        "cutoutTemplate",
        "cutoutDifference",
    }
    assert (slim["survey"], slim["diaSourceId"], slim["diaObjectId"]) == ("sim", "1", "501")
    assert slim["ra"] == 10.01
    assert slim["psfFlux"] == 1000.0
    assert slim["reliability"] is None
    assert (slim["referenceMatch"], slim["referenceId"]) == (-1, None)
    assert slim["topics"] == ["bright", "positive"]
    assert slim["modules"] == {
        "doubled": {"version": "1.2.0", "status": "ok", "doubleSnr": 40.0},
        "broken": {"version": "0.1.0", "status": "failed", "never": None},
    }
    assert full["cutoutScience"] == b"FITS"
    assert [epoch["psfFlux"] for epoch in full["history"]] == [1000.0]
    assert full["history"][0]["kind"] == "detection"


def test_headers_carry_clocks_and_origin_and_the_body_does_not(bench, tmp_path):
    first = bench.run(decoded_batch([sim_packet(1)]), batch_id="test-3")
    second = Bench(tmp_path).run(decoded_batch([sim_packet(1)], first=40), batch_id="test-4")

    for (topic, before), (same_topic, after) in zip(first, second, strict=True):
        assert (topic, before.key, before.value) == (same_topic, after.key, after.value)
    headers = dict(first[0][1].headers)
    assert headers == {
        "diaSourceId": b"1",
        "survey": b"sim",
        "batchId": b"test-3",
        "ingestTimestamp": b"1750000000000",
        "origin": b"run.test.alerts.sim/1/0",
    }
    assert second[0][1].header("origin") == b"run.test.alerts.sim/1/40"


def test_the_answer_does_not_depend_on_how_packets_are_batched(bench, tmp_path):
    packets = [sim_packet(i, snr=float(5 + i)) for i in range(20)]

    whole = bench.run(decoded_batch(packets))
    other = Bench(tmp_path)
    parts = [
        row
        for i in range(0, 20, 7)
        for row in other.run(decoded_batch(packets[i : i + 7], first=i))
    ]

    assert sorted((t, m.key, m.value) for t, m in whole) == sorted(
        (t, m.key, m.value) for t, m in parts
    )


BAD = {
    "empty message": (b"", "decode", "the message is empty"),
    "random bytes": (np.random.default_rng(0).bytes(400), "decode", "begins with byte 0x00"),
    "truncated body": (sim_packet(9)[:-20], "decode", "not of its schema"),
    "unknown schema": (b"\x00\x00\x00\x00\x01" + sim_packet(9)[5:], "decode", "schema id 1 is"),
    "wrong magic byte": (b"\x01" + sim_packet(9)[1:], "decode", "this one with 0x01"),
    "ra is NaN": (sim_packet(9, ra=float("nan")), "decode", "ra is missing or NaN"),
    "dec out of range": (sim_packet(9, dec=95.0), "decode", "dec is 95.0, not between -90 and 90"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_packet_becomes_one_dead_letter_with_its_reason(bench, name):
    packet, stage, reason = BAD[name]

    sent = bench.run(decoded_batch([sim_packet(1), packet, sim_packet(2)]))

    (letter,) = bench.letters(sent)
    assert (letter.origin.offset, letter.stage, letter.value) == (1, stage, packet)
    assert reason in letter.reason
    assert bench.stats.counts["stored"] == 2
    assert bench.stats.counts["deadLetters"] == 1
    assert bench.store.alert("sim", "9") is None


def test_a_null_message_is_a_dead_letter_too(bench):
    batch = decoded_batch([b""])
    value = batch.schema.get_field_index("value")
    batch = batch.set_column(value, "value", pa.nulls(1, pa.binary()))

    (letter,) = bench.letters(bench.run(batch))

    assert letter.reason == "the message is empty"


def test_a_packet_that_only_python_reads_joins_its_batch(bench):
    packets = [sim_packet(1), sim_packet(2)]
    batch = decoded_batch(packets)
    batch = batch.set_column(
        batch.schema.get_field_index("value"), "value", pa.array([None, packets[1]], pa.binary())
    )

    sent = bench.run(batch)

    assert bench.stats.counts["decodedOneByOne"] == 1
    assert [m.key for m in of_topic(sent, "run.test.bright.slim")] == [b"sim|1", b"sim|2"]
    assert [m.header("origin") for m in of_topic(sent, "run.test.bright.slim")] == [
        b"run.test.alerts.sim/1/0",
        b"run.test.alerts.sim/1/1",
    ]


def test_a_duplicate_packet_is_one_row_with_two_origins(bench):
    bench.run(decoded_batch([sim_packet(1), sim_packet(1)]))

    ((survey, dia_source_id, coordinates),) = bench.store.origins()
    assert (survey, dia_source_id) == ("sim", "1")
    assert [c.offset for c in sorted(coordinates)] == [0, 1]


def test_an_adapter_that_stumbles_over_one_packet_loses_only_that(bench, monkeypatch):
    adapter = find_adapters()["sim"]
    project = adapter.project

    def stumbling(decoded):
        if 3 in decoded.field("diaSource").field("diaSourceId").to_pylist():
            raise ZeroDivisionError("by zero")
        return project(decoded)

    batch = decoded_batch([sim_packet(i) for i in range(1, 7)])
    monkeypatch.setitem(
        bench.enricher.adapters,
        "sim",
        type(adapter)(
            adapter.survey,
            adapter.wire,
            adapter.schemas,
            adapter.struct,
            adapter.valid_sql,
            stumbling,
        ),
    )

    (letter,) = bench.letters(bench.run(batch))

    assert letter.origin.offset == 2
    assert letter.reason == "the adapter sim failed: ZeroDivisionError: by zero"
    assert bench.stats.counts["stored"] == 5


def test_what_is_not_public_is_stored_and_never_published(bench, monkeypatch):
    adapter = find_adapters()["sim"]
    project = adapter.project

    def half_public(decoded):
        made = project(decoded)
        made.columns["isPublic"] = np.array([True, False])
        return made

    batch = decoded_batch([sim_packet(1), sim_packet(2)])
    monkeypatch.setitem(
        bench.enricher.adapters,
        "sim",
        type(adapter)(
            adapter.survey,
            adapter.wire,
            adapter.schemas,
            adapter.struct,
            adapter.valid_sql,
            half_public,
        ),
    )

    sent = bench.run(batch)

    assert {m.key for _, m in sent} == {b"sim|1"}
    assert bench.store.alert("sim", "2")["topics"] == []
    assert bench.stats.counts["notPublic"] == 1


def test_a_failing_module_is_counted_with_its_reason(bench):
    bench.run(decoded_batch([sim_packet(1)]))

    n, reason = bench.stats.failures["broken"]
    assert n == 1
    assert "no luck" in reason


def test_a_quarantined_module_is_not_run(tmp_path):
    bench = Bench(tmp_path)

    class Quarantine:
        def quarantined(self):
            return {"broken@0.1.0", "doubled@9.9.9"}

    bench.enricher._quarantine = Quarantine()
    sent = bench.run(decoded_batch([sim_packet(1)]))

    modules = bench.record(of_topic(sent, "run.test.bright.slim")[0], "slim")["modules"]
    assert (modules["broken"]["status"], modules["doubled"]["status"]) == ("quarantined", "ok")
    assert bench.stats.failures == {}


def test_without_modules_alerts_are_stored_and_filtered(tmp_path):
    bench = Bench(tmp_path, contributions=(positive,))

    sent = bench.run(decoded_batch([sim_packet(1)]))

    assert bench.record(of_topic(sent, "run.test.positive.slim")[0], "slim")["modules"] == {}
    assert bench.store.alert("sim", "1")["topics"] == ["positive"]


def test_a_batch_of_several_surveys_goes_apart_and_comes_together(bench):
    ours = decoded_batch([sim_packet(1)])
    theirs = decoded_batch([b"no packet"], survey="lsst", first=5)

    sent = bench.run(pa.Table.from_batches([ours, theirs]))

    assert [m.key for m in of_topic(sent, "run.test.bright.slim")] == [b"sim|1"]
    assert [letter.origin.topic for letter in bench.letters(sent)] == ["run.test.alerts.lsst"]


def _module_cells(bench):
    rows = bench.tables.table(RUN.table("alert")).scan(columns=[b"m"])
    return {key: row for key, row in rows if row}


def test_refilling_gives_the_bytes_that_came_live_and_touches_nothing_else(tmp_path):
    bench = Bench(tmp_path)
    packets = [sim_packet(i, snr=5.0 + i) for i in range(1, 31)]
    bench.run(decoded_batch(packets))
    table = bench.tables.table(RUN.table("alert"))
    live, whole = _module_cells(bench), dict(table.scan())
    table.put([(key, {b"m:doubled@1.2.0": b"none"}) for key in live], 1)
    stats = BatchStats()

    for first in (0, 7, 19):  # other batches than live
        end = {0: 7, 7: 19, 19: 30}[first]
        some = decoded_batch(packets[first:end], first=first)
        bench.enricher.refill(some, labels={"doubled@1.2.0"}, stats=stats)

    assert _module_cells(bench) == live
    assert dict(table.scan()) == whole
    assert (stats.counts["stored"], stats.counts.get("notStored", 0)) == (30, 0)
    unknown = decoded_batch([sim_packet(99)])
    bench.enricher.refill(unknown, labels={"doubled@1.2.0"}, stats=stats)
    assert stats.counts["notStored"] == 1
    assert dict(table.scan()) == whole


def test_a_topic_that_floods_is_held_back_in_its_packets_and_nowhere_else(tmp_path):
    bench = Bench(tmp_path)
    packets = [sim_packet(i) for i in range(1, 201)]
    flood = Share("bright", 0.25, 10_000, 10_000, 0, 10_000)

    rows = bench.enricher.enrich(
        decoded_batch(packets), batch_id="b", stats=bench.stats, floods={"bright": flood}
    ).to_pylist()

    slim = [row for row in rows if row["topic"] == "run.test.bright.slim"]
    counts = bench.stats.counts
    assert len(slim) == counts["topic:bright"]
    assert counts["topic:bright"] + counts["throttled:bright"] == 200
    assert 25 < len(slim) < 75
    for row in slim:
        assert "throttled" in [h["key"] for h in row["headers"]]
    stored = [bench.store.alert("sim", str(i))["topics"] for i in range(1, 201)]
    assert all("bright" in topics for topics in stored)
