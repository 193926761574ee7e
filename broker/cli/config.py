"""`broker config`: what the settings are, and whether they can work."""

import dataclasses
from pathlib import Path
from typing import Any

import click

from broker.cli.main import load
from broker.cli.output import emit_json, json_option


@click.group()
def command() -> None:
    """Show and check the settings.

    Example: broker config show
    """


def _as_dict(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {field.name: _as_dict(getattr(value, field.name)) for field in fields}
    return str(value) if isinstance(value, Path) else value


@command.command()
@json_option
@click.pass_context
def show(ctx: click.Context, as_json: bool) -> None:
    """Print every setting with its value.

    Example: broker config show --json
    """
    tree = _as_dict(load(ctx))
    if as_json:
        emit_json(tree)
        return
    for section, values in tree.items():
        if isinstance(values, dict):
            click.echo(f"\n[{section}]")
            for name, value in values.items():
                click.echo(f"{name} = {_toml(value)}")
        else:
            click.echo(f"{section} = {_toml(values)}")


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return str(value)


@command.command()
@click.pass_context
def check(ctx: click.Context) -> None:
    """Check the settings without starting anything; exit code 21 if they cannot work.

    Example: broker config check
    """
    load(ctx)
    click.echo("The settings can work.", err=True)
