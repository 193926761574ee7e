"""Runs all contributions on a batch, in this process or in a child that may be killed."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from broker.alerts.columns import CANONICAL, NOT_SEARCHED, Column, camel_case
from broker.errors import ConfigError
from broker.science.execute import (
    FAILED,
    NOT_RUN,
    OK,
    QUARANTINED,
    TIMED_OUT,
    BatchResult,
    Models,
    Verdict,
    run_batch,
    tasks_of,
)
from broker.science.isolation import Child, ChildEndedError
from broker.science.registry import Catalogs, Contributions, provided_columns

__all__ = ["FAILED", "NOT_RUN", "OK", "QUARANTINED", "TIMED_OUT", "Outcome", "Runner"]

_LOG = logging.getLogger(__name__)
_FIRST_TIME_FACTOR = 3.0
"""A task that never finished yet may load models and compile."""


@dataclass(frozen=True)
class Outcome:
    """What all contributions say of one batch.

    Parameters
    ----------
    outputs : pa.Table
        One row an alert, columns `module@version:column` in the order of
        `Contributions.output_columns`; null where the module did not compute it.
    status : dict
        By module: ok, failed, timed-out, quarantined or not-run.
    reasons : dict
        By module, why it is not ok.
    passes : dict
        By topic, whether each alert passes, shape (n_alerts,); all False if the filter failed.
    filter_status, filter_reasons : dict
        As `status` and `reasons`, by topic.
    seconds : dict
        Time that each module and filter took, by name. [s]
    peak_mb : dict
        Memory that each took at most, by name; empty without a child process. [MiB]
    shadow_outputs : pa.Table
        As `outputs`, of the versions that run beside; to be stored, never published.
    shadow_status, shadow_reasons : dict
        As `status` and `reasons`, by the names that end in `@next`.
    """

    outputs: pa.Table
    status: dict[str, str]
    reasons: dict[str, str]
    passes: dict[str, NDArray[np.bool_]]
    filter_status: dict[str, str]
    filter_reasons: dict[str, str]
    seconds: dict[str, float]
    peak_mb: dict[str, float] = field(default_factory=dict)
    shadow_outputs: pa.Table = field(default_factory=lambda: pa.table({}))
    shadow_status: dict[str, str] = field(default_factory=dict)
    shadow_reasons: dict[str, str] = field(default_factory=dict)

    @property
    def failures(self) -> dict[str, str]:
        """Reasons of those that failed or timed out, modules and topics."""
        status = {**self.status, **self.filter_status, **self.shadow_status}
        reasons = {**self.reasons, **self.filter_reasons, **self.shadow_reasons}
        return {n: reasons.get(n, "") for n, s in status.items() if s in (FAILED, TIMED_OUT)}


class Runner:
    """Runs modules and filters, batch after batch; whatever they do, it returns.

    Parameters
    ----------
    contributions : Contributions
        What to run.
    catalogs : mapping, optional
        Match columns by catalogue; default those that the contributions were found with.
    isolate : bool
        Run contributed code in a child process, started with the first batch.
    ms_per_alert : float
        Time a module may take, a batch's share. [ms]
    min_batch_s : float
        Time it may take for a batch in any case; three times that until it once finished. [s]
    memory_mb : int
        Address space that the child may add to what it starts with. [MiB]
    quarantined : frozenset of str
        Modules and topics that are not run; may be assigned anew between batches.
    """

    def __init__(
        self,
        contributions: Contributions,
        *,
        catalogs: Catalogs | None = None,
        isolate: bool = True,
        ms_per_alert: float = 20.0,
        min_batch_s: float = 10.0,
        memory_mb: int = 2048,
        quarantined: frozenset[str] = frozenset(),
    ) -> None:
        self.contributions = contributions
        self.quarantined = quarantined
        self._columns: Mapping[str, Column] = (
            contributions.columns if catalogs is None else provided_columns(catalogs)
        )
        self._isolate = isolate
        self._ms_per_alert = ms_per_alert
        self._min_batch_s = min_batch_s
        self._memory_mb = memory_mb
        self._models = Models()
        self._child: Child | None = None
        self._known: set[str] = set()

    def __enter__(self) -> "Runner":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    @property
    def child_pid(self) -> int | None:
        """Process id of the child, None if there is none now."""
        return self._child.pid if self._child is not None and self._child.is_alive else None

    def close(self) -> None:
        """End the child process; the next batch would start another."""
        if self._child is not None:
            self._child.close()
            self._child = None

    def run(self, batch: pa.Table) -> Outcome:
        """Run everything on one batch.

        Parameters
        ----------
        batch : pa.Table
            Canonical columns and match columns. A match that is absent counts as not searched.

        Returns
        -------
        Outcome
            One row an alert.

        Raises
        ------
        ConfigError
            If a canonical column is absent.
        ServiceError
            If the child process cannot be started.
        """
        skip = dict.fromkeys(self.quarantined, (QUARANTINED, "quarantined until it is released"))
        needed = self.needed_columns(batch)
        if batch.num_rows == 0:
            result = BatchResult(verdicts={t.name: (OK, "") for t in tasks_of(self.contributions)})
        elif self._isolate:
            result = self._run_isolated(needed, skip)
        else:
            result = run_batch(self.contributions, needed, self._models, skip=skip)
        self._known |= {name for name, (status, _) in result.verdicts.items() if status == OK}
        return self._outcome(result, skip, batch.num_rows)

    def _run_isolated(self, batch: pa.Table, skip: Mapping[str, Verdict]) -> BatchResult:
        """Run in the child; each time it ends, leave out the culprit and run the rest again."""
        tasks = tasks_of(self.contributions)
        killed: dict[str, Verdict] = {}
        chances = 1
        while True:
            try:
                return self._ready_child().run(
                    batch,
                    skip={**skip, **killed},
                    budget_s=lambda task: self._budget_s(task, batch.num_rows),
                )
            except ChildEndedError as ended:
                self.close()
                if chances and (ended.task < 0 or ended.is_killed):
                    # There is no one to name: once may be chance, twice is this batch.
                    chances -= 1
                    continue
                if ended.task >= 0:
                    name = tasks[ended.task].name
                    killed[name] = ended.verdict
                    self._known.add(name)  # no second grace
                    _LOG.warning("%s %s", name, ended.verdict[1])
                    continue
                _LOG.warning("no module could run: the process %s", ended.verdict[1])
                return BatchResult(verdicts={task.name: ended.verdict for task in tasks})

    def _ready_child(self) -> Child:
        child = self._child
        if child is not None and (not child.is_alive or child.leaks):
            self.close()  # it leaks: a fresh one before an innocent module lacks memory
        if self._child is None:
            self._child = Child(self.contributions, memory_mb=self._memory_mb)
        return self._child

    def _budget_s(self, task: int, n_alerts: int) -> float:
        budget = max(self._min_batch_s, 1e-3 * self._ms_per_alert * n_alerts)
        known = task >= 0 and tasks_of(self.contributions)[task].name in self._known
        return budget if known else _FIRST_TIME_FACTOR * budget

    def needed_columns(self, batch: pa.Table) -> pa.Table:
        """Return the columns that contributions read, with the nulls that are declared."""
        names = {
            name
            for task in tasks_of(self.contributions)
            if task.name not in self.quarantined
            for name in task.inputs
            if self.contributions.provider(name) is None
        }
        arrays, fields = [], []
        for name in sorted(names):
            column = self._columns.get(name)
            field = (
                CANONICAL.field(camel_case(name))
                if column is None
                else pa.field(column.name, column.arrow_type, column.nullable)
            )
            fields.append(field)
            arrays.append(self._column(batch, field))
        return pa.table(arrays, schema=pa.schema(fields))

    def _column(self, batch: pa.Table, field: pa.Field) -> Any:
        if field.name == "history" and field.name in batch.column_names:
            return public_history(batch)
        if field.name in batch.column_names:
            column = batch.column(field.name)
            return column if column.type == field.type else column.cast(field.type)
        if field.name in CANONICAL.names:
            raise ConfigError(f"the batch has no column {field.name}", column=field.name)
        if field.nullable:
            return pa.nulls(batch.num_rows, field.type)
        return pa.array(np.full(batch.num_rows, NOT_SEARCHED, np.int32))

    def _outcome(self, result: BatchResult, skip: Mapping[str, Verdict], n_alerts: int) -> Outcome:
        def table(declared: Mapping[str, Column]) -> pa.Table:
            columns = {
                name: result.columns.get(name, pa.nulls(n_alerts, column.arrow_type))
                for name, column in declared.items()
            }
            return pa.table(columns) if columns else pa.table({})

        verdicts = {**result.verdicts, **{n: v for n, v in skip.items() if n in result.verdicts}}
        modules = [module.name for module in self.contributions.modules]
        shadows = [module.name for module in self.contributions.shadows]
        topics = self.contributions.topics
        none_pass = np.zeros(n_alerts, dtype=bool)
        return Outcome(
            outputs=table(self.contributions.qualified_columns),
            status={name: verdicts[name][0] for name in modules},
            reasons={name: verdicts[name][1] for name in modules if verdicts[name][1]},
            passes={topic: result.passes.get(topic, none_pass) for topic in topics},
            filter_status={topic: verdicts[topic][0] for topic in topics},
            filter_reasons={topic: verdicts[topic][1] for topic in topics if verdicts[topic][1]},
            seconds=result.seconds,
            peak_mb=result.peak_mb,
            shadow_outputs=table(self.contributions.shadow_columns),
            shadow_status={name: verdicts[name][0] for name in shadows},
            shadow_reasons={name: verdicts[name][1] for name in shadows if verdicts[name][1]},
        )


def public_history(batch: pa.Table) -> pa.Array:
    """Return the histories that modules may see.

    A public alert's outputs are published, so they are made from public epochs only; an alert
    that is not public, and whose outputs are not, keeps all.
    """
    history = batch.column("history").combine_chunks()
    if isinstance(history, pa.ChunkedArray):
        history = history.chunk(0) if history.num_chunks else pa.array([], history.type)
    entries = history.flatten()
    seen = entries.field("isPublic")
    if pc.all(seen, min_count=0).as_py():
        return history
    lengths = pc.fill_null(pc.list_value_length(history), 0).to_numpy(zero_copy_only=False)
    alert = np.repeat(np.arange(len(history)), lengths)
    is_public = batch.column("isPublic").to_numpy()
    keep = seen.to_numpy(zero_copy_only=False) | ~is_public[alert]
    counts = np.bincount(alert[keep], minlength=len(history))
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return pa.ListArray.from_arrays(offsets, entries.filter(pa.array(keep)), type=history.type)
