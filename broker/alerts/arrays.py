"""Arrow columns of decoded packets as flat NumPy arrays, where NaN stands for null."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from broker.units import BANDS

FloatArray = NDArray[np.floating[Any]]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.integer[Any]]

_BANDS = pa.array(BANDS)


def child(struct: pa.StructArray, *names: str) -> pa.Array:
    """Return a field of a struct, or of structs in it; null where a struct is null."""
    return pc.struct_field(struct, list(names))


def floats(values: pa.Array) -> FloatArray:
    """Return numbers as float64, NaN for null, shape (n,)."""
    return values.cast(pa.float64()).to_numpy(zero_copy_only=False)


def flags(values: pa.Array) -> BoolArray:
    """Return booleans, False for null, shape (n,)."""
    return pc.fill_null(values, False).to_numpy(zero_copy_only=False)


def ints(values: pa.Array, null: int) -> IntArray:
    """Return whole numbers as int64 with a number in place of null, shape (n,)."""
    return pc.fill_null(values.cast(pa.int64()), null).to_numpy(zero_copy_only=False)


def is_one_of(values: pa.Array, words: tuple[str, ...]) -> BoolArray:
    """Return where a string is one of some words; False for null, shape (n,)."""
    return pc.is_in(values, value_set=pa.array(words, pa.string())).to_numpy(zero_copy_only=False)


def positive(values: FloatArray) -> FloatArray:
    """Return values with NaN in place of zero, negative numbers and infinities.

    Surveys write -999 or -99999 for a magnitude, an error or a distance that they do not know.
    """
    return np.where((values > 0.0) & (values < np.inf), values, np.nan)


def not_negative(values: FloatArray) -> FloatArray:
    """Return values with NaN in place of negative numbers and infinities."""
    return np.where((values >= 0.0) & (values < np.inf), values, np.nan)


def band_codes(values: pa.Array) -> NDArray[np.int8]:
    """Return indices into `broker.units.BANDS`, -1 for null and for another name."""
    return ints(pc.index_in(values, value_set=_BANDS), -1).astype(np.int8)


def band_names(codes: NDArray[np.int8]) -> pa.Array:
    """Return the names of bands; null for -1."""
    return _BANDS.take(pa.array(codes, pa.int8(), mask=codes < 0))


def to_arrow(values: Any, kind: pa.DataType) -> pa.Array:
    """Return values as an Arrow array of a type; NaN becomes null.

    A number that a float32 cannot hold becomes infinite, never an error.
    """
    if isinstance(values, pa.Array):
        return values if values.type == kind else values.cast(kind)
    if pa.types.is_floating(kind):
        with np.errstate(over="ignore"):
            return pa.array(values.astype(kind.to_pandas_dtype()), kind, from_pandas=True)
    return pa.array(values, kind)
