"""Simulated packets: the surveys' framing and sizes, each alert its own, whoever makes it."""

import io

import fastavro
import numpy as np
import pytest

from broker.alerts.adapters import find_adapters
from broker.alerts.columns import CUTOUTS, KINDS
from broker.alerts.wire import body_by_position
from broker.errors import ConfigError
from broker.imaging.cutout import decode_cutout
from broker.simulation.packets import SURVEYS, simulate_packets
from broker.types import Coordinate
from broker.units import separation_arcsec

ORIGIN = Coordinate("alerts", 0, 0)


def canonical(survey, packets):
    adapter = find_adapters()[survey]
    return [adapter.decode_one(packet, ORIGIN).to_pylist()[0] for packet in packets]


@pytest.fixture(scope="module")
def made():
    return {survey: list(simulate_packets(survey, 40, 7)) for survey in SURVEYS}


@pytest.mark.parametrize("survey", SURVEYS)
def test_a_packet_depends_on_seed_and_index_alone(survey, made):
    assert list(simulate_packets(survey, 3, 7, first=30)) == made[survey][30:33]
    assert next(iter(simulate_packets(survey, 1, 8))) != made[survey][0]


@pytest.mark.parametrize("survey", SURVEYS)
def test_every_alert_has_its_own_id_and_place(survey, made):
    other_seed = list(simulate_packets(survey, 20, 8))
    alerts = canonical(survey, [*made[survey], *other_seed])

    assert len({a["diaSourceId"] for a in alerts}) == len(alerts)
    objects = [a["diaObjectId"] for a in alerts if a["diaObjectId"] is not None]
    assert len(set(objects)) == len(objects)
    assert len({(a["ra"], a["dec"]) for a in alerts}) == len(alerts)
    assert len({a["psfFlux"] for a in alerts}) == len(alerts)


def test_ztf_packets_have_the_sizes_of_real_ones(made, sample_packets):
    real = [path.stat().st_size for path in sample_packets.glob("ztf/*/*.avro")]
    sizes = [len(packet) for packet in made["ztf"]]

    assert np.mean(sizes) == pytest.approx(np.mean(real), rel=0.05)
    assert 0.9 * min(real) < min(sizes) < max(sizes) < 1.1 * max(real)


def test_ztf_packets_are_cut_by_position_and_read_by_the_avro_library(made):
    schemas = find_adapters()["ztf"].schemas
    headers = set()
    for packet in made["ztf"]:
        (known,) = (n for n in schemas if body_by_position(packet, n) is not None)
        (record,) = fastavro.reader(io.BytesIO(packet))
        assert record["candidate"]["candid"] == record["candid"]
        headers.add((known, record["schemavsn"]))
    assert headers == {(23384, "3.3"), (25634, "4.01")}


def test_ztf_histories_have_all_kinds_and_a_month(made):
    alerts = canonical("ztf", made["ztf"])
    entries = [e for a in alerts for e in a["history"]]

    assert {KINDS[e["kind"]] for e in entries} == set(KINDS)
    lengths = [len(a["history"]) for a in alerts]
    assert min(lengths) >= 10
    assert max(lengths) <= 70
    for alert in alerts:
        assert alert["midpointMjdTai"] - alert["history"][0]["midpointMjdTai"] < 31.0
        assert alert["history"][-1]["psfFlux"] == alert["psfFlux"]


@pytest.mark.slow
def test_lsst_packets_are_as_large_as_the_survey_s_long_histories():
    packets = list(simulate_packets("lsst", 300, 1))
    alerts = canonical("lsst", packets[:40])

    assert np.mean([len(packet) for packet in packets]) == pytest.approx(224_000, rel=0.1)
    assert {a["origin"]["schemaId"] for a in alerts} == {900, 1000, 1101}
    assert any(a["diaObjectId"] is None and a["ssObjectId"] is not None for a in alerts)
    minimal = canonical("lsst", [min(packets, key=len)])[0]
    assert minimal["cutoutScience"] is None  # 3 in 100 are: the chance of none in 300 is 1e-4
    assert minimal["diaObjectId"] is None
    assert max(len(a["history"]) for a in alerts) > 600
    assert {len(a["cutoutTemplate"]) for a in alerts if a["cutoutTemplate"]} == {69_120}
    assert {len(a["cutoutScience"]) for a in alerts if a["cutoutScience"]} == {34_560}


def test_lsst_packets_can_have_short_histories():
    alerts = canonical("lsst", simulate_packets("lsst", 40, 1, history="short"))

    assert max(len(a["history"]) for a in alerts) <= 41
    assert {a["nDiaSources"] for a in alerts} != {1}


@pytest.mark.parametrize("version", ["7.1", "8.0", "11.0"])
def test_lsst_packets_of_any_version_can_be_made(version):
    packets = list(simulate_packets("lsst", 12, 2, versions=[version], history="short"))

    alerts = canonical("lsst", packets)

    major, minor = version.split(".")
    assert {a["origin"]["schemaId"] for a in alerts} == {100 * int(major) + int(minor)}


@pytest.mark.parametrize("survey", SURVEYS)
def test_the_difference_is_the_science_image_minus_the_template(survey, made):
    alerts = [a for a in canonical(survey, made[survey][:20]) if a["cutoutScience"]]
    for alert in alerts:
        science, template, difference = (decode_cutout(alert[name]) for name in CUTOUTS)
        assert science.shape == template.shape == difference.shape
        np.testing.assert_allclose(science - template, difference, atol=0.05)
    # The sign of the alert is that of its image, for all but the faintest.
    bright = [a for a in alerts if a["snr"] > 20]
    assert bright
    for alert in bright:
        difference = decode_cutout(alert["cutoutDifference"])
        middle = difference.shape[0] // 2
        peak = difference[middle - 2 : middle + 3, middle - 2 : middle + 3].sum()
        assert (peak < 0) == alert["isNegative"]


@pytest.mark.parametrize("survey", SURVEYS)
def test_a_share_lies_near_given_places(survey):
    places = np.array([[359.9999, 10.0], [120.0, -89.0], [45.0, 0.0]])

    alerts = canonical(
        survey, simulate_packets(survey, 60, 3, near=places, near_fraction=0.5, history="short")
    )

    nearest = [
        separation_arcsec(a["ra"], a["dec"], places[:, 0], places[:, 1]).min() for a in alerts
    ]
    near = np.array(nearest) < 2.0
    assert 15 <= near.sum() <= 45  # 30 expected, sigma 3.9
    assert np.array(nearest)[~near].min() > 3.0


def test_what_cannot_be_made_is_said():
    with pytest.raises(ConfigError, match="not simulated; only lsst, ztf"):
        next(simulate_packets("gaia", 1))
    with pytest.raises(ConfigError, match="within 0 to 999999"):
        next(simulate_packets("ztf", 2, first=999_999))
    with pytest.raises(ConfigError, match=r"no schema ztf/9\.9"):
        next(simulate_packets("ztf", 1, versions=["9.9"]))
