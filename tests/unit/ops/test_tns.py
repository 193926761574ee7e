"""A report to the Transient Name Server says what was seen; what must not be told is refused."""

import json

import pytest
from astropy.time import Time

from broker.errors import ConfigError
from broker.ops.tns import Reporter, tns_report

WHO = Reporter("A. Person, on behalf of us", "7", "48")


def alert(day, flux=3630.78, **more):
    return {
        "survey": "ztf", "diaObjectId": "ZTF26abcdefg", "ssObjectId": None, "isPublic": True,
        "isNegative": False, "midpointMjdTai": 61000.0 + day, "band": "r", "ra": 150.25,
        "dec": -2.5, "raErr": 1e-5, "decErr": None, "psfFlux": flux, "psfFluxErr": flux / 10.857,
        "snr": 10.857, **more,
    }  # fmt: skip


def limit(day, **more):
    return {"midpointMjdTai": 61000.0 + day, "band": "g", "psfFlux": None, "psfFluxErr": 57.54,
            "isPublic": True, "kind": 1, **more}  # fmt: skip


def read(alerts, history=()):
    return json.loads(tns_report(alerts, list(history), WHO))["at_report"]["0"]


def test_a_report_has_place_discovery_and_magnitudes():
    found = read([alert(0), alert(2, flux=9120.1)], [limit(-3), limit(-1), limit(1)])

    assert float(found["ra"]["value"]) == 150.25
    assert float(found["ra"]["error"]) == pytest.approx(0.036, abs=1e-3)
    assert "error" not in found["dec"]
    discovery = Time(61000.0, format="mjd", scale="tai").utc.jd
    assert float(found["discovery_datetime"]) == pytest.approx(discovery, abs=1e-6)
    points = found["photometry"]["photometry_group"]
    assert [float(points[i]["flux"]) for i in "01"] == pytest.approx([22.5, 21.5], abs=2e-3)
    assert float(points["0"]["flux_error"]) == pytest.approx(0.1, abs=2e-3)
    assert {(p["filter_value"], p["instrument_value"]) for p in points.values()} == {("111", "196")}
    before = found["non_detection"]
    assert float(before["limiting_flux"]) == pytest.approx(25.253, abs=2e-3)  # 5 × 57.54 nJy
    assert before["filter_value"] == "110"
    assert float(before["obsdate"]) == pytest.approx(discovery - 1.0, abs=1e-4)


def test_epochs_that_are_not_public_are_not_told():
    found = read([alert(0, isPublic=False), alert(2)], [limit(-1, isPublic=False)])

    assert len(found["photometry"]["photometry_group"]) == 1
    assert set(found["non_detection"]) == {"archiveid", "archival_remarks"}


@pytest.mark.parametrize(
    "wrong",
    [{"isPublic": False}, {"isNegative": True}, {"ssObjectId": "1"}, {"psfFlux": -5.0},
     {"band": "u"}, {"survey": "lsst"}],
)  # fmt: skip
def test_what_is_not_to_be_reported_is_refused(wrong):
    with pytest.raises(ConfigError):
        read([alert(0, **wrong)])
