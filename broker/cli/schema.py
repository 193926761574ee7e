"""`broker schema`: the schemas that packets may be written with."""

import os
from pathlib import Path

import click

from broker.cli.main import load
from broker.cli.output import emit_rows, json_option
from broker.errors import ConfigError


@click.group()
def command() -> None:
    """List the schemas that packets may have, and add one while the stream runs.

    Example: broker schema list
    """


@command.command("list")
@click.option("--survey", help="Only this survey's.")
@json_option
@click.pass_context
def list_schemas(ctx: click.Context, survey: str | None, as_json: bool) -> None:
    """List the schemas that packets may have, by survey and id on the wire.

    Example: broker schema list --survey lsst
    """
    from broker.alerts.adapters import find_adapters, look_for_schemas

    look_for_schemas(load(ctx).home)
    rows = [
        {"survey": name, "id": key, "name": schema.get("name"), "wire": adapter.wire}
        for name, adapter in sorted(find_adapters().items())
        for key, schema in sorted(adapter.schemas.items())
        if survey in (None, name)
    ]
    emit_rows(rows, ("survey", "id", "name", "wire"), as_json=as_json)


@command.command()
@click.argument("survey")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.pass_context
def add(ctx: click.Context, survey: str, file: Path) -> None:
    """Add a survey's new schema, FILE `<major>.<minor>.avsc`; the stream takes it up by itself.

    What came before it is among the dead letters: `broker dead-letter reinject` sends it again.

    Example: broker schema add lsst 12.0.avsc
    """
    from broker.alerts.adapters import find_adapters, look_for_schemas
    from broker.alerts.new_schemas import usable_schema

    home = load(ctx).home
    look_for_schemas(home)
    adapters = find_adapters()
    if survey not in adapters:
        raise ConfigError(f"there is no survey {survey!r}; known are {', '.join(sorted(adapters))}")
    if not all(part.isdigit() for part in file.stem.split(".")) or file.suffix != ".avsc":
        raise ConfigError(f"{file.name} is no version: name the file <major>.<minor>.avsc")
    key, _ = usable_schema(adapters[survey], file)
    folder = home / "schemas" / survey
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{file.name}.part"
    part.write_bytes(file.read_bytes())
    os.replace(part, folder / file.name)  # noqa: PTH105 - seen whole or not at all
    click.echo(
        f"Packets of {survey} may have schema {file.stem} (id {key}) from the next batch on."
    )
