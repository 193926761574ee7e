"""Galaxies that were taken for several point sources, made one source again."""

from dataclasses import replace
from typing import Any

import numpy as np

from broker.detection.galaxies.deblend import Deblended, ordered
from broker.detection.galaxies.model import fit_galaxies
from broker.detection.galaxies.photometry import Shapes
from broker.detection.measure import Noise
from broker.detection.psf.photometry import fit_together, new_sources, put_back
from broker.detection.psf.stars import StarPsf
from broker.detection.psf.tables import PsfTables
from broker.imaging.image import Image
from broker.imaging.kernels import F64, Bools
from broker.imaging.mask import UNUSABLE

_GROUP_SIGMAS = 5.0
_WINDOW_SIGMAS = 6.0
_LEAST_GAIN = 4.0
"""What a galaxy must fit better by than two point sources, in chi-square: both have 6 numbers."""

_PRICE = 6.0
"""What each further number is to bring, about the logarithm of the pixels (Schwarz 1978)."""


def join_galaxies(
    image: Image, found: Deblended, *, psf: StarPsf, tables: PsfTables, noise: Noise
) -> Deblended:
    """Return sources without those that were added where one galaxy fits better.

    Parameters
    ----------
    image : Image
        Without its sky.
    found : Deblended
        Its residual is changed in place.
    psf : StarPsf
    tables : PsfTables
        The same PSF.
    noise : Noise
    """
    drop = np.zeros(len(found.peaks), bool)
    for members in _groups(found, psf.sigma):
        if _is_galaxy(image, found, members, psf, tables, noise):
            drop[members[found.added[members]]] = True
    if not drop.any():
        return found
    fits = found.fits
    sources = new_sources(fits.x, fits.y, fits.flux)
    sources.lost[:] = fits.failed
    touched = put_back(found.residual, sources, drop, tables)[~drop]
    sources = sources.keep(~drop)
    new, residual = fit_together(
        image.pixels,
        image.variance,
        sources,
        psf=tables,
        noise=noise,
        unusable=image.is_masked(UNUSABLE),
        residual=found.residual,
        changed=touched,
    )
    snr = found.peaks.snr[~drop].astype(np.float64)
    return ordered(new, snr, found.added[~drop], residual)


def _groups(found: Deblended, sigma: float) -> list[Any]:
    """Return the rows of each group: a source that was seen first and what was added to it."""
    from scipy.spatial import cKDTree

    added = np.flatnonzero(found.added)
    seen = np.flatnonzero(~found.added)
    if added.size == 0 or seen.size == 0:
        return []
    places = np.column_stack([found.fits.x, found.fits.y])
    gap, nearest = (np.asarray(v) for v in cKDTree(places[seen]).query(places[added]))
    close = gap < _GROUP_SIGMAS * sigma
    groups: dict[int, list[int]] = {}
    for k, owner in zip(added[close].tolist(), seen[nearest[close]].tolist(), strict=True):
        groups.setdefault(owner, [owner]).append(k)
    return [np.array(rows) for rows in groups.values()]


def _is_galaxy(
    image: Image, found: Deblended, members: Any, psf: StarPsf, tables: PsfTables, noise: Noise
) -> bool:
    fits = found.fits
    flux = np.maximum(fits.flux[members], 0.0)
    if flux.sum() <= 0.0:
        return False
    x, y = (float(np.average(v[members], weights=flux)) for v in (fits.x, fits.y))
    half = int(np.ceil(_WINDOW_SIGMAS * psf.sigma)) + 2
    ny, nx = image.shape
    cx, cy = round(x), round(y)
    if not (half <= cx < nx - half and half <= cy < ny - half):
        return False
    window = (slice(cy - half, cy + half + 1), slice(cx - half, cx + half + 1))
    light = np.zeros(image.shape, np.float32)[window]
    for k in members:
        _add_star(light, tables, fits.x[k], fits.y[k], fits.flux[k], cx - half, cy - half)
    unusable = image.is_masked(UNUSABLE)[window]
    variance = image.variance[window]
    rest = found.residual[window]
    weight = _weight(variance, light, unusable, noise)
    stars = float(np.sum(weight * rest**2))
    # The galaxy's own pixels: everything else is subtracted.
    pixels = np.ascontiguousarray(rest + light)
    shift = replace(psf, shape_terms=psf.moments_at(x, y), image_shape=pixels.shape)
    wide = np.array([1.5 * psf.sigma])
    got = fit_galaxies(
        pixels, np.ascontiguousarray(variance), np.array([x - cx + half]),
        np.array([y - cy + half]), Shapes(wide, wide, np.zeros(1)), psf=shift, noise=noise,
        unusable=np.ascontiguousarray(unusable), reach=half,
    )  # fmt: skip
    options = [got.gaussian.chi2[0], got.disc.chi2[0], got.bulge.chi2[0]]
    best = float(np.nanmin(options)) if np.isfinite(options).any() else np.inf
    return best + _LEAST_GAIN < stars + _PRICE * 3.0 * (len(members) - 2)


def _weight(variance: Any, light: Any, unusable: Bools, noise: Noise) -> F64:
    total = variance + np.maximum(light, 0.0) / noise.gain
    return np.where(unusable, 0.0, 1.0 / np.maximum(total, noise.floor))


def _add_star(
    light: Any, tables: PsfTables, x: float, y: float, flux: float, left: int, low: int
) -> None:
    stamp = tables.stamp(x, y) * flux
    half = tables.half
    i, j = round(x) - left - half, round(y) - low - half
    ny, nx = light.shape
    i0, i1 = max(0, i), min(nx, i + 2 * half + 1)
    j0, j1 = max(0, j), min(ny, j + 2 * half + 1)
    if i0 < i1 and j0 < j1:
        light[j0:j1, i0:i1] += stamp[j0 - j : j1 - j, i0 - i : i1 - i]
