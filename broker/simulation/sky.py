"""The sky: stars, galaxies and transients, drawn patch by patch.

A patch is a HEALPix pixel. What is in it depends on the seed, the kind and the patch alone, so any
part of the sky can be had without the rest, in any order, on any machine.
"""

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from broker.catalog.healpix import FINEST_ORDER, pixel_side_arcsec
from broker.simulation.contract import FloatArray, Host, Params, Surroundings, TransientClass
from broker.simulation.dust import dust_factor, reddening
from broker.simulation.settings import Settings
from broker.simulation.streams import generator
from broker.simulation.transients import find_classes
from broker.units import ARCSEC_PER_DEG

PATCH_ORDER = 9
"""HEALPix order of a patch: 6.9 arcmin on a side."""

_MAG_SLOPE = 0.25
"""Objects grow by 10^(slope × mag) with magnitude: flatter than Euclid's 0.6, as counts of stars
out of the galactic plane are (Bahcall & Soneira 1980, ApJS 44 73)."""

_AMPLITUDE_SLOPE = 1.5
"""Transients fall by amplitude^-slope."""

_HALF_LIGHT_IN_SCALES = 1.678
"""Half-light radius of an exponential disc in its scale lengths."""


@dataclass(frozen=True)
class Stars:
    """Stars that do not change.

    Parameters
    ----------
    number : NDArray[np.int64], shape (n,)
        Patch and place in it: the identifier.
    ra, dec : NDArray[np.float64], shape (n,)
        [deg]
    mag : NDArray[np.float64], shape (n,)
        AB magnitude in r.
    colour : NDArray[np.float64], shape (n,)
        g - r. [mag]
    """

    number: NDArray[np.int64]
    ra: FloatArray
    dec: FloatArray
    mag: FloatArray
    colour: FloatArray


@dataclass(frozen=True)
class Galaxies(Stars):
    """Galaxies: exponential discs and de Vaucouleurs' spheroids, at any angle.

    Parameters
    ----------
    redshift : NDArray[np.float64], shape (n,)
    half_light_arcsec : NDArray[np.float64], shape (n,)
        Half-light radius along the first axis. [arcsec]
    axis_ratio : NDArray[np.float64], shape (n,)
        Second axis over first axis, from 0.5 to 2.
    angle : NDArray[np.float64], shape (n,)
        Of the first axis, from east towards north. [rad]
    is_spheroid : NDArray[np.bool_], shape (n,)
        Whether its profile is de Vaucouleurs', else exponential.
    """

    redshift: FloatArray
    half_light_arcsec: FloatArray
    axis_ratio: FloatArray
    angle: FloatArray
    is_spheroid: NDArray[np.bool_]


@dataclass(frozen=True)
class Population:
    """Transients of one kind.

    Parameters
    ----------
    kind : TransientClass
    number : NDArray[np.int64], shape (n,)
        Patch and place in it.
    ra, dec : NDArray[np.float64], shape (n,)
        [deg]
    redshift : NDArray[np.float64], shape (n,)
        Of the host; 0 where there is none.
    params : Params
        Of the light curves.
    ebv : NDArray[np.float64], shape (n,)
        E(B-V) of the dust before each. [mag]
    """

    kind: TransientClass
    number: NDArray[np.int64]
    ra: FloatArray
    dec: FloatArray
    redshift: FloatArray
    params: Params
    ebv: FloatArray

    def flux(self, mjd: float, band: str) -> FloatArray:
        """Return the total flux of each at a time. [nJy]"""
        return self.kind.flux(mjd, band, self.params) * dust_factor(self.ebv, band)

    def quiescent_flux(self, band: str) -> FloatArray:
        """Return what the templates hold of each. [nJy]"""
        return self.kind.template_flux(band, self.params) * dust_factor(self.ebv, band)

    def chosen(self, rows: NDArray[np.bool_]) -> "Population":
        """Return those where a condition of shape (n,) holds."""
        return Population(
            self.kind,
            self.number[rows],
            self.ra[rows],
            self.dec[rows],
            self.redshift[rows],
            {name: values[rows] for name, values in self.params.items()},
            self.ebv[rows],
        )


@dataclass(frozen=True)
class Patch:
    """All that is in one patch of the sky."""

    stars: Stars
    galaxies: Galaxies
    transients: tuple[Population, ...]


@functools.lru_cache(maxsize=256)
def draw_patch(seed: int, settings: Settings, patch: int) -> Patch:
    """Return what is in a patch.

    Parameters
    ----------
    seed : int
    settings : Settings
    patch : int
        HEALPix pixel of `PATCH_ORDER`, nested.
    """
    galaxies = _draw_galaxies(seed, settings, patch)
    populations = []
    taken = np.zeros(galaxies.ra.size, dtype=bool)
    for kind in find_classes():
        population, host = _draw_population(seed, settings, patch, kind, galaxies)
        if host is not None:
            # Two at once in one galaxy are rarer than this sky is full: the second is left out.
            free = ~taken[host]
            taken[host] = True
            population = population.chosen(free)
        populations.append(population)
    return Patch(_draw_stars(seed, settings, patch), galaxies, tuple(populations))


def positions(
    rng: np.random.Generator, n: int, patch: int, order: int = PATCH_ORDER
) -> tuple[FloatArray, FloatArray]:
    """Return n positions, uniform on the sphere within a HEALPix pixel, to 0.4 mas.

    Pixels of HEALPix have equal areas, so a pixel of the finest order, drawn at random from those
    in the patch, is a uniform position.

    Returns
    -------
    ra, dec : NDArray[np.float64], shape (n,)
        [deg]
    """
    from cdshealpix.nested import healpix_to_lonlat

    bits = 2 * (FINEST_ORDER - order)
    pixels = (np.uint64(patch) << np.uint64(bits)) | rng.integers(0, 1 << bits, n, dtype=np.uint64)
    if n == 0:
        return np.empty(0), np.empty(0)
    lon, lat = healpix_to_lonlat(pixels, FINEST_ORDER)
    return np.asarray(lon.deg, dtype=np.float64), np.asarray(lat.deg, dtype=np.float64)


def _draw_stars(seed: int, settings: Settings, patch: int) -> Stars:
    rng = generator(seed, "stars", patch)
    n = _count(rng, settings.star_density)
    ra, dec = positions(rng, n, patch)
    mag = _magnitudes(rng, n, settings.star_mags)
    return Stars(_numbers(patch, n), ra, dec, mag, rng.uniform(0.1, 1.5, n))


def _draw_galaxies(seed: int, settings: Settings, patch: int) -> Galaxies:
    rng = generator(seed, "galaxies", patch)
    n = _count(rng, settings.galaxy_density)
    ra, dec = positions(rng, n, patch)
    mag = _magnitudes(rng, n, settings.galaxy_mags)
    # Fainter galaxies are farther and smaller; both scatter widely about the trend.
    depth = (mag - 18.0) / 5.5
    redshift = (0.05 + 0.9 * depth) * rng.lognormal(0.0, 0.25, n)
    size = (1.4 - 0.8 * depth) * rng.lognormal(0.0, 0.2, n)
    colour = rng.normal(0.6, 0.25, n)
    axis_ratio = np.power(2.0, rng.uniform(-1.0, 1.0, n))
    shapes = generator(seed, "galaxy shapes", patch)
    is_spheroid = shapes.random(n) < settings.spheroid_share
    return Galaxies(
        number=_numbers(patch, n),
        ra=ra,
        dec=dec,
        mag=mag,
        # Old stars are red.
        colour=colour + 0.25 * is_spheroid,
        redshift=redshift.clip(0.005, 3.0),
        half_light_arcsec=size.clip(0.25, 2.0),
        axis_ratio=axis_ratio,
        angle=shapes.uniform(0.0, np.pi, n),
        is_spheroid=is_spheroid,
    )


def _draw_population(
    seed: int, settings: Settings, patch: int, kind: TransientClass, galaxies: Galaxies
) -> tuple[Population, NDArray[np.int64] | None]:
    """Return the transients of a kind, and the galaxies they are in, if they are."""
    rng = generator(seed, f"transient {kind.name}", patch)
    n = _count(rng, settings.transient_density * kind.share)
    n_galaxies = galaxies.ra.size
    host: NDArray[np.int64] | None = None
    if kind.host in (Host.GALAXY, Host.NUCLEUS):
        n = min(n, n_galaxies)
        host = rng.choice(n_galaxies, n, replace=False) if n else np.empty(0, dtype=np.int64)
        redshift = galaxies.redshift[host]
        ra, dec = galaxies.ra[host], galaxies.dec[host]
        if kind.host is Host.GALAXY:
            ra, dec = _offset(rng, ra, dec, galaxies.half_light_arcsec[host])
    else:
        redshift = np.zeros(n)
        ra, dec = positions(rng, n, patch)
    around = Surroundings(
        _power_law(rng, n, settings.transient_fluxes), redshift, float(settings.first_night_mjd)
    )
    params = kind.draw(rng, around)
    ebv = settings.dust * reddening(ra, dec)
    return Population(kind, _numbers(patch, n), ra, dec, redshift, params, ebv), host


def _offset(
    rng: np.random.Generator, ra: FloatArray, dec: FloatArray, half_light_arcsec: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return positions in the light of exponential discs, within three half-light radii.

    The 4 % that would be further out are folded back into the disc.
    """
    n = ra.size
    radius = rng.gamma(2.0, 1.0, n) / _HALF_LIGHT_IN_SCALES
    distance = np.mod(radius, 2.99) * half_light_arcsec / ARCSEC_PER_DEG
    angle = rng.uniform(0.0, 2.0 * np.pi, n)
    east = distance * np.sin(angle) / np.cos(np.radians(dec))
    return (ra + east) % 360.0, np.clip(dec + distance * np.cos(angle), -90.0, 90.0)


def _count(rng: np.random.Generator, density: float) -> int:
    area = (pixel_side_arcsec(PATCH_ORDER) / ARCSEC_PER_DEG) ** 2
    return int(rng.poisson(density * area))


def _numbers(patch: int, n: int) -> NDArray[np.int64]:
    """Return identifiers: the patch, then five decimal digits for the place in it."""
    return np.int64(patch) * 100_000 + np.arange(n, dtype=np.int64)


def _magnitudes(rng: np.random.Generator, n: int, limits: tuple[float, float]) -> FloatArray:
    low, high = (10.0 ** (_MAG_SLOPE * m) for m in limits)
    return np.asarray(np.log10(rng.uniform(low, high, n)) / _MAG_SLOPE)


def _power_law(rng: np.random.Generator, n: int, limits: tuple[float, float]) -> FloatArray:
    power = 1.0 - _AMPLITUDE_SLOPE
    low, high = (limit**power for limit in limits)
    return np.asarray(rng.uniform(high, low, n) ** (1.0 / power))
