"""`broker status`: how the local servers are."""

import click

from broker.cli.main import load
from broker.cli.output import emit_rows, json_option
from broker.cli.up import COLUMNS, status_rows


@click.command()
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Show the local servers: state, process, port, memory, log.

    Example: broker status --json
    """
    from broker.local.stack import status

    emit_rows(status_rows(status(load(ctx))), COLUMNS, as_json=as_json)
