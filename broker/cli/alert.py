"""`broker alert`: one alert as it is stored."""

from pathlib import Path
from typing import Any

import click

from broker.cli.assemble import find_alert, tables_of, topics_of
from broker.cli.main import load
from broker.cli.output import emit_json, emit_record, json_option
from broker.errors import AlertError


@click.group()
def command() -> None:
    """Look an alert up.

    Example: broker alert show 2457433850015010009
    """


@command.command()
@click.argument("dia_source_id", metavar="ID")
@click.option("--survey", help="sim, ztf or lsst; default the first that has this id.")
@click.option(
    "--packet",
    "packet_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the packet, as it came in, to this file.",
)
@json_option
@click.pass_context
def show(
    ctx: click.Context,
    dia_source_id: str,
    survey: str | None,
    packet_path: Path | None,
    as_json: bool,
) -> None:
    """Print an alert: canonical columns, matches, module outputs, topics, provenance.

    Example: broker alert show 2457433850015010009 --survey ztf --json
    """
    config = load(ctx)
    with tables_of(ctx) as tables:
        alert = find_alert(tables, config.the_run, dia_source_id, survey)
    if packet_path is not None:
        packet_path.write_bytes(_packet(ctx, alert))
        click.echo(f"The packet is in {packet_path}.", err=True)
    if as_json:
        emit_json(alert)
    else:
        places = [f"{at['topic']}/{at['partition']}/{at['offset']}" for at in alert["origins"]]
        emit_record(alert | {"origins": places})


def _packet(ctx: click.Context, alert: dict[str, Any]) -> bytes:
    from broker.archive import Archive
    from broker.ops.packets import find_packet

    config = load(ctx)
    with topics_of(ctx) as topics:
        packet = find_packet(Archive(config.archive_path, config.the_run), topics, alert)
    if packet is None:
        raise AlertError("the packet is neither in the archive nor on its topic any more")
    return packet
