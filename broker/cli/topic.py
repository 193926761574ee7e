"""`broker topic`: what topics there are, and what is on them."""

import base64
import json
from typing import Any

import click

from broker.cli.assemble import topics_of
from broker.cli.main import load
from broker.cli.output import emit_rows, json_option, plain
from broker.types import Run


@click.group()
def command() -> None:
    """List topics and read packets from them.

    Example: broker topic read young-supernova --from earliest --limit 3
    """


@command.command("list")
@click.option("--all", "show_all", is_flag=True, help="Input and internal topics too.")
@json_option
@click.pass_context
def list_topics(ctx: click.Context, show_all: bool, as_json: bool) -> None:
    """List the topics of this run, with the messages each one holds.

    Example: broker topic list
    """
    run = load(ctx).the_run
    prefix = "public." if run.is_live else f"run.{run.name}."
    rows = []
    with topics_of(ctx) as topics:
        for name in topics.names():
            is_public = name.startswith(prefix) and name.endswith((".slim", ".full"))
            if is_public or (show_all and (run.is_live or name.startswith(prefix))):
                ranges = topics.ranges(name)
                held = sum(part.end - part.first for part in ranges)
                rows.append({"topic": name, "partitions": len(ranges), "messages": held})
    emit_rows(rows, ("topic", "partitions", "messages"), as_json=as_json)


@command.command()
@click.argument("name")
@click.option(
    "--from",
    "since",
    default="earliest",
    show_default=True,
    help="earliest, latest, -1h (s, m, h, d) or an ISO time.",
)
@click.option("--limit", type=click.IntRange(min=0), help="At most so many packets.")
@click.option("--full", is_flag=True, help="With history and cutouts.")
@json_option
@click.pass_context
def read(
    ctx: click.Context, name: str, since: str, limit: int | None, full: bool, as_json: bool
) -> None:
    """Print the packets of a topic: a table, or with --json one object a line.

    NAME is a filter's topic (young-supernova) or a name in full (public.young-supernova.slim).

    Example: broker topic read young-supernova --from -1h --limit 10 --json
    """
    from broker.client import Schemas, read_topic
    from broker.topics.publish import schemas_topic

    run = load(ctx).the_run
    with topics_of(ctx) as topics:
        packets = read_topic(
            topics,
            _full_name(run, name, full),
            schemas=Schemas(topics, schemas_topic(run)),
            since=since,
            limit=limit,
        )
        if as_json:
            for packet in packets:
                click.echo(json.dumps(_for_json(packet.record), ensure_ascii=False))
            return
        columns = (
            "survey",
            "diaSourceId",
            "diaObjectId",
            "midpointMjdTai",
            "band",
            "ra",
            "dec",
            "psfFlux",
            "snr",
            "reliability",
        )
        emit_rows((packet.record for packet in packets), columns, as_json=False)


def _full_name(run: Run, name: str, full: bool) -> str:
    if name.endswith((".slim", ".full")):
        return name
    return run.public_topic(name, "full" if full else "slim")


def _for_json(record: Any) -> Any:
    """Return a record as JSON has it; images as base64."""
    if isinstance(record, bytes):
        return base64.b64encode(record).decode("ascii")
    if isinstance(record, dict):
        return {key: _for_json(value) for key, value in record.items()}
    if isinstance(record, list):
        return [_for_json(value) for value in record]
    return plain(record)
