"""`broker token`: who may write over the API, what, until when and how often."""

from datetime import UTC, datetime
from typing import Any

import click

from broker.cli.main import load
from broker.cli.output import emit_rows, json_option
from broker.errors import ConfigError

_SCOPES = ("read", "watch", "annotate", "transfer")
_COLUMNS = ("name", "scopes", "ends", "perS", "openid")

_OPTIONS = (
    click.option(
        "--scope", "scopes", type=click.Choice(_SCOPES), multiple=True,
        help="What it is for: see or keep one's watchlists, annotate, start transfers.",
    ),
    click.option("--days", type=float, help="After how many it ends; default never."),
    click.option("--rate", "per_s", type=float, help="Requests that it may go on sending. [1/s]"),
    click.option(
        "--openid",
        help="Whom an OpenID provider may sign in as NAME: an e-mail address or sub:SUBJECT.",
    ),
)  # fmt: skip


def _said(command: Any) -> Any:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.group()
def command() -> None:
    """Give out tokens for the API and the portal; what everyone may see needs none.

    Example: broker token list
    """


@command.command()
@click.argument("name")
@_said
@click.pass_context
def add(ctx: click.Context, /, name: str, **said: Any) -> None:
    """Make a token for NAME and print it, this once: it is kept as a hash.

    It goes into the header `Authorization: Bearer TOKEN`; with read or watch one signs in to the
    portal. Requests with it are counted by it and not by their address. With --openid its holder
    may also sign in at the provider of serve.openid_file.

    Example: broker token add ann --scope watch --days 365
    """
    from broker.ops.tokens import tokens_of

    click.echo(tokens_of(load(ctx)).add(name, **said))


@command.command()
@click.argument("name")
@_said
@click.pass_context
def rotate(ctx: click.Context, /, name: str, **said: Any) -> None:
    """Make another token for NAME and print it; the old one is good no more.

    What is not said stays as it was; days count from now; --openid "" takes that away.

    Example: broker token rotate ann --scope watch --scope transfer
    """
    from broker.ops.tokens import tokens_of

    click.echo(tokens_of(load(ctx)).rotate(name, **said))


@command.command(name="list")
@json_option
@click.pass_context
def show(ctx: click.Context, as_json: bool) -> None:
    """List whose tokens there are, what they are for, and when they end.

    Example: broker token list --json
    """
    from broker.ops.tokens import tokens_of

    rows = [_row(one, as_json) for one in tokens_of(load(ctx)).all()]
    emit_rows(rows, _COLUMNS, as_json=as_json)


@command.command()
@click.argument("name")
@click.pass_context
def remove(ctx: click.Context, name: str) -> None:
    """Let NAME in no more; what they wrote stays.

    Example: broker token remove ann
    """
    from broker.ops.tokens import tokens_of

    if not tokens_of(load(ctx)).remove(name):
        raise ConfigError(f"{name[:80]!r} has no token")


def _row(one: Any, as_json: bool) -> dict[str, Any]:
    ends = None
    if one.expires_s is not None:
        ends = datetime.fromtimestamp(one.expires_s, UTC).isoformat(timespec="seconds")
    scopes = list(one.scopes) if as_json else ", ".join(one.scopes)
    return {"name": one.name, "scopes": scopes, "ends": ends, "perS": one.per_s,
            "openid": one.openid}  # fmt: skip
