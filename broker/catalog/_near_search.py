"""The compiled loops of searches with one radius on the sky, and Morton's curve."""

import numpy as np
from numpy.typing import NDArray

from broker.catalog._search import _gallop, compiled

_Floats = NDArray[np.float64]
_Ints = NDArray[np.int64]

_SHORT = 32
"""Rows of a cell are walked through that far, which is faster than to look for the end."""


@compiled
def _first_at_least(codes: NDArray[np.uint64], value: np.uint64, guess: int) -> int:
    """Return the first row with at least a code; faster the nearer it is to the guess."""
    low, high = _gallop(codes, guess, value)
    step = 1
    while low > 0 and codes[low - 1] >= value:
        high = low - 1
        low = max(low - step, 0)
        step *= 2
    while low < high:
        middle = (low + high) // 2
        if codes[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def runs_in_cells(codes: NDArray[np.uint64], around: _Ints, shift: int) -> tuple[_Ints, _Ints]:
    """Return where the rows of cells begin and end.

    Parameters
    ----------
    codes : NDArray[np.uint64], shape (n_rows,)
        Sorted codes of the finest level.
    around : NDArray[np.int64], shape (n_positions, n_cells)
        Cells of a coarser level; negative ones have no rows.
    shift : int
        Bits between the two levels.

    Returns
    -------
    tuple of NDArray[np.int64], shape (n_positions, n_cells)
    """
    starts = np.zeros(around.shape, dtype=np.int64)
    ends = np.zeros(around.shape, dtype=np.int64)
    at = 0
    for i in range(around.shape[0]):
        for j in range(around.shape[1]):
            if around[i, j] < 0:
                continue
            first = np.uint64(around[i, j]) << np.uint64(shift)
            last = first + ((np.uint64(1) << np.uint64(shift)) - np.uint64(1))
            at = _first_at_least(codes, first, at)
            starts[i, j] = at
            while at < codes.size and codes[at] <= last:
                at += 1
                if at - starts[i, j] == _SHORT:
                    at = _first_at_least(codes, last + np.uint64(1), at)
                    break
            ends[i, j] = at
    return starts, ends


@compiled
def sky_pairs(
    starts: _Ints,
    ends: _Ints,
    ra: _Floats,
    dec: _Floats,
    at_ra: _Floats,
    at_dec: _Floats,
    radius: float,
) -> tuple[_Ints, _Ints]:
    """Return the pairs of a position and a row of its cells that may be within a radius.

    Parameters
    ----------
    starts, ends : NDArray[np.int64], shape (n_positions, n_cells)
        Runs of rows.
    ra, dec : NDArray[np.float64], shape (n_rows,)
        Rows. [deg]
    at_ra, at_dec : NDArray[np.float64], shape (n_positions,)
        Positions. [deg]
    radius : float
        [deg]

    Notes
    -----
    What is left out is farther in Dec than the radius, or farther in RA than a circle of the radius
    reaches, by more than rounding: that is cheap, and leaves few for the exact formula.
    """
    n_positions, n_cells = starts.shape
    reach = np.empty(n_positions)
    slack = 1e-9 + 1e-9 * radius
    for i in range(n_positions):
        reach[i] = 360.0
        if abs(at_dec[i]) + radius < 89.9:
            widest = np.sin(np.radians(radius)) / np.cos(np.radians(at_dec[i]))
            reach[i] = np.degrees(np.arcsin(min(widest, 1.0))) * (1.0 + 1e-9) + slack
    position = np.empty(n_positions + 16, dtype=np.int64)
    row = np.empty(n_positions + 16, dtype=np.int64)
    k = 0
    for i in range(n_positions):
        for j in range(n_cells):
            for r in range(starts[i, j], ends[i, j]):
                if abs(dec[r] - at_dec[i]) > radius + slack:
                    continue
                away = abs(ra[r] - at_ra[i])
                if min(away, 360.0 - away) > reach[i]:
                    continue
                if k == position.size:
                    position, row = _longer(position), _longer(row)
                position[k], row[k] = i, r
                k += 1
    return position[:k], row[:k]


@compiled
def counts_near(
    starts: _Ints,
    ends: _Ints,
    ra: _Floats,
    dec: _Floats,
    at_ra: _Floats,
    at_dec: _Floats,
    radius: float,
    enough: int,
) -> tuple[_Ints, _Ints, _Ints]:
    """Count the rows of each position's cells that are surely within a radius.

    Parameters
    ----------
    starts, ends, ra, dec, at_ra, at_dec, radius
        As of `sky_pairs`.
    enough : int
        Counting ends there.

    Returns
    -------
    counts : NDArray[np.int64], shape (n_positions,)
    position, row : NDArray[np.int64], shape (n_unsure,)
        Pairs so near to the radius that rounding may decide: for the exact formula.
    """
    slack = 1e-13 + 1e-9 * np.radians(radius)
    sure = np.sin(max(np.radians(radius) - slack, 0.0) / 2.0) ** 2
    unsure = np.sin((np.radians(radius) + slack) / 2.0) ** 2
    counts = np.zeros(starts.shape[0], dtype=np.int64)
    position, row = np.empty(16, dtype=np.int64), np.empty(16, dtype=np.int64)
    k = 0
    for i in range(starts.shape[0]):
        cosine = np.cos(np.radians(at_dec[i]))
        for j in range(starts.shape[1]):
            for r in range(starts[i, j], ends[i, j]):
                north = np.sin(np.radians(dec[r] - at_dec[i]) / 2.0) ** 2
                if north > unsure:
                    continue
                east = np.sin(np.radians(ra[r] - at_ra[i]) / 2.0) ** 2
                away = north + cosine * np.cos(np.radians(dec[r])) * east
                if away < sure:
                    counts[i] += 1
                elif away <= unsure:
                    if k == position.size:
                        position, row = _longer(position), _longer(row)
                    position[k], row[k] = i, r
                    k += 1
                if counts[i] >= enough:
                    break
            if counts[i] >= enough:
                break
    return counts, position[:k], row[:k]


@compiled
def _longer(values: _Ints) -> _Ints:
    longer = np.empty(2 * values.size, dtype=np.int64)
    longer[: values.size] = values
    return longer


@compiled
def interleaved(cells: _Ints, bits: int) -> NDArray[np.uint64]:
    """Return the place of cells of a cube along Morton's curve.

    Parameters
    ----------
    cells : NDArray[np.int64], shape (n, 3)
        0 <= cell < 2**bits along each axis.
    bits : int
        Up to 21.
    """
    codes = np.zeros(cells.shape[0], dtype=np.uint64)
    for i in range(cells.shape[0]):
        code = np.uint64(0)
        for bit in range(bits):
            for axis in range(3):
                one = np.uint64((cells[i, axis] >> bit) & 1)
                code |= one << np.uint64(3 * bit + axis)
        codes[i] = code
    return codes
