"""What every contribution must do, as checks that say in plain words what is wrong.

The tests run all of them on all contributions, present and future; `broker module check` runs
them on one.
"""

import functools
import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from broker.errors import ConfigError
from broker.science.contract import ScienceModule, TopicFilter
from broker.science.execute import OK, Models, run_batch, tasks_of
from broker.science.inputs import Inputs
from broker.science.registry import Contributions, find_contributions
from broker.science.runner import Runner
from broker.science.samples import sample_alerts
from broker.science.static_check import harmful_folders
from broker.science.watch import watched

Task = ScienceModule | TopicFilter

N_ALERTS = 48
RELATIVE_TOLERANCE = 1e-5
"""Sums in another order may differ by some last bits of a float32."""


_SOURCE = "its source has no network, file, process or thread"


class CheckError(AssertionError):
    """A contribution does not keep the contract; the message says how."""


@dataclass(frozen=True)
class CheckResult:
    """The answer of one check about one contribution."""

    name: str
    check: str
    ok: bool
    message: str = ""


@dataclass(frozen=True)
class Subject:
    """A contribution under test, and what it is found with."""

    task: Task
    contributions: Contributions

    @functools.cached_property
    def _few(self) -> Contributions:
        wanted = {self.task.name, *(m.name for m in self.contributions.needed_by(self.task))}
        others = {task.name for task in tasks_of(self.contributions)} - wanted
        return self.contributions.without(frozenset(others))

    def needed(self, alerts: pa.Table) -> pa.Table:
        """Return the columns that it and the modules before it read."""
        return Runner(self._few, isolate=False).needed_columns(alerts)

    def answer(self, alerts: pa.Table) -> pa.Table:
        """Return its outputs, or a filter's choice, a row an alert.

        Raises
        ------
        CheckError
            If it, or a module it reads from, fails.
        """
        result = run_batch(self._few, self.needed(alerts), Models(), skip={})
        for name, (status, reason) in result.verdicts.items():
            if status != OK:
                raise CheckError(f"{name} {status}: {reason}")
        if isinstance(self.task, TopicFilter):
            return pa.table({"passes": pa.array(result.passes[self.task.topic])})
        return pa.table({name: result.columns[name] for name in self.task.qualified})

    def own_inputs(self, alerts: pa.Table) -> Inputs:
        """Return its inputs, outputs of other modules among them."""
        before = self._few.without(frozenset({self.task.name}))
        needed = self.needed(alerts)
        result = run_batch(before, needed, Models(), skip={})
        inputs = Inputs(needed)
        for name, column in before.qualified_columns.items():
            inputs.add(column, result.columns[name])
        return inputs

    def call(self, inputs: Inputs) -> Any:
        """Call the function itself on its inputs."""
        return self.task(*inputs.of(self.task), **Models().settings(self.task))


Check = Callable[[Subject], None]


@functools.cache
def _sample(n: int = N_ALERTS) -> pa.Table:
    return sample_alerts(n, seed=11)


def check_outputs_are_as_declared(subject: Subject) -> None:
    """Names, lengths and types of the result are those of the declaration."""
    subject.answer(_sample())


def check_an_empty_batch_works(subject: Subject) -> None:
    """No alerts give no rows."""
    subject.answer(_sample().slice(0, 0))


def check_one_alert_works(subject: Subject) -> None:
    """Batches of one alert give one row."""
    subject.answer(_sample().slice(1, 1))


def check_nulls_are_borne(subject: Subject) -> None:
    """All values that may be null are null, histories are empty: rows come all the same."""
    subject.answer(_with_nulls(_sample()))


def check_an_unknown_band_is_borne(subject: Subject) -> None:
    """Packets whose band is not known give a row."""
    table = _sample()
    nulls = pa.nulls(table.num_rows, pa.string())
    index = table.schema.get_field_index("band")
    table = table.set_column(index, table.schema.field("band"), nulls)
    history = table.column("history").combine_chunks()
    entries = history.flatten()
    fields = [entries.type.field(k) for k in range(entries.type.num_fields)]
    arrays = [
        pa.nulls(len(entries), f.type) if f.name == "band" else entries.field(f.name)
        for f in fields
    ]
    bandless = pa.ListArray.from_arrays(
        pc.subtract(history.offsets, history.offsets[0]),
        pa.StructArray.from_arrays(arrays, fields=fields),
        type=history.type,
    )
    index = table.schema.get_field_index("history")
    subject.answer(table.set_column(index, table.schema.field("history"), bandless))


def check_no_alert_depends_on_its_neighbours(subject: Subject) -> None:
    """Any cut of the night into batches, in any order, gives each alert the same values."""
    alerts = _sample()
    whole = subject.answer(alerts)
    middle = alerts.num_rows // 3
    _compare(whole.slice(0, middle), subject.answer(alerts.slice(0, middle)))
    _compare(whole.slice(middle), subject.answer(alerts.slice(middle)))
    for row in range(0, alerts.num_rows, 7):
        _compare(whole.slice(row, 1), subject.answer(alerts.slice(row, 1)))
    backwards = np.arange(alerts.num_rows)[::-1]
    _compare(whole.take(backwards), subject.answer(alerts.take(backwards)))


def check_the_same_alerts_give_the_same_answer(subject: Subject) -> None:
    """Asked twice, it says the same, bit by bit: a replay can be compared."""
    first, second = (subject.answer(_sample()) for _ in range(2))
    if not first.equals(second):
        raise CheckError("the same alerts gave another answer the second time; seed what is random")


def check_inputs_are_left_unchanged(subject: Subject) -> None:
    """Other modules see the same inputs afterwards."""
    inputs = subject.own_inputs(_sample())
    before = [_contents(value) for value in inputs.of(subject.task)]
    subject.call(inputs)
    for name, old, value in zip(subject.task.inputs, before, inputs.of(subject.task), strict=True):
        if old != _contents(value):
            raise CheckError(f"it wrote to its input {name}; work on a copy")


def check_it_can_be_sent_to_a_worker(subject: Subject) -> None:
    """Sent to another process, it says the same there."""
    inputs = subject.own_inputs(_sample())
    copy = pickle.loads(pickle.dumps(subject.task))  # noqa: S301 - made in this line
    arguments = inputs.of(subject.task)
    settings = Models().settings(subject.task)
    here, there = (_plain(task(*arguments, **settings)) for task in (subject.task, copy))
    if not here.equals(there):
        raise CheckError("its copy in another process gives another answer")


def check_no_file_or_socket_is_opened(subject: Subject) -> None:
    """No I/O: what it needs to load, it loads in `setup`."""
    inputs = subject.own_inputs(_sample())
    arguments = inputs.of(subject.task)
    settings = Models().settings(subject.task)
    with watched() as seen:
        subject.task(*arguments, **settings)
    if seen:
        raise CheckError(f"it {seen[0]}; a contribution does no I/O, load files in setup=")


def check_it_keeps_to_its_time(subject: Subject, ms_per_alert: float = 20.0) -> None:
    """Time is less than its budget for an alert, once it is warm."""
    inputs = subject.own_inputs(_sample())
    subject.call(inputs)
    started = time.perf_counter()
    subject.call(inputs)
    spent = 1e3 * (time.perf_counter() - started) / N_ALERTS
    if spent > ms_per_alert:
        raise CheckError(f"it took {spent:.1f} ms an alert; at most {ms_per_alert} ms")


def check_it_is_documented(subject: Subject) -> None:
    """Its docstring and each output say in a sentence what they are."""
    if not subject.task.title:
        raise CheckError("it has no docstring; say in a first line what it does and for whom")
    for column in getattr(subject.task, "outputs", ()):
        if not column.doc.strip():
            raise CheckError(f"{column.name} has no doc; say in a sentence what it is")


CHECKS: tuple[Check, ...] = (
    check_outputs_are_as_declared,
    check_an_empty_batch_works,
    check_one_alert_works,
    check_nulls_are_borne,
    check_an_unknown_band_is_borne,
    check_no_alert_depends_on_its_neighbours,
    check_the_same_alerts_give_the_same_answer,
    check_inputs_are_left_unchanged,
    check_it_can_be_sent_to_a_worker,
    check_no_file_or_socket_is_opened,
    check_it_keeps_to_its_time,
    check_it_is_documented,
)


def subjects(contributions: Contributions, name: str = "") -> list[Subject]:
    """Return contributions to check: all, or those of a folder, a module's or a topic's name.

    Raises
    ------
    ConfigError
        If there is none of that name.
    """
    chosen = [
        task
        for task in tasks_of(contributions)
        if not name or name in (task.name, Path(task.file).parent.name)
    ]
    if not chosen:
        known = ", ".join(sorted({Path(t.file).parent.name for t in tasks_of(contributions)}))
        raise ConfigError(f"there is no module, topic or folder {name!r}; there are {known}")
    return [Subject(task, contributions) for task in chosen]


def parametrize_with_checks(contributions: Contributions) -> Any:
    """Return a pytest mark that runs every check on every contribution.

    Parameters
    ----------
    contributions : Contributions
        What to test; the test function takes `subject` and `check`.
    """
    import pytest

    cases = [
        pytest.param(subject, check, id=f"{subject.task.name}-{check.__name__}")
        for subject in subjects(contributions)
        for check in CHECKS
    ]
    return pytest.mark.parametrize(("subject", "check"), cases)


def check_module(name: str, path: str = "") -> list[CheckResult]:
    """Run every check on the contributions of a folder, a module or a topic.

    First its source is read, and it is not loaded if it has to do with network, files, processes
    or threads. Then it runs in a child process as in the stream, so that one that hangs or
    crashes is named; only then the checks run in this process.

    Parameters
    ----------
    name : str
        Name of a folder, a science module or a topic.
    path : str
        The modules folder; empty for the installed package.

    Raises
    ------
    ConfigError
        If there is none of that name, or the folder cannot be used.
    """
    if harmful := harmful_folders(path).get(name):
        return [CheckResult(name, _SOURCE, False, str(finding)) for finding in harmful]
    contributions = find_contributions(path)
    chosen = subjects(contributions, name)
    with Runner(contributions, isolate=True) as runner:
        outcome = runner.run(_sample())
    results = []
    for subject in chosen:
        reason = outcome.failures.get(subject.task.name)
        check = "it runs in a process of its own"
        results.append(CheckResult(subject.task.name, _SOURCE, True))
        results.append(CheckResult(subject.task.name, check, reason is None, reason or ""))
        if reason is None:
            results += [_result(subject, one) for one in CHECKS]
    return results


def _result(subject: Subject, check: Check) -> CheckResult:
    title = check.__name__.removeprefix("check_").replace("_", " ")
    try:
        check(subject)
    except CheckError as error:
        return CheckResult(subject.task.name, title, False, str(error))
    except Exception as error:  # noqa: BLE001 - contributed code runs in the checks
        message = f"{type(error).__name__}: {error}"
        return CheckResult(subject.task.name, title, False, message)
    return CheckResult(subject.task.name, title, True)


def _with_nulls(alerts: pa.Table) -> pa.Table:
    """Return alerts with null in every column that may be null and with empty histories."""
    arrays = []
    for field in alerts.schema:
        column = alerts.column(field.name)
        if field.name == "history":
            empty = np.zeros(alerts.num_rows + 1, np.int32)
            column = pa.ListArray.from_arrays(
                empty, column.combine_chunks().flatten()[:0], type=field.type
            )
        elif field.nullable:
            column = pa.nulls(alerts.num_rows, field.type)
        elif field.name.endswith("Match"):
            column = pa.array(np.full(alerts.num_rows, -1, np.int32))
        arrays.append(column)
    return pa.table(arrays, schema=alerts.schema)


def _compare(expected: pa.Table, got: pa.Table) -> None:
    for name in expected.column_names:
        one, other = (t.column(name).to_pandas() for t in (expected, got))
        if pd.api.types.is_float_dtype(one) and pd.api.types.is_float_dtype(other):
            same = np.isclose(one, other, rtol=RELATIVE_TOLERANCE, atol=0.0, equal_nan=True)
        else:
            same = ((one == other) | (one.isna() & other.isna())).to_numpy()
        if not same.all():
            row = int(np.flatnonzero(~same)[0])
            raise CheckError(
                f"{name} of an alert was {one.iloc[row]!r} in one batch and {other.iloc[row]!r} "
                "in another; no answer may depend on the other alerts of a batch"
            )


def _contents(value: Any) -> bytes:
    """Return a value's contents, to be compared later."""
    return pickle.dumps(value)


def _plain(result: Any) -> pd.DataFrame:
    return result if isinstance(result, pd.DataFrame) else pd.DataFrame({"value": result})
