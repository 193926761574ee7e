"""What modules cost in the live stream, and how a version beside differs from the one in use."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from broker.errors import ConfigError
from broker.ops.module_report import difference
from broker.science import Contributions, ScienceModule
from broker.science.contract import SHADOW
from broker.store.ledger import Batch

_PREFIX = "module:"


@dataclass(frozen=True)
class LiveCost:
    """Cost of one module or filter in the newest batches of the stream.

    Parameters
    ----------
    name : str
        Module, topic, or version beside (`…@next`).
    batches, alerts : int
        In which it ran, and how many alerts these had.
    ms_per_alert : float
        Its time over these alerts. [ms]
    slowest_ms_per_alert : float
        The same of its slowest batch. [ms]
    peak_mb : float or None
        Memory that it took at most in one of them; None where it was not measured. [MiB]
    """

    name: str
    batches: int
    alerts: int
    ms_per_alert: float
    slowest_ms_per_alert: float
    peak_mb: float | None


def live_costs(batches: Sequence[Batch]) -> dict[str, LiveCost]:
    """Return the cost of each module and filter by name, from what batches recorded.

    Parameters
    ----------
    batches : sequence of Batch
        Of the query of alerts.
    """
    spent: dict[str, list[tuple[float, int]]] = {}
    peaks: dict[str, float] = {}
    for batch in batches:
        alerts = batch.counts.get("stored", 0)
        for stage, seconds in batch.stats.get("seconds", {}).items():
            if stage.startswith(_PREFIX) and alerts:
                spent.setdefault(stage.removeprefix(_PREFIX), []).append((seconds, alerts))
        for name, peak in batch.stats.get("peakMb", {}).items():
            peaks[name] = max(peak, peaks.get(name, 0.0))
    return {
        name: LiveCost(
            name,
            len(its),
            sum(n for _, n in its),
            1e3 * sum(s for s, _ in its) / sum(n for _, n in its),
            max(1e3 * s / n for s, n in its),
            peaks.get(name),
        )
        for name, its in sorted(spent.items())
    }


def version_beside(contributions: Contributions, name: str) -> tuple[ScienceModule, ScienceModule]:
    """Return the version of a module in use and the one that runs beside it.

    Raises
    ------
    ConfigError
        If there is no such module, or none runs beside it.
    """
    name = name.removesuffix(SHADOW)
    now = contributions.module(name)
    for shadow in contributions.shadows:
        if shadow.name == name + SHADOW:
            return now, shadow
    raise ConfigError(
        f"no version of {name} runs beside {now.version}: put one into a folder {name}{SHADOW}, or "
        "name two versions that are stored"
    )


def compare_stored(
    records: Iterable[Mapping[str, Any]], module: ScienceModule, before: str, after: str
) -> dict[str, Any]:
    """Return how the stored outputs of two versions of a module differ, alert by alert.

    Parameters
    ----------
    records : iterable of mappings
        Stored alerts, as of `AlertStore.alert`.
    module : ScienceModule
        Its columns are compared; what a version does not have is null.
    before, after : str
        The versions.

    Returns
    -------
    dict
        `alerts` that have both; `onlyBefore` and `onlyAfter`, those that have one; `columns`, each
        as of `broker.ops.module_report.difference`.
    """
    name = module.name.removesuffix(SHADOW)
    labels = (f"{name}@{before}", f"{name}@{after}")
    ids: dict[str, list[str]] = {"survey": [], "diaSourceId": []}
    values: tuple[dict[str, list[Any]], ...] = tuple(
        {column.name: [] for column in module.outputs} for _ in labels
    )
    only = [0, 0]
    for record in records:
        found = [record["outputs"].get(label) for label in labels]
        if None in found:
            for side, its in enumerate(found):
                only[side] += its is not None
            continue
        for key, texts in ids.items():
            texts.append(record[key])
        for kept, its in zip(values, found, strict=True):
            for output, cells in kept.items():
                cells.append((its or {}).get(output))
    rows = pa.table(ids)
    columns = []
    for column in module.outputs:
        old, new = (pa.chunked_array([pa.array(v[column.name], column.arrow_type)]) for v in values)
        columns.append(difference(column.name, column, new, old, rows))
    return {
        "module": name,
        "before": before,
        "after": after,
        "alerts": len(ids["survey"]),
        "onlyBefore": only[0],
        "onlyAfter": only[1],
        "columns": columns,
    }
