"""`broker restore`: a run from its back-up."""

import dataclasses
import sys
from pathlib import Path

import click

from broker.cli.main import load
from broker.cli.output import BAD_DATA, emit_rows, json_option


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--over", is_flag=True, help="Write over what is there: go on with an interrupted one."
)
@json_option
@click.pass_context
def command(ctx: click.Context, folder: Path, over: bool, as_json: bool) -> None:
    """Bring a run back from the back-up in FOLDER, and prove by counts and checksums that it is.

    The run's stream must not be running; its tables and folders must be empty or absent. Exit
    code 20 if the back-up is damaged, or if what is restored differs from it.

    Example: broker restore /backups/live
    """
    from broker.ops.restore import restore
    from broker.store.hbase import HBaseTables
    from broker.streaming.query import open_tables

    tables: HBaseTables = open_tables(load(ctx))
    try:
        found = restore(load(ctx), tables, folder, over=over, say=lambda x: click.echo(x, err=True))
    finally:
        tables.close()
    rows = [dataclasses.asdict(one) for one in found]
    emit_rows(rows, ("what", "saved", "restored", "is_same"), as_json=as_json)
    if not all(one.is_same for one in found):
        sys.exit(BAD_DATA)
