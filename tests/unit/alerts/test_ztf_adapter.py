"""Real ZTF packets, against a reading of their fields one by one in plain Python."""

import math

import fastavro
import pytest
from astropy.time import Time, TimeDelta

from broker.alerts.adapters import find_adapters
from broker.alerts.columns import CANONICAL, CUTOUTS, KINDS
from broker.types import Coordinate

ORIGIN = Coordinate("alerts.ztf", 1, 42)
JD_STEP_D = 1e-9  # two steps of a double at JD 2.46e6
BANDS = {1: "g", 2: "r", 3: "i"}


@pytest.fixture(scope="module")
def packets(sample_packets):
    paths = sorted(sample_packets.glob("ztf/*/*.avro"))
    assert len(paths) == 36
    return [path.read_bytes() for path in paths]


def raw_record(packet, tmp_path):
    path = tmp_path / "packet.avro"
    path.write_bytes(packet)
    with path.open("rb") as file:
        (record,) = fastavro.reader(file)
    return record


def known(value):
    return None if value is None or math.isnan(value) or value <= -998.0 else value


def midpoint(jd, exposure_s=30.0):
    """MJD, TAI, of the middle of an exposure that began at a Julian date, UTC."""
    return (Time(jd, format="jd", scale="utc") + TimeDelta(exposure_s / 2, format="sec")).tai.mjd


def njy(mag):
    return 3631e9 * 10 ** (-0.4 * mag)  # 3631 Jy at magnitude 0: Oke & Gunn 1983


def same_flux(value):
    # The zero point 31.4 stands for 31.40006: 6e-5 mag; then float32.
    return pytest.approx(value, rel=1e-4)


def expected_history(record):
    """The epochs, naively: all entries, one by one, each against those that were kept."""
    entries = []
    own = record["candidate"]
    rows = [(row, 0 if row is own else 1) for row in [own, *(record["prv_candidates"] or [])]]
    for row, rank in rows:
        common = (midpoint(row["jd"]), BANDS.get(row["fid"]), row["programid"] == 1)
        if row["magpsf"] is not None:
            flux = njy(row["magpsf"]) * (1 if row["isdiffpos"] in ("t", "1") else -1)
            error = abs(flux) * row["sigmapsf"] * math.log(10) / 2.5
            entries.append((*common, rank, "detection", flux, error))
        elif known(row["diffmaglim"]) is not None:
            entries.append((*common, 3, "upper-limit", None, njy(row["diffmaglim"]) / 5))
    for row in record.get("fp_hists") or []:
        flux, error = (row[f"forcediffimflux{x}"] for x in ("", "unc"))
        if row["procstatus"] == "0" and flux is not None and error > 0:
            scale = njy(row["magzpsci"])
            when = midpoint(row["jd"], row["exptime"])
            is_public = row["programid"] == 1
            forced = (when, BANDS.get(row["fid"]), is_public, 2, "forced")
            entries.append((*forced, flux * scale, error * scale))
    kept = []
    for entry in sorted(entries, key=lambda e: e[3]):
        near = (abs(entry[0] - k[0]) * 86400 < 0.1 and entry[1] == k[1] for k in kept)
        if not any(near):
            kept.append(entry)
    return sorted(kept)


def test_every_scalar_of_every_packet_is_as_a_plain_reading_has_it(packets, tmp_path):
    adapter = find_adapters()["ztf"]
    for packet in packets:
        record = raw_record(packet, tmp_path)
        row = record["candidate"]

        table = adapter.decode_one(packet, ORIGIN)

        assert table.schema == CANONICAL
        (got,) = table.to_pylist()
        flux = njy(row["magpsf"]) * (1 if row["isdiffpos"] in ("t", "1") else -1)
        error = abs(flux) * row["sigmapsf"] * math.log(10) / 2.5
        template = known(row["magnr"]) and njy(row["magnr"])
        template_err = template and template * row["sigmagnr"] * math.log(10) / 2.5
        expected = {
            "survey": "ztf",
            "diaSourceId": str(record["candid"]),
            "diaObjectId": record["objectId"],
            "ssObjectId": None if row["ssnamenr"] in (None, "null") else row["ssnamenr"],
            "ssSeparation": known(row["ssdistnr"]),
            "isPublic": row["programid"] == 1,
            "midpointMjdTai": pytest.approx(midpoint(row["jd"], row["exptime"]), abs=JD_STEP_D),
            "visit": row["pid"] // 10_000,
            "detector": row["rcid"],
            "band": BANDS[row["fid"]],
            "ra": row["ra"],
            "dec": row["dec"],
            "raErr": None,
            "decErr": None,
            "psfFlux": same_flux(flux),
            "psfFluxErr": same_flux(error),
            "snr": pytest.approx(1.0857362 / row["sigmapsf"], rel=1e-6),
            "templateFlux": template and same_flux(template),
            "templateFluxErr": template and same_flux(template_err),
            "scienceFlux": template
            and pytest.approx(template + flux, abs=1e-4 * (template + abs(flux))),
            "scienceFluxErr": template and same_flux(math.hypot(template_err, error)),
            "reliability": known(row["drb"]) if known(row["drb"]) is not None else row["rb"],
            "isNegative": row["isdiffpos"] in ("f", "0"),
            "isDipole": False,
            "fwhm": pytest.approx(row["fwhm"] * 1.012, rel=1e-6),
            "elongation": row["elong"],
            "limitingMag": row["diffmaglim"],
            "zeroPoint": row["magzpsci"],
            "firstMjdTai": pytest.approx(midpoint(row["jdstarthist"]), abs=JD_STEP_D),
            "nDiaSources": row["ndethist"],
            "ageDays": pytest.approx(row["jd"] - row["jdstarthist"], abs=2 * JD_STEP_D),
            "origin": {"topic": "alerts.ztf", "partition": 1, "offset": 42, "schemaId": 0},
        }
        assert {name: got[name] for name in expected} == expected
        assert (got["flags"] != 0) == (row["nbad"] > 0)
        for name in CUTOUTS:
            assert got[name] == record[name]["stampData"]


def test_every_history_is_as_a_plain_reading_has_it(packets, tmp_path):
    adapter = find_adapters()["ztf"]
    kinds = set()
    for packet in packets:
        expected = expected_history(raw_record(packet, tmp_path))

        history = adapter.decode_one(packet, ORIGIN)["history"][0].as_py()

        assert len(history) == len(expected)
        for got, (mjd, band, is_public, _, kind, flux, error) in zip(
            history, expected, strict=True
        ):
            # Of entries of one epoch another one may be kept: their times differ by less.
            assert got["midpointMjdTai"] == pytest.approx(mjd, abs=0.1 / 86400)
            assert (got["band"], got["isPublic"], KINDS[got["kind"]]) == (band, is_public, kind)
            assert got["psfFlux"] == (None if flux is None else same_flux(flux))
            assert got["psfFluxErr"] == same_flux(error)
            kinds.add(kind)
    assert kinds == set(KINDS)


def test_a_batch_gives_what_its_packets_give_one_by_one(packets):
    import pyarrow as pa

    from broker.alerts.columns import ORIGIN as ORIGIN_TYPE

    adapter = find_adapters()["ztf"]
    decoded = pa.array([adapter.read(packet)[1] for packet in packets], adapter.struct)
    rows = [{"topic": "alerts.ztf", "partition": 1, "offset": 42, "schemaId": 0}] * len(packets)

    batch = adapter.to_canonical(decoded, pa.array(rows, ORIGIN_TYPE))

    one_by_one = pa.concat_tables([adapter.decode_one(packet, ORIGIN) for packet in packets])
    assert batch.table.equals(one_by_one)
    assert not batch.problems
    sliced = adapter.to_canonical(decoded.slice(5, 7), pa.array(rows[:7], ORIGIN_TYPE))
    assert sliced.table.equals(one_by_one.slice(5, 7))


def test_a_quadrant_is_part_of_the_processing_number_and_the_visit_is_the_rest(packets, tmp_path):
    for packet in packets:
        row = raw_record(packet, tmp_path)["candidate"]
        assert row["pid"] // 100 % 100 == row["rcid"]
        night, day = divmod(row["pid"] // 10_000, 100_000)
        assert night == row["nid"]
        # The time of day in the number is cut after 1e-5 d.
        assert day / 1e5 == pytest.approx((row["jd"] - 0.5) % 1, abs=1.1e-5)
