"""Entries with proper motion are where they were when an alert was measured."""

import astropy.units as u
import numpy as np
import pyarrow as pa
import pytest
from astropy.coordinates import SkyCoord
from astropy.time import Time
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.catalog import Catalogs, install_catalog
from broker.catalog.motion import LONGEST_YEARS, mjd_of_year, moved, years_between
from broker.units import separation_arcsec

TOML = """
doc = "Nearby stars."
radius_arcsec = 1.0
coverage = "all-sky"
version = "1"
positions = { pm_ra = "pmra", pm_dec = "pmdec", epoch = 2016.0 }
columns = []
"""


def sky(rng, n):
    return rng.uniform(0, 360, n), np.degrees(np.arcsin(rng.uniform(-1, 1, n)))


def test_motion_is_along_a_great_circle_also_at_the_poles():
    rng = np.random.default_rng(1)
    ra, dec = sky(rng, 300)
    ra, dec = np.append(ra, [0.0, 123.0, 0.0]), np.append(dec, [90.0, -89.9999, 0.0])
    pm_ra, pm_dec = rng.normal(0, 5000.0, (2, ra.size))
    # A tangent of length t ends at the angle arctan(t): straight motion through space.
    angle = np.arctan(np.radians(np.hypot(pm_ra, pm_dec) * 30.0 / 3.6e6))
    there = SkyCoord(ra * u.deg, dec * u.deg).directional_offset_by(
        np.arctan2(pm_ra, pm_dec) * u.rad, angle * u.rad
    )

    found = moved(ra, dec, pm_ra, pm_dec, 30.0)

    assert np.hypot(pm_ra, pm_dec).max() * 30.0 > 300_000.0  # mas: five arcminutes
    assert separation_arcsec(*found, there.ra.deg, there.dec.deg).max() < 1e-5


def test_what_does_not_move_stays_to_the_last_bit():
    ra, dec = sky(np.random.default_rng(2), 100)

    found = moved(ra, dec, np.zeros(100), np.zeros(100), 30.0)

    np.testing.assert_array_equal(found, (ra, dec))


def test_an_unknown_time_is_the_catalogue_s_epoch_and_a_far_one_is_bounded():
    epoch = mjd_of_year(2016.0)
    assert Time(epoch, format="mjd").jyear == pytest.approx(2016.0)

    years = years_between(epoch, [np.nan, epoch, mjd_of_year(2026.0), 1e7])

    np.testing.assert_allclose(years, [0.0, 0.0, 10.0, LONGEST_YEARS])


@settings(max_examples=4)
@given(seed=st.integers(0, 2**32 - 1), year=st.floats(1990.0, 2060.0))
def test_the_match_is_what_all_pairs_at_the_alert_s_time_give(seed, year, tmp_path_factory):
    rng = np.random.default_rng(seed)
    n = 400
    ra, dec = sky(rng, n)
    pm = rng.normal(0.0, 1.0, (2, n)) * rng.choice([0.0, 10.0, 3000.0], n)
    path = tmp_path_factory.mktemp("c")
    (path / "near.toml").write_text(TOML)
    table = pa.table({"id": [f"s{k}" for k in range(n)], "ra": ra, "dec": dec})
    table = table.append_column("pmra", pa.array(pm[0])).append_column("pmdec", pa.array(pm[1]))
    install_catalog(path, "near", table, definition=path / "near.toml")
    there = moved(ra, dec, pm[0], pm[1], year - 2016.0)
    look = (there[0] + rng.normal(0, 1.5e-4, n)) % 360.0, np.clip(there[1], -90.0, 90.0)
    expected = separation_arcsec(look[0][:, None], look[1][:, None], *there)

    got = Catalogs(path).match(*look, np.full(n, mjd_of_year(year))).to_pandas()

    nearest = expected.min(axis=1)
    clear = np.abs(nearest - 1.0) > 1e-6
    np.testing.assert_array_equal((got["nearMatch"] == 1)[clear], (nearest <= 1.0)[clear])
    hit = (got["nearMatch"] == 1).to_numpy()
    assert hit.sum() > 100
    names = [f"s{k}" for k in expected.argmin(axis=1)[hit]]
    assert got["nearId"][hit].tolist() == names
    np.testing.assert_allclose(got["nearSeparation"][hit], nearest[hit], atol=1e-6)
