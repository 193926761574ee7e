"""`broker status`: how the local servers are."""

import sys

import click

from broker.cli.main import load
from broker.cli.output import emit_rows, json_option
from broker.cli.up import COLUMNS, members, only_option, status_rows
from broker.errors import ServiceError


@click.command()
@only_option
@click.option("--check", is_flag=True, help="End with an error unless all of them run.")
@json_option
@click.pass_context
def command(ctx: click.Context, only: str | None, check: bool, as_json: bool) -> None:
    """Show the local servers: state, process, port, memory, log.

    Example: broker status --json
    """
    from broker.local.stack import status

    services = [row for row in status(load(ctx)) if row.name in members(only)]
    emit_rows(status_rows(services), COLUMNS, as_json=as_json)
    if check and any(service.state != "running" for service in services):
        sys.exit(ServiceError.exit_code)
