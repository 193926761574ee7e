"""What a contribution returned, as the columns that it declared, or a plain word why not."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from broker.alerts.columns import Column
from broker.errors import BrokerError

_BYTES_PER_ALERT = 4096
_BYTES_ALWAYS = 65_536


class ContractError(BrokerError):
    """A contribution returned something else than it declared."""


def to_columns(result: Any, outputs: tuple[Column, ...], n_alerts: int) -> list[pa.Array]:
    """Return a module's result as one Arrow array per declared output.

    Null, None, NaN and infinite values are null: not computed.

    Raises
    ------
    ContractError
        If names, lengths, types or sizes are not as declared.
    """
    columns = _by_name(result, outputs)
    declared = [column.name for column in outputs]
    missing = [name for name in declared if name not in columns]
    extra = [str(name) for name in columns if name not in declared]
    if missing or extra:
        raise ContractError(
            f"declared {', '.join(declared)}; missing {', '.join(missing) or 'none'}, "
            f"undeclared {', '.join(extra) or 'none'}"
        )
    arrays = []
    for column in outputs:
        values = _values(columns[column.name])
        if values.ndim != 1 or len(values) != n_alerts:
            raise ContractError(
                f"{column.name} has shape {values.shape} for {n_alerts} alerts; one value each"
            )
        array = _to_arrow(values, column)
        if array.nbytes > _BYTES_ALWAYS + _BYTES_PER_ALERT * n_alerts:
            raise ContractError(
                f"{column.name} takes {array.nbytes} bytes for {n_alerts} alerts; at most "
                f"{_BYTES_PER_ALERT} an alert"
            )
        arrays.append(array)
    return arrays


def to_passes(result: Any, n_alerts: int) -> NDArray[np.bool_]:
    """Return a filter's result as booleans; a null is False.

    Raises
    ------
    ContractError
        If it is not one boolean an alert.
    """
    if isinstance(result, pd.DataFrame):
        raise ContractError("returned a DataFrame; a filter returns one Series of booleans")
    values = _values(result)
    if values.ndim != 1 or len(values) != n_alerts:
        raise ContractError(f"returned shape {values.shape} for {n_alerts} alerts; one value each")
    if values.dtype == bool:
        return np.asarray(values)
    if values.dtype != object or not all(_is_bool_or_null(value) for value in values):
        raise ContractError(f"returned values of type {values.dtype}; a filter returns booleans")
    return np.array([_is_true(value) for value in values], dtype=bool)


def _is_null(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and value != value)


def _is_true(value: Any) -> bool:
    return isinstance(value, bool | np.bool_) and bool(value)


def _is_bool_or_null(value: Any) -> bool:
    return isinstance(value, bool | np.bool_) or _is_null(value)


def _by_name(result: Any, outputs: tuple[Column, ...]) -> Mapping[Any, Any]:
    if isinstance(result, pd.DataFrame):
        if not result.columns.is_unique:
            raise ContractError("returned a column twice")
        return {name: result[name] for name in result.columns}
    if isinstance(result, Mapping):
        return result
    if isinstance(result, pd.Series | np.ndarray) and len(outputs) == 1:
        return {outputs[0].name: result}
    raise ContractError(f"returned {type(result).__name__}; return a DataFrame of the outputs")


def _values(column: Any) -> NDArray[Any]:
    """Return a column as numpy; pandas' nullable types become objects."""
    if isinstance(column, pd.Series):
        column = column.array
    if isinstance(column, pd.api.extensions.ExtensionArray):
        if isinstance(column, pd.arrays.NumpyExtensionArray):
            return np.asarray(column.to_numpy())
        return np.asarray(column.to_numpy(dtype=object, na_value=np.nan))
    if isinstance(column, np.ndarray | list):
        return np.asarray(column)
    raise ContractError(f"returned a column of type {type(column).__name__}; use Series or arrays")


def _to_arrow(values: NDArray[Any], column: Column) -> pa.Array:
    if column.dtype in ("float32", "float64"):
        return _floats(values, column)
    if column.dtype in ("int32", "int64") and values.dtype.kind in "fiu":
        return _integers(values, column)
    if column.dtype == "bool" and values.dtype.kind == "b":
        return pa.array(values)
    return _objects(values, column)


def _floats(values: NDArray[Any], column: Column) -> pa.Array:
    if values.dtype.kind == "O":
        return _objects(values, column)
    if values.dtype.kind not in "fiu":
        raise _wrong_type(column, values.dtype)
    with np.errstate(over="ignore"):  # too large for float32 is infinite, hence null
        cast = values.astype(column.dtype)
    bad = ~np.isfinite(cast)
    return pa.array(cast, mask=bad if bad.any() else None)


def _integers(values: NDArray[Any], column: Column) -> pa.Array:
    if values.dtype.kind != "f":
        return _cast(pa.array(values), column)
    bad = ~np.isfinite(values)
    whole = np.where(bad, 0.0, values)
    if (whole != np.trunc(whole)).any():
        raise ContractError(f"{column.name} is declared {column.dtype} and has fractions")
    return _cast(pa.array(whole, mask=bad), column)


def _objects(values: NDArray[Any], column: Column) -> pa.Array:
    if values.dtype.kind not in "OUS":
        raise _wrong_type(column, values.dtype)
    plain = [None if _is_null(v) else v.item() if isinstance(v, np.generic) else v for v in values]
    allowed = {"string": str, "binary": bytes, "bool": bool}.get(column.dtype, (int, float))
    for value in plain:
        if value is not None and (not isinstance(value, allowed) or _hidden_bool(value, column)):
            raise _wrong_type(column, type(value).__name__)
    if column.dtype in ("float32", "float64"):
        return _floats(np.array([np.nan if v is None else v for v in plain], np.float64), column)
    try:
        return pa.array(plain, type=column.arrow_type)
    except (pa.ArrowInvalid, OverflowError, UnicodeError) as error:
        raise ContractError(f"{column.name}: {error}") from error


def _hidden_bool(value: Any, column: Column) -> bool:
    return isinstance(value, bool) and column.dtype != "bool"


def _cast(array: pa.Array, column: Column) -> pa.Array:
    try:
        return array.cast(column.arrow_type)
    except pa.ArrowInvalid as error:
        raise ContractError(f"{column.name} does not fit {column.dtype}: {error}") from error


def _wrong_type(column: Column, found: Any) -> ContractError:
    words = "str" if getattr(found, "kind", "") == "U" else found
    return ContractError(f"{column.name} is declared {column.dtype} and came as {words}")
