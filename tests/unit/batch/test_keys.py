"""Parts divide all entries, and no part holds more than it may."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.batch import kd_tree
from broker.batch.keys import (
    HEALPIX,
    KD_TREE,
    OCTREE,
    SHELLS,
    Keys,
    bounds_of,
    equal_parts,
    shell_parts,
    tree_parts,
)
from broker.catalog.healpix import pixels_of
from broker.catalog.space import codes_of
from broker.errors import ConfigError


def counter_of(keys):
    def above(key, shift):
        return key >> np.uint64(shift) if shift < 64 else np.zeros_like(key)

    def count(shift, prefixes, prefix_shift):
        some = keys
        if prefixes is not None:
            some = keys[np.isin(above(keys, prefix_shift), prefixes)]
        return np.unique(above(some, shift), return_counts=True)

    return count


def places(seed, n):
    """A clump in a sparse sky, and some at one place."""
    rng = np.random.default_rng(seed)
    ra, dec = rng.uniform(0, 360, n), np.degrees(np.arcsin(rng.uniform(-1, 1, n)))
    ra[: n // 2], dec[: n // 2] = rng.uniform(0, 0.01, n // 2), 41.81 + rng.uniform(0, 0.01, n // 2)
    ra[-20:], dec[-20:] = 45.0, 90.0
    return ra, dec


@settings(max_examples=10)
@given(seed=st.integers(0, 1000), limit=st.sampled_from([1, 7, 30, 399, 400, 10_000]))
def test_pixels_are_the_coarsest_that_hold_no_more_than_the_limit(seed, limit):
    keys, kind = pixels_of(*places(seed, 400)), Keys(HEALPIX)

    parts = tree_parts(counter_of(keys), kind.shifts, limit)

    where = bounds_of(kind, parts)
    held = np.bincount(parts.of(keys), minlength=len(parts))
    assert held.sum() == 400
    assert (held > 0).all()
    assert ((held <= limit) | (where["order"] == 29)).all()
    for order, pixel, number in zip(where["order"], where["pixel"], held, strict=True):
        at = keys >> np.uint64(2 * (29 - order))
        assert (at == np.uint64(pixel)).sum() == number
        if order:  # what it is a quarter of holds more
            assert (at >> np.uint64(2) == np.uint64(pixel // 4)).sum() > limit


def test_cells_of_an_octree_hold_what_is_between_their_corners():
    rng = np.random.default_rng(1)
    xyz = rng.normal(0, 1, (3000, 3)).clip(-3.9, 3.9)
    xyz[:50] = xyz[0]
    kind, keys = Keys(OCTREE, None, 4.0), codes_of(xyz, 4.0)

    parts = tree_parts(counter_of(keys), kind.shifts, 40)

    where = bounds_of(kind, parts)
    held = np.bincount(parts.of(keys), minlength=len(parts))
    low = np.stack([where[f"{a}Min"] for a in "xyz"], axis=1)
    high = np.stack([where[f"{a}Max"] for a in "xyz"], axis=1)
    for i in range(len(parts)):
        assert ((xyz >= low[i]) & (xyz < high[i])).all(axis=1).sum() == held[i]
    assert held.sum() == 3000
    assert sorted(held[held > 40]) == [50]
    assert where["level"][held > 40] == 21


@pytest.mark.parametrize("limit", [1, 13, 100, 999, 5000])
def test_shells_of_equal_content_begin_at_the_entries_in_their_places(limit):
    rng = np.random.default_rng(2)
    value = np.concatenate([rng.lognormal(0, 3, 900), np.zeros(40), np.full(60, 1.0)])
    keys = value.view(np.uint64)

    parts = equal_parts(counter_of(keys), limit)

    expected = np.unique(np.sort(value)[::limit])
    where = bounds_of(Keys(SHELLS), parts)
    np.testing.assert_array_equal(where["inner"], expected)
    np.testing.assert_array_equal(where["outer"], np.append(expected[1:], np.inf))
    inside = (value >= where["inner"][:, None]) & (value < where["outer"][:, None])
    np.testing.assert_array_equal(parts.of(keys), inside.argmax(axis=0))


def test_shells_between_borders_leave_out_what_is_outside():
    parts = shell_parts((0.1, 0.5, 2.0))

    values = np.array([0.0, 0.1, 0.49, 0.5, 1.99, 2.0, 7.0])
    assert parts.of(values.view(np.uint64)).tolist() == [-1, 0, 0, 1, 1, -1, -1]
    for wrong in ((1.0,), (1.0, 1.0), (-1.0, 2.0), (0.0, np.nan)):
        with pytest.raises(ConfigError, match="rise"):
            shell_parts(wrong)


def halves(places, n_axes, limit):
    """The tree, with each pass in three blocks."""

    def count(splits, axis, prefixes, shift):
        some = [
            kd_tree.digits(block, splits, axis, prefixes, shift)
            for block in np.array_split(places, 3)
        ]
        cell, at = np.unique(np.concatenate([c for c, _ in some]), return_inverse=True)
        counts = np.bincount(at, np.concatenate([n for _, n in some]), cell.size)
        return cell, counts.astype(np.int64)

    return kd_tree.halved(count, n_axes, limit, 100_000)


def halves_by_sorting(places, level, depth):
    """Lists of rows, by sorting each node: the lower half is that below the middle one."""
    if level == depth:
        return [places]
    along = places[:, level % places.shape[1]]
    split = np.sort(along)[len(along) // 2]
    return [
        *halves_by_sorting(places[along < split], level + 1, depth),
        *halves_by_sorting(places[along >= split], level + 1, depth),
    ]


@settings(max_examples=15)
@given(
    seed=st.integers(0, 1000),
    n=st.integers(1, 700),
    axes=st.sampled_from([2, 3]),
    limit=st.sampled_from([1, 5, 64, 1000]),
)
def test_leaves_of_a_kd_tree_are_the_halves_of_sorted_nodes(seed, n, axes, limit):
    places = np.random.default_rng(seed).normal(0.0, 1e3, (n, axes))

    splits = halves(places, axes, limit)

    depth = len(splits.levels)
    assert 2**depth * limit >= n > (2 ** (depth - 1) * limit if depth else 0)
    leaf = splits.of(places)
    expected = halves_by_sorting(places, 0, depth)
    held = np.bincount(leaf, minlength=2**depth)
    assert held.tolist() == [len(part) for part in expected]
    assert held.max() - held.min() <= 1
    for part, rows in enumerate(expected):
        np.testing.assert_array_equal(np.sort(places[leaf == part], axis=0), np.sort(rows, axis=0))


def test_borders_of_leaves_tell_what_is_in_them_where_many_coordinates_are_equal():
    ra, dec = places(3, 2000)
    dec[:300] = np.round(dec[:300], 3)
    at = np.stack([ra, dec], axis=1)

    splits = halves(at, 2, 30)

    where = bounds_of(Keys(KD_TREE, splits=splits), shell_parts((0.0, 1.0)))
    leaf = splits.of(at)
    for part in range(2 ** len(splits.levels)):
        inside = np.ones(2000, bool)
        for name, value in (("ra", ra), ("dec", dec)):
            inside &= (value >= where[f"{name}Min"][part]) & (value < where[f"{name}Max"][part])
        np.testing.assert_array_equal(inside, leaf == part)
