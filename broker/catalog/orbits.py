"""Where bodies on orbits around the Sun are, as seen from the Earth, without network.

Motion is that of two bodies from osculating elements: exact at the epoch of the elements, off by
arcseconds after weeks for a main-belt asteroid, more for one that passes a planet. The Earth is
where the theory of ERFA has it (Simon et al. 1994 as fitted by Moisson: to 5 km from JPL's).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from broker.alerts.columns import Column
from broker.catalog.healpix import Floats
from broker.units import SECONDS_PER_DAY

GAUSS_K = 0.01720209895
"""Gauss's constant: its square is the gravity of the Sun. [au^1.5 / d]"""

LIGHT_DAYS_PER_AU = 499.004783836 / SECONDS_PER_DAY
TDB_MINUS_TAI_S = 32.184
"""To 2 ms, which no position here can tell."""

_OBLIQUITY = np.radians(84_381.448 / 3600.0)
"""Of the ecliptic of J2000 in which elements are given (IAU 1976, as MPC and JPL use it)."""

PREDICTED = (
    Column("predictedMag", "float32", "mag", "V magnitude that H and G predict; null without H."),
    Column("helioDistance", "float32", "au", "Distance from the Sun."),
    Column("topoDistance", "float32", "au", "Distance from the observer."),
    Column("phaseAngle", "float32", "deg", "Angle Sun - body - observer."),
    Column("elementsAge", "float32", "d", "Time since the epoch of the elements."),
)
"""What every match with a catalogue of orbits has, beside its attached columns."""

_AU_M = 149_597_870_700.0
_MJD_ZERO = 2_400_000.5


@dataclass(frozen=True)
class Elements:
    """Orbits around the Sun, ecliptic and equinox J2000.

    Parameters
    ----------
    perihelion_au : NDArray[np.float64], shape (n,)
        Distance at the perihelion. [au]
    eccentricity : NDArray[np.float64], shape (n,)
        Below 1 an ellipse, 1 a parabola, above a hyperbola.
    inclination, node, argument : NDArray[np.float64], shape (n,)
        Inclination, longitude of the ascending node, argument of the perihelion. [deg]
    perihelion_mjd : NDArray[np.float64], shape (n,)
        Time at the perihelion (TDB). [d]
    """

    perihelion_au: Floats
    eccentricity: Floats
    inclination: Floats
    node: Floats
    argument: Floats
    perihelion_mjd: Floats

    def __len__(self) -> int:
        return int(self.perihelion_au.size)

    def take(self, rows: NDArray[np.int64]) -> "Elements":
        """Return some of them, in this order."""
        return Elements(
            self.perihelion_au[rows],
            self.eccentricity[rows],
            self.inclination[rows],
            self.node[rows],
            self.argument[rows],
            self.perihelion_mjd[rows],
        )


@dataclass(frozen=True)
class Site:
    """Where on the Earth one observes from.

    Parameters
    ----------
    longitude, latitude : float
        East of Greenwich, and geodetic (WGS 84). [deg]
    height_m : float
        Above the ellipsoid. [m]
    """

    longitude: float
    latitude: float
    height_m: float = 0.0


@dataclass(frozen=True)
class Ephemeris:
    """Where bodies are seen.

    Parameters
    ----------
    ra, dec : NDArray[np.float64], shape (n,)
        Astrometric place (ICRS): with light time, without aberration, as a reduced image has
        it. [deg]
    helio_au, topo_au : NDArray[np.float64], shape (n,)
        Distance from the Sun and from the observer. [au]
    phase : NDArray[np.float64], shape (n,)
        Angle Sun - body - observer. [deg]
    """

    ra: Floats
    dec: Floats
    helio_au: Floats
    topo_au: Floats
    phase: Floats


def heliocentric(elements: Elements, mjd_tdb: ArrayLike) -> Floats:
    """Return where bodies are as seen from the Sun, equatorial axes (ICRS), shape (n, 3). [au]

    Parameters
    ----------
    elements : Elements, n of them
    mjd_tdb : array_like, shape (n,) or one for all
        [d]

    Notes
    -----
    Universal variables from the perihelion (Danby 1988, section 6.9): one formula for ellipses,
    parabolas and hyperbolas, without loss of digits at an eccentricity near 1.
    """
    from broker.catalog._kepler import in_orbit

    mu = GAUSS_K**2
    q, e = elements.perihelion_au, elements.eccentricity
    with np.errstate(divide="ignore", invalid="ignore"):
        period = np.where(e < 1.0, 2.0 * np.pi * (q / (1.0 - e)) ** 1.5 / GAUSS_K, np.inf)
    days = np.broadcast_to(np.asarray(mjd_tdb, np.float64), q.shape) - elements.perihelion_mjd
    out = np.empty((len(elements), 3))
    in_orbit(days, q, e, period, *_axes(elements), mu, out)
    return out


def _axes(elements: Elements) -> tuple[Floats, Floats]:
    """Return unit vectors to the perihelion and 90 deg ahead, equatorial, shape (n, 3)."""
    node, incl, arg = (
        np.radians(angle) for angle in (elements.node, elements.inclination, elements.argument)
    )
    cn, sn, ci, si, ca, sa = (f(a) for a in (node, incl, arg) for f in (np.cos, np.sin))
    to_perihelion = (cn * ca - sn * sa * ci, sn * ca + cn * sa * ci, sa * si)
    ahead = (-cn * sa - sn * ca * ci, -sn * sa + cn * ca * ci, ca * si)
    return _equatorial(*to_perihelion), _equatorial(*ahead)


def _equatorial(x: Floats, y: Floats, z: Floats) -> Floats:
    c, s = np.cos(_OBLIQUITY), np.sin(_OBLIQUITY)
    return np.stack([x, c * y - s * z, s * y + c * z], axis=1)


def observer(mjd_tdb: ArrayLike, site: Site | None = None) -> Floats:
    """Return where an observer is as seen from the Sun, equatorial (ICRS), shape (n, 3). [au]

    Parameters
    ----------
    mjd_tdb : array_like, shape (n,)
        [d]
    site : Site, optional
        Default the middle of the Earth.
    """
    import erfa

    mjd = np.atleast_1d(np.asarray(mjd_tdb, np.float64))
    earth, _ = erfa.epv00(_MJD_ZERO, mjd)
    place = np.asarray(earth["p"])
    if site is None:
        return place
    # UT1 is taken as UTC: off by less than 0.9 s, 0.4 km on the equator.
    tt = mjd
    utc1, utc2 = erfa.taiutc(_MJD_ZERO, mjd - TDB_MINUS_TAI_S / SECONDS_PER_DAY)
    turn = erfa.c2t06a(_MJD_ZERO, tt, utc1, utc2, 0.0, 0.0)
    fixed = erfa.gd2gc(1, np.radians(site.longitude), np.radians(site.latitude), site.height_m)
    return place + np.einsum("...ji,j->...i", turn, fixed) / _AU_M


def ephemeris(elements: Elements, mjd_tai: ArrayLike, *, site: Site | None = None) -> Ephemeris:
    """Return where bodies are seen from the Earth.

    Parameters
    ----------
    elements : Elements, n of them
    mjd_tai : array_like, shape (n,) or one for all
        When. [d]
    site : Site, optional
        From where; default the middle of the Earth, from where a body at 1 au is seen up to
        8.8 arcsec aside.
    """
    n = len(elements)
    tdb = np.asarray(mjd_tai, np.float64) + TDB_MINUS_TAI_S / SECONDS_PER_DAY
    distinct, where = np.unique(tdb, return_inverse=True)
    seer = np.broadcast_to(observer(distinct, site)[where.reshape(tdb.shape)], (n, 3))
    travel = np.zeros(n)
    for _ in range(3):  # what is left of the light time is below a microsecond
        body = heliocentric(elements, tdb - travel)
        away = body - seer
        topo = np.sqrt(np.einsum("ij,ij->i", away, away))
        travel = topo * LIGHT_DAYS_PER_AU
    helio = np.sqrt(np.einsum("ij,ij->i", body, body))
    with np.errstate(invalid="ignore", divide="ignore"):
        cos_phase = np.einsum("ij,ij->i", away, body) / (topo * helio)
    ra = np.degrees(np.arctan2(away[:, 1], away[:, 0])) % 360.0
    dec = np.degrees(np.arctan2(away[:, 2], np.hypot(away[:, 0], away[:, 1])))
    phase = np.degrees(np.arccos(np.clip(cos_phase, -1.0, 1.0)))
    return Ephemeris(np.where(ra == 360.0, 0.0, ra), dec, helio, topo, phase)


def predicted_mag(seen: Ephemeris, absolute_mag: ArrayLike, slope: ArrayLike = 0.15) -> Floats:
    """Return the V magnitude of asteroids by H and G; NaN where H is.

    Notes
    -----
    Bowell et al. 1989 (Asteroids II, 524), the IAU's H, G system.
    """
    tan = np.tan(np.radians(seen.phase) / 2.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        bright = np.exp(-3.33 * tan**0.63)
        dim = np.exp(-1.87 * tan**1.22)
        g = np.nan_to_num(np.asarray(slope, np.float64), nan=0.15)
        light = (1.0 - g) * bright + g * dim
        distance = 5.0 * np.log10(seen.helio_au * seen.topo_au)
        return np.asarray(absolute_mag, np.float64) + distance - 2.5 * np.log10(light)
