"""What a module and its filters would have done on past nights: figures for a reviewer.

A pure function of tables of alerts. The page is made of its result in `module_page`.
"""

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from broker.alerts.columns import Column
from broker.errors import ConfigError
from broker.ops.alert_tables import Reading
from broker.ops.module_summary import describe_output, merged_cost, shares
from broker.science import Contributions, Outcome, Runner, ScienceModule, TopicFilter
from broker.science.checks import CheckError, subjects
from broker.science.profile import one_by_one, profile
from broker.types import night_of

N_EXAMPLES = 6
N_DIFFERENCES = 200
"""Differences that are listed one by one; all are counted."""

_N_ALONE = 60
_PROFILED = 500

Earlier = Callable[[pa.Table], tuple[dict[str, pa.Array], dict[str, NDArray[np.bool_]]]]
"""From alerts to the outputs by wire name, and choices by topic, of a previous version."""


@dataclass
class _Collected:
    """What is kept of the batches; of the alerts themselves only the examples."""

    ids: list[pa.Table] = field(default_factory=list)
    outputs: list[pa.Table] = field(default_factory=list)
    passes: list[Mapping[str, NDArray[np.bool_]]] = field(default_factory=list)
    old_outputs: list[dict[str, pa.Array]] = field(default_factory=list)
    old_passes: list[dict[str, NDArray[np.bool_]]] = field(default_factory=list)
    seconds: dict[str, list[tuple[float, int]]] = field(default_factory=dict)
    failures: dict[str, dict[str, int]] = field(default_factory=dict)
    examples: dict[str, list[tuple[int, pa.Table]]] = field(default_factory=dict)
    sample: pa.Table | None = None


def make_report(
    alerts: Iterable[pa.Table],
    contributions: Contributions,
    name: str,
    *,
    reading: Reading | None = None,
    earlier: Earlier | None = None,
    against: str = "",
    isolate: bool = True,
    ms_per_alert: float = 20.0,
    memory_mb: int = 2048,
) -> dict[str, Any]:
    """Run all contributions on past alerts, and report on one folder's module and filters.

    Parameters
    ----------
    alerts : iterable of pa.Table
        Canonical columns and match columns, histories as of each alert (`as_of`).
    contributions : Contributions
        All that there are, so that the topics can be compared.
    name : str
        A folder, a module or a topic; the report is on what its folder declares.
    reading : Reading, optional
        What was left out when the alerts were read.
    earlier : callable, optional
        The previous version, to be compared with.
    against : str
        What it is called.
    isolate, ms_per_alert, memory_mb
        As in `Runner`.

    Returns
    -------
    dict
        Plain values that can be written as JSON, but for `examples`, which have tables.

    Raises
    ------
    ConfigError
        If there is none of that name, or there are no alerts.
    """
    tasks = _tasks(contributions, name)
    got = _Collected()
    with Runner(
        contributions, isolate=isolate, ms_per_alert=ms_per_alert, memory_mb=memory_mb
    ) as runner:
        for batch in alerts:
            _collect(got, batch, runner.run(batch), tasks)
            if earlier is not None:
                outputs, passes = earlier(batch)
                got.old_outputs.append(outputs)
                got.old_passes.append(passes)
    if not got.ids:
        raise ConfigError(f"there are no alerts to run {name} on", name=name)
    ids = pa.concat_tables(got.ids)
    outputs = pa.concat_tables(got.outputs)
    passes = {
        topic: np.concatenate([one[topic] for one in got.passes]) for topic in contributions.topics
    }
    reading = reading or Reading()
    modules = [task for task in tasks if isinstance(task, ScienceModule)]
    filters = [task for task in tasks if isinstance(task, TopicFilter)]
    costs = _costs(contributions, got, tasks)
    return {
        "name": name,
        "alerts": ids.num_rows,
        "nights": sorted(set(_nights(ids))),
        "unreadable": len(reading.unreadable),
        "repeats": reading.repeats,
        "laterEntriesCut": reading.later,
        "modules": [_module(m, outputs, costs[m.name], got, ids.num_rows) for m in modules],
        "topics": [_topic(f, ids, passes, costs[f.name], got) for f in filters],
        "against": against,
        "differences": _differences(modules, filters, outputs, passes, got, ids)
        if earlier is not None
        else [],
        "examples": {n: [row for _, row in found] for n, found in got.examples.items()},
    }


def _tasks(contributions: Contributions, name: str) -> list[ScienceModule | TopicFilter]:
    chosen = [subject.task for subject in subjects(contributions, name)]
    places = {_place(task) for task in chosen}
    everything = [subject.task for subject in subjects(contributions)]
    return [task for task in everything if _place(task) in places]


def _place(task: ScienceModule | TopicFilter) -> Path:
    """Return a contribution's folder; a user's filter is a file of its own."""
    file = Path(task.file)
    return file if file.suffix == ".toml" else file.parent


def _collect(
    got: _Collected,
    batch: pa.Table,
    outcome: Outcome,
    tasks: Sequence[ScienceModule | TopicFilter],
) -> None:
    got.ids.append(batch.select(["survey", "diaSourceId", "midpointMjdTai"]))
    mine = [name for t in tasks if isinstance(t, ScienceModule) for name in t.qualified]
    got.outputs.append(outcome.outputs.select(mine) if mine else batch.select(["survey"]))
    got.passes.append(outcome.passes)
    for task in tasks:
        reason = outcome.failures.get(task.name)
        if reason is not None:
            counted = got.failures.setdefault(task.name, {})
            counted[reason] = counted.get(reason, 0) + batch.num_rows
        if task.name in outcome.seconds:
            times = got.seconds.setdefault(task.name, [])
            times.append((outcome.seconds[task.name], batch.num_rows))
    if got.sample is None:
        got.sample = batch.slice(0, _PROFILED)
    _keep_examples(got, batch, outcome, tasks)


def _keep_examples(
    got: _Collected,
    batch: pa.Table,
    outcome: Outcome,
    tasks: Sequence[ScienceModule | TopicFilter],
) -> None:
    """Keep the few with the smallest hash of their ids: a fair choice, the same every time."""
    has_filter = any(isinstance(task, TopicFilter) for task in tasks)
    names = list(
        zip(
            batch.column("survey").to_pylist(), batch.column("diaSourceId").to_pylist(), strict=True
        )
    )
    for task in tasks:
        if isinstance(task, TopicFilter):
            chosen = outcome.passes[task.topic]
        elif has_filter:
            continue
        else:
            valid = [pc.is_valid(outcome.outputs.column(name)) for name in task.qualified]
            chosen = np.any([np.asarray(one) for one in valid], axis=0)
        kept = got.examples.setdefault(task.name, [])
        for row in np.flatnonzero(chosen).tolist():
            place = zlib.crc32("|".join(names[row]).encode())
            if len(kept) < N_EXAMPLES or place < kept[-1][0]:
                index = pa.array([row])
                light = batch.select([c for c in batch.column_names if c != "origin"]).take(index)
                for column in outcome.outputs.column_names:
                    if column.partition("@")[0] in {t.name for t in tasks}:
                        light = light.append_column(
                            column, outcome.outputs.column(column).take(index)
                        )
                kept.append((place, light))
                kept.sort(key=lambda entry: entry[0])
                del kept[N_EXAMPLES:]


def _nights(ids: pa.Table) -> list[str]:
    return [night_of(mjd) for mjd in ids.column("midpointMjdTai").to_pylist()]


def _costs(
    contributions: Contributions, got: _Collected, tasks: Sequence[ScienceModule | TopicFilter]
) -> dict[str, dict[str, Any]]:
    """Return cost by name: of the batches as they ran, and measured again on a sample."""
    costs = {}
    for task in tasks:
        cost = merged_cost(got.seconds.get(task.name, []))
        if task.name not in got.failures and got.sample is not None:
            try:
                again = profile(contributions, got.sample, frozenset({task.name}))[0]
                alone = one_by_one(contributions, got.sample.slice(0, _N_ALONE), task.name)
            except CheckError:  # a module before it fails; the reason is told there
                costs[task.name] = cost
                continue
            cost |= {
                "peakMb": again.peak_mb,
                "firstCallS": again.first_s,
                "aloneMedianMs": float(np.median(alone)),
                "aloneP99Ms": float(np.percentile(alone, 99)),
            }
        costs[task.name] = cost
    return costs


def _module(
    module: ScienceModule, outputs: pa.Table, cost: Mapping[str, Any], got: _Collected, n: int
) -> dict[str, Any]:
    return {
        "name": module.name,
        "version": module.version,
        "doc": module.title,
        "cost": dict(cost),
        "failures": got.failures.get(module.name, {}),
        "outputs": [
            describe_output(column, outputs.column(name).combine_chunks(), n)
            for name, column in module.qualified.items()
        ],
    }


def _topic(
    chosen: TopicFilter,
    ids: pa.Table,
    passes: Mapping[str, NDArray[np.bool_]],
    cost: Mapping[str, Any],
    got: _Collected,
) -> dict[str, Any]:
    mine = passes[chosen.topic]
    return {
        "name": chosen.topic,
        "doc": chosen.title,
        "cost": dict(cost),
        "failures": got.failures.get(chosen.topic, {}),
        "passed": int(mine.sum()),
        "fraction": float(mine.mean()),
        "maxPassFraction": chosen.max_pass_fraction,
        "withinLimit": bool(mine.mean() <= chosen.max_pass_fraction),
        "nights": shares(_nights(ids), mine),
        "overlap": [
            {
                "topic": topic,
                "passed": int(other.sum()),
                "both": int((mine & other).sum()),
                "shareOfThis": float((mine & other).sum() / max(int(mine.sum()), 1)),
                "shareOfThat": float((mine & other).sum() / max(int(other.sum()), 1)),
            }
            for topic, other in sorted(passes.items())
            if topic != chosen.topic
        ],
    }


def _differences(
    modules: Sequence[ScienceModule],
    filters: Sequence[TopicFilter],
    outputs: pa.Table,
    passes: Mapping[str, NDArray[np.bool_]],
    got: _Collected,
    ids: pa.Table,
) -> list[dict[str, Any]]:
    """Return one entry a column that both versions have, with the alerts where they differ."""
    found = []
    for module in modules:
        for name, column in module.qualified.items():
            if all(column.name in old for old in got.old_outputs):
                old = pa.chunked_array([o[column.name] for o in got.old_outputs], column.arrow_type)
                new = outputs.column(name)
                found.append(difference(column.name, column, new, old, ids))
    for chosen in filters:
        if all(chosen.topic in old for old in got.old_passes):
            before = np.concatenate([o[chosen.topic] for o in got.old_passes])
            column = Column(chosen.topic, "bool", "", "")
            now = pa.chunked_array([pa.array(passes[chosen.topic])])
            then = pa.chunked_array([pa.array(before)])
            found.append(difference(f"topic {chosen.topic}", column, now, then, ids))
    return found


def difference(
    name: str, column: Column, new: pa.ChunkedArray, old: pa.ChunkedArray, ids: pa.Table
) -> dict[str, Any]:
    """Return how a column of two versions differs, alert by alert; floats to a part in 1e5."""
    now, then = new.to_pandas(), old.to_pandas()
    absent = (now.isna() & then.isna()).to_numpy()
    if column.dtype.startswith("float"):
        same = np.isclose(now.to_numpy("f8"), then.to_numpy("f8"), rtol=1e-5, atol=0.0)
        largest = np.abs(now.to_numpy("f8") - then.to_numpy("f8"))
        largest = float(np.nanmax(largest)) if np.isfinite(largest).any() else None
    else:
        same, largest = (now == then).fillna(False).to_numpy(bool), None
    rows = np.flatnonzero(~(same | absent))
    listed = [
        {
            "survey": ids.column("survey")[row].as_py(),
            "diaSourceId": ids.column("diaSourceId")[row].as_py(),
            "before": old[row].as_py(),
            "now": new[row].as_py(),
        }
        for row in rows[:N_DIFFERENCES].tolist()
    ]
    return {"column": name, "differ": len(rows), "alerts": ids.num_rows,
            "largest": largest, "listed": listed}  # fmt: skip


def earlier_code(runner: Runner) -> Earlier:
    """Return a previous version that is run again."""

    def answer(batch: pa.Table) -> tuple[dict[str, pa.Array], dict[str, NDArray[np.bool_]]]:
        outcome = runner.run(batch)
        outputs = {n.partition(":")[2]: outcome.outputs[n] for n in outcome.outputs.column_names}
        whole = {
            name: c.combine_chunks() if isinstance(c, pa.ChunkedArray) else c
            for name, c in outputs.items()
        }
        return whole, outcome.passes

    return answer


def earlier_stored(
    find: Callable[[str, str], Mapping[str, Any] | None],
    modules: Sequence[ScienceModule],
    version: str,
    topics: Sequence[str] = (),
) -> Earlier:
    """Return a previous version as it was stored when the alerts came.

    Parameters
    ----------
    find : callable
        From survey and diaSourceId to the stored alert, None if there is none.
    modules : sequence of ScienceModule
        Their outputs, by today's names and types.
    version : str
        The version to look for, `1.0.0`.
    topics : sequence of str
        Topics whose choices are looked up.
    """

    def answer(batch: pa.Table) -> tuple[dict[str, pa.Array], dict[str, NDArray[np.bool_]]]:
        ids = zip(batch["survey"].to_pylist(), batch["diaSourceId"].to_pylist(), strict=True)
        stored = [find(*who) or {} for who in ids]
        outputs = {}
        for module in modules:
            label = f"{module.name}@{version}"
            old = [record.get("outputs", {}).get(label, {}) for record in stored]
            for column in module.outputs:
                if any(column.name in one for one in old):
                    values = [one.get(column.name) for one in old]
                    outputs[column.name] = pa.array(values, column.arrow_type)
                else:
                    outputs[column.name] = pa.nulls(len(old), column.arrow_type)
        passes = {
            topic: np.array([topic in record.get("topics", ()) for record in stored], bool)
            for topic in topics
        }
        return outputs, passes

    return answer
