"""The benchmark of science: modules and filters together, the runner's overhead, one filter more.

All of it on one core, in processor time, in the same process, in turns; medians of the turns.
"""

import functools
import resource
import statistics
import time
from collections.abc import Callable

import psutil
import pyarrow as pa

from broker.alerts.adapters import find_adapters
from broker.alerts.columns import ORIGIN
from broker.bench_rows import Row
from broker.catalog.registry import definitions
from broker.errors import ConfigError
from broker.science import Contributions, Runner, find_contributions
from broker.science.execute import Models, tasks_of
from broker.science.inputs import Inputs
from broker.science.outputs import to_columns, to_passes
from broker.science.registry import order_contributions
from broker.science.user_filters import user_filter
from broker.simulation.packets import simulate_packets

N_FILTERS, N_MORE = 30, 30
MOST_MS, MOST_OVERHEAD, MOST_FOR_ONE = 1.0, 0.10, 0.01

FINK_PER_S = {
    "kilonova": 10_000,
    "light_curve_features": 560,
    "microlensing": 3_700,
    "moving_object": 16_000,
    "early_supernova": 5_500,
    "hostless": 50,
    "light_curve_class": 4_700,
}
"""Published alerts per second and core of modules of the same purpose (212,039 ZTF alerts with
Spark, most of them cut before the costly part; hostless in itself), by the name of ours."""

_CUTS = (
    "snr > {a} AND reliability > 0.{b}",
    "age_days < {a} AND NOT is_negative",
    "rise_rate > {a} AND rise_rate > 3 * rise_rate_err",
    "psf_flux BETWEEN {a}000 AND {a}00000 AND band IN ('g', 'r')",
    "context_class = 'hosted' AND n_dia_sources > {a}",
)

Task = Callable[[], object]


def bench_science(
    *,
    alerts: int,
    batch: int,
    turns: int,
    without: frozenset[str] = frozenset(),
    say: Callable[[str], None] = lambda _: None,
) -> list[Row]:
    """Measure the modules and filters that are installed, on simulated packets of ZTF's form.

    Parameters
    ----------
    alerts : int
        How many.
    batch : int
        Alerts in a batch, as the stream has them.
    turns : int
        Measured passes of each kind, after one that warms up.
    without : frozenset of str
        Modules and topics to leave out.
    say : callable
        Told what is done.

    Raises
    ------
    ConfigError
        If a module or a filter fails on these alerts.
    """
    say(f"{alerts} simulated packets")
    batches = simulated_batches(alerts, batch)
    installed = find_contributions(catalogs=definitions()).without(without)
    found = _with_filters(installed, N_FILTERS)
    more = _with_filters(found, N_FILTERS + N_MORE)
    runner = Runner(found, isolate=False)
    needed = [runner.needed_columns(part) for part in batches]
    _require_all_ok(runner, batches)
    with Runner(more, isolate=False) as larger, Runner(found) as isolated:
        _require_all_ok(larger, batches)
        _require_all_ok(isolated, batches)
        say("the runner, and the functions called directly")
        direct = functools.partial(_direct, found, needed, Models())
        ms = _in_turns(
            {
                "runner": lambda: [runner.run(part) for part in batches],
                "direct": direct,
                "isolated": lambda: [isolated.run(part) for part in batches],
                "larger": lambda: [larger.run(part) for part in batches],
            },
            turns,
            alerts,
            isolated=isolated,
        )
    say("each module by itself")
    costs = _costs(found, needed, turns, alerts)
    return [*_together(ms, costs, found), *_each(costs, found)]


def _together(
    ms: dict[str, list[float]], costs: dict[str, float], found: Contributions
) -> list[Row]:
    whole = statistics.median(ms["isolated"])
    over = {
        kind: statistics.median(a / b - 1.0 for a, b in zip(ms[kind], ms["direct"], strict=True))
        for kind in ("runner", "isolated")
    }
    extra = statistics.median(
        (a / b - 1.0) / N_MORE for a, b in zip(ms["larger"], ms["runner"], strict=True)
    )
    modules = sum(costs[module.name] for module in found.modules)
    title = f"{len(found.modules)} modules and {len(found.filters)} filters [core-ms/alert]"
    return [
        Row(title, whole, f"<= {MOST_MS}", "", whole <= MOST_MS),
        Row("of these the modules [core-ms/alert]", modules),
        Row("of these the filters [core-ms/alert]", sum(costs.values()) - modules),
        *(
            Row(
                f"{words} over direct calls [share]",
                over[kind],
                f"<= {MOST_OVERHEAD}",
                f"{statistics.median(ms['direct']):.3f} core-ms/alert",
                over[kind] <= MOST_OVERHEAD,
            )
            for kind, words in (("runner", "runner"), ("isolated", "runner with its child"))
        ),
        Row(
            f"filter {len(found.filters) + 1} [share of the batch]",
            extra,
            f"< {MOST_FOR_ONE}",
            f"mean of {N_MORE} more",
            extra < MOST_FOR_ONE,
        ),
    ]


def _each(costs: dict[str, float], found: Contributions) -> list[Row]:
    rows = []
    for module in sorted(found.modules, key=lambda m: -costs[m.name]):
        rate = 1e3 / max(costs[module.name], 1e-6)
        theirs = FINK_PER_S.get(module.name)
        anchor = f"Fink {theirs}: {rate / theirs:.1f} times" if theirs else ""
        rows.append(Row(f"{module.name} [alerts/s/core]", rate, "", anchor))
    return rows


def simulated_batches(alerts: int, size: int) -> list[pa.Table]:
    """Return simulated alerts with empty matches, in batches of one table each."""
    adapter = find_adapters()["ztf"]
    columns = [c for match in definitions().values() for c in match]
    packets = list(simulate_packets("ztf", alerts, 5))
    parts = []
    for low in range(0, alerts, size):
        records = [adapter.read(packet)[1] for packet in packets[low : low + size]]
        places = [
            {"topic": "t", "partition": 0, "offset": low + i, "schemaId": 0}
            for i in range(len(records))
        ]
        table = adapter.to_canonical(
            pa.array(records, adapter.struct), pa.array(places, ORIGIN)
        ).table
        for column in columns:
            values = (
                pa.nulls(table.num_rows, column.arrow_type)
                if column.nullable
                else pa.array([-1] * table.num_rows, column.arrow_type)
            )
            field = pa.field(column.name, column.arrow_type, column.nullable)
            table = table.append_column(field, values)
        parts.append(table)
    return parts


def _with_filters(found: Contributions, number: int) -> Contributions:
    """Return contributions with as many filters, one expression each where there are too few."""
    filters = list(found.filters)
    for i in range(len(filters), number):
        where = _CUTS[i % len(_CUTS)].format(a=5 + i, b=5 + i % 4)
        filters.append(
            user_filter(
                f"bench-{i}", where, doc="Measures.", max_pass_fraction=1.0, among=found, file=""
            )
        )
    everything = [*found.modules, *filters[:number]]
    return order_contributions(everything, path=found.path, columns=found.columns)


def _require_all_ok(runner: Runner, batches: list[pa.Table]) -> None:
    for part in batches:
        outcome = runner.run(part)
        for name, reason in outcome.failures.items():
            raise ConfigError(f"{name} cannot be measured, it failed: {reason}", name=name)


def _direct(found: Contributions, needed: list[pa.Table], models: Models) -> None:
    """Call the functions one after another, with no statuses, budgets or names."""
    for part in needed:
        inputs = Inputs(part)
        for module in found.modules:
            values = module.function(*inputs.of(module), **models.settings(module))
            arrays = to_columns(values, module.outputs, inputs.n_alerts)
            for column, array in zip(module.outputs, arrays, strict=True):
                inputs.add(column, array)
        for chosen in found.filters:
            to_passes(
                chosen.function(*inputs.of(chosen), **models.settings(chosen)), inputs.n_alerts
            )


def _in_turns(
    tasks: dict[str, Task], turns: int, alerts: int, *, isolated: Runner
) -> dict[str, list[float]]:
    """Return the processor time of each task in each turn, after one that warms up. [ms/alert]

    That of the runner's child is counted with this process's.
    """

    def spent_s() -> float:
        pid, ended = isolated.child_pid, resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = time.process_time() + ended.ru_utime + ended.ru_stime
        times = psutil.Process(pid).cpu_times() if pid else None
        return seconds + (times.user + times.system if times else 0.0)

    spent: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(turns + 1):
        for name, task in tasks.items():
            began = spent_s()
            task()
            if turn:
                spent[name].append(1e3 * (spent_s() - began) / alerts)
    return spent


def _costs(
    found: Contributions, needed: list[pa.Table], turns: int, alerts: int
) -> dict[str, float]:
    """Return the processor time of each module and filter by name, medians. [ms/alert]"""
    models = Models()
    spent: dict[str, list[float]] = {task.name: [] for task in tasks_of(found)}
    for turn in range(turns + 1):
        total = dict.fromkeys(spent, 0.0)
        for part in needed:
            inputs = Inputs(part)
            for task in tasks_of(found):
                began = time.process_time()
                values = task(*inputs.of(task), **models.settings(task))
                if hasattr(task, "outputs"):
                    arrays = to_columns(values, task.outputs, inputs.n_alerts)
                    for column, array in zip(task.outputs, arrays, strict=True):
                        inputs.add(column, array)
                total[task.name] += time.process_time() - began
        if turn:
            for name, seconds in total.items():
                spent[name].append(1e3 * seconds / alerts)
    return {name: statistics.median(its) for name, its in spent.items()}
