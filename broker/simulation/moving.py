"""Moving objects: asteroids on great circles through a night, each night its own."""

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from broker.catalog.healpix import neighbourhood, pixels_of
from broker.imaging.wcs import Wcs
from broker.simulation.cadence import Visit
from broker.simulation.contract import FloatArray, band_factor
from broker.simulation.kernels import MAX_REACH_PX
from broker.simulation.settings import Settings
from broker.simulation.sky import positions
from broker.simulation.streams import generator
from broker.units import ARCSEC_PER_DEG, SECONDS_PER_DAY, mag_to_flux

NAME = "moving-object"

_CELL_ORDER = 5
"""HEALPix order of the cells that they are drawn in: 1.8° on a side, more than any goes in a
night."""

_HALF_NIGHT_DAYS = 0.2
_FAST_SHARE = 0.1
_BELT_RATE, _BELT_SPREAD = 0.2, 0.35
"""Median rate of the main belt near opposition, and the scatter of its logarithm. [deg/d]"""

_FAST_RATES = (0.5, 4.0)
"""Of those that pass near the Earth. [deg/d]"""

_BELT_SLANT_DEG = 8.0
"""Scatter of the belt's directions about the ecliptic's."""

_OBLIQUITY = np.radians(23.4393)
_SLOPE = 0.4
"""They grow by 10^(slope × mag)."""


@dataclass(frozen=True)
class Movers:
    """Moving objects of one night.

    Parameters
    ----------
    number : NDArray[np.int64], shape (n,)
        Cell and place in it.
    place, way : NDArray[np.float64], shape (n, 3)
        Unit vectors: where each is at midnight, and which way it goes.
    rate : NDArray[np.float64], shape (n,)
        [deg/d]
    mag, colour : NDArray[np.float64], shape (n,)
        r and g - r.
    """

    number: NDArray[np.int64]
    place: FloatArray
    way: FloatArray
    rate: FloatArray
    mag: FloatArray
    colour: FloatArray

    def chosen(self, rows: NDArray[np.bool_]) -> "Movers":
        """Return those where a condition of shape (n,) holds."""
        return Movers(*(values[rows] for values in vars(self).values()))

    def at(self, days: float) -> tuple[FloatArray, FloatArray]:
        """Return where they are, days after midnight: ra, dec. [deg]"""
        angle = np.radians(self.rate * days)[:, None]
        x, y, z = (np.cos(angle) * self.place + np.sin(angle) * self.way).T
        return np.degrees(np.arctan2(y, x)) % 360.0, np.degrees(np.arcsin(np.clip(z, -1.0, 1.0)))

    def flux(self, band: str) -> FloatArray:
        """Return their fluxes. [nJy]"""
        return np.asarray(mag_to_flux(self.mag) * band_factor(self.colour, band))


@dataclass(frozen=True)
class SeenMovers:
    """Moving objects in one exposure.

    Parameters
    ----------
    name : tuple of str, length n
        The night, and which of its objects.
    ra, dec : NDArray[np.float64], shape (n,)
        In the middle of the exposure. [deg]
    x, y : NDArray[np.float64], shape (n,)
        The same. [px]
    dx, dy : NDArray[np.float64], shape (n,)
        How far each goes during the exposure. [px]
    flux : NDArray[np.float64], shape (n,)
        [nJy]
    """

    name: tuple[str, ...]
    ra: FloatArray
    dec: FloatArray
    x: FloatArray
    y: FloatArray
    dx: FloatArray
    dy: FloatArray
    flux: FloatArray


def movers_seen(seed: int, settings: Settings, visit: Visit, wcs: Wcs) -> SeenMovers | None:
    """Return the moving objects whose light may reach a detector; None if there are none."""
    if settings.moving_density == 0.0:
        return None
    night = int(np.floor(visit.midpoint_mjd_tai + 0.5))
    since = visit.midpoint_mjd_tai - night
    movers = _near_field(seed, settings, night, visit.field)
    half = 0.5 * visit.exposure_s / SECONDS_PER_DAY
    (x0, y0), (x, y), (x1, y1) = (
        wcs.sky_to_pixel(*movers.at(since + days)) for days in (-half, 0.0, half)
    )
    top = settings.detector_px - 1 + MAX_REACH_PX
    near = (x > -MAX_REACH_PX) & (x < top) & (y > -MAX_REACH_PX) & (y < top)
    chosen = movers.chosen(np.asarray(near))
    ra, dec = chosen.at(since)
    return SeenMovers(
        tuple(f"{night}-{number}" for number in chosen.number),
        ra,
        dec,
        x[near],
        y[near],
        (x1 - x0)[near],
        (y1 - y0)[near],
        chosen.flux(visit.band),
    )


@functools.lru_cache(maxsize=64)
def _near_field(seed: int, settings: Settings, night: int, field: int) -> Movers:
    centre = settings.fields[field]
    middle = pixels_of(centre.ra, centre.dec, _CELL_ORDER)
    cells = np.unique(neighbourhood(middle, _CELL_ORDER).astype(np.int64))
    parts = [_draw_cell(seed, settings, night, int(c)) for c in cells if c >= 0]
    every = Movers(*(np.concatenate(values) for values in zip(*map(_columns, parts), strict=True)))
    side = settings.detector_px * settings.detectors * settings.scale_arcsec / ARCSEC_PER_DEG
    reach = every.rate * _HALF_NIGHT_DAYS + side + 0.05
    away = np.degrees(np.arccos(np.clip(every.place @ _vector(centre.ra, centre.dec), -1.0, 1.0)))
    return every.chosen(np.asarray(away < reach))


def _columns(movers: Movers) -> tuple[NDArray[np.generic], ...]:
    return tuple(vars(movers).values())


@functools.lru_cache(maxsize=64)
def _draw_cell(seed: int, settings: Settings, night: int, cell: int) -> Movers:
    rng = generator(seed, "moving objects", cell, night)
    area = 129_600.0 / np.pi / (12.0 * 4.0**_CELL_ORDER)
    n = int(rng.poisson(settings.moving_density * area))
    ra, dec = positions(rng, n, cell, _CELL_ORDER)
    place = _vector(ra, dec)
    fast = rng.random(n) < _FAST_SHARE
    belt = _BELT_RATE * np.exp(rng.normal(0.0, _BELT_SPREAD, n))
    low, high = np.log(_FAST_RATES)
    rate = np.where(fast, np.exp(rng.uniform(low, high, n)), belt)
    slant = np.where(fast, rng.uniform(0.0, 360.0, n), 180.0 + rng.normal(0.0, _BELT_SLANT_DEG, n))
    bright, faint = (10.0 ** (_SLOPE * m) for m in settings.moving_mags)
    mag = np.log10(rng.uniform(bright, faint, n)) / _SLOPE
    number = np.int64(cell) * 1_000_000 + np.arange(n, dtype=np.int64)
    return Movers(number, place, _directions(place, slant), rate, mag, rng.normal(0.55, 0.1, n))


def _directions(place: FloatArray, slant_deg: FloatArray) -> FloatArray:
    """Return unit vectors at right angles to places, turned from the way of rising longitude."""
    pole = np.array([0.0, -np.sin(_OBLIQUITY), np.cos(_OBLIQUITY)])
    along = np.cross(pole, place)
    along /= np.maximum(np.linalg.norm(along, axis=-1, keepdims=True), 1e-12)
    across = np.cross(place, along)
    angle = np.radians(slant_deg)[:, None]
    return np.asarray(np.cos(angle) * along + np.sin(angle) * across)


def _vector(ra: FloatArray | float, dec: FloatArray | float) -> FloatArray:
    lon, lat = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)


def visible_share(trail_px: FloatArray, sigma: float) -> FloatArray:
    """Return what a filter of the PSF's shape sees of trails' light, against points.

    The overlap of two Gaussians falls as exp(-s² / 4 sigma²); its mean along the trail.

    Parameters
    ----------
    trail_px : NDArray[np.float64], shape (n,)
        [px]
    sigma : float
        [px]
    """
    from scipy.special import erf

    half = np.maximum(trail_px, 1e-6) / (4.0 * sigma)
    return np.asarray(np.sqrt(np.pi) / 2.0 * erf(half) / half)
