"""Whether something grows: a line through values that follow each other, with an honest error."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from broker.errors import ServiceError

_LEAST = 8
_BLOCKS = 36
"""So many means of values that follow each other are fitted, where there are more values: for noise
of several kinds at once, the correlation of neighbours alone says too little of the slow ones."""


@dataclass(frozen=True)
class Trend:
    """A line through values.

    Parameters
    ----------
    mean : float
        Of the values that were used.
    slope, error : float
        Change of the value for one more of x, and its standard error.
    """

    mean: float
    slope: float
    error: float


def trend_of(x: ArrayLike, values: ArrayLike) -> Trend:
    """Fit a line by least squares.

    Many values are first averaged to 36 to 71 blocks of the same length, which may leave out the
    first few. The error is that of ordinary least squares times sqrt((1 + r) / (1 - r)), where r
    is the correlation of neighbouring residuals: so many fewer values are independent.

    Parameters
    ----------
    x, values : array_like, shape (n,)
        In rising x, evenly spaced or nearly so.

    Raises
    ------
    ServiceError
        If there are fewer than eight values.
    """
    t, y = np.asarray(x, np.float64), np.asarray(values, np.float64)
    if len(t) < _LEAST:
        raise ServiceError(f"{len(t)} values show no trend: measure for longer")
    t, y = _blocks(t), _blocks(y)
    t = t - t.mean()
    mean = float(y.mean())
    slope = float(t @ (y - mean) / (t @ t))
    residuals = y - mean - slope * t
    variance = float(residuals @ residuals)
    error = np.sqrt(variance / (len(t) - 2) / (t @ t))
    r = float(residuals[1:] @ residuals[:-1]) / variance if variance > 0.0 else 0.0
    r = min(max(r, 0.0), 0.98)
    return Trend(mean, slope, float(error * np.sqrt((1.0 + r) / (1.0 - r))))


def _blocks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    length = max(len(values) // _BLOCKS, 1)
    return values[len(values) % length :].reshape(-1, length).mean(axis=1)
