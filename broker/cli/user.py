"""`broker user`: who may connect to a secure Kafka, and which topics they may read and write."""

import math
from pathlib import Path
from typing import Any

import click

from broker.cli.main import load
from broker.cli.output import emit_rows, json_option

_COLUMNS = ("name", "reads", "writes", "mbPerS")
_OUT = click.Path(dir_okay=False, path_type=Path)

_out = click.option("--out", type=_OUT, help="The user's file; default NAME.properties here.")


@click.group()
def command() -> None:
    """Let users into Kafka: with a password, over TLS, to topics that begin as you say.

    This is for a Kafka with users: setting kafka.secure, before its first start.

    Example: broker user list
    """


@command.command()
@click.argument("name")
@click.option("--read", "reads", multiple=True, help="Beginning of topics to read; default public.")
@click.option(
    "--write", "writes", multiple=True, help="Beginning of topics to write; default none."
)
@click.option("--rate", type=float, default=50.0, show_default=True, help="Most it moves. [MB/s]")
@_out
@click.pass_context
def add(
    ctx: click.Context, name: str, reads: tuple[str, ...], writes: tuple[str, ...], rate: float,
    out: Path | None,
) -> None:  # fmt: skip
    """Let user NAME in, and write the file that they need: hand it over in secret.

    They set BROKER_KAFKA__USER_FILE to it. Their consumer groups begin with NAME.

    Example: broker user add ann --read public.
    """
    from broker.ops.users import PUBLIC, add_user
    from broker.topics.kafka_users import KafkaRights

    out = out or Path(f"{name}.properties")
    chosen = reads or (() if writes else (PUBLIC,))
    add_user(load(ctx), KafkaRights(name, chosen, writes, rate), out)
    click.echo(f"user {name} may connect; the password is in {out}, and nowhere else", err=True)


@command.command(name="list")
@json_option
@click.pass_context
def show(ctx: click.Context, as_json: bool) -> None:
    """List users, what their topics begin with, and how fast they may be.

    Example: broker user list
    """
    from broker.ops.users import users_of

    rows: list[dict[str, Any]] = [
        {
            "name": one.name,
            "reads": ", ".join(one.reads),
            "writes": ", ".join(one.writes),
            "mbPerS": one.mb_per_s if math.isfinite(one.mb_per_s) else None,
        }
        for one in users_of(load(ctx)).all()
    ]
    emit_rows(rows, _COLUMNS, as_json=as_json)


@command.command()
@click.argument("name")
@_out
@click.pass_context
def rotate(ctx: click.Context, name: str, out: Path | None) -> None:
    """Give user NAME another password, in another file; the old one lets nobody in any more.

    Example: broker user rotate ann --out ann-2.properties
    """
    from broker.ops.users import rotate_user

    out = out or Path(f"{name}.properties")
    rotate_user(load(ctx), name, out)
    click.echo(f"the new password of {name} is in {out}, and nowhere else", err=True)


@command.command()
@click.argument("name")
@click.pass_context
def remove(ctx: click.Context, name: str) -> None:
    """Let user NAME in no more.

    Example: broker user remove ann
    """
    from broker.ops.users import remove_user

    remove_user(load(ctx), name)
    click.echo(f"user {name} is removed", err=True)
