"""Probabilities are those of the model, calibrated, and right on light curves never seen."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from broker.ops.train_light_curves import simulate_labelled_alerts
from broker.science import run_module
from science_modules.light_curve_class.module import CLASSES, light_curve_class

REPORT = json.loads(Path(__file__).with_name("training.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def judged():
    drawn = simulate_labelled_alerts(np.random.default_rng([77, 7]), 100)
    got = run_module("light_curve_class", drawn.alerts)
    known = got["lightCurveClass"].notna()
    return got[known], np.array(drawn.classes)[drawn.label][known], known


def test_classes_are_those_of_the_simulation_and_of_the_training(judged):
    assert list(CLASSES) == REPORT["classes"]
    assert set(judged[1]) == set(CLASSES)


def test_unseen_light_curves_are_called_what_they_are_as_often_as_the_readme_says(judged):
    got, truth, _ = judged

    for row in REPORT["confusion"]:
        own = truth == row["true"]
        share = np.mean(got["lightCurveClass"][own] == row["true"])
        # 4 sigma of a share of so many
        assert share >= row[row["true"]] - 4 * np.sqrt(0.25 / own.sum()), row["true"]


def test_probabilities_add_up_and_mean_what_they_say(judged):
    got, truth, _ = judged
    columns = [column.name for column in light_curve_class.outputs[1:]]
    probability = got[columns].to_numpy(np.float64)

    np.testing.assert_allclose(probability.sum(axis=1), 1.0, atol=1e-5)
    assert (np.array(CLASSES)[probability.argmax(axis=1)] == got["lightCurveClass"]).all()
    top, right = probability.max(axis=1), got["lightCurveClass"].to_numpy() == truth
    # The number of right ones is a sum of independent trials with these probabilities.
    sigma = np.sqrt(np.sum(top * (1.0 - top)))
    assert abs(right.sum() - top.sum()) < 4 * sigma


def test_few_detections_give_null(judged):
    model = light_curve_class.setup()
    columns = {name: pd.Series([np.nan, 5.0]) for name in light_curve_class.inputs}
    columns["lc_count_g"] = pd.Series([2.0, 2.0])
    columns["lc_count_r"] = pd.Series([2.0, 3.0])

    got = light_curve_class(*columns.values(), model=model)

    assert got.iloc[0].isna().all()
    assert got.iloc[1].notna().all()
