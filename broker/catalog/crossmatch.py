"""The nearest catalogue entry of each position, exactly."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from broker.catalog.healpix import FINEST_ORDER, Floats, neighbourhood, on_sky, pixels_of
from broker.catalog.partition import Layer, Rows
from broker.units import FloatArray, separation_arcsec

_Ints = NDArray[np.int64]


def nearest(rows: Rows, ra: ArrayLike, dec: ArrayLike) -> tuple[_Ints, Floats]:
    """Return the nearest row of each position among the rows whose radius reaches it.

    Parameters
    ----------
    rows : Rows
        The catalogue.
    ra, dec : array_like, shape (n,)
        Positions; one that is not on the sky (NaN, out of range) has no match. [deg]

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
    ra, dec = np.asarray(ra, dtype=np.float64), np.asarray(dec, dtype=np.float64)
    best = np.full(ra.shape, -1, dtype=np.int64)
    distance = np.full(ra.shape, np.nan)
    searched = np.flatnonzero(on_sky(ra, dec))
    found = [pairs for layer in rows.layers for pairs in _pairs(rows, layer, ra, dec, searched)]
    if not found:
        return best, distance
    position, row, separation = (np.concatenate(part) for part in zip(*found, strict=True))
    order = np.lexsort((rows.rank[row], separation, position))
    position, row, separation = position[order], row[order], separation[order]
    first = np.flatnonzero(np.diff(position, prepend=-1))
    best[position[first]] = row[first]
    distance[position[first]] = separation[first]
    return best, distance


def _pairs(
    rows: Rows, layer: Layer, ra: Floats, dec: Floats, searched: _Ints
) -> Iterator[tuple[_Ints, _Ints, FloatArray]]:
    """Yield (position, row, separation) of all pairs of a layer within the row's radius."""
    if searched.size == 0:
        return
    position, row = (
        _everything(layer, searched)
        if layer.order < 0
        else _candidates(rows, layer, ra, dec, searched)
    )
    separation = separation_arcsec(ra[position], dec[position], rows.ra[row], rows.dec[row])
    near = separation <= rows.radius[row]
    if near.any():
        yield position[near], row[near], separation[near]


def _everything(layer: Layer, searched: _Ints) -> tuple[_Ints, _Ints]:
    in_layer = np.arange(layer.first, layer.end)
    return np.repeat(searched, in_layer.size), np.tile(in_layer, searched.size)


def _candidates(
    rows: Rows, layer: Layer, ra: Floats, dec: Floats, searched: _Ints
) -> tuple[_Ints, _Ints]:
    """Return the pairs of positions and rows that share a pixel or have neighbouring ones."""
    from broker.catalog._search import pairs_in_pixels

    around = neighbourhood(pixels_of(ra[searched], dec[searched], layer.order), layer.order)
    pixels = rows.pixels[layer.first : layer.end]
    position, row = pairs_in_pixels(pixels, around, 2 * (FINEST_ORDER - layer.order))
    return searched[position], row + layer.first
