"""The sample is one in a hundred, and the same ones everywhere."""

import numpy as np
import pandas as pd

from science_modules.random_sample.module import random_sample, stable_hash

MASK = 2**64 - 1


def slow_hash(word):
    """FNV-1a and splitmix64's finaliser, in Python's integers."""
    state = 0xCBF29CE484222325
    for letter in word:
        state = ((state ^ letter) * 0x100000001B3) & MASK
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
    return state ^ (state >> 31)


def ids(first, n):
    return pd.Series([str(first + k) for k in range(n)])


def test_the_hash_is_the_published_one():
    words = [b"ztf|1", b"lsst|9223372036854775807", b"sim|ZTF20aabb"]

    got = stable_hash(np.array(words))

    assert [int(value) for value in got] == [slow_hash(word) for word in words]


def test_one_in_a_hundred_is_chosen_whatever_the_ids_look_like():
    n = 100_000
    sigma = np.sqrt(n * 0.01 * 0.99)

    for first in (0, 10**17):
        chosen = random_sample(pd.Series(["ztf"] * n), ids(first, n))

        assert abs(chosen.sum() - 0.01 * n) < 4 * sigma


def test_an_alert_is_chosen_or_not_whatever_stands_beside_it():
    survey, names = pd.Series(["ztf"] * 3000), ids(5, 3000)
    together = random_sample(survey, names, fraction=0.5)

    one_by_one = [
        random_sample(survey[k : k + 1], names[k : k + 1], fraction=0.5).iloc[0]
        for k in range(0, 3000, 100)
    ]

    assert list(together[::100]) == one_by_one


def test_equal_ids_of_two_surveys_are_drawn_apart():
    names = ids(0, 20_000)

    both = [random_sample(pd.Series([s] * 20_000), names, fraction=0.5) for s in ("ztf", "sim")]

    # Independent halves agree in half of the cases: 4 sigma of 20,000 draws.
    assert abs((both[0] == both[1]).mean() - 0.5) < 4 * np.sqrt(0.25 / 20_000)
