"""Rubin's packets: the real ones field by field, and one of every version of the schema."""

import io
import json
import math

import fastavro
import numpy as np
import pytest

from broker import avro
from broker.alerts.adapters import find_adapters
from broker.alerts.columns import CANONICAL, CUTOUTS
from broker.alerts.flags import QUALITY_FLAGS, flag_names
from broker.errors import AlertError
from broker.types import Coordinate

ORIGIN = Coordinate("alerts.lsst", 0, 7)
VERSIONS = avro.schema_versions("lsst")


def f32(value):
    return None if value is None or math.isnan(value) else float(np.float32(value))


def identifier_of(version):
    major, minor = version.split(".")
    return 100 * int(major) + int(minor)


def packet_of(version, record):
    schema = fastavro.parse_schema(avro.read_schema(f"lsst/{version}"))
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, record)
    return b"\x00" + identifier_of(version).to_bytes(4, "big") + out.getvalue()


def source(version, **values):
    """A diaSource with the values a version has, other fields null, zero or empty."""
    alert = avro.read_schema(f"lsst/{version}")
    (kind,) = (f["type"] for f in alert["fields"] if f["name"] == "diaSource")
    return filled(kind, values)


def filled(kind, values):
    zero = {"string": "", "boolean": False, "bytes": b""}
    record = {}
    for field in kind["fields"]:
        is_nullable = isinstance(field["type"], list)
        empty = None if is_nullable else zero.get(str(field["type"]), 0)
        record[field["name"]] = values.get(field["name"], empty)
    return record


SOURCE = {
    "diaSourceId": 2**62 + 12345,
    "visit": 943296,
    "detector": 168,
    "diaObjectId": 2**62 + 99,
    "midpointMjdTai": 60961.25,
    "ra": 55.75,
    "dec": -32.25,
    "raErr": 3e-5,
    "decErr": 4e-5,
    "psfFlux": -1230.5,
    "psfFluxErr": 245.5,
    "snr": 5.0,
    "band": "r",
    "reliability": 0.25,
    "pixelFlags_edge": True,
    "centroid_flag": True,
    "ixxPSF": 0.16,
    "iyyPSF": 0.18,
}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_packet_of_every_version_becomes_canonical(version):
    earlier = [
        source(version, **{**SOURCE, "diaSourceId": 3 + k, "midpointMjdTai": 60900.0 + k})
        for k in range(3)
    ]
    alert = filled(
        avro.read_schema(f"lsst/{version}"),
        {
            "diaSource": source(version, **SOURCE),
            "prvDiaSources": earlier,
            "cutoutScience": b"science",
        },
    )

    table = find_adapters()["lsst"].decode_one(packet_of(version, alert), ORIGIN)

    assert table.schema == CANONICAL
    (got,) = table.to_pylist()
    assert got["diaSourceId"] == str(2**62 + 12345)
    assert got["diaObjectId"] == str(2**62 + 99)
    assert got["ssObjectId"] is None
    assert got["isNegative"]
    assert (got["visit"], got["detector"], got["band"]) == (943296, 168, "r")
    assert got["psfFlux"] == -1230.5
    assert got["psfFluxErr"] == 245.5
    assert got["raErr"] == f32(3e-5)
    assert got["reliability"] == 0.25
    assert got["fwhm"] == pytest.approx(math.sqrt(8 * math.log(2) * 0.17), rel=1e-6)
    assert flag_names(got["flags"]) == ["centroid_flag", "pixelFlags_edge"]
    assert got["cutoutScience"] == b"science"
    assert [e["midpointMjdTai"] for e in got["history"]] == [60900.0, 60901.0, 60902.0, 60961.25]
    assert got["firstMjdTai"] == 60900.0
    assert got["nDiaSources"] == 4
    assert got["ageDays"] == 61.25
    assert got["origin"]["schemaId"] == identifier_of(version)


def test_a_solar_system_alert_has_no_object_and_says_how_far_it_is():
    record = {**SOURCE, "diaObjectId": None, "ssObjectId": 77}
    moving = {"ssObjectId": 77, "diaSourceId": 1, "ephOffset": 0.5}
    schema = avro.read_schema("lsst/10.0")
    (kinds,) = (f["type"] for f in schema["fields"] if f["name"] == "ssSource")
    alert = filled(
        schema,
        {"diaSource": source("10.0", **record), "ssSource": filled(kinds[1], moving)},
    )

    (got,) = find_adapters()["lsst"].decode_one(packet_of("10.0", alert), ORIGIN).to_pylist()

    assert got["diaObjectId"] is None
    assert got["ssObjectId"] == "77"
    assert got["ssSeparation"] == 0.5


def test_our_copies_of_the_schemas_are_those_of_the_survey(sample_packets):
    found = sorted(path.stem for path in (sample_packets / "lsst/schema").glob("*.avsc"))
    assert sorted(VERSIONS) == found
    for version in VERSIONS:
        theirs = json.loads((sample_packets / f"lsst/schema/{version}.avsc").read_text())
        ours = avro.read_schema(f"lsst/{version}")
        canonical = fastavro.schema.to_parsing_canonical_form
        assert canonical(fastavro.parse_schema(ours)) == canonical(fastavro.parse_schema(theirs))


@pytest.mark.parametrize("name", ["v9.0-full", "v9.0-minimal", "v10.0-minimal"])
def test_a_real_packet_is_as_a_plain_reading_has_it(sample_packets, name):
    packet = (sample_packets / f"lsst/packets/{name}.avro").read_bytes()
    version = name[1:].split("-")[0]
    schema = json.loads((sample_packets / f"lsst/schema/{version}.avsc").read_text())
    record = fastavro.schemaless_reader(io.BytesIO(packet[5:]), fastavro.parse_schema(schema))
    row, about = record["diaSource"], record["diaObject"]

    (got,) = find_adapters()["lsst"].decode_one(packet, ORIGIN).to_pylist()

    earlier = record["prvDiaSources"] or []
    times = sorted({e["midpointMjdTai"] for e in [*earlier, row]})
    first = about["firstDiaSourceMjdTai"]
    first = times[0] if first is None or math.isnan(first) else first
    variance = None if row["ixxPSF"] is None else (row["ixxPSF"] + row["iyyPSF"]) / 2
    assert {k: v for k, v in got.items() if k not in ("history", "origin", "fwhm")} == {
        "survey": "lsst",
        "diaSourceId": str(row["diaSourceId"]),
        "diaObjectId": str(row["diaObjectId"] or about["diaObjectId"]),
        "ssObjectId": None,  # sent as 0 or null
        "ssSeparation": None,
        "isPublic": True,
        "midpointMjdTai": row["midpointMjdTai"],
        "visit": row["visit"],
        "detector": row["detector"],
        "band": row["band"],
        "ra": row["ra"],
        "dec": row["dec"],
        **{k: f32(row[k]) for k in ("raErr", "decErr", "psfFlux", "psfFluxErr", "snr")},
        **{k: f32(row[k]) for k in ("templateFlux", "templateFluxErr")},
        **{k: f32(row[k]) for k in ("scienceFlux", "scienceFluxErr", "reliability")},
        "isNegative": row["psfFlux"] < 0,
        "isDipole": bool(row["isDipole"]),
        "flags": sum(1 << i for i, flag in enumerate(QUALITY_FLAGS) if row.get(flag)),
        "elongation": None,
        "limitingMag": None,
        "zeroPoint": None,
        "firstMjdTai": first,
        "nDiaSources": about["nDiaSources"],
        "ageDays": row["midpointMjdTai"] - first,
        **{k: record[k] for k in CUTOUTS},
    }
    if variance is None:
        assert got["fwhm"] is None
    else:
        assert got["fwhm"] == pytest.approx(2.3548 * math.sqrt(variance), rel=1e-4)
    assert [e["midpointMjdTai"] for e in got["history"]] == times
    assert got["history"][-1]["psfFlux"] == f32(row["psfFlux"])
    assert got["origin"]["schemaId"] == identifier_of(version)


def test_a_time_that_no_clock_has_shown_is_refused(sample_packets):
    # The sample has seconds since 1970 where days belong.
    packet = (sample_packets / "lsst/packets/v7.1-minimal.avro").read_bytes()

    with pytest.raises(AlertError, match=r"midpointMjdTai is 1480360995\.0, not between"):
        find_adapters()["lsst"].decode_one(packet, ORIGIN)


def test_a_source_without_the_survey_s_word_is_negative_by_its_flux():
    alert = filled(avro.read_schema("lsst/7.0"), {"diaSource": source("7.0", **SOURCE)})
    (got,) = find_adapters()["lsst"].decode_one(packet_of("7.0", alert), ORIGIN).to_pylist()
    assert got["isNegative"]

    turned = {**SOURCE, "psfFlux": 1.0, "isNegative": True}
    alert = filled(avro.read_schema("lsst/9.0"), {"diaSource": source("9.0", **turned)})
    (got,) = find_adapters()["lsst"].decode_one(packet_of("9.0", alert), ORIGIN).to_pylist()
    assert got["isNegative"]


def test_a_field_that_a_version_names_otherwise_is_found():
    turned = {**SOURCE, "psfFlux": 1.0, "is_negative": True}
    alert = filled(avro.read_schema("lsst/7.4"), {"diaSource": source("7.4", **turned)})
    (got,) = find_adapters()["lsst"].decode_one(packet_of("7.4", alert), ORIGIN).to_pylist()
    assert got["isNegative"]
