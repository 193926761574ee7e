"""Constants and conversions: the only place where they stand.

Quantities in the package's own units have bare names: degrees, nJy, AB magnitudes, days
(MJD, TAI). Any other unit is in the name.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

AB_ZERO_POINT_NJY = 31.4
"""AB magnitude of 1 nJy (Oke & Gunn 1983: 3631 Jy at magnitude 0, to 1e-3 mag)."""

ARCSEC_PER_DEG = 3600.0
SECONDS_PER_DAY = 86_400.0
MJD_OF_JD = 2_400_000.5
"""JD minus MJD. [d]"""

MJD_OF_UNIX_EPOCH = 40_587.0
"""MJD of 1970-01-01."""

TAI_MINUS_UTC_S = 37.0
"""TAI minus UTC since 2017-01-01 (IERS Bulletin C). [s]"""

BANDS = ("u", "g", "r", "i", "z", "y")

_MAG_PER_LN_FLUX = 2.5 / np.log(10.0)

FloatArray = NDArray[np.floating[Any]]


def mag_to_flux(mag: ArrayLike) -> FloatArray:
    """Return the flux of AB magnitudes. [nJy]"""
    return np.power(10.0, (AB_ZERO_POINT_NJY - np.asarray(mag, dtype=np.float64)) / 2.5)


def flux_to_mag(flux: ArrayLike) -> FloatArray:
    """Return the AB magnitude of fluxes in nJy; NaN where the flux is not positive."""
    flux = np.asarray(flux, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(flux > 0.0, AB_ZERO_POINT_NJY - 2.5 * np.log10(flux), np.nan)


def mag_err_to_flux_err(mag_err: ArrayLike, flux: ArrayLike) -> FloatArray:
    """Return the 1-sigma error of a flux from that of its magnitude. [nJy]"""
    return np.abs(np.asarray(flux, dtype=np.float64)) * np.asarray(mag_err) / _MAG_PER_LN_FLUX


def flux_err_to_mag_err(flux_err: ArrayLike, flux: ArrayLike) -> FloatArray:
    """Return the 1-sigma error of a magnitude from that of its flux; NaN where flux <= 0."""
    flux = np.asarray(flux, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(flux > 0.0, _MAG_PER_LN_FLUX * np.asarray(flux_err) / flux, np.nan)


def jd_utc_to_mjd_tai(jd_utc: ArrayLike) -> FloatArray:
    """Return MJD (TAI) of a Julian date (UTC), for dates since 2017. [d]"""
    return np.asarray(jd_utc, dtype=np.float64) - MJD_OF_JD + TAI_MINUS_UTC_S / SECONDS_PER_DAY


def mjd_tai_to_jd_utc(mjd_tai: ArrayLike) -> FloatArray:
    """Return the Julian date (UTC) of an MJD (TAI), for dates since 2017. [d]"""
    return np.asarray(mjd_tai, dtype=np.float64) + MJD_OF_JD - TAI_MINUS_UTC_S / SECONDS_PER_DAY


def mjd_tai_to_unix_s(mjd_tai: ArrayLike) -> FloatArray:
    """Return seconds since 1970 (UTC) of an MJD (TAI), for dates since 2017. [s]"""
    days = np.asarray(mjd_tai, dtype=np.float64) - MJD_OF_UNIX_EPOCH
    return days * SECONDS_PER_DAY - TAI_MINUS_UTC_S


def unix_s_to_mjd_tai(unix_s: ArrayLike) -> FloatArray:
    """Return MJD (TAI) of seconds since 1970 (UTC), for dates since 2017. [d]"""
    seconds = np.asarray(unix_s, dtype=np.float64) + TAI_MINUS_UTC_S
    return MJD_OF_UNIX_EPOCH + seconds / SECONDS_PER_DAY


def separation_arcsec(
    ra1: ArrayLike, dec1: ArrayLike, ra2: ArrayLike, dec2: ArrayLike
) -> FloatArray:
    """Return the angle between positions in degrees, exact at any distance. [arcsec]

    Vincenty's formula, which is well conditioned near 0 and 180 degrees.
    """
    ra1, dec1, ra2, dec2 = (
        np.radians(np.asarray(x, dtype=np.float64)) for x in (ra1, dec1, ra2, dec2)
    )
    d_ra = ra2 - ra1
    east = np.cos(dec2) * np.sin(d_ra)
    north = np.cos(dec1) * np.sin(dec2) - np.sin(dec1) * np.cos(dec2) * np.cos(d_ra)
    along = np.sin(dec1) * np.sin(dec2) + np.cos(dec1) * np.cos(dec2) * np.cos(d_ra)
    return np.degrees(np.arctan2(np.hypot(east, north), along)) * ARCSEC_PER_DEG
