"""How likely it is that a galaxy lies so near to an alert by chance."""

import numpy as np
import pandas as pd

from broker.science import Column, science_module

_SLOPE = 0.334
_ZERO_MAG, _ZERO_LOG_COUNT = 22.963, 4.320
"""Counts of galaxies in r by magnitude: Hogg et al. 1997, as Bloom et al. 2002 fit them."""

_ARCSEC2_PER_DEG2 = 3600.0**2


@science_module(
    version="1.0.0",
    outputs=(
        Column("hostChance", "float32", "", "Chance of a galaxy as bright as near as this."),
        Column("hostAbsoluteOffset", "float32", "kpc", "Projected distance from the host."),
    ),
)
def host_chance(
    host_separation: pd.Series,
    reference_size_arcsec: pd.Series,
    reference_mag: pd.Series,
    reference_redshift: pd.Series,
    *,
    hubble: float = 70.0,
    omega_m: float = 0.3,
) -> pd.DataFrame:
    """Return the chance of an alignment, and the distance from the host's centre.

    Parameters
    ----------
    host_separation : pd.Series
        From `context`; null without a host. [arcsec]
    reference_size_arcsec, reference_mag, reference_redshift : pd.Series
        Radius, magnitude in r and redshift of the match. [arcsec], [mag]
    hubble, omega_m : float
        Of a flat universe. [km / s / Mpc]

    Returns
    -------
    pd.DataFrame, n_alerts rows
        NaN (null) without a host; the chance without its magnitude, the distance without a
        redshift above zero.

    Notes
    -----
    Bloom, Kulkarni & Djorgovski 2002, AJ 123 1111, eqs. 1 to 3: 1 - exp(-pi r^2 n(<= m)), where r^2
    is the separation squared and four times the squared radius of the host.
    """
    separation = host_separation.to_numpy(np.float64)
    size = np.nan_to_num(reference_size_arcsec.to_numpy(np.float64), nan=0.0)
    magnitude = reference_mag.to_numpy(np.float64)
    per_deg2 = 10.0 ** (_SLOPE * (magnitude - _ZERO_MAG) + _ZERO_LOG_COUNT)
    density = per_deg2 / (_SLOPE * np.log(10.0)) / _ARCSEC2_PER_DEG2
    chance = -np.expm1(-np.pi * (separation**2 + 4.0 * size**2) * density)
    redshift = reference_redshift.to_numpy(np.float64)
    kpc_per_arcsec = _angular_distance_kpc(redshift, hubble, omega_m) * np.radians(1.0 / 3600.0)
    offset = np.where(redshift > 0.0, separation * kpc_per_arcsec, np.nan)
    columns = {"hostChance": chance, "hostAbsoluteOffset": offset}
    return pd.DataFrame(columns).astype(np.float32)


def _angular_distance_kpc(redshift: np.ndarray, hubble: float, omega_m: float) -> np.ndarray:
    """Return the angular diameter distance in a flat universe, by Gauss's quadrature. [kpc]"""
    place, weight = np.polynomial.legendre.leggauss(16)
    z = np.where(redshift > 0.0, redshift, 0.0)[:, None] * 0.5 * (place + 1.0)
    inverse = 1.0 / np.sqrt(omega_m * (1.0 + z) ** 3 + 1.0 - omega_m)
    far = np.where(redshift > 0.0, redshift, 0.0)
    comoving_kpc = 299_792.458 / hubble * 1e3 * 0.5 * far * (inverse @ weight)
    return np.asarray(comoving_kpc / (1.0 + far))
