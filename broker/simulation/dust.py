"""Dust of the Galaxy before everything: it makes blue bands fainter than red ones."""

import numpy as np

from broker.simulation.contract import FloatArray

RATIOS = {"u": 4.145, "g": 3.237, "r": 2.273, "i": 1.684, "z": 1.323, "y": 1.088}
"""Extinction in a band over E(B-V), for LSST's bands and R_V = 3.1 (Schlafly & Finkbeiner 2011,
ApJ 737 103, table 6)."""

_AT_POLE = 0.02
_LEAST_SIN_B = 0.08
_POLE = np.radians((192.85948, 27.12825))
"""ICRS position of the Galaxy's north pole."""

# Directions and phases of waves on the sky, with wavelengths of some degrees: clouds.
_WAVES = np.array(
    [
        [61.0, 23.0, -40.0, 0.4],
        [-35.0, 80.0, 12.0, 2.1],
        [20.0, -55.0, 95.0, 4.0],
        [130.0, 70.0, 60.0, 5.5],
        [-90.0, 110.0, -75.0, 1.3],
    ]
)


def reddening(ra: FloatArray, dec: FloatArray) -> FloatArray:
    """Return E(B-V) at places [deg]: a flat layer, seen at a slant near its plane, with clouds.

    A law of its own, not a map of the real sky. [mag]
    """
    lon, lat = np.radians(ra), np.radians(dec)
    sin_b = np.sin(_POLE[1]) * np.sin(lat)
    sin_b = sin_b + np.cos(_POLE[1]) * np.cos(lat) * np.cos(lon - _POLE[0])
    place = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)
    waves = np.cos(place @ _WAVES[:, :3].T + _WAVES[:, 3]).mean(axis=-1)
    return np.asarray(_AT_POLE / np.maximum(np.abs(sin_b), _LEAST_SIN_B) * np.exp(1.2 * waves))


def dust_factor(ebv: FloatArray, band: str) -> FloatArray:
    """Return the flux in a band over that in r, against objects without dust before them.

    Magnitudes in r are as seen through the dust.
    """
    return np.asarray(np.power(10.0, -0.4 * ebv * (RATIOS[band] - RATIOS["r"])))
