"""Decoding in the JVM: the same alerts as in Python, and every bad packet left to Python."""

import io
import math

import fastavro
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from broker import avro
from broker.alerts.adapters import find_adapters
from broker.alerts.columns import CANONICAL, ORIGIN
from broker.alerts.packet import encode_sim
from broker.alerts.wire import varint
from broker.errors import AlertError, ConfigError
from broker.simulation.packets import simulate_packets
from broker.types import Coordinate

TOPICS = {"alerts.sim": "sim", "alerts.ztf": "ztf", "alerts.lsst": "lsst"}
SCHEMA = "topic string, partition int, offset bigint, timestamp timestamp, value binary"


@pytest.fixture(scope="module")
def decode_all(spark):
    """Decode (topic, value) pairs; offsets are their places in the list."""
    from broker.spark.decode import decode

    def run(messages, topics=TOPICS):
        rows = [
            (topic, 0, offset, None, None if value is None else bytearray(value))
            for offset, (topic, value) in enumerate(messages)
        ]
        return decode(spark.createDataFrame(rows, SCHEMA), topics).toArrow().sort_by("offset")

    return run


def origins(table):
    columns = (table[name].combine_chunks() for name in ("topic", "partition", "offset"))
    return pa.StructArray.from_arrays(
        [*columns, table["schemaId"].combine_chunks()], fields=list(ORIGIN)
    )


def canonical(table, survey):
    adapter = find_adapters()[survey]
    its = table.filter(pc.and_(pc.equal(table["survey"], survey), pc.is_null(table["value"])))
    assert its[survey].type == adapter.struct
    done = adapter.to_canonical(its[survey].combine_chunks(), origins(its))
    assert not done.problems
    return done.table


def one_by_one(messages, survey):
    adapter = find_adapters()[survey]
    tables = [
        adapter.decode_one(value, Coordinate(topic, 0, offset))
        for offset, (topic, value) in enumerate(messages)
        if TOPICS[topic] == survey
    ]
    return pa.concat_tables(tables)


def sim_packet(**changed):
    source = {
        "diaSourceId": 2**63 - 1,
        "visit": 1,
        "detector": 2,
        "midpointMjdTai": 61000.0,
        "ra": 10.0,
        "dec": -20.0,
        "psfFlux": 3000.0,
        "psfFluxErr": 100.0,
        "band": "r",
    } | changed
    return encode_sim({"diaSourceId": 1, "diaSource": source, "prvDiaSources": [source] * 2})


def test_real_packets_give_the_same_alerts_as_in_python(decode_all, sample_packets):
    messages = [
        (f"alerts.{survey}", path.read_bytes())
        for survey, pattern in (("ztf", "ztf/*/*.avro"), ("lsst", "lsst/packets/v*0-*.avro"))
        for path in sorted(sample_packets.glob(pattern))
    ]
    assert len(messages) == 39

    table = decode_all(messages)

    assert table["value"].null_count == len(messages)  # none needs the slow path
    for survey in ("ztf", "lsst"):
        assert canonical(table, survey).equals(one_by_one(messages, survey))


def test_simulated_packets_of_all_surveys_and_versions_in_one_batch(decode_all):
    versions = avro.schema_versions("lsst")
    messages = [("alerts.ztf", p) for p in simulate_packets("ztf", 20, 1)]
    messages += [("alerts.lsst", p) for p in simulate_packets("lsst", 20, 1)]
    messages += [
        ("alerts.lsst", p)
        for p in simulate_packets("lsst", 40, 2, versions=versions, history="short")
    ]
    messages += [("alerts.sim", sim_packet(diaSourceId=k)) for k in range(1, 20)]
    order = np.random.default_rng(0).permutation(len(messages))
    messages = [messages[k] for k in order]

    table = decode_all(messages)

    assert table["value"].null_count == len(messages)
    for survey in ("ztf", "lsst", "sim"):
        got = canonical(table, survey)
        assert got.schema == CANONICAL
        assert got.equals(one_by_one(messages, survey))
    others = {"ztf": ("lsst", "sim"), "lsst": ("ztf", "sim"), "sim": ("ztf", "lsst")}
    for row in table.select(["survey", *others]).to_pylist():
        assert row[row["survey"]] is not None
        assert [row[other] for other in others[row["survey"]]] == [None, None]


def bad_packets():
    (ztf,) = simulate_packets("ztf", 1, 3)
    lsst = next(p for p in simulate_packets("lsst", 9, 3) if len(p) > 100_000)
    rng = np.random.default_rng(5)
    bad = [("alerts.ztf", b""), ("alerts.lsst", b""), ("alerts.sim", b"")]
    bad += [("alerts.ztf", ztf[:-1]), ("alerts.ztf", ztf[:40_000]), ("alerts.ztf", ztf[1:])]
    bad += [("alerts.lsst", lsst[:n]) for n in (1, 5, 6, 100, 50_000, len(lsst) - 1)]
    bad += [("alerts.lsst", b"\x01" + lsst[1:]), ("alerts.lsst", avro.frame(4711, lsst[5:]))]
    bad += [("alerts.sim", lsst), ("alerts.lsst", ztf), ("alerts.ztf", lsst)]
    for name, value in (("ra", math.nan), ("ra", -1.0), ("dec", 91.0), ("dec", math.nan)):
        bad.append(("alerts.sim", sim_packet(**{name: value})))
    bad += [("alerts.sim", sim_packet(psfFluxErr=0.0)), ("alerts.sim", sim_packet(diaSourceId=0))]
    for start in (b"", b"Obj\x01", b"\x00\x00\x00\x03\x84", b"\x00\x00\x00\x03\xe8"):
        for size in (3, 30, 300, 30_000):
            bad.append(("alerts.ztf", start + rng.bytes(size)))
            bad.append(("alerts.lsst", start + rng.bytes(size)))
    # A header that is recognised, before a body of noise.
    bad.append(("alerts.ztf", ztf[: 23_384 + 4] + rng.bytes(len(ztf) - 23_404) + ztf[-16:]))
    return bad


def test_every_bad_packet_keeps_its_bytes_and_python_names_its_reason(decode_all):
    messages = bad_packets()

    table = decode_all(messages)

    assert table["value"].to_pylist() == [value for _, value in messages]
    for topic, value in messages:
        with pytest.raises(AlertError):
            find_adapters()[TOPICS[topic]].decode_one(value, Coordinate(topic, 0, 0))


def test_a_claim_of_gigabytes_is_a_bad_packet_and_not_the_end_of_the_task(decode_all):
    # Random bytes can claim any length; a failed allocation would end the task, not the record.
    packet = sim_packet()
    assert packet.endswith(bytes(3))  # no cutouts: three nulls
    claims = [varint(n) for n in (10**9, 2**31 - 1, 2**40)]
    bad = [packet[:-3] + b"\x02" + claim for claim in claims]

    table = decode_all([("alerts.sim", value) for value in bad])

    assert table["value"].to_pylist() == bad


def test_a_compressed_container_is_left_to_python(decode_all):
    (packet,) = simulate_packets("ztf", 1, 3)
    reader = fastavro.reader(io.BytesIO(packet))
    (record,) = reader
    out = io.BytesIO()
    fastavro.writer(out, reader.writer_schema, [record], codec="deflate")

    table = decode_all([("alerts.ztf", out.getvalue()), ("alerts.ztf", packet)])

    assert [v is None for v in table["value"].to_pylist()] == [False, True]
    slow = find_adapters()["ztf"].decode_one(out.getvalue(), Coordinate("alerts.ztf", 0, 1))
    assert canonical(table, "ztf").equals(slow)


def test_a_message_without_a_value_is_an_empty_one_and_one_of_another_topic_is_kept(decode_all):
    table = decode_all([("alerts.ztf", None), ("elsewhere", b"x")])

    assert table["survey"].to_pylist() == ["ztf", None]
    assert table["value"].to_pylist() == [b"", b"x"]
    assert table["ztf"].to_pylist() == [None, None]


def test_surveys_that_are_not_read_have_null_columns_of_their_type(decode_all):
    messages = [("alerts.sim", sim_packet())]

    table = decode_all(messages, {"alerts.sim": "sim"})

    everything = decode_all(messages)
    assert table.schema.names == everything.schema.names
    for survey, adapter in find_adapters().items():
        assert table[survey].type == adapter.struct
    assert table["ztf"].null_count == 1


def test_an_unknown_survey_is_a_wrong_set_up(spark):
    from broker.spark.decode import decode

    with pytest.raises(ConfigError, match="no adapter for survey 'gaia'; there are: lsst, sim"):
        decode(spark.createDataFrame([], SCHEMA), {"alerts.gaia": "gaia"})


def test_headers_are_passed_on(spark):
    from broker.spark.decode import decode

    kafka = SCHEMA + ", headers array<struct<key string, value binary>>"
    row = ("alerts.sim", 0, 0, None, bytearray(sim_packet()), [("origin", bytearray(b"x/0/1"))])

    got = decode(spark.createDataFrame([row], kafka), TOPICS).first()

    assert [(h.key, bytes(h.value)) for h in got.headers] == [("origin", b"x/0/1")]


def test_each_schema_is_decoded_by_one_expression(spark):
    from broker.spark.decode import decode

    frame = spark.createDataFrame([("alerts.ztf", 0, 0, None, bytearray(b"x"))], SCHEMA)

    plan = decode(frame, TOPICS)._jdf.queryExecution().executedPlan().toString()

    n_schemas = sum(len(adapter.schemas) for adapter in find_adapters().values())
    assert plan.count("from_avro(") == n_schemas


def schemas_alive(spark):
    """Return how many of Avro's schemas live in the Java process, after it has thrown away."""
    jvm, new = spark._jvm, spark.sparkContext._gateway.new_array

    def array(kind, *values):
        made = new(kind, len(values))
        for i, value in enumerate(values):
            made[i] = value
        return made

    named = jvm.java.lang.Class.forName
    server = jvm.java.lang.management.ManagementFactory.getPlatformMBeanServer()
    bean = jvm.javax.management.ObjectName("com.sun.management:type=DiagnosticCommand")
    kinds = ("javax.management.ObjectName", "java.lang.String")
    arrays = ("[Ljava.lang.Object;", "[Ljava.lang.String;")
    kinds = array(jvm.java.lang.Class, *map(named, (*kinds, *arrays)))
    # By the interface: the server's own class may not be called from outside.
    call = named("javax.management.MBeanServer").getMethod("invoke", kinds)
    given, words = array(jvm.Object, array(jvm.String)), array(jvm.String, arrays[1])
    text = call.invoke(server, array(jvm.Object, bean, "gcClassHistogram", given, words))
    lines = [line.split() for line in text.splitlines() if "org.apache.avro.Schema$" in line]
    return sum(int(one[1]) for one in lines)


def test_what_one_batch_needs_of_avro_is_not_kept_for_ever(spark, decode_all):
    messages = [("alerts.ztf", next(simulate_packets("ztf", 1, 1)))]

    def fewest_alive():
        """Look now and then: Spark keeps its last 20 plans, and throws away when it likes."""
        alive = []
        for _ in range(5):
            for _ in range(5):
                decode_all(messages, {"alerts.ztf": "ztf"})
            alive.append(schemas_alive(spark))
        return min(alive)

    before, after = fewest_alive(), fewest_alive()

    assert after < before + 10_000  # kept, there are 1000 more a batch
