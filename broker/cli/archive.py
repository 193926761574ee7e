"""`broker archive`: the raw packets on disk, and a night's table."""

from pathlib import Path

import click

from broker.cli.assemble import tables_of, topics_of
from broker.cli.main import load
from broker.cli.output import emit_json, emit_rows, json_option


@click.group()
def command() -> None:
    """Look at the archive, write a night's table, let go of what is archived.

    Example: broker archive list
    """


@command.command("list")
@json_option
@click.pass_context
def list_nights(ctx: click.Context, as_json: bool) -> None:
    """List the archived packets by survey and night of arrival.

    Example: broker archive list --json
    """
    from broker.archive import Archive

    config = load(ctx)
    archive = Archive(config.archive_path, config.the_run)
    rows = []
    for survey in archive.surveys():
        for night in archive.nights(survey):
            sizes = [len(packet) for _, _, packet in archive.packets(survey, night)]
            rows.append({"survey": survey, "night": night, "packets": len(sizes),
                         "megabytes": sum(sizes) / 1e6})  # fmt: skip
    emit_rows(rows, ("survey", "night", "packets", "megabytes"), as_json=as_json)


@command.command()
@click.argument("night")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="The Parquet file.")
@json_option
@click.pass_context
def table(ctx: click.Context, night: str, out: Path | None, as_json: bool) -> None:
    """Write the alerts observed in NIGHT (YYYYMMDD) as one Parquet table.

    Canonical columns, matches, module outputs, topics, and where each packet stood.

    Example: broker archive table 20251110 --out night.parquet
    """
    import pyarrow.parquet as pq

    from broker.ops.nights import write_night

    with tables_of(ctx) as tables:
        file = write_night(load(ctx), tables, night, out)
    alerts = pq.read_metadata(file).num_rows
    if as_json:
        emit_json({"night": night, "alerts": alerts, "file": str(file)})
    else:
        click.echo(f"{alerts} alerts are in {file}.")


@command.command()
@click.option("--dry-run", is_flag=True, help="Say what would be deleted, and delete nothing.")
@json_option
@click.pass_context
def trim(ctx: click.Context, dry_run: bool, as_json: bool) -> None:
    """Delete messages from the input topics that are archived and that the queries have consumed.

    Nothing else ever leaves an input topic. The packets stay readable from the archive.

    Example: broker archive trim --dry-run
    """
    from broker.archive import Archive
    from broker.ops.nights import disposable
    from broker.store.ledger import Ledger

    config = load(ctx)
    archive = Archive(config.archive_path, config.the_run)
    with topics_of(ctx) as topics, tables_of(ctx) as tables:
        parts = disposable(archive, Ledger(tables, config.the_run), topics)
        for part in parts:
            if not dry_run:
                topics.delete_before(part.topic, partition=part.partition, offset=part.end)
    rows = [
        {"topic": part.topic, "partition": part.partition, "messages": part.end - part.first}
        for part in parts
    ]
    emit_rows(rows, ("topic", "partition", "messages"), as_json=as_json)
