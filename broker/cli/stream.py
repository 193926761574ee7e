"""`broker stream`: the Spark queries."""

import click

from broker.cli.main import load
from broker.cli.output import emit_json, json_option

_QUERIES = ("images", "alerts", "archive")


@click.command()
@click.argument("query", type=click.Choice([*_QUERIES, "all"]))
@click.option("--until-idle", is_flag=True, help="End when all input is through.")
@json_option
@click.pass_context
def command(ctx: click.Context, query: str, until_idle: bool, as_json: bool) -> None:
    """Run one of the three queries, or all of them in one process.

    images makes alerts from CCD images; alerts runs the science and fills the topics; archive
    keeps the raw packets as files. Stop with Ctrl-C: the batch in work is finished first.

    Example: broker stream all --until-idle
    """
    from broker.streaming.query import run_queries

    chosen = _QUERIES if query == "all" else (query,)
    summary = run_queries(load(ctx), chosen, until_idle=until_idle)
    if as_json:
        emit_json(summary)
