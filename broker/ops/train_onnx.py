"""Sets of trees of scikit-learn as ONNX files that give the same answers, nulls included."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from broker.errors import ConfigError
from broker.ops.train_scale import Axes, Steps

_OPSET, _ML_OPSET = 17, 3
"""Of 2022: read by every runtime since."""

_EULER = 0.5772156649015329


@dataclass(frozen=True)
class Tree:
    """One tree: arrays with one element a node; node 0 is the root.

    Parameters
    ----------
    feature, left, right : NDArray[np.int64]
        Column that is asked, and the nodes that follow; -1 in `left` marks a leaf.
    threshold : NDArray[np.float64]
        Values up to this go left.
    null_goes_left : NDArray[np.bool_]
    value : NDArray[np.float64]
        What a leaf adds.
    target : int
        The output that it is added to.
    """

    feature: NDArray[np.int64]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    threshold: NDArray[np.float64]
    null_goes_left: NDArray[np.bool_]
    value: NDArray[np.float64]
    target: int = 0


def trees_of_boosting(model: Any) -> list[Tree]:
    """Return the trees of a fitted `HistGradientBoostingClassifier` of three classes or more."""
    trees = []
    for one_round in model._predictors:
        for target, predictor in enumerate(one_round):
            nodes = predictor.nodes
            is_leaf = nodes["is_leaf"].astype(bool)
            trees.append(
                Tree(
                    nodes["feature_idx"].astype(np.int64),
                    np.where(is_leaf, -1, nodes["left"].astype(np.int64)),
                    nodes["right"].astype(np.int64),
                    nodes["num_threshold"].astype(np.float64),
                    nodes["missing_go_to_left"].astype(bool),
                    nodes["value"].astype(np.float64),
                    target,
                )
            )
    return trees


@dataclass(frozen=True)
class Forest:
    """An isolation forest grown on normal scores of its columns; a null has the median's, zero.

    Parameters
    ----------
    model : IsolationForest
        Fitted on what `scale` makes of the columns, with zero for null.
    scale : QuantileTransformer
        From columns to normal scores.
    """

    model: Any
    scale: Any


def trees_of_isolation(forest: Forest, target: int) -> list[Tree]:
    """Return the trees of a forest on the columns themselves; leaves hold the path's length.

    A cut of normal scores is a cut of the column, because one rises with the other.
    """
    trees = []
    model = forest.model
    for estimator, columns in zip(model.estimators_, model.estimators_features_, strict=True):
        tree = estimator.tree_
        feature = columns[np.maximum(tree.feature, 0)].astype(np.int64)
        cuts = np.zeros((tree.node_count, model.n_features_in_))
        cuts[np.arange(tree.node_count), feature] = tree.threshold
        threshold = forest.scale.inverse_transform(cuts)[np.arange(tree.node_count), feature]
        depth = np.zeros(tree.node_count)
        for node in range(tree.node_count):  # parents come before their children
            if tree.children_left[node] >= 0:
                depth[tree.children_left[node]] = depth[tree.children_right[node]] = depth[node] + 1
        trees.append(
            Tree(
                feature,
                tree.children_left.astype(np.int64),
                tree.children_right.astype(np.int64),
                threshold,
                tree.threshold >= 0.0,
                depth + mean_path(tree.n_node_samples),
                target,
            )
        )
    return trees


def mean_path(n: Any) -> NDArray[np.float64]:
    """Return the mean path in a tree of n samples: Liu, Ting & Zhou 2008, Proc. ICDM 413, eq. 1."""
    n = np.asarray(n, dtype=np.float64)
    many = np.maximum(n, 3.0)
    path = 2.0 * (np.log(many - 1.0) + _EULER) - 2.0 * (many - 1.0) / many
    return np.asarray(np.where(n > 2.0, path, np.where(n > 1.0, 1.0, 0.0)))


def boosting_to_onnx(model: Any, metadata: Mapping[str, str]) -> bytes:
    """Return a `HistGradientBoostingClassifier` as ONNX, with the output `probabilities`."""
    from onnx import helper

    base = np.asarray(model._baseline_prediction, dtype=np.float64).reshape(-1)
    nodes = [
        _ensemble(trees_of_boosting(model), base, "sums"),
        helper.make_node("Softmax", ["sums"], ["probabilities"], axis=1),
    ]
    return _file(nodes, [], ("probabilities",), model.n_features_in_, base.size, metadata)


def isolation_to_onnx(
    forests: Sequence[Forest], metadata: Mapping[str, str], axes: Sequence[Axes] = ()
) -> bytes:
    """Return isolation forests as ONNX: `scores`, a column each, are 2 ** (-path / mean path).

    With the axes of as many classes there are `distances` from them, too, a column each.
    """
    from onnx import TensorProto, helper

    trees = [tree for k, one in enumerate(forests) for tree in trees_of_isolation(one, k)]
    factors = [
        -np.log(2.0) / (len(one.model.estimators_) * float(mean_path(one.model.max_samples_)))
        for one in forests
    ]
    nodes = [
        _ensemble(trees, np.zeros(len(forests)), "paths"),
        helper.make_node("Mul", ["paths", "factors"], ["log_scores"]),
        helper.make_node("Exp", ["log_scores"], ["scores"]),
    ]
    constants = [helper.make_tensor("factors", TensorProto.FLOAT, [len(forests)], factors)]
    outputs: tuple[str, ...] = ("scores",)
    if axes:
        more, known = _distances(axes)
        nodes, constants, outputs = [*nodes, *more], [*constants, *known], ("scores", "distances")
    n_features = forests[0].model.n_features_in_
    return _file(nodes, constants, outputs, n_features, len(forests), metadata)


def _distances(axes: Sequence[Axes]) -> tuple[list[Any], list[Any]]:
    """Return nodes and constants of the distances from classes along their axes."""
    from onnx import helper, numpy_helper

    n = len(axes[0].steps)
    trees = [
        tree_of_steps(steps, column, k * n + column)
        for k, one in enumerate(axes)
        for column, steps in enumerate(one.steps)
    ]
    turn = np.zeros((len(axes) * n, len(axes) * n), np.float32)
    for k, one in enumerate(axes):
        turn[k * n : (k + 1) * n, k * n : (k + 1) * n] = one.turn
    centre = np.concatenate([one.centre for one in axes]).astype(np.float32)
    gather = np.repeat(np.eye(len(axes), dtype=np.float32), n, axis=0)
    nodes = [
        _ensemble(trees, np.zeros(len(trees)), "normal_scores"),
        helper.make_node("Sub", ["normal_scores", "centre"], ["centred"]),
        helper.make_node("MatMul", ["centred", "turn"], ["along_axes"]),
        helper.make_node("Mul", ["along_axes", "along_axes"], ["squares"]),
        helper.make_node("MatMul", ["squares", "gather"], ["sums_of_squares"]),
        helper.make_node("Sqrt", ["sums_of_squares"], ["distances"]),
    ]
    constants = {"centre": centre, "turn": turn, "gather": gather}
    return nodes, [numpy_helper.from_array(a, name) for name, a in constants.items()]


def tree_of_steps(steps: Steps, column: int, target: int) -> Tree:
    """Return a tree that is balanced and says what the steps of a column say, null included."""
    feature, left, right, threshold, null_left, value = ([] for _ in range(6))  # type: ignore[var-annotated]

    def grow(first: int, end: int) -> int:
        """Add the steps from `first` to before `end`; return the number of their root."""
        at, is_leaf, middle = len(feature), end - first == 1, (first + end) // 2
        feature.append(column)
        threshold.append(0.0 if is_leaf else float(steps.edges[middle - 1]))
        null_left.append(steps.null < middle)
        value.append(float(steps.values[first]))
        left.append(-1)
        right.append(-1)
        if not is_leaf:
            left[at], right[at] = grow(first, middle), grow(middle, end)
        return at

    grow(0, steps.values.size)
    return Tree(
        np.array(feature, np.int64),
        np.array(left, np.int64),
        np.array(right, np.int64),
        np.array(threshold, np.float64),
        np.array(null_left, np.bool_),
        np.array(value, np.float64),
        target,
    )


def _ensemble(trees: Sequence[Tree], base: NDArray[np.float64], output: str) -> Any:
    from onnx import helper

    sizes = [tree.feature.size for tree in trees]
    number = np.repeat(np.arange(len(trees)), sizes)
    node = np.concatenate([np.arange(size) for size in sizes])
    left = np.concatenate([tree.left for tree in trees])
    is_leaf = left < 0
    right = np.concatenate([tree.right for tree in trees])
    target = np.repeat([tree.target for tree in trees], sizes)
    value = np.concatenate([tree.value for tree in trees])
    return helper.make_node(
        "TreeEnsembleRegressor",
        ["columns"],
        [output],
        domain="ai.onnx.ml",
        n_targets=int(base.size),
        base_values=base.tolist(),
        nodes_treeids=number.tolist(),
        nodes_nodeids=node.tolist(),
        nodes_featureids=np.concatenate([tree.feature for tree in trees]).tolist(),
        nodes_modes=np.where(is_leaf, "LEAF", "BRANCH_LEQ").tolist(),
        nodes_values=_floor(np.concatenate([tree.threshold for tree in trees])).tolist(),
        nodes_truenodeids=np.where(is_leaf, 0, left).tolist(),
        nodes_falsenodeids=np.where(is_leaf, 0, right).tolist(),
        nodes_missing_value_tracks_true=np.concatenate([tree.null_goes_left for tree in trees])
        .astype(np.int64)
        .tolist(),
        target_treeids=number[is_leaf].tolist(),
        target_nodeids=node[is_leaf].tolist(),
        target_ids=target[is_leaf].tolist(),
        target_weights=value[is_leaf].tolist(),
    )


def _floor(threshold: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the float32 below or at each threshold: the same cut for all float32 values."""
    near = threshold.astype(np.float32)
    too_high = near.astype(np.float64) > threshold
    return np.where(too_high, np.nextafter(near, np.float32(-np.inf)), near).astype(np.float32)


def _file(
    nodes: list[Any],
    constants: list[Any],
    outputs: Sequence[str],
    n_features: int,
    n_outputs: int,
    metadata: Mapping[str, str],
) -> bytes:
    from onnx import TensorProto, checker, helper

    graph = helper.make_graph(
        nodes,
        "trees",
        [helper.make_tensor_value_info("columns", TensorProto.FLOAT, [None, n_features])],
        [helper.make_tensor_value_info(o, TensorProto.FLOAT, [None, n_outputs]) for o in outputs],
        constants,
    )
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid("ai.onnx.ml", _ML_OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    helper.set_model_props(model, dict(metadata))
    try:
        checker.check_model(model)
    except checker.ValidationError as error:
        raise ConfigError(f"the trees make no ONNX model: {error}") from error
    return bytes(model.SerializeToString())
