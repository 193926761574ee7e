"""The compiled loops of the crossmatch, apart from it, as importing numba takes a while."""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

compiled: Any = njit(cache=True, nogil=True)


@compiled
def pairs_in_pixels(
    pixels: NDArray[np.uint64],
    around: NDArray[np.int64],
    shift: int,
    starts_of_cells: NDArray[np.int64],
    cell_shift: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the pairs of a position and a row that lies in one of the position's pixels.

    Parameters
    ----------
    pixels : NDArray[np.uint64], shape (n_rows,)
        Sorted pixels of order 29.
    around : NDArray[np.int64], shape (n_positions, n_pixels)
        Pixels of a lower order; negative ones are left out.
    shift : int
        Bits between the two orders.
    starts_of_cells : NDArray[np.int64], shape (n_cells + 1,)
        First row of each pixel of a coarse order, as of `LayerIndex`.
    cell_shift : int
        Bits between that order and 29.

    Returns
    -------
    tuple of NDArray[np.int64], shape (n_pairs,)
        Places in `around` and in `pixels`.
    """
    n_positions, width = around.shape
    starts = np.empty((n_positions, width), dtype=np.int64)
    lengths = np.empty((n_positions, width), dtype=np.int64)
    n_pairs = 0
    for i in range(n_positions):
        # Neighbours are mostly siblings: in their order each begins where the last one ends.
        mine = np.sort(around[i])
        low, high = 0, 0
        is_first = True
        for j in range(width):
            lengths[i, j] = 0
            if mine[j] < 0:
                continue
            first = np.uint64(mine[j]) << np.uint64(shift)
            if is_first:
                cell = np.int64(first >> np.uint64(cell_shift))
                low, high = starts_of_cells[cell], starts_of_cells[cell + 1]
                is_first = False
            else:
                low, high = _gallop(pixels, low, first)
            while low < high:
                middle = (low + high) // 2
                if pixels[middle] < first:
                    low = middle + 1
                else:
                    high = middle
            end = first + (np.uint64(1) << np.uint64(shift))
            starts[i, j] = low
            while low < pixels.size and pixels[low] < end:
                low += 1
            lengths[i, j] = low - starts[i, j]
            n_pairs += lengths[i, j]
    position, row = np.empty(n_pairs, dtype=np.int64), np.empty(n_pairs, dtype=np.int64)
    k = 0
    for i in range(n_positions):
        for j in range(width):
            for at in range(starts[i, j], starts[i, j] + lengths[i, j]):
                position[k], row[k] = i, at
                k += 1
    return position, row


@compiled
def _gallop(pixels: NDArray[np.uint64], low: int, first: np.uint64) -> tuple[int, int]:
    """Return where the first pixel not below one is, searched from a place before it."""
    high, step = low, 1
    while high < pixels.size and pixels[high] < first:
        low = high + 1
        high += step
        step *= 2
    return low, min(high, pixels.size)


@compiled
def _spread(bits: np.uint64) -> np.uint64:
    """Put a zero between all bits."""
    bits = (bits | (bits << np.uint64(16))) & np.uint64(0x0000FFFF0000FFFF)
    bits = (bits | (bits << np.uint64(8))) & np.uint64(0x00FF00FF00FF00FF)
    bits = (bits | (bits << np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    bits = (bits | (bits << np.uint64(2))) & np.uint64(0x3333333333333333)
    return (bits | (bits << np.uint64(1))) & np.uint64(0x5555555555555555)


@compiled
def _gather(bits: np.uint64) -> np.uint64:
    """Take every second bit: what `_spread` undoes."""
    bits = bits & np.uint64(0x5555555555555555)
    bits = (bits | (bits >> np.uint64(1))) & np.uint64(0x3333333333333333)
    bits = (bits | (bits >> np.uint64(2))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    bits = (bits | (bits >> np.uint64(4))) & np.uint64(0x00FF00FF00FF00FF)
    bits = (bits | (bits >> np.uint64(8))) & np.uint64(0x0000FFFF0000FFFF)
    return (bits | (bits >> np.uint64(16))) & np.uint64(0x00000000FFFFFFFF)


@compiled
def finest_pixels(ra: NDArray[np.float64], dec: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Return nested HEALPix pixels of order 29; the library's call costs more for a small batch.

    Parameters
    ----------
    ra, dec : NDArray[np.float64], shape (n,)
        Positions on the sky. [deg]

    Notes
    -----
    Gorski et al. (2005), ApJ 622, 759, section 5. On the very border of a pixel rounding may give
    the pixel on the other side; a search of neighbours has room for that.
    """
    pixels = np.empty(ra.size, dtype=np.uint64)
    nside = 1 << 29
    for i in range(ra.size):
        z = np.sin(np.radians(dec[i]))
        turn = (ra[i] / 90.0) % 4.0
        if abs(z) <= 2.0 / 3.0:
            east = int(np.floor(nside * (0.5 + turn - 0.75 * z)))
            west = int(np.floor(nside * (0.5 + turn + 0.75 * z)))
            a, b = east >> 29, west >> 29
            face = (a & 3) + 4 if a == b else (a & 3 if a < b else (b & 3) + 8)
            x, y = west & (nside - 1), nside - 1 - (east & (nside - 1))
        else:
            quarter = min(int(turn), 3)
            part = turn - quarter
            away = nside * np.cos(np.radians(dec[i])) / np.sqrt((1.0 + abs(z)) / 3.0)
            east = min(int(part * away), nside - 1)
            west = min(int((1.0 - part) * away), nside - 1)
            if z > 0.0:
                face, x, y = quarter, nside - 1 - west, nside - 1 - east
            else:
                face, x, y = quarter + 8, east, west
        pixels[i] = (np.uint64(face) << np.uint64(58)) | (
            _spread(np.uint64(x)) | (_spread(np.uint64(y)) << np.uint64(1))
        )
    return pixels


@compiled
def inner_neighbourhood(pixels: NDArray[np.uint64], order: int) -> NDArray[np.int64]:
    """Return each pixel with its neighbours, where they are in the same base pixel.

    Returns
    -------
    NDArray[np.int64], shape (n, 9)
        Of a pixel at the rim of its base pixel the first column is -2 and the rest is not set.
    """
    around = np.empty((pixels.size, 9), dtype=np.int64)
    last = (1 << order) - 1
    inside = (np.uint64(1) << np.uint64(2 * order)) - np.uint64(1)
    for i in range(pixels.size):
        x = int(_gather(pixels[i] & inside))
        y = int(_gather((pixels[i] & inside) >> np.uint64(1)))
        if x == 0 or y == 0 or x >= last or y >= last:
            around[i, 0] = -2
            continue
        base = pixels[i] & ~inside
        k = 0
        for dy in range(-1, 2):
            row = base | (_spread(np.uint64(y + dy)) << np.uint64(1))
            for dx in range(-1, 2):
                around[i, k] = np.int64(row | _spread(np.uint64(x + dx)))
                k += 1
    return around
