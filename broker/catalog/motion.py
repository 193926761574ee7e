"""Where an entry with proper motion was at another time."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from broker.catalog.healpix import Floats

DAYS_PER_YEAR = 365.25
MJD_OF_J2000 = 51_544.5

LONGEST_YEARS = 60.0
"""Entries are searched for where they were up to so many years from the catalogue's epoch; for
times beyond they stand where they were then. [yr]"""

_MAS_PER_RADIAN = np.degrees(1.0) * 3_600_000.0


def mjd_of_year(year: float) -> float:
    """Return the MJD of a Julian year: 2016.0 is Gaia's epoch. [d]"""
    return MJD_OF_J2000 + (year - 2000.0) * DAYS_PER_YEAR


def years_between(epoch_mjd: float, mjd: ArrayLike) -> Floats:
    """Return the time from an epoch, at most `LONGEST_YEARS`; 0 where it is not known. [yr]"""
    years = (np.asarray(mjd, dtype=np.float64) - epoch_mjd) / DAYS_PER_YEAR
    return np.clip(np.nan_to_num(years, nan=0.0), -LONGEST_YEARS, LONGEST_YEARS)


def moved(
    ra: NDArray[np.float64],
    dec: NDArray[np.float64],
    pm_ra: NDArray[np.float64],
    pm_dec: NDArray[np.float64],
    years: ArrayLike,
) -> tuple[Floats, Floats]:
    """Return positions some years later, in linear motion through space.

    Parameters
    ----------
    ra, dec : NDArray[np.float64], shape (n,)
        Positions at first. [deg]
    pm_ra, pm_dec : NDArray[np.float64], shape (n,)
        Proper motion, that in right ascension times cos(dec). [mas / yr]
    years : array_like, shape (n,) or one for all
        How much later. [yr]

    Returns
    -------
    tuple of NDArray[np.float64], shape (n,)
        Right ascension, 0 to 360, and declination. [deg]

    Notes
    -----
    The unit vector moves in its tangent plane (ESA SP-1200, vol. 1, eq. 1.2.16 without parallax
    and radial velocity), so nothing special happens at the poles. Where nothing moves the
    position is returned as it is.
    """
    alpha, delta = np.radians(ra), np.radians(dec)
    east = np.asarray(years) * pm_ra / _MAS_PER_RADIAN
    north = np.asarray(years) * pm_dec / _MAS_PER_RADIAN
    sin_a, cos_a, sin_d, cos_d = np.sin(alpha), np.cos(alpha), np.sin(delta), np.cos(delta)
    x = cos_d * cos_a - east * sin_a - north * sin_d * cos_a
    y = cos_d * sin_a + east * cos_a - north * sin_d * sin_a
    z = sin_d + north * cos_d
    still = (east == 0.0) & (north == 0.0)
    return (
        np.where(still, ra, np.degrees(np.arctan2(y, x)) % 360.0),
        np.where(still, dec, np.degrees(np.arctan2(z, np.hypot(x, y)))),
    )
