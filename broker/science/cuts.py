"""Small named cuts that filters are made of; what is not known never passes one.

Each takes columns and returns booleans, a row an alert. `all_of`, `any_of` and `none_of` combine
them. A null compares as false everywhere, also under `none_of`: an alert of which the answer is
not known is chosen neither by a cut nor by its opposite.
"""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from broker.units import BANDS

# Position of the north galactic pole and longitude of the north celestial pole, J2000:
# ESA 1997, The Hipparcos and Tycho Catalogues, SP-1200, vol. 1, eq. 1.5.11.
_POLE_RA_DEG, _POLE_DEC_DEG = 192.85948, 27.12825
# Obliquity of the ecliptic at J2000: IAU 2006, Capitaine et al. 2003, A&A 412 567.
_OBLIQUITY_DEG = 23.4392794


def known(values: Any) -> pd.Series:
    """Return a condition as plain booleans, false where it is null."""
    series = values if isinstance(values, pd.Series) else pd.Series(values)
    if series.dtype == bool:
        return series
    return series.fillna(False).astype(bool)


def all_of(*cuts: pd.Series) -> pd.Series:
    """Return where every cut is true."""
    return pd.Series(np.logical_and.reduce([known(cut).to_numpy() for cut in cuts]))


def any_of(*cuts: pd.Series) -> pd.Series:
    """Return where at least one cut is true."""
    return pd.Series(np.logical_or.reduce([known(cut).to_numpy() for cut in cuts]))


def none_of(*cuts: pd.Series) -> pd.Series:
    """Return where every cut is known and false."""
    return all_of(*(known(~cut) & cut.notna() for cut in cuts))


def is_reliable(reliability: pd.Series, *, at_least: float = 0.6) -> pd.Series:
    """Return where the real/bogus score is at least this."""
    return reliability >= at_least


def is_positive(is_negative: pd.Series, is_dipole: pd.Series) -> pd.Series:
    """Return where the source is brighter than in the template, and no dipole."""
    return none_of(is_negative, is_dipole)


def is_bright(snr: pd.Series, *, at_least: float = 7.0) -> pd.Series:
    """Return where the signal to noise is at least this, brighter or fainter."""
    return snr.abs() >= at_least


def is_confirmed(n_dia_sources: pd.Series, *, detections: int = 2) -> pd.Series:
    """Return where the object was detected at least so often."""
    return n_dia_sources >= detections


def is_first_seen_within(age_days: pd.Series, *, days: float) -> pd.Series:
    """Return where the first detection is not longer ago than this. [d]"""
    return age_days <= days


def is_young(age_days: pd.Series, *, days: float = 5.0) -> pd.Series:
    """Return where the first detection is at most five days ago. [d]"""
    return is_first_seen_within(age_days, days=days)


def is_rising(rise_rate: pd.Series, rise_rate_err: pd.Series, *, sigmas: float = 3.0) -> pd.Series:
    """Return where the flux rises significantly."""
    return rise_rate > sigmas * rise_rate_err


def is_changing(
    rise_rate: pd.Series, rise_rate_err: pd.Series, *, sigmas: float = 5.0
) -> pd.Series:
    """Return where the flux rises or falls significantly."""
    return rise_rate.abs() > sigmas * rise_rate_err


def is_in_context(context_class: pd.Series, *classes: str) -> pd.Series:
    """Return where the place says one of these: hosted, hostless, variable-star, solar-system."""
    return context_class.isin(classes)


def is_extragalactic(context_class: pd.Series) -> pd.Series:
    """Return where the place is in a galaxy or empty: no known star, no asteroid, searched."""
    return is_in_context(context_class, "hosted", "hostless")


def is_near_host(
    context_class: pd.Series, host_offset: pd.Series, *, at_most: float = 3.0
) -> pd.Series:
    """Return where there is a host at most so many of its radii away."""
    return all_of(is_in_context(context_class, "hosted"), host_offset <= at_most)


def is_in_band(band: pd.Series, *bands: str) -> pd.Series:
    """Return where the alert is in one of these bands; an unknown band is in none."""
    wanted = [name for name in bands if name in BANDS]
    return band.isin(wanted)


def galactic_latitude(ra: pd.Series, dec: pd.Series) -> NDArray[np.float64]:
    """Return galactic latitudes. [deg]"""
    dec_rad, pole = np.radians(dec.to_numpy("f8")), np.radians(_POLE_DEC_DEG)
    lever = np.cos(np.radians(ra.to_numpy("f8") - _POLE_RA_DEG))
    sine = np.sin(dec_rad) * np.sin(pole) + np.cos(dec_rad) * np.cos(pole) * lever
    return np.asarray(np.degrees(np.arcsin(np.clip(sine, -1.0, 1.0))))


def ecliptic_latitude(ra: pd.Series, dec: pd.Series) -> NDArray[np.float64]:
    """Return ecliptic latitudes, J2000. [deg]"""
    dec_rad, tilt = np.radians(dec.to_numpy("f8")), np.radians(_OBLIQUITY_DEG)
    lever = np.sin(np.radians(ra.to_numpy("f8")))
    sine = np.sin(dec_rad) * np.cos(tilt) - np.cos(dec_rad) * np.sin(tilt) * lever
    return np.asarray(np.degrees(np.arcsin(np.clip(sine, -1.0, 1.0))))


def is_off_the_plane(ra: pd.Series, dec: pd.Series, *, b_deg: float = 10.0) -> pd.Series:
    """Return where the galactic latitude is at least this, north or south. [deg]"""
    return pd.Series(np.abs(galactic_latitude(ra, dec)) >= b_deg)


def is_near_the_ecliptic(ra: pd.Series, dec: pd.Series, *, within_deg: float = 30.0) -> pd.Series:
    """Return where the ecliptic latitude is at most this, north or south. [deg]"""
    return pd.Series(np.abs(ecliptic_latitude(ra, dec)) <= within_deg)
