"""What a contribution costs: time and memory, and time line by line."""

import linecache
import sys
import time
import tracemalloc
from dataclasses import dataclass
from types import FrameType
from typing import Any

import numpy as np
import pyarrow as pa

from broker.science.checks import Subject
from broker.science.execute import Models, tasks_of
from broker.science.registry import Contributions

REPEATS = 5
"""Calls that are timed on one batch, after one that only warms up."""

_MIB = 1 << 20


@dataclass(frozen=True)
class Profile:
    """Cost of one module or filter; what it reads from is not counted.

    Parameters
    ----------
    name : str
        Module or topic.
    ms_per_alert : float
        Median time of a batch over its alerts. [ms]
    first_s : float
        The first call, which may load and compile. [s]
    peak_mb : float
        Memory that a batch takes at most, beyond its inputs; NumPy's arrays are counted. [MiB]
    n_alerts : int
        Size of the batch.
    """

    name: str
    ms_per_alert: float
    first_s: float
    peak_mb: float
    n_alerts: int


@dataclass(frozen=True)
class Line:
    """Cost of one line of a contribution's file, what it calls included.

    Parameters
    ----------
    number : int
        Its number.
    times : int
        How often it ran.
    ms : float
        Time in total. [ms]
    text : str
        The line.
    """

    number: int
    times: int
    ms: float
    text: str


def profile(
    contributions: Contributions, alerts: pa.Table, names: frozenset[str] = frozenset()
) -> list[Profile]:
    """Measure modules and filters one by one on a batch, in this process.

    Parameters
    ----------
    contributions : Contributions
        What there is.
    alerts : pa.Table
        A batch, canonical columns and match columns.
    names : frozenset of str
        Modules and topics to measure; empty means all.

    Raises
    ------
    CheckError
        If one, or one that it reads from, fails on these alerts.
    """
    chosen = [task for task in tasks_of(contributions) if not names or task.name in names]
    return [_profile(Subject(task, contributions), alerts) for task in chosen]


def _profile(subject: Subject, alerts: pa.Table) -> Profile:
    subject.answer(alerts.slice(0, 1))  # a failure is told by its name and reason
    inputs = subject.own_inputs(alerts)
    arguments, settings = inputs.of(subject.task), Models().settings(subject.task)

    def call() -> float:
        started = time.perf_counter()
        subject.task(*arguments, **settings)
        return time.perf_counter() - started

    first = call()
    spent = float(np.median([call() for _ in range(REPEATS)]))
    was_on = tracemalloc.is_tracing()
    if not was_on:
        tracemalloc.start()
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    call()
    _, peak = tracemalloc.get_traced_memory()
    if not was_on:
        tracemalloc.stop()
    n = max(alerts.num_rows, 1)
    return Profile(
        subject.task.name, 1e3 * spent / n, first, max(peak - before, 0) / _MIB, alerts.num_rows
    )


def one_by_one(contributions: Contributions, alerts: pa.Table, name: str) -> np.ndarray[Any, Any]:
    """Return the time that a contribution takes for each alert alone, shape (n_alerts,). [ms]

    Most of it is the cost of a call; it shows alerts that are dearer than others.
    """
    task = next(task for task in tasks_of(contributions) if task.name == name)
    subject, settings = Subject(task, contributions), Models().settings(task)
    spent = []
    for row in range(alerts.num_rows):
        arguments = subject.own_inputs(alerts.slice(row, 1)).of(task)
        started = time.perf_counter()
        task(*arguments, **settings)
        spent.append(1e3 * (time.perf_counter() - started))
    return np.array(spent)


def profile_lines(contributions: Contributions, alerts: pa.Table, name: str) -> list[Line]:
    """Measure one contribution line by line, in the order of its file.

    Parameters
    ----------
    contributions : Contributions
        What there is.
    alerts : pa.Table
        A batch.
    name : str
        A module or a topic.

    Returns
    -------
    list of Line
        Lines of its file that ran. The timer itself takes about a microsecond a line.
    """
    task = next(task for task in tasks_of(contributions) if task.name == name)
    subject = Subject(task, contributions)
    arguments, settings = subject.own_inputs(alerts).of(task), Models().settings(task)
    task(*arguments, **settings)
    timer = _LineTimer(task.file)
    before = sys.gettrace()
    sys.settrace(timer)
    try:
        task(*arguments, **settings)
    finally:
        sys.settrace(before)
    return [
        Line(n, timer.times[n], 1e3 * spent, linecache.getline(task.file, n).strip())
        for n, spent in sorted(timer.spent.items())
    ]


class _LineTimer:
    """A trace function that adds up the time between the lines of one file."""

    def __init__(self, file: str) -> None:
        self.spent: dict[int, float] = {}
        self.times: dict[int, int] = {}
        self._file = file

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:  # noqa: ARG002
        if frame.f_code.co_filename != self._file:
            return None
        line, since = -1, time.perf_counter()

        def within(frame: FrameType, event: str, argument: Any) -> Any:  # noqa: ARG001
            nonlocal line, since
            now = time.perf_counter()
            if line >= 0:
                self.spent[line] = self.spent.get(line, 0.0) + now - since
                self.times[line] = self.times.get(line, 0) + 1
            line, since = (frame.f_lineno if event != "return" else -1), time.perf_counter()
            return within

        return within
