"""Neighbours among catalogue entries: all within a distance, or the k nearest at any distance."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from broker.catalog.cone import rows_in_pixels
from broker.catalog.crossmatch import Positions, positions
from broker.catalog.healpix import (
    FINEST_ORDER,
    Floats,
    near_pixels,
    order_for_radius,
    pixels_in_cone,
)
from broker.catalog.partition import Layer, Rows
from broker.errors import AlertError
from broker.units import ARCSEC_PER_DEG, separation_arcsec

_Ints = NDArray[np.int64]
_HALF_TURN_ARCSEC = 180.0 * ARCSEC_PER_DEG
_SQUARE_DEGREES = 129_600.0 / np.pi
_PAIRS_AT_ONCE = 4_000_000


def pairs_within(
    rows: Rows, ra: ArrayLike, dec: ArrayLike, radius_arcsec: float
) -> tuple[_Ints, _Ints, Floats]:
    """Return all pairs of a position and a row within one radius, whatever the rows' own radii.

    Parameters
    ----------
    rows : Rows
        The catalogue.
    ra, dec : array_like, shape (n,)
        Positions; one that is not on the sky has no pairs. [deg]
    radius_arcsec : float
        Pairs at exactly this distance are in. [arcsec]

    Returns
    -------
    position, row : NDArray[np.int64], shape (n_pairs,)
        Pairs: in the order of positions, then nearest first, then by id.
    separation : NDArray[np.float64], shape (n_pairs,)
        Distances. [arcsec]
    """
    position, row, separation = unordered_pairs_within(rows, ra, dec, radius_arcsec)
    if (np.diff(position) > 0).all():
        return position, row, separation
    in_order = np.argsort(position, kind="stable")
    position = position[in_order]
    same = np.flatnonzero(position[1:] == position[:-1])
    tied = np.union1d(same, same + 1)  # of most positions there is one pair at most
    some = in_order[tied]
    in_order[tied] = some[np.lexsort((rows.rank[row[some]], separation[some], position[tied]))]
    return position, row[in_order], separation[in_order]


def unordered_pairs_within(
    rows: Rows, ra: ArrayLike, dec: ArrayLike, radius_arcsec: float
) -> tuple[_Ints, _Ints, Floats]:
    """Return the pairs of `pairs_within` in any order, which takes half the time."""
    at = positions(ra, dec)
    order = order_for_radius(radius_arcsec)
    parts = [_pairs(rows, layer, at, order, radius_arcsec) for layer in rows.layers]
    position, row, separation = (np.concatenate(part) for part in zip(*parts, strict=True))
    return position, row, separation


def counts_within(
    rows: Rows, ra: ArrayLike, dec: ArrayLike, radius_arcsec: float, *, enough: int
) -> _Ints:
    """Count the rows within one radius of each position, as far as `enough`.

    Parameters
    ----------
    rows, ra, dec, radius_arcsec
        As of `pairs_within`.
    enough : int
        A position with more rows has this number or any larger one.

    Returns
    -------
    NDArray[np.int64], shape (n,)
    """
    at = positions(ra, dec)
    order = order_for_radius(radius_arcsec)
    total = np.zeros(at.ra.size, dtype=np.int64)
    for layer in rows.layers:
        if order < 0:
            near = _pairs(rows, layer, at, order, radius_arcsec)[0]
        else:
            near = _counted(rows, layer, at, order, radius_arcsec, enough, total)
        total += np.bincount(near, minlength=total.size)
    return total


def _counted(
    rows: Rows,
    layer: Layer,
    at: Positions,
    order: int,
    radius_arcsec: float,
    enough: int,
    total: _Ints,
) -> _Ints:
    """Add what is surely near to the total; return the positions of what is only just near."""
    from broker.catalog._near_search import counts_near

    runs, own_ra, own_dec = _runs(rows, layer, at, order)
    counts, position, row = counts_near(
        *runs,
        own_ra,
        own_dec,
        at.ra[at.place],
        at.dec[at.place],
        radius_arcsec / ARCSEC_PER_DEG,
        enough,
    )
    total[at.place] += counts
    position = at.place[position]
    away = separation_arcsec(at.ra[position], at.dec[position], own_ra[row], own_dec[row])
    return position[away <= radius_arcsec]


def _runs(
    rows: Rows, layer: Layer, at: Positions, order: int
) -> tuple[tuple[_Ints, _Ints], Floats, Floats]:
    """Return the rows of a layer in the pixels around each position, and their places."""
    from broker.catalog._near_search import runs_in_cells

    shift = 2 * (FINEST_ORDER - order)
    around = near_pixels(at.pixels >> np.uint64(shift), order)
    of_layer = slice(layer.first, layer.end)
    runs = runs_in_cells(rows.pixels[of_layer], around, shift)
    return runs, rows.ra[of_layer], rows.dec[of_layer]


def _pairs(
    rows: Rows, layer: Layer, at: Positions, order: int, radius_arcsec: float
) -> tuple[_Ints, _Ints, Floats]:
    if order < 0:
        in_layer = np.arange(layer.first, layer.end)
        position = np.repeat(at.place, in_layer.size)
        row = np.tile(in_layer, at.place.size)
    else:
        from broker.catalog._near_search import sky_pairs

        runs, own_ra, own_dec = _runs(rows, layer, at, order)
        position, row = sky_pairs(
            *runs,
            own_ra,
            own_dec,
            at.ra[at.place],
            at.dec[at.place],
            radius_arcsec / ARCSEC_PER_DEG,
        )
        position, row = at.place[position], row + layer.first
    separation = separation_arcsec(
        at.ra[position], at.dec[position], rows.ra[row], rows.dec[row]
    ).astype(np.float64, copy=False)
    near = separation <= radius_arcsec
    return position[near], row[near], separation[near]


def nearest_to(rows: Rows, ra: float, dec: float, k: int) -> tuple[_Ints, Floats]:
    """Return the k rows nearest to one place, however far.

    Parameters
    ----------
    rows : Rows
        The catalogue.
    ra, dec : float
        The place. [deg]
    k : int
        How many; all rows if there are fewer.

    Returns
    -------
    row : NDArray[np.int64], shape (min(k, n_rows),)
        Nearest first, then by id.
    separation : NDArray[np.float64]
        Distances. [arcsec]

    Notes
    -----
    A cone that holds at least k rows holds the k nearest; it is widened until it does.
    """
    _check_count(k)
    radius = _first_radius(len(rows), k)
    while True:
        row = rows_in_pixels(rows, *pixels_in_cone(ra, dec, min(radius, _HALF_TURN_ARCSEC)))
        separation = separation_arcsec(ra, dec, rows.ra[row], rows.dec[row])
        inside = separation <= radius
        if inside.sum() >= min(k, len(rows)):
            break
        radius *= 2.0
    row, separation = row[inside], separation[inside]
    order = np.lexsort((rows.rank[row], separation))[:k]
    return row[order], separation[order].astype(np.float64, copy=False)


def nearest_k(rows: Rows, ra: ArrayLike, dec: ArrayLike, k: int) -> tuple[_Ints, _Ints, Floats]:
    """Return the k rows nearest to each position, however far.

    Parameters
    ----------
    rows : Rows
        The catalogue. If the positions are its own entries, each is its own first neighbour.
    ra, dec : array_like, shape (n,)
        Positions. [deg]
    k : int
        How many for each.

    Returns
    -------
    position, row, separation
        As of `pairs_within`; k pairs for each position on the sky, or all rows if fewer.
    """
    _check_count(k)
    ra, dec = np.asarray(ra, dtype=np.float64), np.asarray(dec, dtype=np.float64)
    wanted, radius = min(k, len(rows)), _first_radius(len(rows), k)
    open_places = positions(ra, dec).place
    done: list[tuple[_Ints, _Ints, Floats]] = []
    while open_places.size:
        left = []
        # Pairs grow with the square of the radius: fewer positions at once keep memory level.
        share = min(1.0, (radius / _HALF_TURN_ARCSEC) ** 2)
        step = max(1, int(_PAIRS_AT_ONCE / max(9.0 * k, 9.0 * share * len(rows))))
        for first in range(0, open_places.size, step):
            some = open_places[first : first + step]
            at, row, separation = pairs_within(rows, ra[some], dec[some], radius)
            counts = np.bincount(at, minlength=some.size)
            number = np.arange(at.size) - np.repeat(np.cumsum(counts) - counts, counts)
            kept = (counts[at] >= wanted) & (number < wanted)
            done.append((some[at[kept]], row[kept], separation[kept]))
            left.append(some[counts < wanted])
        open_places = np.concatenate(left)
        radius *= 2.0
    if not done:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
    position, row, separation = (np.concatenate(part) for part in zip(*done, strict=True))
    order = np.argsort(position, kind="stable")
    return position[order], row[order], separation[order]


def _first_radius(n_rows: int, k: int) -> float:
    """Return the radius of a circle that holds a few more than k rows of an even sky. [arcsec]"""
    return float(np.sqrt(1.5 * k / n_rows * _SQUARE_DEGREES / np.pi)) * ARCSEC_PER_DEG


def _check_count(k: int) -> None:
    if k < 1:
        raise AlertError(f"{k} neighbours were asked for; ask for 1 or more")
