"""Columns as normal scores along the axes of a class: what an isolation forest is grown on."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BINS = 64

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Steps:
    """A column's normal score, constant between edges.

    Parameters
    ----------
    edges : NDArray[np.float32], shape (n,)
        Rising; a value up to an edge is below it.
    values : NDArray[np.float64], shape (n + 1,)
        Score below the first edge, between two, and above the last.
    """

    edges: NDArray[np.float32]
    values: F64

    @property
    def null(self) -> int:
        """Number of the step that null has: the one whose score is nearest to zero."""
        return int(np.argmin(np.abs(self.values)))

    def __call__(self, column: NDArray[np.float32]) -> F64:
        """Return the scores of a column."""
        step = np.searchsorted(self.edges, column, side="left")
        return np.asarray(self.values[np.where(np.isnan(column), self.null, step)])


def steps_of(column: NDArray[np.float32]) -> Steps:
    """Return the steps at the quantiles of a column; a column without values has one, zero."""
    from scipy.special import ndtri

    known = np.sort(column[~np.isnan(column)])
    if not known.size:
        return Steps(np.empty(0, np.float32), np.zeros(1))
    at = np.arange(1, _BINS) * known.size // _BINS
    edges = np.unique(known[np.unique(at)])
    edges = edges[edges < known[-1]]  # nothing would be above
    below = np.concatenate([[0], np.searchsorted(known, edges, side="right"), [known.size]])
    middle = (below[1:] + below[:-1]) / (2.0 * known.size)
    return Steps(edges, np.asarray(ndtri(middle)))


@dataclass(frozen=True)
class Axes:
    """A class's own axes: normal scores, their mean taken away, turned so that none go together.

    Parameters
    ----------
    steps : tuple of Steps
        Of each column.
    centre : NDArray[np.float64], shape (n_columns,)
    turn : NDArray[np.float64], shape (n_columns, n_columns)
        From scores to axes, each of unit variance.
    """

    steps: tuple[Steps, ...]
    centre: F64
    turn: F64

    def __call__(self, columns: NDArray[np.float32]) -> F64:
        """Return columns along the axes, shape (n, n_columns)."""
        return np.asarray((self._scores(columns) - self.centre) @ self.turn)

    def _scores(self, columns: NDArray[np.float32]) -> F64:
        return np.stack([s(c) for s, c in zip(self.steps, columns.T, strict=True)], axis=1)


def axes_of(columns: NDArray[np.float32]) -> Axes:
    """Return the axes of a class's columns, shape (n, n_columns).

    The covariance is shrunk (Ledoit & Wolf 2004, J. Multivar. Anal. 88, 365), so that what goes
    together by chance in few light curves is not taken for a law.
    """
    from sklearn.covariance import LedoitWolf

    steps = tuple(steps_of(column) for column in columns.T)
    n = columns.shape[1]
    plain = Axes(steps, np.zeros(n), np.eye(n))
    shape: Any = LedoitWolf().fit(plain(columns))
    variance, vectors = np.linalg.eigh(shape.covariance_)
    # The sign of an axis is chance: fixed, so that the same columns make the same file.
    vectors = vectors * np.where(vectors[np.abs(vectors).argmax(axis=0), np.arange(n)] < 0, -1, 1)
    return Axes(steps, shape.location_, vectors / np.sqrt(np.maximum(variance, 1e-6)))
