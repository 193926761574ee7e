"""The compiled loops of searches in space: a k-d tree without pointers.

Entries are halved along the axis in which they are widest, the halves likewise, down to runs of
`LEAF`. Each run has the smallest box that holds it, each pair of boxes a larger one, and so on to
one of all. Boxes of a level follow each other, those of the finest first.
"""

import numpy as np
from numpy.typing import NDArray

from broker.catalog._search import compiled

LEAF = 16
"""Entries in a box of the finest level."""

_Floats = NDArray[np.float64]
_Ints = NDArray[np.int64]

_DEEPEST = 128


def first_boxes(n: int) -> _Ints:
    """Return where the boxes of each level begin for n entries, and where the last ones end."""
    counts = [max(1, -(-n // LEAF))]
    while counts[-1] > 1:
        counts.append(-(-counts[-1] // 2))
    return np.cumsum([0, *counts])


@compiled
def _move_lowest(xyz: _Floats, order: _Ints, first: int, end: int, middle: int, axis: int) -> None:
    """Swap entries until none before the middle is above one from there on, along an axis.

    Hoare's selection. Pivots are drawn by a fixed rule, so that no order of entries is slow, and
    the same entries give the same order.
    """
    state = np.uint64(end - first)
    last = end - 1
    while first < last:
        state = state * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
        pivot = xyz[first + np.int64((state >> np.uint64(33)) % np.uint64(last - first + 1)), axis]
        i, j = first, last
        while i <= j:
            while xyz[i, axis] < pivot:
                i += 1
            while xyz[j, axis] > pivot:
                j -= 1
            if i <= j:
                for a in range(3):
                    xyz[i, a], xyz[j, a] = xyz[j, a], xyz[i, a]
                order[i], order[j] = order[j], order[i]
                i, j = i + 1, j - 1
        if middle <= j:
            last = j
        elif middle >= i:
            first = i
        else:
            break


@compiled
def order_by_halves(xyz: _Floats) -> _Ints:
    """Sort entries, shape (n, 3), in place as the tree has them; return where each came from."""
    order = np.arange(xyz.shape[0])
    firsts, ends = np.empty(_DEEPEST, np.int64), np.empty(_DEEPEST, np.int64)
    firsts[0], ends[0], n_open = 0, xyz.shape[0], 1
    while n_open:
        n_open -= 1
        first, end = firsts[n_open], ends[n_open]
        if end - first <= LEAF:
            continue
        axis, widest = 0, -1.0
        for a in range(3):
            low = high = xyz[first, a]
            for entry in range(first + 1, end):
                low, high = min(low, xyz[entry, a]), max(high, xyz[entry, a])
            if high - low > widest:
                axis, widest = a, high - low
        half = LEAF
        while 2 * half < end - first:
            half *= 2
        middle = first + half
        _move_lowest(xyz, order, first, end, middle, axis)
        firsts[n_open], ends[n_open] = first, middle
        firsts[n_open + 1], ends[n_open + 1] = middle, end
        n_open += 2
    return order


@compiled
def boxes_around(xyz: _Floats, levels: _Ints) -> _Floats:
    """Return the boxes of entries, shape (n_boxes, 6): lowest x, y, z and highest x, y, z.

    Parameters
    ----------
    xyz : NDArray[np.float64], shape (n, 3)
        Entries, at least one, as of `order_by_halves`.
    levels : NDArray[np.int64]
        As of `first_boxes`.
    """
    boxes = np.empty((levels[-1], 6))
    for leaf in range(levels[1]):
        first = leaf * LEAF
        for axis in range(3):
            low = high = xyz[first, axis]
            for entry in range(first + 1, min(first + LEAF, xyz.shape[0])):
                low, high = min(low, xyz[entry, axis]), max(high, xyz[entry, axis])
            boxes[leaf, axis], boxes[leaf, axis + 3] = low, high
    for level in range(1, levels.size - 1):
        for box in range(levels[level], levels[level + 1]):
            first = levels[level - 1] + 2 * (box - levels[level])
            last = min(first + 1, levels[level] - 1)
            for axis in range(3):
                boxes[box, axis] = min(boxes[first, axis], boxes[last, axis])
                boxes[box, axis + 3] = max(boxes[first, axis + 3], boxes[last, axis + 3])
    return boxes


@compiled
def _squared_gap(boxes: _Floats, box: int, x: float, y: float, z: float) -> float:
    """Return the square of the distance of a place from a box.

    It is summed as those of entries are, so rounding never makes it larger than theirs.
    """
    dx = max(boxes[box, 0] - x, x - boxes[box, 3], 0.0)
    dy = max(boxes[box, 1] - y, y - boxes[box, 4], 0.0)
    dz = max(boxes[box, 2] - z, z - boxes[box, 5], 0.0)
    return dx * dx + dy * dy + dz * dz


@compiled
def _is_before(
    away: float, entry: int, other_away: float, other: int, row: _Ints, rank: _Ints
) -> bool:
    if away != other_away:
        return away < other_away
    return rank[row[entry]] < rank[row[other]]


@compiled
def _sink(away: _Floats, entry: _Ints, at: int, size: int, row: _Ints, rank: _Ints) -> None:
    """Move an element of a heap, whose last in order is first, down to its place."""
    a, e = away[at], entry[at]
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        right = child + 1
        if right < size and _is_before(
            away[child], entry[child], away[right], entry[right], row, rank
        ):
            child = right
        if not _is_before(a, e, away[child], entry[child], row, rank):
            break
        away[at], entry[at] = away[child], entry[child]
        at = child
    away[at], entry[at] = a, e


@compiled
def _make_heap(away: _Floats, entry: _Ints, row: _Ints, rank: _Ints) -> None:
    for at in range(away.size // 2 - 1, -1, -1):
        _sink(away, entry, at, away.size, row, rank)


@compiled
def _sort_heap(away: _Floats, entry: _Ints, row: _Ints, rank: _Ints) -> None:
    for end in range(away.size - 1, 0, -1):
        away[0], away[end] = away[end], away[0]
        entry[0], entry[end] = entry[end], entry[0]
        _sink(away, entry, 0, end, row, rank)


@compiled
def nearest_in_boxes(
    boxes: _Floats, levels: _Ints, xyz: _Floats, row: _Ints, rank: _Ints, at_xyz: _Floats, k: int
) -> tuple[_Ints, _Floats]:
    """Return the k entries nearest to each place and their distances, each of shape (n_places, k).

    Parameters
    ----------
    boxes, levels
        As of `boxes_around` and `first_boxes`.
    xyz : NDArray[np.float64], shape (n, 3)
        Entries; at least k.
    row : NDArray[np.int64], shape (n,)
        Where in `rank` each entry is.
    rank : NDArray[np.int64]
        Of entries at the same distance the one of lower rank is first.
    at_xyz : NDArray[np.float64], shape (n_places, 3)
        Places.
    k : int
    """
    entries = np.empty((at_xyz.shape[0], k), dtype=np.int64)
    distances = np.empty((at_xyz.shape[0], k))
    open_boxes, open_levels = np.empty(_DEEPEST, np.int64), np.empty(_DEEPEST, np.int64)
    gaps = np.empty(_DEEPEST)
    for i in range(at_xyz.shape[0]):
        x, y, z = at_xyz[i, 0], at_xyz[i, 1], at_xyz[i, 2]
        away, entry = distances[i], entries[i]
        found, reach = 0, np.inf
        open_boxes[0], open_levels[0], gaps[0] = levels[-1] - 1, levels.size - 2, 0.0
        n_open = 1
        while n_open:
            n_open -= 1
            box, level = open_boxes[n_open], open_levels[n_open]
            if gaps[n_open] > reach:
                continue
            if level:
                near = levels[level - 1] + 2 * (box - levels[level])
                near_gap, level = _squared_gap(boxes, near, x, y, z), level - 1
                far, far_gap = near + 1, np.inf
                if far < levels[level + 1]:
                    far_gap = _squared_gap(boxes, far, x, y, z)
                if far_gap < near_gap:
                    near, near_gap, far, far_gap = far, far_gap, near, near_gap
                for one, gap in ((far, far_gap), (near, near_gap)):
                    if gap <= reach and gap < np.inf:
                        open_boxes[n_open], open_levels[n_open], gaps[n_open] = one, level, gap
                        n_open += 1
                continue
            for j in range(box * LEAF, min((box + 1) * LEAF, xyz.shape[0])):
                dx, dy, dz = xyz[j, 0] - x, xyz[j, 1] - y, xyz[j, 2] - z
                squared = dx * dx + dy * dy + dz * dz
                if squared > reach:
                    continue
                gap = np.sqrt(squared)
                if found < k:
                    away[found], entry[found] = gap, j
                    found += 1
                    if found == k:
                        _make_heap(away, entry, row, rank)
                elif _is_before(gap, j, away[0], entry[0], row, rank):
                    away[0], entry[0] = gap, j
                    _sink(away, entry, 0, k, row, rank)
                if found == k:
                    # Somewhat more than the square: what rounds to the same distance is a tie.
                    reach = away[0] * away[0] * (1.0 + 1e-14)
        _sort_heap(away, entry, row, rank)
    return entries, distances


@compiled
def pairs_in_boxes(
    boxes: _Floats,
    levels: _Ints,
    xyz: _Floats,
    row: _Ints,
    rank: _Ints,
    at_xyz: _Floats,
    radius: float,
) -> tuple[_Ints, _Ints, _Floats]:
    """Return the pairs of a place and an entry within a radius, and their distances.

    Parameters are those of `nearest_in_boxes`. Pairs are in the order of places, then nearest
    first, then by rank.
    """
    size = 8 * at_xyz.shape[0] + 16
    place, entry = np.empty(size, dtype=np.int64), np.empty(size, dtype=np.int64)
    away = np.empty(size)
    open_boxes, open_levels = np.empty(_DEEPEST, np.int64), np.empty(_DEEPEST, np.int64)
    reach = radius * radius * (1.0 + 1e-14)
    n = 0
    for i in range(at_xyz.shape[0]):
        x, y, z = at_xyz[i, 0], at_xyz[i, 1], at_xyz[i, 2]
        first = n
        open_boxes[0], open_levels[0] = levels[-1] - 1, levels.size - 2
        n_open = 1
        while n_open:
            n_open -= 1
            box, level = open_boxes[n_open], open_levels[n_open]
            if _squared_gap(boxes, box, x, y, z) > reach:
                continue
            if level:
                child = levels[level - 1] + 2 * (box - levels[level])
                for one in range(child, min(child + 2, levels[level])):
                    open_boxes[n_open], open_levels[n_open] = one, level - 1
                    n_open += 1
                continue
            for j in range(box * LEAF, min((box + 1) * LEAF, xyz.shape[0])):
                dx, dy, dz = xyz[j, 0] - x, xyz[j, 1] - y, xyz[j, 2] - z
                gap = np.sqrt(dx * dx + dy * dy + dz * dz)
                if gap > radius:
                    continue
                if n == place.size:
                    place, entry = np.append(place, place), np.append(entry, entry)
                    away = np.append(away, away)
                place[n], entry[n], away[n] = i, j, gap
                n += 1
        _make_heap(away[first:n], entry[first:n], row, rank)
        _sort_heap(away[first:n], entry[first:n], row, rank)
    return place[:n], entry[:n], away[:n]
