"""Small steps of the one pass, on rows of a batch."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from broker.science import Contributions, Outcome

FILTER_VERSION = "filter"
"""What stands in the place of a version where a filter's failures are kept."""


def stored_outputs(outcome: Outcome, table: pa.Table) -> pa.Table:
    """Return all outputs, of versions that run beside too: a row an alert even without modules."""
    made = [t for t in (outcome.outputs, outcome.shadow_outputs) if t.num_columns]
    if not made:
        return table.select([])
    return with_columns(made[0], made[1]) if len(made) > 1 else made[0]


def with_columns(table: pa.Table, more: pa.Table) -> pa.Table:
    """Return a table with another's columns after its own."""
    arrays = [*table.columns, *more.columns]
    fields = [*table.schema, *more.schema]
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def taken(outputs: pa.Table, rows: NDArray[np.int64]) -> pa.Table:
    """Return some rows; without modules there are no columns, and no rows to take from."""
    return outputs.take(pa.array(rows)) if outputs.num_columns else outputs


def topics_of(passes: Mapping[str, Any], n_alerts: int) -> list[list[str]]:
    """Return the names of the filters that each alert passed, sorted."""
    topics: list[list[str]] = [[] for _ in range(n_alerts)]
    for name in sorted(passes):
        for i in np.flatnonzero(passes[name]).tolist():
            topics[i].append(name)
    return topics


def contribution_labels(contributions: Contributions) -> dict[str, str]:
    """Return the version of each module and filter by name; a filter has none of its own."""
    modules = (*contributions.modules, *contributions.shadows)
    return {module.name: module.version for module in modules} | dict.fromkeys(
        contributions.topics, FILTER_VERSION
    )
