"""`broker up`: start the local servers."""

from typing import Any

import click

from broker.cli.main import load
from broker.cli.output import emit_rows, json_option

COLUMNS = ("name", "state", "pid", "port", "memoryMb", "log")


@click.command()
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Start Kafka and HBase on this machine and wait until they are ready.

    What runs already is left as it is. Data and logs are under the setting home (BROKER_HOME).

    Example: broker up
    """
    from broker.local.stack import up

    emit_rows(status_rows(up(load(ctx))), COLUMNS, as_json=as_json)


def status_rows(services: Any) -> list[dict[str, Any]]:
    """Return what is shown of each server, a row each."""
    return [
        {
            "name": service.name,
            "state": service.state,
            "pid": service.pid,
            "port": service.port,
            "memoryMb": None if service.memory_mb is None else round(service.memory_mb),
            "log": str(service.log),
        }
        for service in services
    ]
