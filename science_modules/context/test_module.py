"""The context follows from the match and the solar-system object, and says when it cannot."""

import numpy as np
import pandas as pd
import pytest

from science_modules.context.module import (
    context,
    hosted_transient,
    solar_system,
    variable_star,
)


def asked(**changed):
    """Return the context of one alert in a galaxy, but for what is changed."""
    row = {
        "ss_object_id": None,
        "ss_separation": np.nan,
        "reference_match": 1,
        "reference_class": "galaxy",
        "reference_separation": 1.5,
        "reference_size_arcsec": 3.0,
    } | changed
    return context(*(pd.Series([row[name]]) for name in context.inputs)).iloc[0]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, "hosted"),
        ({"reference_class": "star"}, "variable-star"),
        ({"reference_class": "variable"}, "variable-star"),
        ({"reference_match": 0, "reference_class": None}, "hostless"),
        ({"reference_match": -1, "reference_class": None}, "unknown"),
        ({"reference_class": None}, "unknown"),
        ({"ss_object_id": "Ceres", "ss_separation": 0.5}, "solar-system"),
        ({"ss_object_id": "Ceres", "ss_separation": np.nan}, "solar-system"),
        ({"ss_object_id": "Ceres", "ss_separation": 20.0}, "hosted"),
    ],
)
def test_the_class_is_what_the_place_says(changed, expected):
    assert asked(**changed)["contextClass"] == expected


def test_the_offset_is_in_units_of_the_host():
    got = asked()

    assert got["hostSeparation"] == 1.5
    assert got["hostOffset"] == 0.5


@pytest.mark.parametrize("size", [0.0, np.nan])
def test_without_the_host_s_size_the_offset_is_null(size):
    got = asked(reference_size_arcsec=size)

    assert got["hostSeparation"] == 1.5
    assert np.isnan(got["hostOffset"])


def test_a_star_is_no_host():
    got = asked(reference_class="star")

    assert np.isnan(got["hostSeparation"])
    assert np.isnan(got["hostOffset"])


GOOD = {
    hosted_transient: {
        "context_class": "hosted",
        "reliability": 0.9,
        "is_negative": False,
        "is_dipole": False,
        "snr": 12.0,
        "n_dia_sources": 3.0,
        "age_days": 1.5,
    },
    variable_star: {
        "context_class": "variable-star",
        "reliability": 0.9,
        "psf_flux": -800.0,
        "template_flux": 1000.0,
        "snr": -15.0,
    },
    solar_system: {
        "context_class": "solar-system",
        "ss_separation": 0.4,
        "reliability": 0.9,
        "snr": 15.0,
    },
}


def judged(function, **changed):
    row = GOOD[function] | changed
    return bool(function(*(pd.Series([row[name]]) for name in function.inputs)).iloc[0])


@pytest.mark.parametrize("function", GOOD)
def test_a_filter_chooses_what_it_is_for_and_nothing_unknown(function):
    assert judged(function)
    for name, value in GOOD[function].items():
        if isinstance(value, float):
            assert not judged(function, **{name: np.nan}), name
    assert not judged(function, context_class="unknown")
    assert not judged(function, context_class=None)


def test_small_changes_of_stars_stay_out():
    assert not judged(variable_star, psf_flux=100.0)


def test_two_detections_in_one_pass_may_be_of_something_that_moves():
    assert not judged(hosted_transient, n_dia_sources=2.0, age_days=0.001)


def test_a_far_prediction_is_not_the_object():
    assert not judged(solar_system, ss_separation=3.0)
