"""Known objects, possible ones, and all else; latitudes as astropy has them."""

import numpy as np
import pandas as pd
import pytest
from astropy import units
from astropy.coordinates import BarycentricMeanEcliptic, SkyCoord

from science_modules.moving_object.module import (
    CANDIDATE,
    KNOWN,
    NONE,
    moving_candidate,
    moving_object,
)

FIRST = {
    "context_class": "hostless",
    "n_dia_sources": 1.0,
    "age_days": 0.0,
    "is_negative": False,
    "is_dipole": False,
    "is_hostless": True,
    "template_flux": np.nan,
    "template_flux_err": np.nan,
    "ra": 100.0,
    "dec": 20.0,
}


def flagged(**changed):
    row = FIRST | changed
    columns = {name: pd.Series([row[name]]) for name in moving_object.inputs}
    columns["is_hostless"] = pd.Series([row["is_hostless"]], dtype="boolean")
    return moving_object(*columns.values()).iloc[0]["movingObjectFlag"]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, CANDIDATE),
        ({"context_class": "unknown"}, CANDIDATE),
        ({"context_class": "solar-system", "n_dia_sources": 9.0}, KNOWN),
        ({"context_class": "variable-star"}, NONE),
        ({"context_class": "hosted"}, NONE),
        ({"n_dia_sources": 3.0, "age_days": 0.01}, CANDIDATE),
        ({"n_dia_sources": 2.0, "age_days": 0.1}, NONE),
        ({"n_dia_sources": np.nan, "age_days": np.nan}, NONE),
        ({"is_negative": True}, NONE),
        ({"is_dipole": True}, NONE),
        ({"is_hostless": False}, NONE),
        ({"is_hostless": False, "template_flux": 10.0, "template_flux_err": 9.0}, CANDIDATE),
        ({"is_hostless": None}, NONE),
        ({"is_hostless": None, "template_flux": 10.0, "template_flux_err": 9.0}, CANDIDATE),
        ({"is_hostless": None, "template_flux": 100.0, "template_flux_err": 9.0}, NONE),
    ],
)
def test_the_flag_follows_from_what_is_known(changed, expected):
    assert flagged(**changed) == expected


def test_ecliptic_latitudes_are_those_of_astropy():
    rng = np.random.default_rng(1)
    ra, dec = rng.uniform(0.0, 360.0, 200), np.degrees(np.arcsin(rng.uniform(-1.0, 1.0, 200)))
    place = SkyCoord(ra * units.deg, dec * units.deg)
    expected = place.transform_to(BarycentricMeanEcliptic(equinox="J2000")).lat.deg
    rows = {name: pd.Series([value] * 200) for name, value in FIRST.items()}
    rows |= {"ra": pd.Series(ra), "dec": pd.Series(dec)}
    rows["is_hostless"] = rows["is_hostless"].astype("boolean")
    got = moving_object(*(rows[name] for name in moving_object.inputs))

    np.testing.assert_allclose(got["eclipticLatitude"], expected, atol=1e-4)


def test_the_topic_takes_good_candidates_near_the_ecliptic():
    good = {"moving_object_flag": 1.0, "reliability": 0.9, "snr": 8.0, "ecliptic_latitude": -12.0}

    def judged(**changed):
        row = good | changed
        values = (pd.Series([row[name]]) for name in moving_candidate.inputs)
        return bool(moving_candidate(*values).iloc[0])

    assert judged()
    assert not judged(moving_object_flag=2.0)
    assert not judged(ecliptic_latitude=50.0)
    for name in good:
        assert not judged(**{name: np.nan})
