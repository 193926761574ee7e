"""One batch of alerts in the forms that contributions ask for, each made once."""

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from broker.alerts.columns import CUTOUTS as CUTOUT_NAMES
from broker.alerts.columns import Column, snake_case
from broker.science.contract import CUTOUTS, LIGHT_CURVES, SERIES, Contribution, Parameter
from broker.science.cutouts import Cutouts
from broker.science.light_curves import LightCurves

_CUTOUT_PARAMETERS = {snake_case(name) for name in CUTOUT_NAMES}


class Inputs:
    """A batch's columns as Series, light curves and cutouts; outputs are added as they come.

    Parameters
    ----------
    batch : pa.Table
        Columns by wire name; a field that is not nullable has no nulls.
    """

    def __init__(self, batch: pa.Table) -> None:
        self._arrays = {
            snake_case(field.name): (_one_chunk(batch.column(field.name)), field.nullable)
            for field in batch.schema
        }
        self._made: dict[Parameter, Any] = {}
        self.n_alerts = batch.num_rows

    def add(self, column: Column, values: pa.Array) -> None:
        """Add an output of a module, for those that read it."""
        self._arrays[column.python_name] = (values, True)

    def of(self, contribution: Contribution) -> list[Any]:
        """Return a contribution's inputs, in order."""
        return [self._get(p, copy=not contribution.read_only) for p in contribution.parameters]

    def _get(self, parameter: Parameter, *, copy: bool) -> Any:
        if parameter not in self._made:
            self._made[parameter] = self._make(parameter)
        value = self._made[parameter]
        return value.copy() if copy and isinstance(value, pd.Series) else value

    def _make(self, parameter: Parameter) -> Any:
        name, form = parameter.name, parameter.form
        values, nullable = self._arrays[name]
        if name == "history":
            curves = self._made.get(Parameter(name, LIGHT_CURVES)) or LightCurves.from_arrow(values)
            return curves if form == LIGHT_CURVES else curves.to_series()
        if name in _CUTOUT_PARAMETERS:
            cutouts = self._made.get(Parameter(name, CUTOUTS)) or Cutouts.from_arrow(values)
            return cutouts if form == CUTOUTS else cutouts.to_series()
        assert form == SERIES  # noqa: S101 - the registry has checked it
        return to_series(values, nullable=nullable)


def to_series(values: pa.Array, *, nullable: bool) -> pd.Series:
    """Return a column as modules get it; its type depends on the declaration, never on the batch.

    Floats are as declared, NaN for null. Integers that may be null are float64 (exact to 2**53).
    Booleans that may be null are pandas' `boolean`. Text is objects, None for null. Except for
    `boolean`, the values cannot be written to.
    """
    kind = values.type
    if pa.types.is_boolean(kind) and nullable:
        return pd.Series(values.to_pandas(types_mapper={pa.bool_(): pd.BooleanDtype()}.get))
    if pa.types.is_integer(kind) and nullable:
        array = pc.cast(values, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    elif pa.types.is_string(kind) or pa.types.is_binary(kind):
        array = np.array(values.to_pylist(), dtype=object)
    else:
        array = values.to_numpy(zero_copy_only=False)
    array.flags.writeable = False
    return pd.Series(array, copy=False)


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    if column.num_chunks == 1:
        return column.chunk(0)
    return column.combine_chunks() if column.num_chunks else pa.nulls(0, column.type)
