"""Distributions, shares and costs of a report, as plain values."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from broker.alerts.columns import Column

_BINS = 40
_WORDS = 12


def describe_output(column: Column, values: pa.Array, n_alerts: int) -> dict[str, Any]:
    """Return the distribution of one output.

    Parameters
    ----------
    column : Column
        Its declaration.
    values : pa.Array, length n_alerts
        Null where it was not computed.
    n_alerts : int

    Returns
    -------
    dict
        Numbers have `quantiles` (0, 16, 50, 84, 100 %) and a `histogram` from the 0.5th to the
        99.5th percentile; words and booleans have `counts`, the most frequent first.
    """
    about: dict[str, Any] = {
        "name": column.name,
        "unit": column.unit,
        "doc": column.doc,
        "type": column.dtype,
    }
    known = values.drop_null()
    about |= {"alerts": n_alerts, "null": n_alerts - len(known)}
    if column.dtype in ("string", "binary", "bool"):
        if column.dtype == "binary":
            return about
        found = pc.value_counts(known).to_pylist()
        found.sort(key=lambda entry: (-entry["counts"], str(entry["values"])))
        return about | {"counts": [(str(e["values"]), e["counts"]) for e in found[:_WORDS]]}
    numbers = known.to_numpy(zero_copy_only=False).astype(np.float64)
    if not numbers.size:
        return about
    low, high = np.percentile(numbers, (0.5, 99.5))
    if not low < high:
        low, high = low - 0.5, high + 0.5
    counts, edges = np.histogram(numbers, _BINS, (low, high))
    return about | {
        "quantiles": [float(q) for q in np.percentile(numbers, (0, 16, 50, 84, 100))],
        "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
    }


def merged_cost(batches: Sequence[tuple[float, int]]) -> dict[str, Any]:
    """Return the cost of an alert over batches of (seconds, alerts), the first one left out.

    The first batch loads and compiles; with one batch alone it is what there is.
    """
    later = batches[1:] or batches
    spent = np.array([1e3 * seconds / max(n, 1) for seconds, n in later])
    if not spent.size:
        return {"medianMs": None, "p99Ms": None, "batches": 0}
    return {
        "medianMs": float(np.median(spent)),
        "p99Ms": float(np.percentile(spent, 99)),
        "batches": len(batches),
    }


def shares(nights: Sequence[str], passed: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Return alerts and those that passed, night by night."""
    names, which = np.unique(np.array(nights), return_inverse=True)
    total = np.bincount(which, minlength=len(names))
    chosen = np.bincount(which, weights=passed, minlength=len(names))
    return [
        {"night": str(name), "alerts": int(n), "passed": int(k), "fraction": float(k / n)}
        for name, n, k in zip(names, total, chosen, strict=True)
    ]
