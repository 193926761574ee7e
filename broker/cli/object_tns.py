"""`broker object tns`: an object as a report to the Transient Name Server."""

from pathlib import Path
from typing import Any

import click

from broker.cli.assemble import find_object, tables_of, topics_of
from broker.cli.main import load


@click.command()
@click.argument("dia_object_id", metavar="ID")
@click.option("--survey", help="sim, ztf or lsst; default the first that has this id.")
@click.option("--reporter", "names", required=True, help="Authors, as they shall be printed.")
@click.option("--group", required=True, help="Number of the reporting group at the TNS.")
@click.option("--source", required=True, help="Number of the group that the data are from.")
@click.option("--instrument", default="", help="Number of the instrument; ZTF's is known.")
@click.option("--band", "bands", multiple=True, metavar="BAND=NUMBER",
              help="Number of a passband; ZTF's are known; several.")  # fmt: skip
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Default the screen.")
@click.pass_context
def tns(
    ctx: click.Context, dia_object_id: str, survey: str | None, names: str, group: str,
    source: str, instrument: str, bands: tuple[str, ...], out: Path | None,
) -> None:  # fmt: skip
    """Write a report of an object that the Transient Name Server takes; nothing is sent.

    The file is the `data` of a bulk report: send it with your own key, to the sandbox first.

    Example: broker object tns ID --survey ztf --reporter "A. Person" --group 1 --source 48
    """
    from broker.ops.tns import Reporter, tns_report

    pairs = dict(text.partition("=")[::2] for text in bands)
    if not all(pairs.values()):
        raise click.UsageError("--band is BAND=NUMBER")
    config = load(ctx)
    with tables_of(ctx) as tables:
        alerts = find_object(tables, config.the_run, dia_object_id, survey)
    who = Reporter(names, group, source, instrument, pairs)
    text = tns_report(alerts, _history(ctx, alerts[0]), who)
    if out is None:
        click.echo(text)
    else:
        out.write_text(text, encoding="utf-8")


def _history(ctx: click.Context, alert: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the epochs in an alert's packet; none if the packet is not kept any more."""
    from broker.alerts.adapters import find_adapters
    from broker.archive import Archive
    from broker.ops.packets import find_packet
    from broker.types import Coordinate

    config = load(ctx)
    with topics_of(ctx) as topics:
        packet = find_packet(Archive(config.archive_path, config.the_run), topics, alert)
    if packet is None:
        return []
    table = find_adapters()[alert["survey"]].decode_one(packet, Coordinate("", 0, 0))
    found: list[dict[str, Any]] = table["history"][0].as_py() or []
    return found
