"""`broker dead-letter`: what could not be used, and why."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from broker.cli.assemble import topics_of
from broker.cli.main import load
from broker.cli.output import emit_json, emit_rows, json_option
from broker.errors import AlertError, ConfigError
from broker.topics.publish import DeadLetter, dead_letters_topic, read_dead_letters
from broker.topics.topic import Message, Topics
from broker.types import Coordinate, Run

_COLUMNS = ("topic", "partition", "offset", "stage", "reason", "bytes")


@click.group()
def command() -> None:
    """List, look at and send again the messages that could not be used.

    Example: broker dead-letter list
    """


def _letters(topics: Topics, run: Run) -> Iterator[DeadLetter]:
    """Yield each dead letter once: a batch that was repeated wrote its own twice."""
    if dead_letters_topic(run) not in topics.names():
        raise ConfigError(
            f"run {run.name} has no dead letters: no query has been started in it yet"
        )
    seen: set[Coordinate] = set()
    for letter in read_dead_letters(topics, run):
        if letter.origin not in seen:
            seen.add(letter.origin)
            yield letter


def _whole(ctx: click.Context, topics: Topics, letter: DeadLetter) -> DeadLetter:
    """Return a letter with its bytes."""
    from broker.archive import Archive
    from broker.ops.packets import whole_letter

    config = load(ctx)
    found = whole_letter(Archive(config.archive_path, config.the_run), topics, letter)
    if found is None:
        raise AlertError(
            f"message {letter.origin} is on its topic and in the archive no more",
            coordinate=str(letter.origin),
        )
    return found


def _as_row(letter: DeadLetter) -> dict[str, Any]:
    return {
        "topic": letter.origin.topic,
        "partition": letter.origin.partition,
        "offset": letter.origin.offset,
        "stage": letter.stage,
        "reason": letter.reason,
        "bytes": None if letter.value is None else len(letter.value),
    }


@command.command("list")
@click.option("--stage", help="Only those that failed at this stage.")
@click.option("--limit", type=click.IntRange(min=0), help="At most so many.")
@json_option
@click.pass_context
def list_letters(ctx: click.Context, stage: str | None, limit: int | None, as_json: bool) -> None:
    """List dead letters, with the place where each message stood and the reason.

    Example: broker dead-letter list --stage decode --json
    """
    with topics_of(ctx) as topics:
        rows = [
            _as_row(letter)
            for letter in _letters(topics, load(ctx).the_run)
            if stage is None or letter.stage == stage
        ]
    emit_rows(rows[:limit], _COLUMNS, as_json=as_json)


@command.command()
@click.argument("coordinate")
@click.option("--raw", "raw_path", type=click.Path(path_type=Path, dir_okay=False),
              help="Write the message, as it came, to this file.")  # fmt: skip
@json_option
@click.pass_context
def show(ctx: click.Context, coordinate: str, raw_path: Path | None, as_json: bool) -> None:
    """Show one dead letter; COORDINATE is topic/partition/offset, as `list` has them.

    Example: broker dead-letter show alerts.ztf/0/17 --raw bad.avro
    """
    wanted = _coordinate(coordinate)
    with topics_of(ctx) as topics:
        found = [x for x in _letters(topics, load(ctx).the_run) if x.origin == wanted]
        if not found:
            raise AlertError(f"there is no dead letter of {wanted}")
        letter = _whole(ctx, topics, found[0])
    if raw_path is not None:
        raw_path.write_bytes(letter.value or b"")
        click.echo(f"The message is in {raw_path}.", err=True)
    row = _as_row(letter) | {"head": (letter.value or b"")[:32].hex(" ")}
    if as_json:
        emit_json(row)
    else:
        for name, value in row.items():
            click.echo(f"{name:10} {value}")


@command.command()
@click.argument("coordinates", nargs=-1)
@click.option("--stage", help="Only those that failed at this stage.")
@json_option
@click.pass_context
def reinject(
    ctx: click.Context, coordinates: tuple[str, ...], stage: str | None, as_json: bool
) -> None:
    """Send dead letters to the topics they came from again: all, or those at COORDINATES.

    Each becomes a new message there; the old one stays where it was counted.

    Example: broker dead-letter reinject --stage decode
    """
    wanted = {_coordinate(text) for text in coordinates}
    sent: dict[str, int] = {}
    with topics_of(ctx) as topics:
        letters = list(_letters(topics, load(ctx).the_run))
        unknown = wanted - {letter.origin for letter in letters}
        if unknown:
            raise AlertError(f"there is no dead letter of {min(unknown)}")
        for letter in letters:
            if (wanted and letter.origin not in wanted) or (stage and letter.stage != stage):
                continue
            whole = _whole(ctx, topics, letter)
            topics.send(letter.origin.topic, [Message(whole.value, key=whole.key)])
            sent[letter.origin.topic] = sent.get(letter.origin.topic, 0) + 1
    rows = [{"topic": topic, "sent": count} for topic, count in sorted(sent.items())]
    emit_rows(rows, ("topic", "sent"), as_json=as_json)


def _coordinate(text: str) -> Coordinate:
    topic, _, rest = text.partition("/")
    partition, _, offset = rest.partition("/")
    if not (topic and partition.isdigit() and offset.isdigit()):
        raise click.UsageError(f"{text!r} is no coordinate: write topic/partition/offset")
    return Coordinate(topic, int(partition), int(offset))
