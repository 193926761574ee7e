"""`broker topic`: what topics there are, and what is on them."""

import base64
import json
from pathlib import Path
from typing import Any

import click

from broker.cli.assemble import topics_of
from broker.cli.main import load
from broker.cli.output import emit_json, emit_rows, json_option, plain
from broker.cli.topic_share import check, status
from broker.types import Run


@click.group()
def command() -> None:
    """List topics and read packets from them.

    Example: broker topic read young-supernova --from earliest --limit 3
    """


command.add_command(check)
command.add_command(status)


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
@click.option("--where", required=True, help="What chooses an alert: one expression over columns.")
@click.option("--doc", required=True, help="For whom the topic is, in one sentence.")
@click.option(
    "--max-pass",
    type=click.FloatRange(0.0, 1.0, min_open=True),
    default=0.01,
    show_default=True,
    help="Of a night's alerts it may choose at most this part.",
)
@click.option(
    "--on",
    "files",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="Try it on packets in a file or folder; refused if more pass than --max-pass.",
)
@click.option("--dry-run", is_flag=True, help="Check it only.")
@json_option
@click.pass_context
def new(
    ctx: click.Context,
    name: str,
    where: str,
    doc: str,
    max_pass: float,
    files: tuple[Path, ...],
    dry_run: bool,
    as_json: bool,
) -> None:
    """Make a topic NAME of the alerts for which an expression is true; no code is needed.

    It may use the columns of `broker module list` and of every alert, AND, OR, NOT, IN, BETWEEN,
    IS NULL, comparisons, arithmetic, abs, sqrt, log10, least, greatest. What is null is not
    true. Names, types and cost are checked now; the topic begins when query 2 is next started.

    Example: broker topic new bright-new --where "snr > 20 AND age_days < 2" --doc "For a test."
    """
    from broker.cli.module_alerts import read_alerts
    from broker.errors import ConfigError
    from broker.science.installed import installed
    from broker.science.user_filters import measure, store_user_filter, user_filter

    config = load(ctx)
    among = installed(config)
    if name in among.topics:
        raise ConfigError(f"there is a topic {name} already; take another name", topic=name)
    chosen = user_filter(
        name,
        where,
        doc=doc,
        max_pass_fraction=max_pass,
        among=among,
        file=str(config.filters_path / f"{name}.toml"),
    )
    alerts = read_alerts(files, config.catalog_path) if files else None
    tried = measure(chosen, among, alerts)
    if not dry_run:
        store_user_filter(chosen, config.filters_path)
    row = {
        "topic": name,
        "file": None if dry_run else chosen.file,
        "reads": list(chosen.inputs),
        "msPerAlert": tried.ms_per_alert,
        "passed": tried.passed if files else None,
        "alerts": tried.n_alerts if files else None,
    }
    if as_json:
        emit_json(row)
        return
    emit_rows([row], tuple(row), as_json=False)
    if not dry_run:
        click.echo("The topic begins when the query of alerts is next started.", err=True)


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
    if "." in name:
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
