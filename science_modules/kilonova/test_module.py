"""What fades fast and is red scores; supernovae, stars and the unknown do not."""

import numpy as np
import pandas as pd
import pytest

from science_modules.kilonova.module import kilonova, kilonova_candidate

NEW = {
    # AT2017gfo between its first and third day, in g: Villar et al. 2017, ApJ 851 L21.
    "decline_rate": 1.3,
    "decline_rate_err": 0.1,
    "colour_gr": 0.6,
    "colour_gr_err": 0.1,
    "age_days": 2.0,
    "context_class": "hosted",
}


def scored(**changed):
    row = NEW | changed
    return kilonova(*(pd.Series([row[name]]) for name in kilonova.inputs)).iloc[0]


def test_one_like_at2017gfo_scores():
    assert scored()["kilonovaFading"] > 0.999
    assert scored()["kilonovaScore"] > 0.999


@pytest.mark.parametrize(
    ("changed", "low", "high"),
    [
        ({"decline_rate": 0.05, "decline_rate_err": 0.02}, 0.0, 1e-6),  # a supernova
        ({"decline_rate": -0.5}, 0.0, 1e-6),  # rising
        ({"decline_rate": 0.3}, 0.49, 0.51),  # even chances
        ({"colour_gr": -0.5}, 0.0, 1e-4),  # a blue flare
        ({"colour_gr": np.nan, "colour_gr_err": np.nan}, 0.49, 0.51),
        ({"age_days": 20.0}, 0.0, 0.0),
        ({"context_class": "variable-star"}, 0.0, 0.0),
        ({"context_class": "solar-system"}, 0.0, 0.0),
    ],
)
def test_others_do_not(changed, low, high):
    assert low <= scored(**changed)["kilonovaScore"] <= high


def test_without_a_rate_there_is_no_score():
    got = scored(decline_rate=np.nan, decline_rate_err=np.nan)

    assert got.isna().all()


GOOD = {
    "kilonova_score": 0.9,
    "reliability": 0.9,
    "is_negative": False,
    "is_dipole": False,
    "n_dia_sources": 4.0,
    "age_days": 2.0,
    "ra": 180.0,
    "dec": 30.0,
}


def judged(**changed):
    row = GOOD | changed
    values = (pd.Series([row[name]]) for name in kilonova_candidate.inputs)
    return bool(kilonova_candidate(*values).iloc[0])


def test_the_topic_chooses_those_and_nothing_unknown():
    assert judged()
    for name in ("kilonova_score", "reliability", "n_dia_sources", "age_days"):
        assert not judged(**{name: np.nan}), name
    assert not judged(is_negative=True)
    assert not judged(kilonova_score=0.3)
    assert not judged(ra=266.4, dec=-29.0)  # the galactic centre
