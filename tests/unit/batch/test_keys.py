"""Parts divide all entries, and no part holds more than it may."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.batch.keys import (
    HEALPIX,
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


@settings(max_examples=10, deadline=None)
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
