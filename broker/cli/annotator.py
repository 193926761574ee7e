"""`broker annotator`: outside classifiers that may say something of alerts."""

import click

from broker.cli.main import load
from broker.cli.output import emit_rows, json_option


@click.group()
def command() -> None:
    """Let outside classifiers annotate alerts over the API, each with a token.

    Example: broker annotator list
    """


@command.command()
@click.argument("name")
@click.pass_context
def add(ctx: click.Context, name: str) -> None:
    """Let classifier NAME in and print its token, this once.

    It posts {"annotations": [{"survey", "diaSourceId", "numbers", "texts"}]} to
    /api/v1/annotations with the header `Authorization: Bearer TOKEN`.

    Example: broker annotator add my-classifier
    """
    from broker.ops.annotators import Annotators

    click.echo(Annotators(load(ctx).run_path("annotators")).add(name))


@command.command("list")
@json_option
@click.pass_context
def list_annotators(ctx: click.Context, as_json: bool) -> None:
    """List who may annotate.

    Example: broker annotator list --json
    """
    from broker.ops.annotators import Annotators

    names = Annotators(load(ctx).run_path("annotators")).names()
    emit_rows([{"name": name} for name in names], ("name",), as_json=as_json)


@command.command()
@click.argument("name")
@click.pass_context
def remove(ctx: click.Context, name: str) -> None:
    """Let classifier NAME in no more; what it said stays.

    Example: broker annotator remove my-classifier
    """
    from broker.errors import ConfigError
    from broker.ops.annotators import Annotators

    if not Annotators(load(ctx).run_path("annotators")).remove(name):
        raise ConfigError(f"there is no annotator {name}")
