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
    from broker.ops.tokens import ANNOTATE, tokens_of

    click.echo(tokens_of(load(ctx)).add(name, (ANNOTATE,)))


@command.command("list")
@json_option
@click.pass_context
def list_annotators(ctx: click.Context, as_json: bool) -> None:
    """List who may annotate.

    Example: broker annotator list --json
    """
    from broker.ops.tokens import ANNOTATE, tokens_of

    rows = [{"name": one.name} for one in tokens_of(load(ctx)).all() if one.may(ANNOTATE)]
    emit_rows(rows, ("name",), as_json=as_json)


@command.command()
@click.argument("name")
@click.pass_context
def remove(ctx: click.Context, name: str) -> None:
    """Let classifier NAME in no more; what it said stays.

    Example: broker annotator remove my-classifier
    """
    from broker.errors import ConfigError
    from broker.ops.tokens import ANNOTATE, tokens_of

    if not tokens_of(load(ctx)).take(name, ANNOTATE):
        raise ConfigError(f"there is no annotator {name}")
