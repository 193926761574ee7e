"""Our own packets: what is written comes back in canonical columns."""

import pytest

from broker import avro
from broker.alerts.adapters import find_adapters
from broker.alerts.columns import CANONICAL
from broker.alerts.packet import decode_sim, encode_sim, sim_schema
from broker.errors import AlertError
from broker.types import Coordinate

LARGEST = 2**63 - 1
ORIGIN = Coordinate("alerts.sim", 1, 2)


def a_source(identifier, mjd, **values):
    return {
        "diaSourceId": identifier,
        "visit": 2**31 - 1,
        "detector": 255,
        "midpointMjdTai": mjd,
        "ra": 10.0,
        "dec": -20.0,
        "psfFlux": 3000.0,
        "psfFluxErr": 100.0,
        "band": "r",
        **values,
    }


def a_record():
    return {
        "diaSourceId": LARGEST,
        "diaSource": a_source(
            LARGEST,
            61000.0,
            diaObjectId=LARGEST - 1,
            raErr=1e-5,
            snr=30.0,
            reliability=0.75,
            isNegative=True,
            flags=2**40 + 1,
            fwhm=1.25,
            limitingMag=23.5,
            zeroPoint=31.0,
            templateFlux=5.0,
            templateVersion="v1",
        ),
        "prvDiaSources": [a_source(3, 60990.0), a_source(2, 60980.0)],
        "prvDiaForcedSources": [
            {
                "diaForcedSourceId": 1,
                "diaObjectId": LARGEST - 1,
                **{k: v for k, v in a_source(0, 60995.0).items() if k != "diaSourceId"},
            }
        ],
        "diaObject": {
            "diaObjectId": LARGEST - 1,
            "ra": 10.0,
            "dec": -20.0,
            "firstDiaSourceMjdTai": 60000.0,
            "nDiaSources": 17,
        },
        "cutoutScience": b"s",
        "cutoutTemplate": b"t",
        "cutoutDifference": b"d",
    }


def test_a_packet_of_ours_becomes_canonical():
    table = find_adapters()["sim"].decode_one(encode_sim(a_record()), ORIGIN)

    assert table.schema == CANONICAL
    (got,) = table.to_pylist()
    assert got["survey"] == "sim"
    assert got["diaSourceId"] == str(LARGEST)
    assert got["diaObjectId"] == str(LARGEST - 1)
    assert got["ssObjectId"] is None
    assert got["isPublic"]
    assert (got["isNegative"], got["isDipole"], got["flags"]) == (True, False, 2**40 + 1)
    assert (got["fwhm"], got["limitingMag"], got["zeroPoint"]) == (1.25, 23.5, 31.0)
    assert (got["templateFlux"], got["scienceFlux"]) == (5.0, None)
    assert (got["firstMjdTai"], got["nDiaSources"], got["ageDays"]) == (60000.0, 17, 1000.0)
    assert [(e["midpointMjdTai"], e["kind"]) for e in got["history"]] == [
        (60980.0, 0),
        (60990.0, 0),
        (60995.0, 2),
        (61000.0, 0),
    ]
    assert got["cutoutTemplate"] == b"t"
    assert got["origin"] == {
        "topic": "alerts.sim",
        "partition": 1,
        "offset": 2,
        "schemaId": avro.schema_id(sim_schema()),
    }


def test_a_first_alert_has_itself_as_its_history():
    record = {"diaSourceId": 1, "diaSource": a_source(1, 61000.0)}

    (got,) = find_adapters()["sim"].decode_one(encode_sim(record), ORIGIN).to_pylist()

    assert (got["nDiaSources"], got["firstMjdTai"], got["ageDays"]) == (1, 61000.0, 0.0)
    assert got["snr"] == 30.0
    assert len(got["history"]) == 1


def test_a_record_is_read_back_and_the_same_record_gives_the_same_bytes():
    packet = encode_sim(a_record())

    assert decode_sim(packet)["diaSource"]["diaSourceId"] == LARGEST
    assert decode_sim(packet)["isLate"] is False
    assert encode_sim(a_record()) == packet


def test_a_record_without_a_needed_field_is_refused():
    with pytest.raises(AlertError, match=r"not of schema sim/1\.0"):
        encode_sim({"diaSourceId": 1})


def test_a_packet_of_another_survey_is_not_ours():
    with pytest.raises(AlertError, match="schema id 900 is not that of sim"):
        decode_sim(avro.frame(900, b"\x00"))


def test_our_schema_s_id_is_above_rubin_s():
    assert avro.schema_id(sim_schema()) >= avro.FIRST_OWN_ID
