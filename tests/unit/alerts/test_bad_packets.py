"""Packets that cannot be used: each is refused with a reason of its own, and nothing else."""

import io
import math

import fastavro
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker import avro
from broker.alerts.adapters import find_adapters
from broker.alerts.columns import ORIGIN as ORIGIN_TYPE
from broker.alerts.packet import encode_sim
from broker.errors import AlertError
from broker.simulation.packets import simulate_packets
from broker.types import Coordinate

ORIGIN = Coordinate("alerts", 0, 0)


def sim_record(**changed):
    source = {
        "diaSourceId": 5,
        "visit": 1,
        "detector": 2,
        "midpointMjdTai": 61000.0,
        "ra": 10.0,
        "dec": -20.0,
        "psfFlux": 3000.0,
        "psfFluxErr": 100.0,
        "band": "r",
    }
    return {"diaSourceId": 5, "diaSource": source | changed}


def ztf_packet(**changed):
    (packet,) = simulate_packets("ztf", 1, 3)
    reader = fastavro.reader(io.BytesIO(packet))
    (record,) = reader
    for name, value in changed.items():
        place = record if name in record else record["candidate"]
        place[name] = value
    out = io.BytesIO()
    fastavro.writer(out, reader.writer_schema, [record])
    return out.getvalue()


def decode(survey, packet):
    return find_adapters()[survey].decode_one(packet, ORIGIN)


@pytest.mark.parametrize("survey", ["sim", "ztf", "lsst"])
def test_an_empty_message_is_refused(survey):
    with pytest.raises(AlertError, match="the message is empty"):
        decode(survey, b"")


@pytest.mark.parametrize("survey", ["sim", "lsst"])
def test_a_wrong_first_byte_is_named(survey):
    with pytest.raises(AlertError, match="begins with byte 0x00, this one with 0x07"):
        decode(survey, b"\x07" + bytes(100))


@pytest.mark.parametrize("survey", ["sim", "lsst"])
def test_an_unknown_schema_is_named(survey):
    with pytest.raises(AlertError, match=f"schema id 4711 is not known for survey {survey}"):
        decode(survey, avro.frame(4711, bytes(100)))


def test_bytes_that_are_no_container_are_refused():
    with pytest.raises(AlertError, match="not an Avro container file: it begins with 0x00000003"):
        decode("ztf", avro.frame(900, bytes(100)))


def test_the_reason_of_a_truncated_body_is_the_same_each_time():
    packet = encode_sim(sim_record())
    reasons = set()
    for _ in range(2):
        with pytest.raises(AlertError, match="or truncated: it ends after 25 bytes") as caught:
            decode("sim", packet[:30])
        reasons.add(caught.value.message)
    assert len(reasons) == 1


@pytest.mark.parametrize("survey", ["ztf", "lsst"])
def test_a_truncated_packet_is_refused_wherever_it_ends(survey):
    packets = list(simulate_packets(survey, 4, 11, history="short"))
    for packet in packets:
        for length in (6, 100, len(packet) // 2, len(packet) - 1):
            if length < len(packet):
                with pytest.raises(AlertError):
                    decode(survey, packet[:length])


def test_bytes_left_over_are_refused():
    with pytest.raises(AlertError, match="1 bytes are left over"):
        decode("sim", encode_sim(sim_record()) + b"\x00")


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"ra": math.nan}, "ra is missing or NaN"),
        ({"ra": 360.5}, "ra is 360.5, not between 0 and 360"),
        ({"ra": -0.5}, "ra is -0.5, not between 0 and 360"),
        ({"dec": math.nan}, "dec is missing or NaN"),
        ({"dec": 90.5}, "dec is 90.5, not between -90 and 90"),
        ({"dec": -math.inf}, "dec is -inf, not between -90 and 90"),
        ({"midpointMjdTai": math.nan}, "midpointMjdTai is missing or NaN"),
        ({"midpointMjdTai": 2.46e6}, "midpointMjdTai is 2460000.0, not between 15020 and 88068"),
        ({"psfFlux": math.nan}, "psfFlux is missing or NaN"),
        ({"psfFlux": math.inf}, "psfFlux is inf, it must be finite"),
        ({"psfFluxErr": math.nan}, "psfFluxErr is missing or NaN"),
        ({"psfFluxErr": 0.0}, "psfFluxErr is 0, it must be positive and finite"),
        ({"psfFluxErr": -1.0}, "psfFluxErr is -1, it must be positive and finite"),
        ({"diaSourceId": 0}, "diaSourceId is missing"),
        ({"ra": math.nan, "psfFluxErr": 0.0}, "ra is missing or NaN; psfFluxErr is 0"),
    ],
)
def test_a_value_that_cannot_be_is_named(changed, reason):
    with pytest.raises(AlertError) as caught:
        decode("sim", encode_sim(sim_record(**changed)))
    assert reason in caught.value.message


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"isdiffpos": "x"}, "isdiffpos is none of t, 1, f, 0"),
        ({"objectId": ""}, "objectId is missing"),
        ({"candid": 0}, "diaSourceId is missing"),
        ({"ra": math.nan}, "ra is missing or NaN"),
        ({"magpsf": -999.0}, "psfFlux is missing or NaN"),
        ({"sigmapsf": math.nan}, "psfFluxErr is missing or NaN"),
        ({"jd": 0.0}, "midpointMjdTai is -24"),
    ],
)
def test_a_value_of_ztf_that_cannot_be_is_named(changed, reason):
    with pytest.raises(AlertError) as caught:
        decode("ztf", ztf_packet(**changed))
    assert reason in caught.value.message


def test_an_unknown_filter_is_no_problem_but_null_and_counted():
    adapter = find_adapters()["ztf"]
    packets = [ztf_packet(fid=7), ztf_packet(fid=2)]
    decoded = pa.array([adapter.read(packet)[1] for packet in packets], adapter.struct)
    row = {"topic": "t", "partition": 0, "offset": 0, "schemaId": 0}

    done = adapter.to_canonical(decoded, pa.array([row] * 2, ORIGIN_TYPE))

    assert done.table["band"].to_pylist() == [None, "r"]
    assert not done.problems
    assert done.counts == {"unknownBand": 1}


def test_in_a_batch_only_the_bad_rows_are_left_out():
    adapter = find_adapters()["sim"]
    records = [sim_record(), sim_record(dec=math.nan), sim_record(ra=400.0), sim_record()]
    decoded = pa.array(records, adapter.struct)
    rows = [{"topic": "t", "partition": 0, "offset": i, "schemaId": 1} for i in range(4)]

    done = adapter.to_canonical(decoded, pa.array(rows, ORIGIN_TYPE))

    assert done.problems == {1: "dec is missing or NaN", 2: "ra is 400.0, not between 0 and 360"}
    assert [o["offset"] for o in done.table["origin"].to_pylist()] == [0, 3]


def test_a_record_that_decoded_to_nothing_is_refused():
    for survey, adapter in find_adapters().items():
        nothing = pa.array([dict.fromkeys(f.name for f in adapter.struct), None], adapter.struct)
        row = {"topic": "t", "partition": 0, "offset": 0, "schemaId": 0}

        done = adapter.to_canonical(nothing, pa.array([row] * 2, ORIGIN_TYPE))

        assert sorted(done.problems) == [0, 1], survey
        assert done.table.num_rows == 0


@settings(max_examples=100)
@given(
    survey=st.sampled_from(["sim", "ztf", "lsst"]),
    start=st.sampled_from([b"", b"Obj\x01", b"\x00\x00\x00\x03\x84", b"\x00\x00\x00\x03\xe8"]),
    noise=st.binary(max_size=400),
)
def test_random_bytes_are_refused_and_never_anything_worse(survey, start, noise):
    with pytest.raises(AlertError):
        decode(survey, start + noise)


SMALL = next(p for p in simulate_packets("lsst", 100, 5, history="short") if len(p) < 1000)


@settings(max_examples=100)
@given(
    place=st.integers(5, len(SMALL) - 1), byte=st.integers(0, 255), cut=st.integers(0, len(SMALL))
)
def test_a_damaged_packet_is_an_alert_or_refused(place, byte, cut):
    damaged = bytearray(SMALL)
    damaged[place] = byte
    for packet in (bytes(damaged), bytes(damaged)[:cut]):
        try:
            assert decode("lsst", packet).num_rows == 1
        except AlertError:
            continue
