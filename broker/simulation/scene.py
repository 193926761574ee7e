"""What one detector of a field can see: all objects whose light may reach it."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from broker.catalog.healpix import neighbourhood, pixel_side_arcsec, pixels_of
from broker.simulation.cadence import field_wcs
from broker.simulation.contract import FloatArray, Host, band_factor
from broker.simulation.dust import dust_factor, reddening
from broker.simulation.kernels import MAX_REACH_PX
from broker.simulation.settings import Settings
from broker.simulation.sky import PATCH_ORDER, Galaxies, Population, draw_patch
from broker.units import mag_to_flux

# Profiles as sums of round Gaussians: width in half-light radii and share of the light.
# An exponential disc, fitted from 0 to 8 scale lengths; off by less than 2 % of the peak beyond a
# tenth of the half-light radius.
_DISC = np.array(
    [[0.1205, 0.00817], [0.3268, 0.09472], [0.6844, 0.42055], [1.2794, 0.47656]], dtype=np.float64
)
# De Vaucouleurs' profile, brought to 0 between 6 and 8 half-light radii; off by less than 4 % of
# itself from 0.03 to 4.
_SPHEROID = np.array(
    [
        [0.02509, 0.01565],
        [0.07434, 0.05892],
        [0.19967, 0.14593],
        [0.49326, 0.24089],
        [1.1447, 0.27638],
        [2.81868, 0.26223],
    ],
    dtype=np.float64,
)


@dataclass(frozen=True)
class Light:
    """Gaussians on the sky that do not change.

    Parameters
    ----------
    ra, dec : NDArray[np.float64], shape (n,)
        [deg]
    flux : NDArray[np.float64], shape (n,)
        In r. [nJy]
    colour : NDArray[np.float64], shape (n,)
        g - r, without dust. [mag]
    ebv : NDArray[np.float64], shape (n,)
        E(B-V) of the dust before it. [mag]
    xx, xy, yy : NDArray[np.float64], shape (n,)
        Second moments along east and north before the PSF; 0 for a star. [arcsec²]
    """

    ra: FloatArray
    dec: FloatArray
    flux: FloatArray
    colour: FloatArray
    ebv: FloatArray
    xx: FloatArray
    xy: FloatArray
    yy: FloatArray

    def band_flux(self, band: str) -> FloatArray:
        """Return the flux of each in a band. [nJy]"""
        factor = band_factor(self.colour, band) * dust_factor(self.ebv, band)
        return np.asarray(self.flux * factor)


@dataclass(frozen=True)
class Scene:
    """The static light and the transients around one detector of a field."""

    static: Light
    transients: tuple[Population, ...]


@functools.lru_cache(maxsize=64)
def scene_of(seed: int, settings: Settings, field: int, detector: int) -> Scene:
    """Return what a detector can see at any visit of a field, in a fixed order."""
    patches = [draw_patch(seed, settings, int(p)) for p in patches_of(settings, field, detector)]
    wcs = field_wcs(settings, field, detector)
    reach = MAX_REACH_PX + settings.template_margin_px

    def near(ra: FloatArray, dec: FloatArray) -> NDArray[np.bool_]:
        x, y = wcs.sky_to_pixel(ra, dec)
        top = settings.detector_px - 1 + reach
        return np.asarray((x > -reach) & (x < top) & (y > -reach) & (y < top))

    rows: list[NDArray[np.float64]] = []
    for patch in patches:
        stars = patch.stars
        ebv = settings.dust * reddening(stars.ra, stars.dec)
        still = np.zeros(stars.ra.size)
        columns = (stars.ra, stars.dec, mag_to_flux(stars.mag), stars.colour, ebv)
        rows.append(np.stack([*columns, still, still, still]))
        rows.extend(_galaxy_rows(patch.galaxies, settings.dust))
    table = np.concatenate(rows, axis=1)
    table = table[:, near(table[0], table[1])]
    populations = tuple(
        population.chosen(near(population.ra, population.dec))
        for patch in patches
        for population in patch.transients
    )
    return Scene(Light(*table), tuple(p for p in populations if p.ra.size))


def patches_of(settings: Settings, field: int, detector: int) -> NDArray[np.int64]:
    """Return the patches that a detector and its surroundings may touch, some a little off.

    Those under points of a grid finer than half a patch, and the neighbours of each.
    """
    reach = MAX_REACH_PX + settings.template_margin_px
    side = settings.detector_px + 2 * reach
    half_patch_px = pixel_side_arcsec(PATCH_ORDER) / settings.scale_arcsec / 2.0
    points = np.linspace(-reach, side - reach, 2 + int(side / half_patch_px))
    x, y = np.meshgrid(points, points)
    ra, dec = field_wcs(settings, field, detector).pixel_to_sky(x.ravel(), y.ravel())
    inside = np.unique(pixels_of(ra, dec, PATCH_ORDER))
    around = np.unique(neighbourhood(inside, PATCH_ORDER))
    return np.asarray(around[around >= 0])


def catalogued_patches(settings: Settings) -> NDArray[np.int64]:
    """Return all patches that any detector of any field may see, in ascending order."""
    every = [
        patches_of(settings, field, detector)
        for field in range(len(settings.fields))
        for detector in range(settings.detectors)
    ]
    return np.unique(np.concatenate(every))


def is_star(population: Population) -> bool:
    """Whether the transients are stars of the static sky."""
    return population.kind.host is Host.STAR


def _galaxy_rows(galaxies: Galaxies, dust: float) -> Iterator[FloatArray]:
    """Yield the Gaussians of galaxies, one component of all of a kind at a time."""
    for profile, chosen in ((_DISC, ~galaxies.is_spheroid), (_SPHEROID, galaxies.is_spheroid)):
        ra, dec, mag, colour, size, ratio, angle = (
            values[chosen]
            for values in (
                galaxies.ra,
                galaxies.dec,
                galaxies.mag,
                galaxies.colour,
                galaxies.half_light_arcsec,
                galaxies.axis_ratio,
                galaxies.angle,
            )
        )
        ebv = dust * reddening(ra, dec)
        c, s = np.cos(angle), np.sin(angle)
        for width, share in profile:
            first, second = (width * size) ** 2, (width * size * ratio) ** 2
            moments = (
                first * c * c + second * s * s,
                (first - second) * c * s,
                first * s * s + second * c * c,
            )
            yield np.stack([ra, dec, share * mag_to_flux(mag), colour, ebv, *moments])
