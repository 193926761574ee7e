"""Cuts choose what they say; what is not known passes neither a cut nor its opposite."""

import inspect

import numpy as np
import pandas as pd
import pytest
from astropy import units
from astropy.coordinates import SkyCoord

from broker.science import cuts

UNKNOWN_BOOL = pd.Series([True, False, None], dtype="boolean")
UNKNOWN_NUMBER = pd.Series([1.0, -1.0, np.nan])


def said(series):
    assert series.dtype == bool
    return series.tolist()


def test_an_unknown_answer_passes_no_combination():
    plain = pd.Series([True, True, True])

    assert said(cuts.all_of(plain, UNKNOWN_BOOL)) == [True, False, False]
    assert said(cuts.any_of(~plain, UNKNOWN_BOOL)) == [True, False, False]
    assert said(cuts.none_of(UNKNOWN_BOOL)) == [False, True, False]
    assert said(cuts.all_of(UNKNOWN_NUMBER > 0.0)) == [True, False, False]


@pytest.mark.parametrize(
    ("function", "settings", "passing", "failing"),
    [
        (cuts.is_reliable, {}, [0.6], [0.59]),
        (cuts.is_bright, {}, [-7.0], [6.9]),
        (cuts.is_confirmed, {}, [2.0], [1.0]),
        (cuts.is_young, {}, [5.0], [5.1]),
        (cuts.is_first_seen_within, {"days": 1.0}, [1.0], [1.1]),
        (cuts.is_rising, {}, [3.1, 1.0], [-9.0, 1.0]),
        (cuts.is_changing, {}, [-5.1, 1.0], [4.9, 1.0]),
        (cuts.is_extragalactic, {}, ["hostless"], ["variable-star"]),
        (cuts.is_near_host, {}, ["hosted", 2.9], ["hosted", 3.1]),
        (cuts.is_off_the_plane, {}, [192.9, 27.1], [266.4, -29.0]),
        (cuts.is_near_the_ecliptic, {}, [0.0, 0.0], [270.0, 66.5]),
    ],
)
def test_a_cut_passes_what_it_says_and_no_null(function, settings, passing, failing):
    nulls = [None if isinstance(value, str) else np.nan for value in passing]
    columns = [pd.Series(values) for values in zip(passing, failing, nulls, strict=True)]

    assert said(cuts.known(function(*columns, **settings))) == [True, False, False]


def test_a_source_that_is_negative_or_a_dipole_is_not_positive():
    no, yes = pd.Series([False]), pd.Series([True])

    assert said(cuts.is_positive(no, no)) == [True]
    assert said(cuts.is_positive(yes, no)) == [False]
    assert said(cuts.is_positive(no, yes)) == [False]


def test_bands_and_contexts_are_those_named():
    band = pd.Series(["g", "r", None, "x"], dtype=object)

    assert said(cuts.is_in_band(band, "g", "x")) == [True, False, False, False]
    assert said(cuts.is_in_context(band, "r")) == [False, True, False, False]


def test_galactic_latitudes_are_those_of_astropy():
    rng = np.random.default_rng(1)
    ra, dec = rng.uniform(0.0, 360.0, 300), np.degrees(np.arcsin(rng.uniform(-1.0, 1.0, 300)))
    expected = SkyCoord(ra * units.deg, dec * units.deg).galactic.b.deg

    got = cuts.galactic_latitude(pd.Series(ra), pd.Series(dec))

    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_every_cut_says_what_it_is():
    public = [
        value
        for name, value in vars(cuts).items()
        if inspect.isfunction(value) and value.__module__ == cuts.__name__ and name[0] != "_"
    ]

    assert len(public) >= 15
    assert all(function.__doc__ for function in public)
