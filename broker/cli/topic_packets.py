"""`broker topic read` and `lag`: packets as a table, as lines, as files; how far a group is."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from broker.cli.assemble import topics_of
from broker.cli.main import load
from broker.cli.output import emit_rows, json_option, progress

if TYPE_CHECKING:
    from broker.client import Packet

_COLUMNS = (
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
_IDLE_S = 3.0


@click.command()
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
@click.option("--out", type=click.Path(file_okay=False, path_type=Path),
              help="Write files into this folder instead.")  # fmt: skip
@click.option("--format", "form", type=click.Choice(["parquet", "avro", "jsonl"]),
              default="parquet", show_default=True, help="Of the files.")  # fmt: skip
@click.option("--group", help="Go on where this group stopped; machines share its partitions.")
@click.option("--follow", is_flag=True, help="With --out or --group: wait for more, for ever.")
@json_option
@click.pass_context
def read(
    ctx: click.Context, name: str, since: str, limit: int | None, full: bool, out: Path | None,
    form: str, group: str | None, follow: bool, as_json: bool,
) -> None:  # fmt: skip
    """Print the packets of a topic: a table, or with --json one object a line.

    NAME is a filter's topic (young-supernova) or a name in full (public.young-supernova.slim).
    With --out packets go into files; called again with the same folder, it goes on.

    Packets of a topic that floods have a column throttled: what part of all that passed goes out,
    what part of all alerts passed, and what is declared. Those of a watchlist have watchlist.

    Example: broker topic read young-supernova --from -1h --limit 10 --json
    """
    if out is not None:
        if limit is not None:
            raise click.UsageError("--limit is for what is printed; files have all")
        _save(ctx, name, since=since, full=full, out=out, form=form, group=group, follow=follow)
        return
    if group is not None or follow:
        _print_subscription(ctx, name, since, limit=limit, full=full, group=group, follow=follow)
        return
    from broker.client import Schemas, read_topic
    from broker.client.consumer import NOTES
    from broker.client.subscription import full_name
    from broker.topics.publish import schemas_topic

    config = load(ctx)
    with topics_of(ctx) as topics:
        packets = read_topic(
            topics,
            full_name(config, name, full=full),
            schemas=Schemas(topics, schemas_topic(config.the_run)),
            since=since,
            limit=limit,
        )
        if as_json:
            for packet in packets:
                click.echo(_line(packet))
            return
        rows = [packet.record | _said(packet) for packet in packets]
        noted = [name for name in NOTES if any(name in row for row in rows)]
        emit_rows(rows, (*_COLUMNS, *noted), as_json=False)


def _line(packet: "Packet") -> str:
    """Return a packet as a line of JSON, with what the broker noted on it."""
    from broker.client.files import plain_record

    return json.dumps(plain_record(packet.record) | packet.notes, ensure_ascii=False)


def _said(packet: "Packet") -> dict[str, str]:
    """Return what the broker noted on a packet, in words."""
    said = {}
    if flood := packet.notes.get("throttled"):
        kept, share, limit = (100.0 * flood[name] for name in ("kept", "share", "limit"))
        said["throttled"] = f"{kept:.3g} % of {share:.3g} %, {limit:.3g} % declared"
    if watched := packet.notes.get("watchlist"):
        entry, separation = watched.get("entry"), watched.get("separation")
        words = [watched["list"], entry, separation and f"{separation:.2f} arcsec"]
        said["watchlist"] = ", ".join(word for word in words if word)
    return said


def _save(
    ctx: click.Context, name: str, *, since: str, full: bool, out: Path, form: str,
    group: str | None, follow: bool,
) -> None:  # fmt: skip
    from broker.client import subscribe

    idle_s = None if follow else _IDLE_S
    settings: dict[str, Any] = {"since": since, "group": group, "full": full, "idle_s": idle_s}
    files = 0
    with subscribe(name, **settings, config=load(ctx)) as alerts, progress("files") as advance:
        for path in alerts.save(out, form=form):
            files += 1
            advance(1)
            if follow:
                click.echo(f"{path.name}; {alerts.lag()} messages wait", err=True)
        click.echo(f"{files} files in {out}; {alerts.lag()} messages wait.", err=True)


def _print_subscription(
    ctx: click.Context, name: str, since: str, *, limit: int | None, full: bool,
    group: str | None, follow: bool,
) -> None:  # fmt: skip
    from broker.client import subscribe

    idle_s = None if follow else _IDLE_S
    settings: dict[str, Any] = {"since": since, "group": group, "full": full, "idle_s": idle_s}
    if limit == 0:
        return
    with subscribe(name, **settings, config=load(ctx)) as alerts:
        for number, packet in enumerate(alerts.packets(), 1):
            click.echo(_line(packet))
            if number == limit:
                alerts.done()
                break
        click.echo(f"{alerts.lag()} messages wait.", err=True)


@click.command()
@click.argument("name")
@click.option("--group", required=True, help="The group.")
@click.option("--full", is_flag=True, help="Of the topic with history and cutouts.")
@json_option
@click.pass_context
def lag(ctx: click.Context, name: str, group: str, full: bool, as_json: bool) -> None:
    """Show how many messages of a topic a group has not handled yet, by partition.

    Example: broker topic lag young-supernova --group me
    """
    from broker.client.subscription import full_name
    from broker.topics.kafka_group import group_lag

    config = load(ctx)
    rows = group_lag(config.kafka.bootstrap, full_name(config, name, full=full), group)
    emit_rows(rows, ("partition", "committed", "end", "lag"), as_json=as_json)
