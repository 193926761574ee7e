"""`broker backup`: a copy of a run's tables, archive and files."""

from pathlib import Path

import click

from broker.cli.assemble import tables_of
from broker.cli.main import load
from broker.cli.output import emit_json, emit_rows, json_option


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--check", is_flag=True, help="Only read the back-up again and compare checksums.")
@json_option
@click.pass_context
def command(ctx: click.Context, folder: Path, check: bool, as_json: bool) -> None:
    """Copy tables, archive, catalogues and checkpoints of a run into FOLDER, while all goes on.

    Into the folder of an earlier back-up go the archive's new files alone, and everything else
    anew. What waits on Kafka's topics is not in it. Exit code 20 if --check finds damage.

    Example: broker backup /backups/live
    """
    from broker.ops.backup import back_up, read_manifest, require_whole

    if check:
        manifest = read_manifest(folder)
        require_whole(folder, manifest)
    else:
        with tables_of(ctx) as tables:
            manifest = back_up(load(ctx), tables, folder, say=lambda x: click.echo(x, err=True))
    rows = [{"table": t.name, "rows": t.rows, "cells": t.cells} for t in manifest.tables]
    megabytes = sum(file.bytes for file in manifest.files) / 1e6
    if as_json:
        total = {"files": len(manifest.files), "megabytes": megabytes}
        emit_json({"run": manifest.run, "made": manifest.made, "tables": rows, **total})
    else:
        emit_rows(rows, ("table", "rows", "cells"), as_json=False)
        words = "is whole" if check else "is made"
        click.echo(
            f"The back-up of run {manifest.run} of {manifest.made} {words}: "
            f"{len(manifest.files)} files, {megabytes:.1f} MB."
        )
