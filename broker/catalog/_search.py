"""The compiled loop of the crossmatch; in a module of its own, as importing numba takes a while."""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

compiled: Any = njit(cache=True, nogil=True)


@compiled
def pairs_in_pixels(
    pixels: NDArray[np.uint64], around: NDArray[np.int64], shift: int
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

    Returns
    -------
    tuple of NDArray[np.int64], shape (n_pairs,)
        Places in `around` and in `pixels`.
    """
    starts = np.empty(around.shape, dtype=np.int64)
    n_pairs = 0
    for i in range(around.shape[0]):
        for j in range(around.shape[1]):
            starts[i, j] = -1
            if around[i, j] < 0:
                continue
            first = np.uint64(around[i, j]) << np.uint64(shift)
            low, high = 0, pixels.size
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
                n_pairs += 1
    position, row = np.empty(n_pairs, dtype=np.int64), np.empty(n_pairs, dtype=np.int64)
    k = 0
    for i in range(around.shape[0]):
        for j in range(around.shape[1]):
            at = starts[i, j]
            if at < 0:
                continue
            end = (np.uint64(around[i, j]) + np.uint64(1)) << np.uint64(shift)
            while at < pixels.size and pixels[at] < end:
                position[k], row[k] = i, at
                at += 1
                k += 1
    return position, row
