"""Bodies are where integration of their motion, and astropy's planets, have them."""

import astropy.units as u
import erfa
import numpy as np
import pytest
from astropy.coordinates import (
    EarthLocation,
    UnitSphericalRepresentation,
    get_body_barycentric,
    solar_system_ephemeris,
)
from astropy.time import Time
from astropy.utils import iers
from scipy.integrate import solve_ivp

from broker.catalog.orbits import (
    GAUSS_K,
    Elements,
    Ephemeris,
    Site,
    ephemeris,
    heliocentric,
    observer,
    predicted_mag,
)
from broker.units import separation_arcsec

MU = GAUSS_K**2
TDB = 2_400_000.5


def elements_of_state(place, velocity, mjd):
    """Elements from place and velocity, equatorial [au, au/d]: the textbook's way, not ours."""
    eps = np.radians(84381.448 / 3600)
    turn = np.array([[1, 0, 0], [0, np.cos(eps), np.sin(eps)], [0, -np.sin(eps), np.cos(eps)]])
    r, v = turn @ place, turn @ velocity
    h = np.cross(r, v)
    node = np.array([-h[1], h[0], 0.0])
    ecc = np.cross(v, h) / MU - r / np.linalg.norm(r)
    e = np.linalg.norm(ecc)
    a = 1.0 / (2.0 / np.linalg.norm(r) - v @ v / MU)
    omega = np.arctan2(node[1], node[0])
    arg = np.arctan2(ecc @ np.cross(h, node) / np.linalg.norm(h), ecc @ node)
    true = np.arctan2(r @ np.cross(h, ecc) / np.linalg.norm(h), r @ ecc)
    anomaly = 2 * np.arctan(np.sqrt((1 - e) / (1 + e)) * np.tan(true / 2))
    mean = anomaly - e * np.sin(anomaly)
    return Elements(
        np.array([a * (1 - e)]),
        np.array([e]),
        np.degrees([np.arccos(h[2] / np.linalg.norm(h))]),
        np.degrees([omega]) % 360,
        np.degrees([arg]) % 360,
        np.array([mjd - mean / (GAUSS_K * a**-1.5)]),
    )


def mars(mjd_tdb):
    """Place and velocity of Mars from the Sun, as ERFA has them: equatorial [au, au/d]."""
    step = 0.05  # its own velocities leave the periodic terms' changes out
    near = [np.asarray(erfa.plan94(TDB, mjd_tdb + k * step, 4)["p"]) for k in (-1, 0, 1)]
    return near[1], (near[2] - near[0]) / (2 * step)


def orbits(n, eccentricity, seed):
    rng = np.random.default_rng(seed)
    return Elements(
        rng.uniform(0.1, 5.0, n),
        np.full(n, eccentricity),
        rng.uniform(0, 180, n),
        rng.uniform(0, 360, n),
        rng.uniform(0, 360, n),
        60_000.0 + rng.uniform(-900, 900, n),
    )


@pytest.mark.parametrize("eccentricity", [0.0, 0.3, 0.96, 0.98, 1 - 1e-9, 1.0, 1 + 1e-9, 1.2, 3.4])
def test_motion_is_that_of_newtons_law_for_every_kind_of_orbit(eccentricity):
    orbit = orbits(4, eccentricity, seed=int(eccentricity * 10))
    start, end = 59_950.0, 60_333.0
    place, later = heliocentric(orbit, start), heliocentric(orbit, end)
    step = 0.02
    velocity = (
        8 * (heliocentric(orbit, start + step) - heliocentric(orbit, start - step))
        - (heliocentric(orbit, start + 2 * step) - heliocentric(orbit, start - 2 * step))
    ) / (12 * step)
    for k in range(4):
        motion = solve_ivp(
            lambda t, y: np.concatenate([y[3:], -MU * y[:3] / np.linalg.norm(y[:3]) ** 3]),
            (start, end),
            np.concatenate([place[k], velocity[k]]),
            rtol=1e-12,
            atol=1e-14,
            method="DOP853",
        )
        assert np.linalg.norm(motion.y[:3, -1] - later[k]) < 1e-6 * np.linalg.norm(later[k])


def test_a_body_is_at_its_perihelion_when_its_elements_say_so():
    orbit = orbits(200, 0.7, seed=3)
    distance = np.linalg.norm(heliocentric(orbit, orbit.perihelion_mjd), axis=1)
    np.testing.assert_allclose(distance, orbit.perihelion_au, rtol=1e-14)
    turns = 2 * np.pi * (orbit.perihelion_au / 0.3) ** 1.5 / GAUSS_K
    np.testing.assert_allclose(
        heliocentric(orbit, 60_000.0 + 7 * turns), heliocentric(orbit, 60_000.0), atol=1e-9
    )


def test_mars_is_seen_where_astropy_sees_it():
    epoch = 60_400.0
    orbit = elements_of_state(*mars(epoch), epoch)
    for days in (-2.0, 0.0, 3.0):
        tai = epoch + days
        seen = ephemeris(orbit, tai)
        with solar_system_ephemeris.set("builtin"):
            when = Time(tai, format="mjd", scale="tai")
            earth = get_body_barycentric("earth", when)
            travel = 0.0 * u.s
            for _ in range(3):
                away = get_body_barycentric("mars", when - travel) - earth
                travel = away.norm() / (299_792_458.0 * u.m / u.s)
        there = away.represent_as(UnitSphericalRepresentation)
        apart = separation_arcsec(seen.ra[0], seen.dec[0], there.lon.deg, there.lat.deg)
        # Other planets pull Mars off its ellipse by some 3 mas in three days.
        assert apart < 0.01
        assert seen.topo_au[0] == pytest.approx(away.norm().to_value(u.au), rel=1e-6)


def test_a_site_is_where_astropy_has_it_in_space():
    rubin = Site(-70.7494, -30.2444, 2663.0)
    mjd = 60_000.37
    # Tables of the Earth's rotation would be fetched; within 1 s of UT1 it does not matter.
    with iers.conf.set_temp("auto_download", False):
        when = Time(mjd, format="mjd", scale="tdb")
        where = EarthLocation.from_geodetic(-70.7494 * u.deg, -30.2444 * u.deg, 2663 * u.m)
        place, _ = where.get_gcrs_posvel(when)
    ours = (observer(mjd, rubin) - observer(mjd))[0]
    assert np.linalg.norm(ours - place.xyz.to_value(u.au)) * 1.495978707e8 < 0.6  # km


def test_a_body_near_the_earth_is_seen_elsewhere_from_another_site():
    epoch = 60_400.0
    orbit = elements_of_state(*mars(epoch), epoch)
    middle, south = ephemeris(orbit, epoch), ephemeris(orbit, epoch, site=Site(-70.7, -30.2))
    apart = separation_arcsec(middle.ra[0], middle.dec[0], south.ra[0], south.dec[0])
    assert 0.1 < apart <= 8.8 / middle.topo_au[0]


def test_magnitudes_are_those_of_the_h_g_system():
    one = np.ones(3)
    seen = Ephemeris(
        0 * one, 0 * one, np.array([1, 2, 2.5]), np.array([1, 1, 1.6]), np.array([0, 0, 20.0])
    )
    mag = predicted_mag(seen, [15.0, 15.0, 3.34], [0.15, np.nan, 0.12])
    assert mag[0] == pytest.approx(15.0)
    assert mag[1] == pytest.approx(15.0 + 5 * np.log10(2.0))
    phi1, phi2 = (np.exp(-a * np.tan(np.radians(10)) ** b) for a, b in ((3.33, 0.63), (1.87, 1.22)))
    expected = 3.34 + 5 * np.log10(2.5 * 1.6) - 2.5 * np.log10(0.88 * phi1 + 0.12 * phi2)
    assert mag[2] == pytest.approx(expected)
    assert np.isnan(predicted_mag(seen, [np.nan] * 3)).all()
