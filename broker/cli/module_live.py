"""`broker module status` and `compare`: modules as they run in the stream."""

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import click

from broker.cli.assemble import tables_of
from broker.cli.main import load
from broker.cli.output import emit_json, emit_rows, json_option
from broker.errors import AlertError


@click.command()
@click.option(
    "--batches",
    "newest",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    help="Time and memory are of so many of the newest batches.",
)
@json_option
@click.pass_context
def status(ctx: click.Context, newest: int, as_json: bool) -> None:
    """Show what modules and filters cost in the stream, which failed, which are in quarantine.

    Memory is what one took at most in a batch, beyond what was there.

    Example: broker module status
    """
    from broker.ops.module_live import live_costs
    from broker.store.ledger import Ledger
    from broker.store.quarantine import Quarantine

    config = load(ctx)
    limit = config.science.failures_to_quarantine
    with tables_of(ctx) as tables:
        held = Quarantine(tables, config.the_run, failures_to_quarantine=limit).status()
        costs = live_costs(Ledger(tables, config.the_run).batches("alerts")[-newest:])
    rows: list[dict[str, Any]] = []
    for one in held:
        row = {
            "name": one.name,
            "version": one.version,
            "failures": one.failures,
            "quarantined": one.quarantined,
            "lastFailureMs": one.last_failure_ms,
            "reason": one.reason,
        }
        rows.append(row | _cost(costs, one.name))
    named = {row["name"] for row in rows}
    rows += [
        {"name": name, "version": None, "failures": 0, "quarantined": False, "lastFailureMs": None,
         "reason": ""} | _cost(costs, name)
        for name in costs if name not in named
    ]  # fmt: skip
    names = ("name", "version", "alerts", "msPerAlert", "slowestMsPerAlert", "peakMb",
             "failures", "quarantined", "lastFailureMs", "reason")  # fmt: skip
    emit_rows(sorted(rows, key=lambda row: str(row["name"])), names, as_json=as_json)


def _cost(costs: Mapping[str, Any], name: str) -> dict[str, Any]:
    cost = costs.get(name)
    return {
        "alerts": cost.alerts if cost else 0,
        "msPerAlert": cost.ms_per_alert if cost else None,
        "slowestMsPerAlert": cost.slowest_ms_per_alert if cost else None,
        "peakMb": cost.peak_mb if cost else None,
    }


@click.command()
@click.argument("name")
@click.option("--night", "nights", multiple=True, help="Only this night, YYYYMMDD; several.")
@click.option("--before", help="A stored version; default the one in use.")
@click.option("--after", help="A stored version; default the one that runs beside, NAME@next.")
@click.option("--limit", type=click.IntRange(0), default=20, show_default=True,
              help="List at most so many alerts of each column.")  # fmt: skip
@json_option
@click.pass_context
def compare(
    ctx: click.Context,
    name: str,
    nights: tuple[str, ...],
    before: str | None,
    after: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """Show how two stored versions of the module NAME differ, alert by alert.

    A version runs beside the one in use from a folder NAME@next: it is computed and stored, and
    no filter, packet or other module sees it.

    Example: broker module compare rise_rate --before 1.0.0 --after 1.1.0
    """
    from broker.ops.module_live import compare_stored, version_beside
    from broker.science.contract import SHADOW
    from broker.science.installed import installed
    from broker.store.alerts import AlertStore

    found = installed(load(ctx))
    now = beside = found.module(name.removesuffix(SHADOW))
    if before is None or after is None:
        now, beside = version_beside(found, name)
    with tables_of(ctx) as tables:
        store = AlertStore(tables, load(ctx).the_run)
        by_night = chain.from_iterable(store.night(night) for night in nights)
        records: Iterator[Any] = by_night if nights else store.every()
        made = compare_stored(records, beside, before or now.version, after or beside.version)
    if not made["alerts"]:
        raise AlertError(
            f"no stored alert has both {made['module']}@{made['before']} and @{made['after']}; "
            f"{made['onlyBefore']} have the first only, {made['onlyAfter']} the second"
        )
    for column in made["columns"]:
        column["listed"] = column["listed"][:limit]
    if as_json:
        emit_json(made)
        return
    emit_rows(made["columns"], ("column", "alerts", "differ", "largest"), as_json=False)
    listed = [{"column": c["column"], **one} for c in made["columns"] for one in c["listed"]]
    emit_rows(listed, ("column", "survey", "diaSourceId", "before", "now"), as_json=False)
