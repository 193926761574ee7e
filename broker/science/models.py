"""Trained models in science modules: ONNX and scikit-learn files, loaded once a process.

@science_module(version="1.0.0", outputs=..., setup=partial(load_onnx, FOLDER / "model.onnx"))
def score(psf_flux: pd.Series, *, model: OnnxModel) -> pd.DataFrame: ...
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from broker.errors import ConfigError

Array = NDArray[Any]


class SklearnModel(Protocol):
    """What any estimator of scikit-learn has."""

    n_features_in_: int


@dataclass(frozen=True, eq=False)
class OnnxModel:
    """A network or a set of trees, run on one thread.

    Parameters
    ----------
    run : callable
        From the one input, float32 of shape (n, n_features), to a list of outputs.
    names : tuple of str
        Names of the outputs.
    n_features : int
        Number of columns of the input; 0 if the file leaves it open.
    metadata : dict
        What the file says of itself.
    """

    run: Callable[[Array], list[Array]] = field(repr=False)
    names: tuple[str, ...]
    n_features: int
    metadata: dict[str, str]

    def __call__(self, *columns: ArrayLike) -> dict[str, Array]:
        """Return the outputs by name, a row an alert.

        Parameters
        ----------
        *columns : array_like
            One array of shape (n, n_features), or n_features arrays of shape (n,) in the order
            in which the model was trained. They become float32; NaN is passed on.

        Raises
        ------
        ConfigError
            If there are not as many columns as the model has inputs.
        """
        arrays = [np.asarray(column, dtype=np.float32) for column in columns]
        whole = len(arrays) == 1 and arrays[0].ndim == 2
        matrix = arrays[0] if whole else np.stack(arrays, axis=1)
        if self.n_features and matrix.shape[1] != self.n_features:
            raise ConfigError(f"the model takes {self.n_features} columns, not {matrix.shape[1]}")
        if len(matrix):
            return dict(zip(self.names, self.run(np.ascontiguousarray(matrix)), strict=True))
        # Not all operators bear a batch of nothing: the shapes are those of one row.
        one = self.run(np.zeros((1, matrix.shape[1]), np.float32))
        return {name: value[:0] for name, value in zip(self.names, one, strict=True)}


def load_onnx(path: str | Path) -> OnnxModel:
    """Load an ONNX file with one input of shape (n, n_features); for `setup=`.

    Parameters
    ----------
    path : str or Path
        The file; beside the module's own, `Path(__file__).with_name("model.onnx")`.

    Raises
    ------
    ConfigError
        If there is no such file, it is no ONNX model, or it has more than one input.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # A worker has one core, and the order of a sum must not depend on the machine's.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    data = _read(path)
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ConfigError(f"{path} is no ONNX model: {' '.join(str(error).split())}") from error
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise ConfigError(f"{path} has {len(inputs)} inputs; a science module needs one matrix")
    size = inputs[0].shape[-1] if len(inputs[0].shape) == 2 else 0
    return OnnxModel(
        lambda matrix: session.run(None, {inputs[0].name: matrix}),
        tuple(output.name for output in session.get_outputs()),
        size if isinstance(size, int) else 0,
        dict(session.get_modelmeta().custom_metadata_map),
    )


def load_sklearn(path: str | Path) -> SklearnModel:
    """Load an estimator that joblib or pickle wrote; for `setup=`.

    Such a file runs code when it is opened: load only your own. It holds for one version of
    scikit-learn; `load_onnx` has neither fault.

    Parameters
    ----------
    path : str or Path
        The file; beside the module's own, `Path(__file__).with_name("model.joblib")`.

    Returns
    -------
    SklearnModel
        The estimator as it was fitted, on one thread.

    Raises
    ------
    ConfigError
        If there is no such file, it cannot be read, holds no fitted estimator, or comes from
        another version of scikit-learn.
    """
    import joblib
    from sklearn.base import BaseEstimator
    from sklearn.exceptions import InconsistentVersionWarning

    _read(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", InconsistentVersionWarning)
            model = joblib.load(path)
    except InconsistentVersionWarning as error:
        raise ConfigError(
            f"{path} was written by scikit-learn {error.original_sklearn_version}, here is "
            f"{error.current_sklearn_version}: train it again, or export it as ONNX"
        ) from error
    except Exception as error:
        raise ConfigError(f"{path} cannot be read: {type(error).__name__}: {error}") from error
    if not isinstance(model, BaseEstimator) or not hasattr(model, "n_features_in_"):
        raise ConfigError(f"{path} holds a {type(model).__name__}, not a fitted estimator")
    threads = {name: 1 for name in model.get_params() if name.split("__")[-1] == "n_jobs"}
    return cast(SklearnModel, model.set_params(**threads))


def _read(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", path=str(path)) from error
