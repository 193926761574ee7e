"""A tree that halves entries along one axis after the other, exactly, by counting them.

The splits of a level are the medians of all entries of each node, found digit by digit: each pass
over the catalogue counts the next 16 bits of the coordinate among entries whose bits before are the
median's. Nothing is sampled, and no pass keeps more than these counts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_KeyArray = NDArray[np.uint64]
_Ints = NDArray[np.int64]

_DIGIT = 16
_SIGN = np.uint64(1) << np.uint64(63)


@dataclass(frozen=True)
class Splits:
    """Where nodes are divided.

    Parameters
    ----------
    n_axes : int
        Level 0 divides along axis 0, the next one along axis 1, and so on around.
    levels : tuple of NDArray[np.uint64], each of shape (2**level,)
        Ordered bits (`ordered_bits`) of the coordinate where each node is divided; what is below
        is on the left.
    """

    n_axes: int
    levels: tuple[_KeyArray, ...] = ()

    def of(self, coordinates: NDArray[np.float64]) -> _Ints:
        """Return the leaf of each entry, shape (n,), from coordinates of shape (n, n_axes)."""
        leaf = np.zeros(len(coordinates), np.int64)
        for level, split in enumerate(self.levels):
            key = ordered_bits(coordinates[:, level % self.n_axes])
            leaf = 2 * leaf + (key >= split[leaf])
        return leaf

    def bounds(self, low: tuple[float, ...], high: tuple[float, ...]) -> tuple[Any, Any]:
        """Return corners of all leaves, two of shape (n_leaves, n_axes), inside those of all.

        Of two neighbours the border belongs to the upper one.
        """
        depth = len(self.levels)
        leaf = np.arange(2**depth)
        lows, highs = (np.tile(np.asarray(x, np.float64), (leaf.size, 1)) for x in (low, high))
        for level, split in enumerate(self.levels):
            axis, at = level % self.n_axes, _value(split[leaf >> (depth - level)])
            is_upper = (leaf >> (depth - level - 1)) & 1 == 1
            lows[is_upper, axis] = at[is_upper]
            highs[~is_upper, axis] = at[~is_upper]
        return lows, highs


NodeCounter = Callable[[Splits, int, _KeyArray | None, int], tuple[_Ints, _Ints]]
"""(splits so far, axis, prefixes, shift) -> sorted `leaf << 16 | digit`, and how many entries have
it. The digit is the 16 bits of the coordinate's ordered bits above `shift`; only entries count
whose bits above the digit are the prefix of their leaf, if not None."""


def ordered_bits(values: NDArray[np.float64]) -> _KeyArray:
    """Return unsigned numbers that are in the order of finite values; -0.0 is 0.0."""
    bits = np.ascontiguousarray(values + 0.0).view(np.uint64)
    return np.where(bits & _SIGN, ~bits, bits | _SIGN)


def _value(bits: _KeyArray) -> NDArray[np.float64]:
    return np.where(bits & _SIGN, bits & ~_SIGN, ~bits).astype(np.uint64).view(np.float64)


def digits(
    coordinates: NDArray[np.float64],
    splits: Splits,
    axis: int,
    prefixes: _KeyArray | None,
    shift: int,
) -> tuple[_Ints, _Ints]:
    """Count the entries of a block as a `NodeCounter` does.

    Parameters
    ----------
    coordinates : NDArray[np.float64], shape (n, n_axes)
    splits, axis, prefixes, shift
        As of `NodeCounter`.
    """
    leaf, key = splits.of(coordinates), ordered_bits(coordinates[:, axis])
    if prefixes is not None:
        kept = key >> np.uint64(shift + _DIGIT) == prefixes[leaf]
        leaf, key = leaf[kept], key[kept]
    digit = (key >> np.uint64(shift)) & np.uint64((1 << _DIGIT) - 1)
    cell, counts = np.unique((leaf << _DIGIT) | digit.astype(np.int64), return_counts=True)
    return cell, counts.astype(np.int64)


def halved(count: NodeCounter, n_axes: int, limit: int, most_leaves: int) -> Splits:
    """Return the splits into the fewest leaves, a power of two, of at most `limit` entries.

    Leaves have as many entries as each other, or one more. Entries with equal coordinates are not
    parted, so where a split falls among such, the left one is smaller by them, and a leaf may hold
    more than the limit.

    Parameters
    ----------
    count : NodeCounter
    n_axes : int
    limit : int
    most_leaves : int
        The tree ends there.
    """
    splits = Splits(n_axes)
    total = int(count(splits, 0, None, 64 - _DIGIT)[1].sum())
    while 2 ** len(splits.levels) * limit < total and 2 ** len(splits.levels) < most_leaves:
        axis = len(splits.levels) % n_axes
        splits = Splits(n_axes, (*splits.levels, _medians(count, splits, axis)))
    return splits


def _medians(count: NodeCounter, splits: Splits, axis: int) -> _KeyArray:
    nodes = np.arange(2 ** len(splits.levels))
    prefix, left = np.zeros(nodes.size, np.uint64), np.zeros(nodes.size, np.int64)
    for shift in range(64 - _DIGIT, -1, -_DIGIT):
        is_first = shift == 64 - _DIGIT
        cell, counts = count(splits, axis, None if is_first else prefix, shift)
        if is_first:
            # bincount of weights is in floating point, which is exact up to 2**53 entries
            held = np.bincount(cell >> _DIGIT, counts, nodes.size).astype(np.int64)
            left = held // 2
        ends = np.cumsum(counts)
        begins = ends - counts
        begin = np.append(begins, 0)[np.searchsorted(cell, nodes << _DIGIT)]
        at = np.minimum(np.searchsorted(ends, begin + left, side="right"), cell.size - 1)
        left = left - (begins[at] - begin)
        digit = (cell[at] & ((1 << _DIGIT) - 1)).astype(np.uint64)
        prefix = (prefix << np.uint64(_DIGIT)) | digit
    return prefix
