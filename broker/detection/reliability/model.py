"""A score as boosted trees and a calibration: read, written and evaluated without a library.

A score has the same bytes on any machine: trees only compare and add, in a fixed order, and the
calibration is a line between knots.
"""

import functools
import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from broker.errors import ConfigError
from broker.imaging.kernels import F64

FORMAT = 1
"""Of the file; another number is another layout."""

FILE = "reliability.json"

Ints = NDArray[np.int32]


@dataclass(frozen=True)
class Model:
    """Trees whose values are summed, and what the sum means.

    Parameters
    ----------
    features : tuple of str
        Names of the columns that the trees ask, in order.
    first_node : NDArray[np.int32], shape (n_trees,)
    feature : NDArray[np.int32], shape (n_nodes,)
        Column that is compared; -1 for a leaf.
    threshold : NDArray[np.float64], shape (n_nodes,)
        A value of at most this goes left.
    left, right : NDArray[np.int32], shape (n_nodes,)
    value : NDArray[np.float64], shape (n_nodes,)
        Of a leaf: log odds.
    bias : float
        Log odds before any tree.
    knots : NDArray[np.float64], shape (n_knots,)
        Ascending sums of the trees.
    probability : NDArray[np.float64], shape (n_knots,)
        What they mean, not descending.
    provenance : dict
        Seed, sizes, and what it was trained on.
    """

    features: tuple[str, ...]
    first_node: Ints
    feature: Ints
    threshold: F64
    left: Ints
    right: Ints
    value: F64
    bias: float
    knots: F64
    probability: F64
    provenance: dict[str, Any]

    def log_odds(self, values: F64) -> F64:
        """Return the sum of the trees, not calibrated, shape (n_sources,).

        Parameters
        ----------
        values : NDArray[np.float64], shape (n_sources, n_features)
            Finite, columns as in `features`.
        """
        if values.shape[1:] != (len(self.features),):
            raise ValueError(
                f"values have the shape {values.shape}; the model has {len(self.features)} features"
            )
        table: F64 = np.ascontiguousarray(values, np.float64)
        nodes = (self.first_node, self.feature, self.threshold, self.left, self.right, self.value)
        return np.asarray(_sum_trees(table, self.bias, *nodes), np.float64)

    def score(self, values: F64) -> F64:
        """Return the probability that sources are real, shape (n_sources,)."""
        return np.asarray(np.interp(self.log_odds(values), self.knots, self.probability))


# Without fastmath: the order of the sum is part of the result.
@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator, unused-ignore]
def _sum_trees(
    table: F64,
    bias: float,
    first_node: Ints,
    feature: Ints,
    threshold: F64,
    left: Ints,
    right: Ints,
    value: F64,
) -> Any:
    out = np.full(table.shape[0], bias)
    for k in range(table.shape[0]):
        for first in first_node:
            node = first
            while feature[node] >= 0:
                node = left[node] if table[k, feature[node]] <= threshold[node] else right[node]
            out[k] += value[node]
    return out


@functools.cache
def default_model() -> Model:
    """Return the model that comes with the package, read once a process.

    Raises
    ------
    ConfigError
        As `parse_model`.
    """
    from broker.detection.reliability.score import FEATURES

    folder = resources.files("broker.detection.reliability")
    text = folder.joinpath(FILE).read_text(encoding="utf-8")
    return parse_model(text, FEATURES, name=FILE)


def read_model(path: Path, features: tuple[str, ...]) -> Model:
    """Read a model from a file.

    Raises
    ------
    ConfigError
        As `parse_model`, and if the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"the reliability's weights cannot be read: {error}") from error
    return parse_model(text, features, name=str(path))


def parse_model(text: str, features: tuple[str, ...], *, name: str) -> Model:
    """Return a model from its JSON.

    Parameters
    ----------
    text : str
    features : tuple of str
        Names of the features as they are computed now.
    name : str
        Of the file, for the message of an error.

    Raises
    ------
    ConfigError
        If it is no such file, or was trained on other features.
    """
    again = "train it again with `broker image train-reliability`"
    try:
        read = json.loads(text)
        if read["format"] != FORMAT:
            raise ConfigError(f"{name} has the format {read['format']}, not {FORMAT}: {again}")
        if tuple(read["features"]) != features:
            other = sorted(set(read["features"]) ^ set(features)) or ["their order"]
            raise ConfigError(f"{name} was trained on other features ({', '.join(other)}): {again}")
        trees, calibration = read["trees"], read["calibration"]
        model = Model(
            features=features,
            first_node=np.array(trees["first_node"], np.int32),
            feature=np.array(trees["feature"], np.int32),
            threshold=np.array(trees["threshold"], np.float64),
            left=np.array(trees["left"], np.int32),
            right=np.array(trees["right"], np.int32),
            value=np.array(trees["value"], np.float64),
            bias=float(read["bias"]),
            knots=np.array(calibration["log_odds"], np.float64),
            probability=np.array(calibration["probability"], np.float64),
            provenance=dict(read["provenance"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{name} has no reliability's weights ({error!r}): {again}") from error
    _check(model, name, again)
    return model


def _check(model: Model, name: str, again: str) -> None:
    """Refuse trees that lead out of themselves, or for ever within."""
    n, inner = model.feature.size, model.feature >= 0
    node = np.arange(n)
    sound = (
        {a.size for a in (model.threshold, model.left, model.right, model.value)} == {n}
        and model.knots.size == model.probability.size > 0
        and bool(np.all((model.first_node >= 0) & (model.first_node < n)))
        and bool(np.all(model.feature < len(model.features)))
        # A branch leads onwards, so every walk ends.
        and bool(np.all((model.left > node)[inner] & (model.right > node)[inner]))
        and bool(np.all((model.left < n) & (model.right < n)))
        and bool(np.all(np.diff(model.knots) > 0.0) and np.all(np.diff(model.probability) >= 0.0))
        and bool(np.isfinite(model.value).all() and np.isfinite(model.threshold).all())
    )
    if not sound:
        raise ConfigError(f"the trees of {name} do not fit together: {again}")


def model_json(model: Model) -> str:
    """Return a model as JSON, a line a list: the same bytes for the same model."""
    trees = {
        "first_node": model.first_node.tolist(),
        "feature": model.feature.tolist(),
        "threshold": model.threshold.tolist(),
        "left": model.left.tolist(),
        "right": model.right.tolist(),
        "value": model.value.tolist(),
    }
    calibration = {"log_odds": model.knots.tolist(), "probability": model.probability.tolist()}
    parts = {
        "format": FORMAT,
        "provenance": model.provenance,
        "features": list(model.features),
        "bias": model.bias,
    }
    lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in parts.items()]
    for key, lists in (("trees", trees), ("calibration", calibration)):
        rows = ",\n".join(
            f"  {json.dumps(k)}: {json.dumps(v, separators=(',', ':'))}" for k, v in lists.items()
        )
        lines.append(f" {json.dumps(key)}: {{\n{rows}\n }}")
    return "{\n" + ",\n".join(lines) + "\n}\n"
