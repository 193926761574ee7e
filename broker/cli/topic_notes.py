"""`broker topic show` and `deprecate`: what a subscriber should know of a topic."""

from typing import Any

import click

from broker.cli.assemble import topics_of
from broker.cli.main import load
from broker.cli.output import emit_json, emit_record, json_option

_MS_PER_DAY = 86_400_000


@click.command()
@click.argument("name")
@json_option
@click.pass_context
def show(ctx: click.Context, name: str, as_json: bool) -> None:
    """Show what topic NAME chooses, how long packets stay, whether it ends, how to cite it.

    Example: broker topic show young-supernova
    """
    from broker.errors import ConfigError
    from broker.ops.topic_notes import citation, deprecation
    from broker.science.installed import installed

    config = load(ctx)
    found = installed(config)
    chosen = next((one for one in found.filters if one.topic == name), None)
    if chosen is None:
        raise ConfigError(f"there is no topic {name}; there are {', '.join(sorted(found.topics))}")
    ends = deprecation(config.home / "deprecations", name)
    makers = {c.python_name: m for m in found.modules for c in m.outputs}
    modules = tuple(sorted({makers[i].label for i in chosen.inputs if i in makers}))
    row: dict[str, Any] = {
        "topic": name,
        "title": chosen.title,
        "doc": chosen.doc,
        "inputs": list(chosen.inputs),
        "maxPassFraction": chosen.max_pass_fraction,
        "deprecated": ends.sentence if ends else None,
        "cite": citation(name, config.run, modules),
    }
    with topics_of(ctx) as topics:
        known = set(topics.names())
        for variant in ("slim", "full"):
            full = config.the_run.public_topic(name, variant)
            row[variant] = _held(topics, full) if full in known else None
    if as_json:
        emit_json(row)
    else:
        emit_record(row)


def _held(topics: Any, name: str) -> dict[str, Any]:
    """Return what a topic holds and how long, as the server has it set."""
    ms = topics.retention_ms(name)
    ranges = topics.ranges(name)
    return {
        "name": name,
        "messages": sum(part.end - part.first for part in ranges),
        "retention": "for ever" if ms < 0 else f"{ms / _MS_PER_DAY:.6g} days",
    }


@click.command()
@click.argument("name")
@click.option("--ends", help="The last day, YYYY-MM-DD.")
@click.option("--why", help="One sentence.")
@click.option("--instead", default="", help="The topic that takes its place.")
@click.option("--withdraw", is_flag=True, help="Take the announcement back.")
@click.pass_context
def deprecate(
    ctx: click.Context, name: str, ends: str | None, why: str | None, instead: str, withdraw: bool
) -> None:
    """Announce the end of topic NAME; `topic show` tells it. Packets go on until it is removed.

    Example: broker topic deprecate old-topic --ends 2027-01-31 --why "It is too wide."
    """
    from broker.errors import ConfigError
    from broker.ops.topic_notes import Deprecation, announce
    from broker.ops.topic_notes import withdraw as take_back
    from broker.science.installed import installed

    config = load(ctx)
    folder = config.home / "deprecations"
    known = installed(config).topics
    for one in (name, instead):
        if one and one not in known:
            raise ConfigError(f"there is no topic {one}; there are {', '.join(sorted(known))}")
    if withdraw:
        if not take_back(folder, name):
            raise ConfigError(f"no end of topic {name} was announced")
        return
    if not ends or not why:
        raise click.UsageError("say --ends and --why")
    click.echo(f"Kept in {announce(folder, Deprecation(name, ends, why, instead))}.", err=True)
