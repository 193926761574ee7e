"""`broker upgrade`: a run of an earlier version, brought up to this one."""

import dataclasses
from contextlib import closing

import click

from broker.cli.assemble import make_tables, make_topics
from broker.cli.main import load
from broker.cli.output import emit_json, json_option


@click.command()
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Make the tables that a run of an earlier version lacks, and index what is not indexed.

    Searches and counts find the older alerts then. Topics of private watchlists that have names of
    public ones are moved to private.OWNER.watchlist-NAME. No row is changed; it may be done while
    the stream of this version runs, and again.

    Example: broker upgrade
    """
    from broker.ops.private_topics import move_private_topics
    from broker.ops.upgrade import upgrade

    config = load(ctx)
    with closing(make_tables(config)) as tables:
        done = upgrade(config, tables)
    with closing(make_topics(config)) as topics:
        moved = move_private_topics(config, topics)
    if as_json:
        emit_json({**dataclasses.asdict(done), "moved": moved})
        return
    click.echo(f"Tables made: {', '.join(done.tables) or 'none was missing'}.")
    click.echo(
        f"Of {done.alerts} alerts {done.indexed} were not indexed and are now; "
        f"{done.bodies} alerts of solar-system bodies were added."
    )
    if moved:
        click.echo(f"Topics of private watchlists that were moved: {', '.join(moved)}.")
