"""`broker bench sizing`: cores and disk for Rubin, from a measurement."""

import json
from pathlib import Path

import click

from broker.cli.output import emit_rows, json_option
from broker.errors import ConfigError


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--times",
    type=click.FloatRange(min=0.001),
    multiple=True,
    default=(1.0, 10.0),
    show_default=True,
    help="Multiples of Rubin's ten million alerts a night; may be repeated.",
)
@json_option
def sizing(file: Path, times: tuple[float, ...], as_json: bool) -> None:
    """Reckon cores and disk for Rubin from FILE, what `broker bench stream --json` printed.

    Cores are twice what the mean rate keeps busy, so that an outage is made up for in its own
    length; Kafka keeps seven nights in three copies.

    Example: broker bench sizing lsst.json --times 1 --times 10
    """
    from broker.ops.sizing import needs

    try:
        bench = json.loads(file.read_text(encoding="utf-8"))["bench"]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{file} is no result of broker bench stream --json") from error
    columns = [f"{multiple:g}× Rubin" for multiple in times]
    rows = [
        {"part": n.part, "an alert": n.per_alert, "unit": n.unit}
        | dict(zip(columns, n.amounts, strict=True))
        for n in needs(bench, times)
    ]
    emit_rows(rows, ("part", "an alert", "unit", *columns), as_json=as_json)
