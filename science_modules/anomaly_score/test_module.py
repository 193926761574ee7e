"""Usual light curves have usual ranks; what no kind explains ranks high."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from broker.ops.train_light_curves import simulate_labelled_alerts
from broker.science import run_module
from science_modules.anomaly_score.module import anomaly_score


@pytest.fixture(scope="module")
def drawn():
    return simulate_labelled_alerts(np.random.default_rng([78, 7]), 80)


RANKS = ("anomalyRank", "anomalyDistanceRank")


@pytest.mark.parametrize("name", RANKS)
def test_ranks_of_usual_light_curves_are_evenly_spread(drawn, name):
    rank = run_module("anomaly_score", drawn.alerts)[name].dropna()

    assert len(rank) > 250
    assert rank.between(0.0, 1.0).all()
    assert stats.kstest(rank, "uniform").pvalue > 1e-4


def test_light_curves_whose_features_do_not_belong_together_rank_high(drawn):
    """Each feature alone is usual: of another object's light curve, at random."""
    from broker.ops.train_models import examples_of
    from broker.science import find_contributions

    found = find_contributions()
    columns = examples_of(drawn, found, found.module("anomaly_score")).columns
    rng = np.random.default_rng(5)
    mixed = np.stack([rng.permutation(column) for column in columns.T], axis=1)
    model = anomaly_score.setup()

    own, other = (
        anomaly_score(*(pd.Series(c) for c in one.T), model=model) for one in (columns, mixed)
    )

    for name, area in zip(RANKS, (0.75, 0.9), strict=True):
        u = stats.mannwhitneyu(other[name].dropna(), own[name].dropna()).statistic
        assert u / (own[name].count() * other[name].count()) > area


def test_few_detections_give_null():
    columns = {name: pd.Series([np.nan, 5.0]) for name in anomaly_score.inputs}
    columns["lc_count_g"] = pd.Series([2.0, 2.0])
    columns["lc_count_r"] = pd.Series([2.0, 3.0])

    got = anomaly_score(*columns.values(), model=anomaly_score.setup())

    assert got.iloc[0].isna().all()
    assert got.iloc[1].notna().all()
