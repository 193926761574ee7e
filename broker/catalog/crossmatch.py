"""The catalogue entries at each position, exactly: the nearest, the k nearest, or all."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from broker.catalog.healpix import FINEST_ORDER, Floats, Pixels, near_pixels, on_sky
from broker.catalog.layer_index import LayerIndex, no_index
from broker.catalog.motion import moved, years_between
from broker.catalog.partition import Layer, Rows
from broker.units import FloatArray, separation_arcsec

_Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Positions:
    """Where to look, and when; pixels are worked out once for all catalogues.

    Parameters
    ----------
    ra, dec : NDArray[np.float64], shape (n,)
        Positions. [deg]
    mjd : NDArray[np.float64], shape (n,), or None
        When the positions were measured, for proper motion; NaN is the catalogue's epoch. [d]
    place : NDArray[np.int64], shape (n_searched,)
        Those that are on the sky; others (NaN, out of range) have no match.
    pixels : NDArray[np.uint64], shape (n_searched,)
        Their pixels of order 29.
    """

    ra: Floats
    dec: Floats
    mjd: Floats | None
    place: _Ints
    pixels: Pixels


def positions(ra: ArrayLike, dec: ArrayLike, mjd: ArrayLike | None = None) -> Positions:
    """Return positions [deg], measured at MJDs (TAI) where given, ready to be looked for."""
    from broker.catalog._search import finest_pixels

    ra, dec = np.asarray(ra, dtype=np.float64), np.asarray(dec, dtype=np.float64)
    place = np.flatnonzero(on_sky(ra, dec))
    when = None if mjd is None else np.asarray(mjd, dtype=np.float64)
    if place.size < ra.size:
        return Positions(ra, dec, when, place, finest_pixels(ra[place], dec[place]))
    return Positions(ra, dec, when, place, finest_pixels(ra, dec))


def nearest(
    rows: Rows, ra: ArrayLike, dec: ArrayLike, mjd: ArrayLike | None = None
) -> tuple[_Ints, Floats]:
    """Return the nearest row of each position among the rows whose radius reaches it.

    Parameters
    ----------
    rows : Rows
        The catalogue.
    ra, dec : array_like, shape (n,)
        Positions; one that is not on the sky (NaN, out of range) has no match. [deg]
    mjd : array_like, shape (n,), optional
        When they were measured (TAI); entries are where they were then. [d]

    Returns
    -------
    row : NDArray[np.int64], shape (n,)
        Row of the match, -1 where there is none. Of rows at the same distance it is the one with
        the smallest id, so the answer does not depend on which positions share a call.
    separation : NDArray[np.float64], shape (n,)
        Distance from it, NaN where there is none. [arcsec]

    Notes
    -----
    Candidates are the rows in the position's HEALPix pixel and its neighbours, at an order whose
    pixels are at least twice the radius wide; they are compared by Vincenty's formula. So nothing
    special happens at the poles, at RA 0 or at the corners of base pixels.
    """
    return nearest_at(rows, positions(ra, dec, mjd))


def nearest_at(rows: Rows, at: Positions) -> tuple[_Ints, Floats]:
    """Return what `nearest` does, of positions whose pixels are known."""
    best = np.full(at.ra.shape, -1, dtype=np.int64)
    distance = np.full(at.ra.shape, np.nan)
    position, row, separation = _sorted_pairs(rows, at)
    first = np.flatnonzero(np.diff(position, prepend=-1))
    best[position[first]] = row[first]
    distance[position[first]] = separation[first]
    return best, distance


def within(
    rows: Rows,
    ra: ArrayLike,
    dec: ArrayLike,
    mjd: ArrayLike | None = None,
    *,
    k: int | None = None,
) -> tuple[_Ints, _Ints, Floats]:
    """Return all rows, or the k nearest, whose radius reaches each position.

    Parameters
    ----------
    rows, ra, dec, mjd
        As of `nearest`.
    k : int, optional
        At most so many a position.

    Returns
    -------
    position, row : NDArray[np.int64], shape (n_pairs,)
        Pairs: in the order of positions, then nearest first, then by id.
    separation : NDArray[np.float64], shape (n_pairs,)
        Distances. [arcsec]
    """
    position, row, separation = _sorted_pairs(rows, positions(ra, dec, mjd))
    if k is not None:
        first = np.flatnonzero(np.diff(position, prepend=-1))
        number = np.arange(position.size) - np.repeat(first, np.diff(first, append=position.size))
        kept = number < k
        return position[kept], row[kept], separation[kept]
    return position, row, separation


def _sorted_pairs(rows: Rows, at: Positions) -> tuple[_Ints, _Ints, Floats]:
    found = [
        pairs
        for layer, index in zip(rows.layers, _indices(rows), strict=True)
        for pairs in _pairs(rows, layer, index, at)
    ]
    if not found:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
    position, row, separation = (np.concatenate(part) for part in zip(*found, strict=True))
    order = np.lexsort((rows.rank[row], separation, position))
    return position[order], row[order], separation[order].astype(np.float64, copy=False)


def _indices(rows: Rows) -> tuple[LayerIndex, ...]:
    return rows.index or tuple(no_index(layer.end - layer.first) for layer in rows.layers)


def _pairs(
    rows: Rows, layer: Layer, index: LayerIndex, at: Positions
) -> Iterator[tuple[_Ints, _Ints, FloatArray]]:
    """Yield (position, row, separation) of all pairs of a layer within the row's radius."""
    if at.place.size == 0:
        return
    position, row = (
        _everything(layer, at.place) if layer.order < 0 else _candidates(rows, layer, index, at)
    )
    ra, dec = rows.ra[row], rows.dec[row]
    motion = rows.motion
    if motion is not None and at.mjd is not None:
        years = years_between(motion.epoch_mjd, at.mjd[position])
        ra, dec = moved(ra, dec, motion.ra[row], motion.dec[row], years)
    separation = separation_arcsec(at.ra[position], at.dec[position], ra, dec)
    near = separation <= rows.radius[row]
    if near.any():
        yield position[near], row[near], separation[near]


def _everything(layer: Layer, searched: _Ints) -> tuple[_Ints, _Ints]:
    in_layer = np.arange(layer.first, layer.end)
    return np.repeat(searched, in_layer.size), np.tile(in_layer, searched.size)


def _candidates(rows: Rows, layer: Layer, index: LayerIndex, at: Positions) -> tuple[_Ints, _Ints]:
    """Return the pairs of positions and rows that share a pixel or have neighbouring ones."""
    from broker.catalog._search import pairs_in_pixels

    shift = 2 * (FINEST_ORDER - layer.order)
    around = near_pixels(at.pixels >> np.uint64(shift), layer.order)
    if rows.read_ahead is not None:
        rows.read_ahead.fields(index, layer.first, at.pixels)
    position, row = pairs_in_pixels(
        rows.pixels[layer.first : layer.end], around, shift, index.starts, index.shift
    )
    return at.place[position], row + layer.first
