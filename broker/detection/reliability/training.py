"""From sources that are known to be real or not to a calibrated score.

The trees are fitted to one set, the calibration to another of other images; how good the two are is
for a third to say (`broker.detection.reliability.report`).
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from broker.detection.reliability.model import Model
from broker.detection.reliability.score import DIRECTIONS, FEATURES
from broker.errors import ConfigError
from broker.imaging.kernels import F64

LEAST_OF_A_KIND = 10
"""Fewer real sources, or artefacts, than this teach nothing."""

_TREES, _LEAVES, _RATE, _LEAST_IN_LEAF = 80, 10, 0.1, 30
_BINS = 128
_PRIOR = 1.0
"""Pseudo-counts of each block of the calibration, at the set's own share: no score is 0 or 1."""

_DIGITS = 7


@dataclass(frozen=True)
class TrainingSet:
    """Features of sources with their truth.

    Parameters
    ----------
    features : NDArray[np.float64], shape (n, n_features)
    is_real : NDArray[np.bool_], shape (n,)
    weight : NDArray[np.float64], shape (n,)
        How many sources each stands for.
    """

    features: F64
    is_real: NDArray[np.bool_]
    weight: F64


def train(
    examples: TrainingSet, held_out: TrainingSet, *, seed: int, provenance: dict[str, Any]
) -> Model:
    """Return a model: trees fitted to the examples, calibrated on what was held out.

    Parameters
    ----------
    examples, held_out : TrainingSet
        Of different images; the second with the shares of real sources and artefacts that the
        score is meant for.
    seed : int
    provenance : dict
        What is written into the model, beside its sizes.

    Returns
    -------
    Model
        The same for the same input.

    Raises
    ------
    ConfigError
        If either set has too few real sources or artefacts.
    """
    for name, data in (("training", examples), ("calibration", held_out)):
        real = int(data.is_real.sum())
        fewest = min(real, data.is_real.size - real)
        if fewest < LEAST_OF_A_KIND:
            raise ConfigError(
                f"the {name} has {real} real sources and {data.is_real.size - real} artefacts; "
                f"it needs {LEAST_OF_A_KIND} of each: use more images"
            )
    model = trees_of(fit_trees(examples, seed=seed), provenance)
    knots, probability = calibrate(
        model.log_odds(held_out.features), held_out.is_real, held_out.weight
    )
    return replace(model, knots=knots, probability=probability)


def fit_trees(examples: TrainingSet, *, seed: int) -> Any:
    """Return scikit-learn's boosted trees, both classes of equal weight."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits

    trees = HistGradientBoostingClassifier(
        max_iter=_TREES,
        max_leaf_nodes=_LEAVES,
        learning_rate=_RATE,
        min_samples_leaf=min(_LEAST_IN_LEAF, max(2, len(examples.is_real) // 20)),
        l2_regularization=1.0,
        max_bins=_BINS,
        monotonic_cst=list(DIRECTIONS),
        early_stopping=False,
        class_weight="balanced",
        random_state=seed,
    )
    # On processors that others use too, waiting for the slowest thread costs more than it gains.
    with threadpool_limits(1, user_api="openmp"):
        return trees.fit(examples.features, examples.is_real, sample_weight=examples.weight)


def trees_of(fitted: Any, provenance: dict[str, Any]) -> Model:
    """Return scikit-learn's trees as a model whose calibration is still to come."""
    parts: list[dict[str, Any]] = []
    first, total = [], 0
    for (tree,) in fitted._predictors:
        nodes = tree.nodes
        leaf = nodes["is_leaf"].astype(bool)
        first.append(total)
        parts.append(
            {
                "feature": np.where(leaf, -1, nodes["feature_idx"].astype(np.int32)),
                "threshold": np.where(leaf, 0.0, nodes["num_threshold"]),
                "left": np.where(leaf, 0, nodes["left"].astype(np.int32) + total),
                "right": np.where(leaf, 0, nodes["right"].astype(np.int32) + total),
                "value": np.where(leaf, np.round(nodes["value"], _DIGITS), 0.0),
            }
        )
        total += len(nodes)
    joined = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    return Model(
        FEATURES,
        np.array(first, np.int32),
        joined["feature"].astype(np.int32),
        joined["threshold"],
        joined["left"].astype(np.int32),
        joined["right"].astype(np.int32),
        joined["value"],
        round(float(np.ravel(fitted._baseline_prediction)[0]), _DIGITS),
        np.array([-1.0, 1.0]),
        np.array([0.0, 1.0]),
        provenance,
    )


def calibrate(log_odds: F64, is_real: NDArray[np.bool_], weight: F64) -> tuple[F64, F64]:
    """Return what the sums of the trees mean: knots, and the probabilities there.

    Isotonic regression (Zadrozny & Elkan 2002): the share of real sources in blocks that pool
    what would descend, at the blocks' mean sum; the score is the line between them.
    """
    from sklearn.isotonic import isotonic_regression

    order = np.argsort(log_odds, kind="stable")
    x, y, w = log_odds[order], is_real[order].astype(np.float64), weight[order]
    fitted = isotonic_regression(y, sample_weight=w, y_min=0.0, y_max=1.0)
    block = np.concatenate([[0], np.cumsum(np.diff(fitted) > 0.0)])
    total = np.bincount(block, w)
    share = float(np.sum(w * y) / np.sum(w))
    real = np.bincount(block, w * y)
    probability = (real + _PRIOR * share) / (total + _PRIOR)
    middle = np.bincount(block, w * x) / total
    knots, first = np.unique(np.round(middle, _DIGITS), return_index=True)
    # The prior pulls small blocks, so the order is made sure of again.
    return knots, np.maximum.accumulate(np.round(probability[first], 6))
