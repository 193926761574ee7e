"""Training of the light-curve classifier and of the anomaly score, and their tests."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from broker.errors import ConfigError
from broker.ops.train_light_curves import LabelledAlerts, simulate_labelled_alerts
from broker.ops.train_onnx import Forest, boosting_to_onnx, isolation_to_onnx
from broker.ops.train_scale import axes_of
from broker.science.checks import Subject
from broker.science.contract import ScienceModule
from broker.science.models import load_onnx
from broker.science.registry import Contributions

MIN_DETECTIONS = 3
"""Alerts with fewer in both g and r are not trained on: the modules leave them null."""

_TRAINING, _CALIBRATION, _TEST = range(3)
_BINS = 10
_QUANTILES = 101

Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class Examples:
    """What a model sees of labelled alerts.

    Parameters
    ----------
    columns : NDArray[np.float32], shape (n, n_features)
        The module's inputs, in order.
    label : NDArray[np.int64], shape (n,)
    classes : tuple of str
    """

    columns: Matrix
    label: NDArray[np.int64]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Trained:
    """A model's file, and what the test says of it."""

    onnx: bytes
    report: dict[str, Any]


def examples_of(drawn: LabelledAlerts, found: Contributions, task: ScienceModule) -> Examples:
    """Run the modules before `task` on alerts; return what it would be given.

    Raises
    ------
    CheckError
        If one of those modules fails.
    """
    inputs = Subject(task, found).own_inputs(drawn.alerts).of(task)
    columns = np.stack([np.asarray(one, dtype=np.float32) for one in inputs], axis=1)
    counts = [task.inputs.index(name) for name in ("lc_count_g", "lc_count_r")]
    enough = (columns[:, counts] >= MIN_DETECTIONS).any(axis=1)
    return Examples(columns[enough], drawn.label[enough], drawn.classes)


def train_module(
    found: Contributions,
    name: str,
    *,
    seed: int,
    per_class: int,
    advance: Callable[[int], None] = lambda _: None,
) -> Trained:
    """Draw light curves, train the model of a module on them, and test it on others.

    Parameters
    ----------
    found : Contributions
        The modules; those that `name` reads from compute what is trained on.
    name : str
        One of `TRAINERS`.
    seed : int
        Of all draws: the same seed and number give the same file.
    per_class : int
        Objects of each kind to train on; half as many to calibrate and to test.
    advance : callable
        Called with 1 after each of the three sets is drawn.

    Raises
    ------
    ConfigError
        If there is no training for that module, or there is a kind without an example.
    """
    if name not in TRAINERS:
        raise ConfigError(f"there is no training for {name!r}; there is for {', '.join(TRAINERS)}")
    task = found.module(name)
    sets = []
    for role in (_TRAINING, _CALIBRATION, _TEST):
        rng = np.random.default_rng([seed, role])
        n = per_class if role == _TRAINING else max(per_class // 2, 1)
        sets.append(examples_of(simulate_labelled_alerts(rng, n), found, task))
        advance(1)
    for one in sets:
        absent = set(range(len(one.classes))) - set(one.label.tolist())
        if absent:
            missing = ", ".join(one.classes[k] for k in sorted(absent))
            raise ConfigError(f"{per_class} objects of a kind gave no alert of: {missing}")
    # One thread: the order of sums, and so the file, must not depend on the machine.
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        model, report = TRAINERS[name](sets[0], sets[1], sets[2], seed)
    sizes = {"training": sets[0], "calibration": sets[1], "test": sets[2]}
    about = {"seed": seed, "objectsPerClass": per_class, "classes": list(sets[0].classes)}
    about |= {"alerts": {role: len(one.label) for role, one in sizes.items()}}
    return Trained(model, about | report)


def train_classifier(
    training: Examples, calibration: Examples, test: Examples, seed: int
) -> tuple[bytes, dict[str, Any]]:
    """Boost trees on equal shares of the classes, and calibrate them by a temperature."""
    from scipy.optimize import minimize_scalar
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(
        learning_rate=0.1,
        max_iter=80,
        max_leaf_nodes=12,
        min_samples_leaf=20,
        l2_regularization=1.0,
        early_stopping=False,
        categorical_features=None,
        random_state=seed,
    )
    model.fit(training.columns, training.label, sample_weight=_equal_shares(training.label))
    held_out = model.predict_proba(calibration.columns)
    weight = _equal_shares(calibration.label)

    def loss(log_temperature: float) -> float:
        p = warmed(held_out, np.exp(log_temperature))
        own = p[np.arange(len(p)), calibration.label]
        return float(-np.average(np.log(np.maximum(own, 1e-12)), weights=weight))

    temperature = float(np.exp(minimize_scalar(loss, bounds=(-1.5, 1.5), method="bounded").x))
    probability = warmed(model.predict_proba(test.columns), temperature)
    metadata = {"temperature": f"{temperature:.6f}", "classes": " ".join(training.classes)}
    report = {"temperature": temperature} | classifier_report(probability, test)
    return boosting_to_onnx(model, metadata), report


def warmed(probability: NDArray[Any], temperature: float) -> NDArray[np.float64]:
    """Return probabilities at a temperature: Guo et al. 2017, arXiv:1706.04599."""
    power = np.asarray(probability, dtype=np.float64) ** (1.0 / temperature)
    return np.asarray(power / power.sum(axis=1, keepdims=True))


def classifier_report(probability: NDArray[np.float64], test: Examples) -> dict[str, Any]:
    """Return the confusion matrix, completeness and purity, and calibration of a test.

    Parameters
    ----------
    probability : NDArray[np.float64], shape (n, n_classes)
    test : Examples
        Their true classes. All shares are those of classes that are equally frequent.
    """
    weight = _equal_shares(test.label)
    best = probability.argmax(axis=1)
    n = len(test.classes)
    confusion = np.zeros((n, n))
    np.add.at(confusion, (test.label, best), weight)
    rows = confusion / confusion.sum(axis=1, keepdims=True)
    purity = np.diag(rows) / np.maximum(rows.sum(axis=0), 1e-12)
    own = probability[np.arange(len(best)), test.label]
    return {
        "confusion": [
            {"true": test.classes[k], "alerts": int((test.label == k).sum())}
            | {name: round(float(rows[k, j]), 4) for j, name in enumerate(test.classes)}
            for k in range(n)
        ],
        "purity": {name: round(float(purity[k]), 4) for k, name in enumerate(test.classes)},
        "accuracy": float(np.mean(np.diag(rows))),
        "logLoss": float(-np.average(np.log(np.maximum(own, 1e-12)), weights=weight)),
        **_calibration(probability, test.label, weight),
    }


def _calibration(
    probability: NDArray[np.float64], label: NDArray[np.int64], weight: NDArray[np.float64]
) -> dict[str, Any]:
    """Return a diagram of all classes' probabilities, and the expected calibration error."""
    is_own = np.arange(probability.shape[1]) == label[:, None]
    every = np.broadcast_to(weight[:, None], probability.shape)
    place = np.minimum((probability * _BINS).astype(np.int64), _BINS - 1)
    rows, error = [], 0.0
    for k in range(_BINS):
        chosen = place == k
        if not chosen.any():
            continue
        share = float(every[chosen].sum() / every.sum())
        said = float(np.average(probability[chosen], weights=every[chosen]))
        true = float(np.average(is_own[chosen], weights=every[chosen]))
        n = int(chosen.sum())
        sigma = float(np.sqrt(true * (1.0 - true) / n))
        rows.append({"said": said, "true": true, "error": sigma, "probabilities": n})
        error += share * abs(said - true)
    return {"calibration": rows, "calibrationError": error}


def train_forest(
    training: Examples, calibration: Examples, test: Examples, seed: int
) -> tuple[bytes, dict[str, Any]]:
    """Grow an isolation forest on each class, and find its axes; test both by each left out.

    A light curve is as anomalous as its most fitting class says, the lowest score or distance:
    Gupta, Muthukrishna & Lochner 2025, RASTI 4 rzae054.
    """
    forests = [
        _grow(training.columns[training.label == k], seed) for k in range(len(training.classes))
    ]
    axes = [axes_of(training.columns[training.label == k]) for k in range(len(training.classes))]
    plain = isolation_to_onnx(forests, {}, axes)
    metadata = {}
    for output, name in (("scores", "quantiles"), ("distances", "distanceQuantiles")):
        usual = _run(plain, calibration.columns, output).min(axis=1)
        quantiles = np.quantile(usual, np.linspace(0.0, 1.0, _QUANTILES))
        metadata[name] = " ".join(f"{value:.6f}" for value in quantiles)
    made = isolation_to_onnx(forests, metadata, axes)
    report: dict[str, Any] = {}
    for output, suffix in (("distances", ""), ("scores", "Forest")):
        rows = _left_out(_run(made, test.columns, output), test)
        report[f"leftOut{suffix}"] = rows
        report[f"meanAuc{suffix}"] = float(np.mean([row["auc"] for row in rows]))
    return made, report


def _left_out(scores: NDArray[np.float64], test: Examples) -> list[dict[str, Any]]:
    """Return how well each class is found by what all others say of it, shape (n, n_classes)."""
    rows = []
    for k, name in enumerate(test.classes):
        score = np.delete(scores, k, axis=1).min(axis=1)
        is_new = test.label == k
        row = {"leftOut": name, "alerts": int(is_new.sum()), "auc": _auc(score, is_new)}
        for percent in (5, 1):
            is_high = score > np.quantile(score[~is_new], 1.0 - percent / 100.0)
            row[f"inTop{percent}Percent"] = float(is_high[is_new].mean())
        rows.append(row)
    return rows


def _grow(columns: Matrix, seed: int) -> Forest:
    """Return a forest on normal scores: cuts are drawn evenly, and must not see only the tails."""
    from sklearn.ensemble import IsolationForest
    from sklearn.preprocessing import QuantileTransformer

    scale = QuantileTransformer(
        n_quantiles=min(100, len(columns)), output_distribution="normal", random_state=seed
    )
    never_seen = np.isnan(columns).all(axis=0)
    scores = scale.fit_transform(np.where(never_seen, 0.0, columns))
    model = IsolationForest(
        n_estimators=32, max_samples=min(256, len(columns)), random_state=seed
    ).fit(np.nan_to_num(scores, nan=0.0))
    return Forest(model, scale)


def _run(onnx: bytes, columns: Matrix, output: str) -> NDArray[np.float64]:
    """Return what a file says, as a module will have it."""
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(onnx)
        return np.asarray(load_onnx(path)(columns)[output], dtype=np.float64)


def _auc(score: NDArray[np.float64], is_new: NDArray[np.bool_]) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(is_new, score))


def _equal_shares(label: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return weights that make all classes equally frequent, with mean 1."""
    counts = np.bincount(label)
    return np.asarray(label.size / (np.count_nonzero(counts) * counts[label]), dtype=np.float64)


TRAINERS: dict[str, Callable[[Examples, Examples, Examples, int], tuple[bytes, dict[str, Any]]]] = {
    "light_curve_class": train_classifier,
    "anomaly_score": train_forest,
}
"""The modules whose model is trained here."""
