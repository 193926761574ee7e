"""`broker up`: start the local servers."""

import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from broker.cli.main import load
from broker.cli.output import emit_rows, json_option
from broker.config import Config

if TYPE_CHECKING:
    from broker.local.stack import ServiceStatus

COLUMNS = ("name", "state", "pid", "port", "memoryMb", "log")
_MEMBERS = {"kafka": ("kafka",), "hbase": ("hbase", "thrift")}

only_option = click.option(
    "--only", type=click.Choice(sorted(_MEMBERS)), help="Kafka, or HBase with its gateway."
)


@click.command()
@only_option
@click.option("--foreground", is_flag=True, help="Stay, and stop them when this command ends.")
@json_option
@click.pass_context
def command(ctx: click.Context, only: str | None, foreground: bool, as_json: bool) -> None:
    """Start Kafka and HBase on this machine and wait until they are ready.

    What runs already is left as it is. Data and logs are under the setting home (BROKER_HOME).

    Example: broker up
    """
    from broker.local.stack import up

    config, names = load(ctx), members(only)
    if foreground:
        _stay(config, names)
    else:
        emit_rows(status_rows(up(config, names=names)), COLUMNS, as_json=as_json)


def members(only: str | None) -> Sequence[str]:
    """Return the names of the servers that `--only` chooses."""
    from broker.local.stack import NAMES

    return NAMES if only is None else _MEMBERS[only]


def status_rows(services: "Sequence[ServiceStatus]") -> list[dict[str, Any]]:
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


def _stay(config: Config, names: Sequence[str]) -> None:
    """Run the servers until one ends or this process is asked to: how a container does it."""
    from broker.local.stack import down, up, watch

    def end(*_: Any) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    try:
        up(config, names=names)
        click.echo(f"ready: {', '.join(names)}", err=True)
        watch(config, names=names)
    except KeyboardInterrupt:
        click.echo("stopping", err=True)
    finally:
        down(config)
