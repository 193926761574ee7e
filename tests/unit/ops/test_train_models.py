"""What is trained says in its file what scikit-learn says, and is made the same again."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.spatial.distance import mahalanobis
from sklearn.ensemble import HistGradientBoostingClassifier, IsolationForest
from sklearn.preprocessing import QuantileTransformer
from threadpoolctl import threadpool_limits

from broker.cli.main import cli
from broker.ops.train_light_curves import simulate_labelled_alerts
from broker.ops.train_models import Examples, classifier_report, warmed
from broker.ops.train_onnx import Forest, boosting_to_onnx, isolation_to_onnx, mean_path
from broker.ops.train_scale import axes_of, steps_of
from broker.science import load_onnx


def columns_with_nulls(rng, n):
    x = rng.normal(0.0, 1.0, (n, 4)).astype("f4")
    x[:, 1] = np.exp(3.0 * x[:, 1])
    x[rng.random(x.shape) < 0.2] = np.nan
    return x


def test_boosted_trees_say_the_same_in_onnx_nulls_included(tmp_path):
    rng = np.random.default_rng(1)
    x = columns_with_nulls(rng, 600)
    label = np.where(np.isnan(x[:, 0]), 2, (x[:, 0] > 0).astype(int))
    with threadpool_limits(1):
        model = HistGradientBoostingClassifier(max_iter=10, random_state=1).fit(x, label)
    (tmp_path / "model.onnx").write_bytes(boosting_to_onnx(model, {"seed": "1"}))
    other = columns_with_nulls(rng, 400)

    loaded = load_onnx(tmp_path / "model.onnx")

    np.testing.assert_allclose(
        loaded(other)["probabilities"], model.predict_proba(other), atol=2e-6
    )
    assert loaded.metadata == {"seed": "1"}


def test_isolation_forests_say_the_same_in_onnx_nulls_included(tmp_path):
    rng = np.random.default_rng(2)
    forests = []
    for n in (300, 500):
        x = columns_with_nulls(rng, n)
        scale = QuantileTransformer(n_quantiles=50, output_distribution="normal").fit(x)
        model = IsolationForest(n_estimators=10, max_samples=64, random_state=3)
        forests.append(Forest(model.fit(np.nan_to_num(scale.transform(x))), scale))
    (tmp_path / "model.onnx").write_bytes(isolation_to_onnx(forests, {}))
    other = columns_with_nulls(rng, 400)

    got = load_onnx(tmp_path / "model.onnx")(other)["scores"]

    for k, one in enumerate(forests):
        expected = -one.model.score_samples(np.nan_to_num(one.scale.transform(other)))
        # A value that is itself a cut may fall to either side by a last bit: few are.
        assert np.mean(np.abs(got[:, k] - expected) < 1e-5) > 0.98


def test_distances_are_those_of_mahalanobis_on_normal_scores(tmp_path):
    rng = np.random.default_rng(4)
    turned = rng.normal(0.0, 1.0, (2000, 3)) @ np.array([[1.0, 0.9, 0], [0, 0.5, 0], [0, 0, 1]])
    x = np.exp(turned).astype("f4")  # any rising function of a normal score has the same one
    x[rng.random(x.shape) < 0.1] = np.nan
    axes = (axes_of(x), axes_of(x[:300, ::-1]))
    model = IsolationForest(n_estimators=2, random_state=1).fit(np.nan_to_num(x))
    scale = QuantileTransformer(n_quantiles=50, output_distribution="normal").fit(x)
    file = isolation_to_onnx([Forest(model, scale)] * 2, {}, axes)
    (tmp_path / "model.onnx").write_bytes(file)

    got = load_onnx(tmp_path / "model.onnx")(x)["distances"]

    along = [one(x) for one in axes]
    expected = np.stack([np.linalg.norm(one, axis=1) for one in along], axis=1)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
    # Uncorrelated and of unit variance along its own axes, and as scipy has it on true scores.
    np.testing.assert_allclose(np.cov(along[0].T), np.eye(3), atol=0.05)
    whole = ~np.isnan(x).any(axis=1)
    truth = [
        mahalanobis(row, np.zeros(3), np.linalg.inv(np.cov(turned.T))) for row in turned[whole]
    ]
    assert np.corrcoef(truth, got[whole, 0])[0, 1] > 0.9


def test_a_column_without_values_has_one_step():
    steps = steps_of(np.full(5, np.nan, np.float32))

    assert steps(np.array([1.0, np.nan], np.float32)).tolist() == [0.0, 0.0]


def test_the_mean_path_is_that_of_random_search_trees():
    """2 H(n - 1) - 2 (n - 1) / n: the logarithm falls short of the harmonic number by 1 / 2n."""
    for n in (10, 256, 5000):
        exact = 2 * np.sum(1.0 / np.arange(1, n)) - 2 * (n - 1) / n
        assert mean_path(n) == pytest.approx(exact - 1.0 / (n - 1), abs=1.0 / n**2)
    assert mean_path([1, 2]).tolist() == [0.0, 1.0]


def test_the_report_counts_classes_as_equally_frequent():
    label = np.repeat([0, 1], [90, 10])
    probability = np.where(np.arange(100)[:, None] % 10 == 0, [[0.2, 0.8]], [[0.8, 0.2]])

    report = classifier_report(
        probability, Examples(np.zeros((100, 1), "f4"), label, ("many", "few"))
    )

    many, few = report["confusion"]
    assert (many["many"], many["few"]) == (0.9, 0.1)
    assert (few["many"], few["few"]) == (0.9, 0.1)
    assert report["accuracy"] == pytest.approx(0.5)
    assert report["purity"] == {"many": 0.5, "few": 0.5}
    # Said 0.2 and 0.8, each true in half of the cases.
    assert report["calibrationError"] == pytest.approx(0.3)


def test_a_temperature_keeps_order_and_sum():
    p = np.array([[0.7, 0.2, 0.1]])

    np.testing.assert_allclose(warmed(p, 1.0), p)
    assert warmed(p, 2.0).max() < 0.7 < warmed(p, 0.5).max()
    assert warmed(p, 2.0).sum() == pytest.approx(1.0)


@pytest.mark.slow
def test_simulated_alerts_hold_nothing_later_than_themselves_and_repeat():
    drawn, again = (simulate_labelled_alerts(np.random.default_rng(4), 4) for _ in range(2))

    assert drawn.alerts.equals(again.alerts)
    assert set(drawn.label) == set(range(len(drawn.classes)))
    for row in drawn.alerts.to_pylist():
        last = row["history"][-1]
        assert max(e["midpointMjdTai"] for e in row["history"]) == row["midpointMjdTai"]
        assert (last["psfFlux"], last["kind"]) == (pytest.approx(row["psfFlux"], rel=1e-6), 0)
        assert abs(row["snr"]) >= 5.0
        assert sum(e["kind"] == 0 for e in row["history"]) <= row["nDiaSources"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["light_curve_class", "anomaly_score"])
def test_the_command_makes_a_model_the_same_again_and_shows_its_test(name, tmp_path):
    made = []
    for folder in ("one", "two") if name == "anomaly_score" else ("one",):
        arguments = ["module", "train", name, "--objects", "24", "--out", str(tmp_path / folder)]
        done = CliRunner().invoke(cli, [*arguments, "--json"])
        assert done.exception is None, done.output
        made.append((tmp_path / folder / "model.onnx").read_bytes())

    assert made[0] == made[-1]
    report = json.loads((tmp_path / "one" / "training.json").read_text())
    assert report["objectsPerClass"] == 24
    if name == "light_curve_class":
        assert [row["true"] for row in report["confusion"]] == report["classes"]
        assert report["accuracy"] > 1.5 / 6  # chance is a sixth
    else:
        assert [row["leftOut"] for row in report["leftOut"]] == report["classes"]
