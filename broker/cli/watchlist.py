"""`broker watchlist`: positions, names or a part of the sky, each a topic within seconds."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from broker.cli.assemble import make_topics
from broker.cli.main import load
from broker.cli.output import emit_json, emit_record, emit_rows, json_option

if TYPE_CHECKING:
    from broker.catalog.coverage import Coverage
    from broker.config import Config
    from broker.watchlists import Entries, WatchBook, Watchlist

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_COLUMNS = ("name", "topic", "owner", "kind", "entries", "where", "private", "changed", "doc")

_moc = click.option("--moc", type=_FILE, help="A region: MOC as FITS or JSON file.")
_radius = click.option("--radius", type=float, default=2.0, show_default=True,
                       help="Of positions that say none. [arcsec]")  # fmt: skip
_in = click.option("--in", "catalog", help="Take the places of names from this catalogue.")


@click.group()
def command() -> None:
    """Watch a list of positions or objects, or a part of the sky: each becomes a topic.

    Example: broker watchlist list
    """


@command.command()
@click.argument("name")
@click.argument("file", type=_FILE, required=False)
@_moc
@click.option("--owner", required=True, help="Whose it is.")
@_radius
@_in
@click.option("--where", default="", help="An expression that must be true too; as topic new.")
@click.option("--private", is_flag=True, help="Shown to its owner only.")
@click.option("--doc", default="", help="What it holds, in one sentence.")
@click.pass_context
def add(
    ctx: click.Context, name: str, file: Path | None, moc: Path | None, owner: str, radius: float,
    catalog: str | None, where: str, private: bool, doc: str,
) -> None:  # fmt: skip
    """Add watchlist NAME; its topic, watchlist-NAME, begins within seconds.

    FILE has columns ra, dec (degrees) and, if there, id and radius (arcsec); or one column of
    names (diaObjectId, ssObjectId). CSV, Parquet, FITS, VOTable or ECSV; up to a million.

    Example: broker watchlist add my-stars stars.csv --owner me --radius 1.5
    """
    from broker.watchlists import Watchlist

    config = load(ctx)
    wanted = Watchlist(name, owner, "", doc=doc, where=where, radius_arcsec=radius,
                       is_private=private)  # fmt: skip
    made = _put(config, wanted, _content(config, file, moc, radius, catalog), replaces=False)
    click.echo(f"{made.topic}: {made.n_entries} {_word(made)}; it begins within seconds", err=True)


@command.command()
@click.argument("name")
@click.argument("file", type=_FILE, required=False)
@_moc
@click.option("--radius", type=float, help="Of positions that say none; default as before.")
@_in
@click.option("--where", help="Another expression; '' for none.")
@click.option("--private/--public", default=None, help="Who is shown it.")
@click.option("--doc", help="What it holds, in one sentence.")
@click.pass_context
def update(
    ctx: click.Context, name: str, file: Path | None, moc: Path | None, radius: float | None,
    catalog: str | None, where: str | None, private: bool | None, doc: str | None,
) -> None:  # fmt: skip
    """Put other entries, or another expression, in the place of those of watchlist NAME.

    Example: broker watchlist update my-stars stars.csv
    """
    from dataclasses import replace

    config = load(ctx)
    before = _known(config, name)
    given = {"where": where, "is_private": private, "doc": doc, "radius_arcsec": radius}
    wanted = replace(before, **{k: v for k, v in given.items() if v is not None})  # type: ignore[arg-type]
    if file or moc:
        content = _content(config, file, moc, wanted.radius_arcsec, catalog)
    elif radius is not None or catalog is not None:
        raise click.UsageError("--radius and --in are for new entries: give FILE")
    else:
        content = _book(config).entries(name)
    made = _put(config, wanted, content, replaces=True)
    click.echo(f"{made.topic}: {made.n_entries} {_word(made)}", err=True)


@command.command("list")
@click.option("--owner", help="Of this owner only.")
@json_option
@click.pass_context
def list_(ctx: click.Context, owner: str | None, as_json: bool) -> None:
    """List the watchlists of this run, private ones too.

    Example: broker watchlist list --owner me
    """
    found = [one for one in _book(load(ctx)).all() if owner is None or one.owner == owner]
    emit_rows([_row(one) for one in found], _COLUMNS, as_json=as_json)


@command.command()
@click.argument("name")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="Entries.")
@json_option
@click.pass_context
def show(ctx: click.Context, name: str, limit: int, as_json: bool) -> None:
    """Show a watchlist and its first entries.

    Example: broker watchlist show my-stars
    """
    from broker.watchlists import Entries

    config = load(ctx)
    found = _known(config, name)
    content = _book(config).entries(name)
    if as_json:
        emit_json(asdict(found) | {"topic": found.topic})
        return
    emit_record({**_row(found), "skyFraction": found.sky_fraction})
    if isinstance(content, Entries):
        table = content.table.slice(0, limit)
        emit_rows(table.to_pylist(), table.column_names, as_json=False)


@command.command()
@click.argument("name")
@click.pass_context
def remove(ctx: click.Context, name: str) -> None:
    """Remove watchlist NAME: nothing more goes to its topic; what is there stays.

    Example: broker watchlist remove my-stars
    """
    _book(load(ctx)).remove(name)
    click.echo(f"watchlist {name} is removed", err=True)


@command.command()
@click.argument("name")
@click.option("--remove", is_flag=True, help="Let this owner in no more; the lists stay.")
@click.pass_context
def owner(ctx: click.Context, name: str, remove: bool) -> None:
    """Let owner NAME keep watchlists over the API and print the token, this once.

    Example: broker watchlist owner me
    """
    from broker.errors import ConfigError
    from broker.ops.tokens import WATCH, tokens_of

    tokens = tokens_of(load(ctx))
    if not remove:
        click.echo(tokens.add(name, (WATCH,)))
    elif not tokens.take(name, WATCH):
        raise ConfigError(f"there is no owner {name}")


def _book(config: "Config") -> "WatchBook":
    from broker.watchlists import WatchBook

    return WatchBook(config.run_path("watchlists"))


def _known(config: "Config", name: str) -> "Watchlist":
    from broker.errors import ConfigError

    found = _book(config).find(name)
    if found is None:
        raise ConfigError(f"there is no watchlist {name!r}: broker watchlist list", name=name)
    return found


def _content(
    config: "Config", file: Path | None, moc: Path | None, radius: float, catalog: str | None
) -> "Entries | Coverage":
    from broker.catalog.coverage import read_coverage
    from broker.catalog.registry import Catalogs
    from broker.watchlists import read_entries, resolved

    if (file is None) == (moc is None):
        raise click.UsageError("give FILE, or a region as --moc")
    if moc is not None:
        if catalog:
            raise click.UsageError("--in is for a list of names")
        return read_coverage(moc)
    assert file is not None  # noqa: S101 - one of them is given
    entries = read_entries(file, radius_arcsec=radius)
    if catalog is None:
        return entries
    return resolved(entries, catalog, Catalogs(config.catalog_path), radius)


def _put(
    config: "Config", wanted: "Watchlist", content: "Entries | Coverage", *, replaces: bool
) -> "Watchlist":
    from broker.ops.watchlists import keeper_of
    from broker.science.installed import installed

    topics = make_topics(config)
    try:
        keeper = keeper_of(config, topics, installed(config))
        return keeper.put(wanted, content, replaces=replaces)
    finally:
        topics.close()


def _word(found: "Watchlist") -> str:
    return {"region": "ranges of pixels"}.get(found.kind, found.kind)


def _row(found: "Watchlist") -> dict[str, Any]:
    from datetime import UTC, datetime

    at = datetime.fromtimestamp(found.changed_ms / 1000.0, UTC)
    return {
        "name": found.name,
        "topic": found.topic,
        "owner": found.owner,
        "kind": found.kind,
        "entries": found.n_entries,
        "where": found.where,
        "private": found.is_private,
        "changed": at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "doc": found.doc,
    }
