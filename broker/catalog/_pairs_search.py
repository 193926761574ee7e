"""The compiled loops that look for a position's neighbours among sorted pixels."""

import numpy as np
from numpy.typing import NDArray

from broker.catalog._search import _gallop, _gather, _spread, compiled

_FEW = 16
"""Rows between the first and the last pixel of a neighbourhood that are walked through."""


@compiled
def pairs_around(
    pixels: NDArray[np.uint64],
    at_pixels: NDArray[np.uint64],
    order: int,
    starts_of_cells: NDArray[np.int64],
    cell_shift: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the pairs of a position and a row in the position's pixel or one of its neighbours.

    Parameters
    ----------
    pixels : NDArray[np.uint64], shape (n_rows,)
        Sorted pixels of order 29.
    at_pixels : NDArray[np.uint64], shape (n_positions,)
        Pixels of order 29 of the positions.
    order : int
        Of the pixels whose neighbours are meant.
    starts_of_cells, cell_shift
        As of `pairs_in_pixels`.

    Returns
    -------
    position, row : NDArray[np.int64], shape (n_pairs,)
        Pairs, in the order of positions, then of rows.
    rim : NDArray[np.int64], shape (n_rim,)
        Positions at the rim of their base pixel, whose pairs are not among these.

    Notes
    -----
    Nested numbers rise with either coordinate, so all nine pixels are between that of the lower
    left one and that of the upper right one. On most of the sky there are few rows between these,
    often none; then one look-up does for nine.
    """
    shift = np.uint64(2 * (29 - order))
    last = (1 << order) - 1
    inside = (np.uint64(1) << np.uint64(2 * order)) - np.uint64(1)
    position = np.empty(at_pixels.size + _FEW, dtype=np.int64)
    row = np.empty(at_pixels.size + _FEW, dtype=np.int64)
    rim = np.empty(at_pixels.size, dtype=np.int64)
    nine = np.empty(9, dtype=np.uint64)
    n_pairs, n_rim = 0, 0
    guessed, there = _guesses(pixels, at_pixels, starts_of_cells, cell_shift)
    for i in range(at_pixels.size):
        own = at_pixels[i] >> shift
        x, y = _column_and_line(own & inside)
        if x == 0 or y == 0 or x >= last or y >= last:
            rim[n_rim] = i
            n_rim += 1
            continue
        base = own & ~inside
        lowest = base | _interleaved(x - 1, y - 1)
        end = ((base | _interleaved(x + 1, y + 1)) + np.uint64(1)) << shift
        low = _first_from(pixels, lowest << shift, guessed[i], there[i])
        high = low
        while high < pixels.size and high - low < _FEW and pixels[high] < end:
            high += 1
        if high < pixels.size and pixels[high] < end:
            _nine_pixels(nine, base, x, y)
            high = low
        if n_pairs + _FEW > position.size:
            position, row = _longer(position), _longer(row)
        for r in range(low, high):
            column, line = _column_and_line((pixels[r] >> shift) & inside)
            if abs(column - x) <= 1 and abs(line - y) <= 1:
                position[n_pairs], row[n_pairs] = i, r
                n_pairs += 1
        if high > low or high == pixels.size or pixels[high] >= end:
            continue
        position, row, n_pairs = _pairs_in_nine(pixels, nine, shift, low, i, position, row, n_pairs)
    return position[:n_pairs], row[:n_pairs], rim[:n_rim]


@compiled
def _pairs_in_nine(
    pixels: NDArray[np.uint64],
    nine: NDArray[np.uint64],
    shift: np.uint64,
    low: int,
    i: int,
    position: NDArray[np.int64],
    row: NDArray[np.int64],
    n_pairs: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Add the pairs of position i and the rows in its sorted pixels, from row `low` on."""
    for j in range(9):
        low = _at_least(pixels, low, nine[j] << shift)
        after = (nine[j] + np.uint64(1)) << shift
        while low < pixels.size and pixels[low] < after:
            if n_pairs == position.size:
                position, row = _longer(position), _longer(row)
            position[n_pairs], row[n_pairs] = i, low
            n_pairs += 1
            low += 1
    return position, row, n_pairs


@compiled
def crowded_cells(
    pixels: NDArray[np.uint64],
    shift: int,
    seen: NDArray[np.bool_],
    counts: NDArray[np.int32],
    many: int,
) -> NDArray[np.int64]:
    """Return the coarse cells, sorted, that have many of the pixels and were not seen before.

    Parameters
    ----------
    pixels : NDArray[np.uint64], shape (n,)
        Pixels of order 29.
    shift : int
        Bits between that order and the cells'.
    seen : NDArray[np.bool_], shape (n_cells,)
        Cells that were returned before; those returned now are added.
    counts : NDArray[np.int32], shape (n_cells,)
        Zeros, which it is again afterwards.
    many : int
    """
    found = np.empty(pixels.size // many + 1, dtype=np.int64)
    n = 0
    for i in range(pixels.size):
        cell = np.int64(pixels[i] >> np.uint64(shift))
        counts[cell] += 1
        if counts[cell] == many and not seen[cell]:
            seen[cell] = True
            found[n] = cell
            n += 1
    for i in range(pixels.size):
        counts[np.int64(pixels[i] >> np.uint64(shift))] = 0
    return np.sort(found[:n])


@compiled
def keep_nearest(
    best: NDArray[np.int64],
    distance: NDArray[np.float64],
    position: NDArray[np.int64],
    row: NDArray[np.int64],
    separation: NDArray[np.float64],
    radius: NDArray[np.float64],
    rank: NDArray[np.int64],
) -> None:
    """Let pairs that are nearer than a position's best, or as near with a lower rank, replace it.

    Parameters
    ----------
    best, distance : NDArray, shape (n_positions,)
        Rows, -1 where there is none, and their distances [arcsec], NaN where there is none; these
        are changed.
    position, row, separation : NDArray, shape (n_pairs,)
        Pairs and their distances. [arcsec]
    radius, rank : NDArray, shape (n_rows,)
        How far each row reaches [arcsec], and which comes first of rows at the same distance.
    """
    for k in range(position.size):
        i, r, away = position[k], row[k], separation[k]
        if not away <= radius[r]:
            continue
        had = best[i]
        if had < 0 or away < distance[i] or (away == distance[i] and rank[r] < rank[had]):
            best[i], distance[i] = r, away


@compiled
def _longer(values: NDArray[np.int64]) -> NDArray[np.int64]:
    longer = np.empty(2 * values.size, dtype=np.int64)
    longer[: values.size] = values
    return longer


@compiled
def _column_and_line(code: np.uint64) -> tuple[np.int64, np.int64]:
    # Not int(): of an unsigned number that is unsigned, and differences would be, too.
    return np.int64(_gather(code)), np.int64(_gather(code >> np.uint64(1)))


@compiled
def _interleaved(x: int, y: int) -> np.uint64:
    return _spread(np.uint64(x)) | (_spread(np.uint64(y)) << np.uint64(1))


@compiled
def _nine_pixels(nine: NDArray[np.uint64], base: np.uint64, x: int, y: int) -> None:
    """Write a pixel and its neighbours, sorted."""
    k = 0
    for dy in range(-1, 2):
        for dx in range(-1, 2):
            nine[k] = base | _interleaved(x + dx, y + dy)
            k += 1
    nine.sort()


@compiled
def _guesses(
    pixels: NDArray[np.uint64],
    at_pixels: NDArray[np.uint64],
    starts_of_cells: NDArray[np.int64],
    cell_shift: int,
) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Guess the rows of pixels from their places in coarse cells; return them and their pixels.

    Nothing waits for what is read here, so a processor reads many at once; the search that comes
    next finds them in its cache.
    """
    guessed = np.zeros(at_pixels.size, dtype=np.int64)
    there = np.zeros(at_pixels.size, dtype=np.uint64)
    for i in range(at_pixels.size if pixels.size else 0):
        cell = np.int64(at_pixels[i] >> np.uint64(cell_shift))
        begin, end = starts_of_cells[cell], starts_of_cells[cell + 1]
        inside = at_pixels[i] - (np.uint64(cell) << np.uint64(cell_shift))
        at = begin + np.int64(np.float64(inside) / 2.0**cell_shift * (end - begin))
        guessed[i] = min(at, pixels.size - 1)
        there[i] = pixels[guessed[i]]
    return guessed, there


@compiled
def _first_from(pixels: NDArray[np.uint64], first: np.uint64, at: int, there: np.uint64) -> int:
    """Return where the first pixel not below one is, looked for around a row and its pixel."""
    step = 8
    if there < first:
        low = at + 1
        while low + step < pixels.size and pixels[low + step] < first:
            low += step + 1
            step *= 2
        return _halved(pixels, low, min(low + step, pixels.size), first)
    high = at
    while high - step >= 0 and pixels[high - step] >= first:
        high -= step
        step *= 2
    return _halved(pixels, max(high - step, 0), high, first)


@compiled
def _halved(pixels: NDArray[np.uint64], low: int, high: int, first: np.uint64) -> int:
    while low < high:
        middle = (low + high) // 2
        if pixels[middle] < first:
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def _at_least(pixels: NDArray[np.uint64], low: int, first: np.uint64) -> int:
    """Return where the first pixel not below one is, at a place or after it."""
    low, high = _gallop(pixels, low, first)
    return _halved(pixels, low, high, first)
