"""`broker notice`: notices of events elsewhere, joined to the alerts."""

from pathlib import Path
from typing import Any

import click

from broker.cli.assemble import make_tables, topics_of
from broker.cli.main import load
from broker.cli.output import emit_rows, json_option

_COLUMNS = ("noticeId", "kind", "isTest", "triggerMjdTai", "place", "ra", "dec", "isInForce")
_PAIRS = ("noticeId", "survey", "diaSourceId", "delay", "separation", "credibleLevel", "isTest")


@click.group()
def command() -> None:
    """Give notices of events to the broker, and list them and the alerts that they may explain.

    Example: broker notice list
    """


@command.command()
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option("--unchecked", is_flag=True, help="Send what is wrong too; it ends as a dead letter.")
@json_option
@click.pass_context
def publish(ctx: click.Context, files: tuple[Path, ...], unchecked: bool, as_json: bool) -> None:
    """Send the notices in FILES, JSON as GCN has it or VOEvent 2.0, to the topic of notices.

    All are checked before any is sent. The query `notices` joins them to the alerts.

    Example: broker notice publish grb.json gw.xml
    """
    from broker.errors import AlertError
    from broker.notices import parse_notice
    from broker.notices.wire import notices_topic
    from broker.topics.topic import Message, TopicSettings

    config = load(ctx)
    bodies = [(path, path.read_bytes()) for path in files]
    rows: list[dict[str, Any]] = []
    for path, body in bodies:
        try:
            named = parse_notice(body, maps=config.notice_maps_path).notice_id
        except AlertError as error:
            if not unchecked:
                raise AlertError(f"{path}: {error.message}; nothing was sent") from error
            named = None
        rows.append({"file": str(path), "noticeId": named})
    topic = notices_topic(config.the_run)
    with topics_of(ctx) as topics:
        topics.create(topic, TopicSettings(partitions=1))
        sent = topics.send(topic, [Message(body) for _, body in bodies])
    for row, at in zip(rows, sent, strict=True):
        row["coordinate"] = str(at)
    emit_rows(rows, ("file", "noticeId", "coordinate"), as_json=as_json)


@command.command("list")
@json_option
@click.pass_context
def list_notices(ctx: click.Context, as_json: bool) -> None:
    """List the notices that were taken in, in the order of their events.

    Example: broker notice list --json
    """
    from broker.errors import ConfigError
    from broker.store.notices import NoticeStore

    config = load(ctx)
    tables = make_tables(config)
    try:
        if config.the_run.table("notice") not in tables.names():
            raise ConfigError(
                f"run {config.run} has no notices: the query `notices` was never started in it"
            )
        store = NoticeStore(tables, config.the_run)
        # No event is known of times that are not MJDs of these centuries.
        rows = [
            _row(known.notice, known.is_in_force and not known.is_retracted)
            for known in store.between(0.0, 1e6)
        ]
        rows += [_row(notice, True) for notice in store.all() if notice.place is None]
    finally:
        tables.close()
    emit_rows(rows, _COLUMNS, as_json=as_json)


@command.command()
@click.option("--limit", type=click.IntRange(min=0), help="At most so many.")
@json_option
@click.pass_context
def matches(ctx: click.Context, limit: int | None, as_json: bool) -> None:
    """Print the pairs of a notice and an alert, each once.

    Example: broker notice matches --limit 20
    """
    from broker.client import Schemas, read_topic
    from broker.notices.wire import notice_matches_topic
    from broker.topics.publish import schemas_topic

    run = load(ctx).the_run
    with topics_of(ctx) as topics:
        schemas = Schemas(topics, schemas_topic(run))
        found = read_topic(topics, notice_matches_topic(run), schemas=schemas, limit=limit)
        emit_rows([packet.record for packet in found], _PAIRS, as_json=as_json)


def _row(notice: Any, is_in_force: bool) -> dict[str, Any]:
    from broker.notices import Ellipse, ProbabilityMap

    place, ra, dec = None, None, None
    if isinstance(notice.place, Ellipse):
        place, ra, dec = f"{notice.place.major:g} deg", notice.place.ra, notice.place.dec
    elif isinstance(notice.place, ProbabilityMap):
        place, (ra, dec) = "map", notice.place.likeliest
    return {
        "noticeId": notice.notice_id,
        "kind": notice.kind,
        "isTest": notice.is_test,
        "triggerMjdTai": notice.trigger_mjd_tai,
        "place": place,
        "ra": ra,
        "dec": dec,
        "isInForce": is_in_force,
    }
