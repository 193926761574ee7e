"""Alerts that `broker module` runs on, and the versions that it compares with."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from broker.cli.main import load
from broker.errors import AlertError
from broker.types import IMAGES

if TYPE_CHECKING:
    import pyarrow as pa

    from broker.ops.alert_tables import Reading
    from broker.ops.module_report import Earlier
    from broker.science import Contributions


def read_alerts(files: tuple[Path, ...], catalogs: Path) -> "pa.Table":
    """Return packets of any survey as canonical alerts with their matches.

    Raises
    ------
    AlertError
        If a file is no packet, or none is given.
    """
    import pyarrow as pa

    from broker.catalog.registry import Catalogs
    from broker.ops.alert_tables import Reading, read_files

    reading = Reading()
    tables = list(read_files(files, Catalogs(catalogs), reading))
    for reason in reading.unreadable.values():
        raise AlertError(reason)
    if not tables:
        raise AlertError(f"there is no .avro file in {', '.join(map(str, files))}")
    return pa.concat_tables(tables)


def as_packets_came(
    ctx: click.Context,
    source: tuple[tuple[str, ...], str | None, tuple[Path, ...]],
    reading: "Reading",
) -> Iterator["pa.Table"]:
    """Yield the alerts of nights of the archive, and of files."""
    from broker.alerts.adapters import look_for_schemas
    from broker.archive import Archive
    from broker.catalog.registry import Catalogs
    from broker.ops.alert_tables import read_files, read_night

    nights, survey, files = source
    config = load(ctx)
    look_for_schemas(config.home)
    catalogs = Catalogs(config.catalog_path)
    archive = Archive(config.archive_path, config.the_run)
    for night in nights:
        there = [one for one in archive.surveys() if night in archive.nights(one)]
        chosen = [one for one in there if survey in (None, one) and one != IMAGES]
        if not chosen:
            held = ", ".join(archive.nights(survey)[-5:]) or "none"
            raise AlertError(
                f"the archive of run {config.run} has no alerts of night {night}"
                f"{f' and survey {survey}' if survey else ''}; its newest nights are {held}"
            )
        for one in chosen:
            yield from read_night(archive, one, night, catalogs, reading)
    yield from read_files(files, catalogs, reading)


def limited(tables: Iterable["pa.Table"], limit: int | None) -> Iterator["pa.Table"]:
    """Yield alerts until there are so many; None means all."""
    left = limit
    for table in tables:
        if left is None:
            yield table
        elif left > 0:
            yield table.slice(0, left)
            left -= table.num_rows


@contextmanager
def earlier_of(
    ctx: click.Context, against: str | None, name: str, found: "Contributions"
) -> "Iterator[Earlier | None]":
    """Yield the previous version: code in a folder, or what was stored under a version."""
    from broker.cli.assemble import tables_of
    from broker.ops.module_report import earlier_code, earlier_stored
    from broker.science import Runner, ScienceModule
    from broker.science.checks import subjects
    from broker.science.installed import installed
    from broker.store.alerts import AlertStore

    if against is None:
        yield None
        return
    place = Path(against)
    if place.is_dir():
        folder = place.parent if (place / "module.py").exists() else place
        with Runner(installed(load(ctx), folder)) as runner:
            yield earlier_code(runner)
        return
    if not re.fullmatch(r"\d+\.\d+\.\d+", against):
        raise click.UsageError(f"--against {against!r} is no folder and no version such as 1.0.0")
    tasks = [subject.task for subject in subjects(found, name)]
    modules = [task for task in tasks if isinstance(task, ScienceModule)]
    with tables_of(ctx) as tables:
        store = AlertStore(tables, load(ctx).the_run)
        topics = [task.name for task in tasks if not isinstance(task, ScienceModule)]
        yield earlier_stored(store.alert, modules, against, topics)
