"""Keys of catalogue entries that put them in order along the sky or space, and parts of them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from broker.batch.kd_tree import Splits
from broker.catalog.distance import Distance, vectors
from broker.catalog.healpix import centres
from broker.catalog.partition import Rows
from broker.catalog.space import LEVELS, codes_of
from broker.errors import ConfigError

HEALPIX, SHELLS, OCTREE, KD_TREE = "healpix", "shells", "octree", "kdtree"

KeyArray = NDArray[np.uint64]
Counter = Callable[[int, KeyArray | None, int], tuple[KeyArray, NDArray[np.int64]]]
"""(shift, prefixes, prefix_shift) -> which `key >> shift` there are, sorted, and how often; only
of keys for which `key >> prefix_shift` is one of `prefixes`, if not None."""

_LEVELS_AT_ONCE = 6
_DIGIT = 16


@dataclass(frozen=True)
class Keys:
    """What keys are.

    Parameters
    ----------
    by : str
        `HEALPIX`: pixels of order 29. `SHELLS`: the bits of a distance, which rise with it.
        `OCTREE`: Morton's curve through a cube around the origin. `KD_TREE`: the leaf of a tree,
        through space or, without a distance, through right ascension and declination.
    distance : Distance or None
        Of entries in space.
    half : float
        Half the side of the cube.
    splits : Splits or None
        Of the tree.
    """

    by: str
    distance: Distance | None = None
    half: float = 0.0
    splits: Splits | None = None

    def of(self, rows: Rows, first: int, end: int) -> tuple[NDArray[np.int64], KeyArray]:
        """Return the rows of a block that have a key, and their keys."""
        if self.by == HEALPIX:
            return np.arange(first, end), rows.pixels[first:end]
        if self.splits is not None:
            row, places = coordinates(self.distance, rows, first, end)
            return row, self.splits.of(places).astype(np.uint64)
        assert self.distance is not None  # noqa: S101 - checked where keys are made
        value = self.distance.values(rows, first, end)
        row = np.flatnonzero(np.isfinite(value))
        value = value[row] + 0.0  # -0.0 has another sign bit
        row += first
        if self.by == SHELLS:
            return row, np.ascontiguousarray(value).view(np.uint64)
        xyz = vectors(rows.ra[row], rows.dec[row], self.distance.lengths(value))
        return row, codes_of(xyz, self.half)

    @property
    def shifts(self) -> tuple[int, ...]:
        """Bits below the nodes of each level of the tree, coarsest first."""
        if self.by == HEALPIX:
            return tuple(range(58, -1, -2))
        return tuple(range(3 * LEVELS, -1, -3))


def coordinates(
    distance: Distance | None, rows: Rows, first: int, end: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the rows of a block that have a place, and where they are.

    Returns
    -------
    row : NDArray[np.int64], shape (n,)
    places : NDArray[np.float64], shape (n, 2) or (n, 3)
        Right ascension and declination [deg]; with a distance x, y, z in the unit of lengths.
    """
    if distance is None:
        places = np.stack([rows.ra[first:end], rows.dec[first:end]], axis=1)
        return np.arange(first, end), places
    value = distance.values(rows, first, end)
    row = np.flatnonzero(np.isfinite(value))
    value, row = value[row], row + first
    return row, vectors(rows.ra[row], rows.dec[row], distance.lengths(value))


@dataclass(frozen=True)
class Parts:
    """Parts of a catalogue, sorted, apart.

    Parameters
    ----------
    first, end : NDArray[np.uint64], shape (n_parts,)
        Keys of a part are from `first` to below `end`.
    """

    first: KeyArray
    end: KeyArray

    def __len__(self) -> int:
        return int(self.first.size)

    def of(self, keys: KeyArray) -> NDArray[np.int64]:
        """Return the part of each key, -1 if it is in none."""
        part = np.searchsorted(self.first, keys, side="right") - 1
        inside = (part >= 0) & (keys < self.end[part])
        return np.where(inside, part, -1)


def tree_parts(count: Counter, shifts: tuple[int, ...], limit: int) -> Parts:
    """Return the coarsest nodes of a tree that hold at most `limit` entries, empty ones left out.

    Nodes of the finest level may hold more: their entries are at one place.
    """
    firsts, ends = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)]
    above: KeyArray | None = None
    parent = 0
    for start in range(0, len(shifts), _LEVELS_AT_ONCE):
        group = shifts[start : start + _LEVELS_AT_ONCE]
        cells, counts = count(group[-1], above, parent)
        for shift in group:
            node, place = np.unique(cells >> np.uint64(shift - group[-1]), return_inverse=True)
            held = np.bincount(place, counts, node.size)
            done = (held <= limit) | (shift == 0)
            firsts.append(node[done] << np.uint64(shift))
            ends.append((node[done] + np.uint64(1)) << np.uint64(shift))
            cells, counts = cells[~done[place]], counts[~done[place]]
        if not cells.size:
            break
        above, parent = cells, group[-1]
    first = np.concatenate(firsts)
    order = np.argsort(first)
    return Parts(first[order], np.concatenate(ends)[order])


def equal_parts(count: Counter, limit: int) -> Parts:
    """Return parts of `limit` entries each, the last one the rest, in the order of keys.

    Borders are the keys of the entries in whose places a part begins, found digit by digit; entries
    with equal keys stay together in the later part.
    """
    prefix, before, target = np.zeros(1, np.uint64), np.zeros(1, np.int64), np.zeros(1, np.int64)
    above: KeyArray | None = None
    for shift in range(64 - _DIGIT, -1, -_DIGIT):
        cells, counts = count(shift, above, shift + _DIGIT)
        sums = np.cumsum(counts)
        if above is None:
            target = np.arange(0, sums[-1] if sums.size else 0, limit)
            prefix, before = np.zeros(target.size, np.uint64), np.zeros(target.size, np.int64)
            from_cell = np.zeros(target.size, np.int64)
        else:
            from_cell = np.searchsorted(cells, prefix << np.uint64(_DIGIT))
        ahead = (sums - counts)[from_cell]
        cell = np.searchsorted(sums, ahead + target - before, side="right")
        before = before + (sums - counts)[cell] - ahead
        prefix = cells[cell]
        above = np.unique(prefix)
    first = np.unique(prefix)
    if not first.size:
        return Parts(first, first)
    highest = np.uint64(np.iinfo(np.int64).max)
    return Parts(first, np.append(first[1:], highest))


def shell_parts(edges: tuple[float, ...]) -> Parts:
    """Return shells between borders; ConfigError if they do not rise from 0 or above."""
    at = np.asarray(edges, dtype=np.float64)
    if at.size < 2 or not (at[0] >= 0.0 and (np.diff(at) > 0.0).all()):
        raise ConfigError(f"borders of shells are two or more that rise, from 0: not {edges}")
    bits = (at + 0.0).view(np.uint64)
    return Parts(bits[:-1], bits[1:])


def bounds_of(keys: Keys, parts: Parts) -> dict[str, Any]:
    """Return the columns that say where parts are.

    Of HEALPix: `order`, nested `pixel`, and `ra` and `dec` of its middle. Of shells: `inner` <=
    distance < `outer`, which is infinite for the last one of equal parts. Of an octree: `level` and
    the corners of a cell, of which the lower ones are in it. Of a k-d tree: lower borders, which
    are in the leaf, and upper ones, which are not: so these end just above 360 and 90 degrees;
    infinite in space.
    """
    if keys.splits is not None:
        return _bounds_of_leaves(keys.splits)
    if keys.by == SHELLS:
        outer = parts.end.view(np.float64)
        return {
            "inner": parts.first.view(np.float64),
            "outer": np.where(outer < np.inf, outer, np.inf),
        }
    size = parts.end - parts.first
    shift = np.round(np.log2(size.astype(np.float64))).astype(np.int64)
    node = (parts.first >> shift.astype(np.uint64)).astype(np.int64)
    if keys.by == HEALPIX:
        order = 29 - shift // 2
        middle = [
            centres(node[i : i + 1].astype(np.uint64), int(order[i])) for i in range(len(parts))
        ]
        ra, dec = (np.array([float(m[axis][0]) for m in middle]) for axis in (0, 1))
        return {"order": order, "pixel": node, "ra": ra, "dec": dec}
    level = LEVELS - shift // 3
    corner = {axis: np.zeros(len(parts)) for axis in "xyz"}
    for bit in range(LEVELS):
        for i, axis in enumerate("xyz"):
            one = (parts.first >> np.uint64(3 * bit + i)) & np.uint64(1)
            corner[axis] += one.astype(np.float64) * 2.0**bit
    side = 2.0 * keys.half / 2.0**LEVELS
    low = {f"{axis}Min": corner[axis] * side - keys.half for axis in "xyz"}
    width = 2.0 * keys.half / 2.0**level
    return {"level": level, **low, **{f"{a}Max": low[f"{a}Min"] + width for a in "xyz"}}


def _bounds_of_leaves(splits: Splits) -> dict[str, Any]:
    names: tuple[str, ...] = ("x", "y", "z")
    low: tuple[float, ...] = (-np.inf,) * 3
    high: tuple[float, ...] = (np.inf,) * 3
    if splits.n_axes == 2:
        names, low, high = ("ra", "dec"), (0.0, -90.0), tuple(np.nextafter((360.0, 90.0), np.inf))
    lows, highs = splits.bounds(low, high)
    return {
        f"{name}{end}": values[:, axis]
        for end, values in (("Min", lows), ("Max", highs))
        for axis, name in enumerate(names)
    }
