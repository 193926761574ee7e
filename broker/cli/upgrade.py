"""`broker upgrade`: a run of an earlier version, brought up to this one."""

import dataclasses

import click

from broker.cli.main import load
from broker.cli.output import emit_json, json_option


@click.command()
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Make the tables that a run of an earlier version lacks, and index what is not indexed.

    Searches and counts find the older alerts then. Nothing that is there is changed; it may be
    done while the stream runs, and again.

    Example: broker upgrade
    """
    from broker.ops.upgrade import upgrade
    from broker.streaming.query import open_tables

    tables = open_tables(load(ctx))
    try:
        done = upgrade(load(ctx), tables)
    finally:
        tables.close()
    if as_json:
        emit_json(dataclasses.asdict(done))
        return
    click.echo(f"Tables made: {', '.join(done.tables) or 'none was missing'}.")
    click.echo(
        f"Of {done.alerts} alerts {done.indexed} were not indexed and are now; "
        f"{done.bodies} alerts of solar-system bodies were added."
    )
