"""`broker topic status` and `check`: what part of the alerts each topic passes."""

import sys
from pathlib import Path
from typing import Any

import click

from broker.cli.assemble import tables_of
from broker.cli.main import load
from broker.cli.module_alerts import as_packets_came
from broker.cli.output import BAD_DATA, emit_rows, json_option


@click.command()
@json_option
@click.pass_context
def status(ctx: click.Context, as_json: bool) -> None:
    """Show what part of the newest alerts each topic passes, and whether it is throttled.

    A topic that passes more than it declares is held back to that share. Its packets say so in
    the header `throttled`; all that passed is in the tables, and heldBack is counted here.

    Example: broker topic status
    """
    from broker.science.installed import installed
    from broker.spark.throttle import FloodWatch
    from broker.store.ledger import Ledger

    config = load(ctx)
    filters = installed(config).filters
    limits = {chosen.topic: chosen.max_pass_fraction for chosen in filters}
    with tables_of(ctx) as tables:
        batches = Ledger(tables, config.the_run).batches("alerts")
    shares = FloodWatch(limits, batches, config.science.flood_alerts).shares()
    held = {
        topic: sum(batch.counts.get(f"throttled:{topic}", 0) for batch in batches)
        for topic in limits
    }
    rows = [
        {
            "topic": topic,
            "alerts": one.alerts,
            "passed": one.passed,
            "share": one.share,
            "maxPassFraction": one.limit,
            "throttled": one.is_flood,
            "goesOut": one.kept,
            "heldBack": held[topic],
        }
        for topic, one in shares.items()
    ]
    emit_rows(rows, tuple(rows[0]) if rows else ("topic",), as_json=as_json)


@click.command()
@click.option("--night", "nights", multiple=True, help="A night of the archive, YYYYMMDD; several.")
@click.option("--survey", help="One survey's alerts only: sim, ztf, lsst.")
@click.option("--on", "files", multiple=True, type=click.Path(exists=True, path_type=Path),
              help="Packets in a file, or a folder of them.")  # fmt: skip
@json_option
@click.pass_context
def check(
    ctx: click.Context, nights: tuple[str, ...], survey: str | None, files: tuple[Path, ...],
    as_json: bool,
) -> None:  # fmt: skip
    """Check on a reference night that each topic passes no more than it declares.

    Ends with code 20 if one does, beyond chance.

    Example: broker topic check --night 20261120 --survey ztf
    """
    from broker.ops.alert_tables import Reading
    from broker.science import Runner
    from broker.science.installed import installed
    from broker.spark.throttle import shares

    if not nights and not files:
        raise click.UsageError("say which alerts: --night of the archive, or --on files")
    found = installed(load(ctx))
    counts: list[dict[str, int]] = []
    with Runner(found, isolate=load(ctx).science.isolate) as runner:
        for alerts in as_packets_came(ctx, (nights, survey, files), Reading()):
            passes = runner.run(alerts).passes
            passed = {f"topic:{topic}": int(its.sum()) for topic, its in passes.items()}
            counts.append({"stored": alerts.num_rows} | passed)
    limits = {chosen.topic: chosen.max_pass_fraction for chosen in found.filters}
    rows: list[dict[str, Any]] = [
        {
            "topic": topic,
            "alerts": one.alerts,
            "passed": one.passed,
            "share": one.share,
            "maxPassFraction": one.limit,
            "ok": not one.is_flood,
        }
        for topic, one in shares(limits, counts, 1).items()
    ]
    emit_rows(rows, ("topic", "alerts", "passed", "share", "maxPassFraction", "ok"),
              as_json=as_json)  # fmt: skip
    if not all(row["ok"] for row in rows):
        sys.exit(BAD_DATA)
