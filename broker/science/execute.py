"""One fused pass over a batch: every module, then every filter, each failing alone."""

import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from broker.science.contract import MODEL, Contribution, ScienceModule, TopicFilter
from broker.science.inputs import Inputs
from broker.science.memory import PeakMemory
from broker.science.outputs import to_columns, to_passes
from broker.science.registry import Contributions

OK, FAILED, TIMED_OUT = "ok", "failed", "timed-out"
QUARANTINED, NOT_RUN = "quarantined", "not-run"

_REASON_CHARS = 400

Verdict = tuple[str, str]
"""A status and its reason."""


@dataclass
class BatchResult:
    """What a pass yields; a name is a module's or a topic's."""

    columns: dict[str, pa.Array] = field(default_factory=dict)
    """Outputs by `module@version:column`; those of a module that failed are absent."""
    passes: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    peak_mb: dict[str, float] = field(default_factory=dict)
    """Memory that each took at most; empty where it is not measured. [MiB]"""


class Models:
    """The results of modules' `setup`, made once a process when they are first asked for."""

    def __init__(self) -> None:
        self._models: dict[str, Any] = {}

    def settings(self, contribution: ScienceModule | TopicFilter) -> dict[str, Any]:
        """Return the keyword arguments of a call."""
        if contribution.setup is None:
            return {}
        if contribution.name not in self._models:
            self._models[contribution.name] = contribution.setup()
        return {MODEL: self._models[contribution.name]}


def tasks_of(contributions: Contributions) -> list[ScienceModule | TopicFilter]:
    """Return what a pass runs, in order: modules, filters, versions that run beside."""
    return [*contributions.modules, *contributions.filters, *contributions.shadows]


def run_batch(
    contributions: Contributions,
    batch: pa.Table,
    models: Models,
    *,
    skip: Mapping[str, Verdict],
    announce: Callable[[int], None] = lambda _: None,
    out_of_memory: Callable[[], None] = lambda: None,
    memory: PeakMemory | None = None,
) -> BatchResult:
    """Run all contributions on a batch.

    Parameters
    ----------
    contributions : Contributions
        What to run.
    batch : pa.Table
        The columns they need.
    models : Models
        Results of set-ups, kept from batch to batch.
    skip : mapping
        Those that are not to be run, with what is said of them.
    announce : callable
        Called with a task's number before it runs, -1 when it has ended.
    out_of_memory : callable
        Called when a task could not get the memory it asked for.
    memory : PeakMemory, optional
        Measures what each takes; only where nothing else runs in the process.
    """
    if memory is not None:
        memory.next_batch()
    inputs = Inputs(batch)
    result = BatchResult()
    for number, task in enumerate(tasks_of(contributions)):
        verdict = skip.get(task.name) or _waits_for(task, contributions, result)
        if verdict is None:
            if memory is not None:
                memory.start()
            announce(number)
            started = time.perf_counter()
            verdict = _run_task(task, inputs, models, result, out_of_memory)
            result.seconds[task.name] = time.perf_counter() - started
            announce(-1)
            if memory is not None and (peak := memory.peak_mb()) is not None:
                result.peak_mb[task.name] = peak
        result.verdicts[task.name] = verdict
    return result


def _waits_for(
    task: Contribution, contributions: Contributions, result: BatchResult
) -> Verdict | None:
    """Return why a task cannot run: a module it reads from has no outputs."""
    for parameter in task.inputs:
        module = contributions.provider(parameter)
        if module is not None and result.verdicts.get(module.name, (OK, ""))[0] != OK:
            status = result.verdicts[module.name][0]
            return NOT_RUN, f"needs {parameter} of {module.name}, which is {status}"
    return None


def _run_task(
    task: ScienceModule | TopicFilter,
    inputs: Inputs,
    models: Models,
    result: BatchResult,
    out_of_memory: Callable[[], None],
) -> Verdict:
    try:
        values = task(*inputs.of(task), **models.settings(task))
        if isinstance(task, TopicFilter):
            result.passes[task.topic] = to_passes(values, inputs.n_alerts)
        else:
            arrays = to_columns(values, task.outputs, inputs.n_alerts)
            for (name, column), array in zip(task.qualified.items(), arrays, strict=True):
                if not task.is_shadow:
                    inputs.add(column, array)
                result.columns[name] = array
    except MemoryError:
        out_of_memory()
        return FAILED, "ran out of memory"
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the stage's edge: any code runs here
        return FAILED, describe(error, task.file)
    return OK, ""


def describe(error: BaseException, file: str) -> str:
    """Return an error as one line, with the line of the contribution's file it came from."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    where = f" (line {lines[-1]})" if lines else ""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:_REASON_CHARS]}{where}"
