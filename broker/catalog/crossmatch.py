"""The catalogue entries at each position, exactly: the nearest, the k nearest, or all."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from broker.catalog.healpix import FINEST_ORDER, Floats, Pixels, neighbourhood, on_sky
from broker.catalog.layer_index import LayerIndex, no_index
from broker.catalog.motion import moved, years_between
from broker.catalog.partition import Layer, Rows
from broker.units import separation_arcsec

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
    from broker.catalog._pairs_search import keep_nearest

    best = np.full(at.ra.shape, -1, dtype=np.int64)
    distance = np.full(at.ra.shape, np.nan)
    if at.place.size:
        for layer, index in zip(rows.layers, _indices(rows), strict=True):
            for position, row in _pairs(rows, layer, index, at):
                separation = _separations(rows, at, position, row)
                keep_nearest(best, distance, position, row, separation, rows.radius, rows.rank)
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
    found: list[tuple[_Ints, _Ints, Floats]] = []
    for layer, index in zip(rows.layers, _indices(rows), strict=True) if at.place.size else ():
        for position, row in _pairs(rows, layer, index, at):
            separation = _separations(rows, at, position, row)
            near = separation <= rows.radius[row]
            found.append((position[near], row[near], separation[near]))
    if not found:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
    position, row, separation = (np.concatenate(part) for part in zip(*found, strict=True))
    order = np.lexsort((rows.rank[row], separation, position))
    return position[order], row[order], separation[order]


def _indices(rows: Rows) -> tuple[LayerIndex, ...]:
    return rows.index or tuple(no_index(layer.end - layer.first) for layer in rows.layers)


def _separations(rows: Rows, at: Positions, position: _Ints, row: _Ints) -> Floats:
    """Return the distances of pairs, of rows where they were at the time. [arcsec]"""
    ra, dec = rows.ra[row], rows.dec[row]
    motion = rows.motion
    if motion is not None and at.mjd is not None:
        years = years_between(motion.epoch_mjd, at.mjd[position])
        ra, dec = moved(ra, dec, motion.ra[row], motion.dec[row], years)
    separation = separation_arcsec(at.ra[position], at.dec[position], ra, dec)
    return separation.astype(np.float64, copy=False)


def _pairs(
    rows: Rows, layer: Layer, index: LayerIndex, at: Positions
) -> Iterator[tuple[_Ints, _Ints]]:
    """Yield positions and rows of a layer so near that a row's radius may reach the position."""
    if layer.order < 0:
        in_layer = np.arange(layer.first, layer.end)
        yield np.repeat(at.place, in_layer.size), np.tile(in_layer, at.place.size)
        return
    from broker.catalog._pairs_search import pairs_around
    from broker.catalog._search import pairs_in_pixels

    if rows.read_ahead is not None:
        rows.read_ahead.fields(index, layer.first, at.pixels)
    pixels = rows.pixels[layer.first : layer.end]
    position, row, rim = pairs_around(pixels, at.pixels, layer.order, index.starts, index.shift)
    if position.size:
        yield at.place[position], row + layer.first
    if rim.size:
        # Here neighbours are in other base pixels, which only the library knows.
        shift = 2 * (FINEST_ORDER - layer.order)
        around = neighbourhood(at.pixels[rim] >> np.uint64(shift), layer.order)
        position, row = pairs_in_pixels(pixels, around, shift, index.starts, index.shift)
        if position.size:
            yield at.place[rim[position]], row + layer.first
