"""`broker catalog`: reference catalogues."""

from pathlib import Path
from typing import Any

import click

from broker.cli.main import load
from broker.cli.output import emit_json, emit_rows, json_option


@click.group()
def command() -> None:
    """Add and look at the catalogues that alerts are matched with.

    Example: broker catalog list
    """


@command.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--name", required=True, help="A defined catalogue; see `broker catalog list`.")
@click.option("--version", required=True, help="Stands with every match: 2026.1, dr3.")
@json_option
@click.pass_context
def add(ctx: click.Context, file: Path, name: str, version: str, as_json: bool) -> None:
    """Add the rows of a catalogue from a Parquet file, or replace them by a new version.

    The file has the columns id, ra and dec (degrees) and the attached ones. Running queries take
    the new version up between two batches.

    Example: broker catalog add stars.parquet --name reference --version 2026.1
    """
    from broker.catalog import install_catalog

    rows = install_catalog(load(ctx).catalog_path, name, file, version)
    if as_json:
        emit_json({"name": name, "version": version, "rows": rows})
    else:
        click.echo(f"{name} {version}: {rows} rows", err=True)


@command.command("list")
@json_option
@click.pass_context
def list_(ctx: click.Context, as_json: bool) -> None:
    """List the defined catalogues; one without rows reads -1, not searched.

    Example: broker catalog list --json
    """
    from broker.catalog.registry import Catalogs, read_definitions

    catalogs = Catalogs(load(ctx).catalog_path)
    rows: list[dict[str, Any]] = []
    for definition in read_definitions().values():
        found = catalogs.rows(definition.name)
        rows.append(
            {
                "name": definition.name,
                "version": None if found is None else found.version,
                "rows": 0 if found is None else len(found),
                "radiusArcsec": definition.radius_arcsec,
                "columns": [column.name for column in definition.columns],
                "doc": definition.doc,
            }
        )
    emit_rows(rows, ["name", "version", "rows", "radiusArcsec", "columns", "doc"], as_json=as_json)


@command.command()
@click.argument("name")
@json_option
@click.pass_context
def show(ctx: click.Context, name: str, as_json: bool) -> None:
    """Show the columns that a match with a catalogue adds to an alert.

    Example: broker catalog show reference
    """
    from broker.catalog.registry import definition_of

    load(ctx)
    rows = [
        {"column": c.name, "type": c.dtype, "unit": c.unit, "doc": c.doc}
        for c in definition_of(name).match_columns
    ]
    emit_rows(rows, ["column", "type", "unit", "doc"], as_json=as_json, title=name)


@command.command(context_settings={"ignore_unknown_options": True})
@click.argument("ra", type=float)
@click.argument("dec", type=float)
@json_option
@click.pass_context
def match(ctx: click.Context, ra: float, dec: float, as_json: bool) -> None:
    """Match one place on the sky, in degrees, with every catalogue.

    Example: broker catalog match 150.1 -2.2
    """
    from broker.catalog import Catalogs
    from broker.errors import AlertError

    if not (0.0 <= ra <= 360.0 and -90.0 <= dec <= 90.0):
        raise AlertError(f"({ra}, {dec}) is no place on the sky: 0 to 360 and -90 to 90 deg")
    found = Catalogs(load(ctx).catalog_path).match([ra], [dec]).to_pylist()[0]
    if as_json:
        emit_json(found)
    else:
        rows = ({"column": name, "value": value} for name, value in found.items())
        emit_rows(rows, ["column", "value"], as_json=False)
