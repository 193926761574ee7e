"""`broker replay`: packets from files or from the archive, onto a topic."""

import dataclasses
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import click

from broker.cli.assemble import topics_of
from broker.cli.main import load
from broker.cli.output import emit_json, json_option, progress
from broker.config import Config
from broker.errors import ConfigError
from broker.replay.player import Packet, Rate, from_archive, from_files, parse_rate, replay
from broker.topics.topic import TopicSettings
from broker.types import Run
from broker.units import unix_s_to_mjd_tai


@click.command()
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--night", help="Play this night (YYYYMMDD) of the archive.")
@click.option("--survey", help="The survey whose packets are played: sim, ztf, lsst, ccd-images.")
@click.option("--to", "topic", required=True, help="Topic to publish on: alerts.ztf.")
@click.option("--run", "target", help="Run to play into; default the one the command works on.")
@click.option(
    "--rate",
    default="max",
    show_default=True,
    help="max, packets a second (100/s), or a multiple of the pace of their arrival (10x).",
)
@click.option(
    "--shift-to",
    help="Move every time in the packets so that the first was observed then: now, or an ISO time.",
)
@click.option(
    "--forever",
    is_flag=True,
    help="Begin anew at the end, until Ctrl-C: a test stream. Not into the run live.",
)
@click.option("--until", help="Leave out what arrived at this ISO time (UTC) or later.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    files: tuple[Path, ...],
    night: str | None,
    survey: str | None,
    topic: str,
    target: str | None,
    rate: str,
    until: str | None,
    shift_to: str | None,
    forever: bool,
    as_json: bool,
) -> None:
    """Publish packets again, as the bytes they are: FILES, or a night of the archive.

    Examples: broker replay alert.avro --to alerts.ztf --run test

    broker replay --night 20261120 --survey ztf --to alerts.ztf --run test --rate 10x

    A test stream that never ends: broker replay --night 20261120 --survey ztf --to alerts.ztf
    --run test --rate 1x --shift-to now --forever
    """
    if bool(files) == bool(night):
        raise click.UsageError("give either FILES or --night")
    config = load(ctx)
    run = Run(target) if target else config.the_run
    if forever and run.is_live:
        raise click.UsageError("--forever needs a run of its own: --run test")
    name = topic if topic.startswith("run.") else run.internal_topic(topic)
    pace, until_ms = _pace(rate), _milliseconds(until)

    def packets() -> Iterator[Packet]:
        while True:
            some = from_files(files) if files else _archived(config, survey, night or "")
            yield from some if shift_to is None else _shifted(some, survey, shift_to)
            if not forever:
                return

    with (
        topics_of(ctx) as topics,
        progress("packets", None if forever else len(files) or None) as advance,
    ):
        topics.create(name, TopicSettings(partitions=config.kafka.partitions))
        played = replay(topics, packets(), to=name, rate=pace, until_ms=until_ms, advance=advance)
    if as_json:
        emit_json({"topic": name, **dataclasses.asdict(played)})
    else:
        click.echo(f"{played.packets} packets ({played.bytes / 1e6:.1f} MB) are on {name}.")


def _archived(config: Config, survey: str | None, night: str) -> Iterable[Packet]:
    from broker.archive import Archive

    if survey is None:
        raise click.UsageError("--night needs --survey")
    archive = Archive(config.archive_path, config.the_run)
    return from_archive(archive, survey=survey, night=night)


def _shifted(packets: Iterable[Packet], survey: str | None, moment: str) -> Iterator[Packet]:
    from broker.alerts.adapters import find_adapters
    from broker.replay.shift import shift_packets

    adapters = find_adapters()
    if survey not in adapters:
        raise click.UsageError(f"--shift-to needs --survey, one of {', '.join(adapters)}")
    at_ms = time.time() * 1000.0 if moment == "now" else _milliseconds(moment, "--shift-to")
    to_mjd = float(unix_s_to_mjd_tai((at_ms or 0.0) / 1000.0))
    return shift_packets(packets, adapters[survey], to_mjd=to_mjd)


def _pace(rate: str) -> Rate:
    try:
        return parse_rate(rate)
    except ConfigError as error:
        raise click.UsageError(f"--rate {error.message}") from error


def _milliseconds(moment: str | None, option: str = "--until") -> int | None:
    if moment is None:
        return None
    try:
        when = datetime.fromisoformat(moment)
    except ValueError as error:
        raise click.UsageError(f"{option} {moment!r} is no ISO time") from error
    return round((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1000.0)
