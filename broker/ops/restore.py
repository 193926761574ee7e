"""Brings a run back from a back-up, and proves that all of it is there."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pyarrow.parquet as pq

from broker.config import Config
from broker.errors import ConfigError
from broker.ops.backup import (
    ARCHIVE,
    STATE,
    FileCopy,
    Manifest,
    Say,
    content_of,
    copied_file,
    digest_of,
    read_manifest,
    require_whole,
)
from broker.store.table import Tables
from broker.store.tables import create_tables

_CATALOGS = "catalogs"


@dataclass(frozen=True)
class Restored:
    """One table, or all files of one kind: what the back-up has, and how much of it is back.

    Parameters
    ----------
    what : str
        `table alert`, `archive`, `checkpoints`…
    saved, restored : int
        Rows, or files; of files only those whose bytes are right.
    is_same : bool
        Whether the content is that of the back-up, by its hash.
    """

    what: str
    saved: int
    restored: int
    is_same: bool


def restore(
    config: Config,
    tables: Tables,
    folder: Path,
    *,
    over: bool = False,
    say: Say = lambda _: None,
) -> list[Restored]:
    """Bring a run back; the back-up is checked before anything is written, and all of it after.

    Parameters
    ----------
    config : Config
        The run, and where its files go.
    tables : Tables
        Where its tables go.
    folder : Path
        Of `back_up`.
    over : bool
        Write over what is there: to go on with a restore that was interrupted.
    say : callable
        Told what is being restored.

    Raises
    ------
    ConfigError
        If it is another run's, has tables that this version does not know, or if the run has
        rows or files already.
    AlertError
        If the back-up is damaged.
    ServiceError
        If a table cannot be written.
    """
    manifest = read_manifest(folder)
    if manifest.run != config.run:
        raise ConfigError(
            f"the back-up is of run {manifest.run}, whose name is in its keys and files: "
            f"restore it as broker --run {manifest.run} restore"
        )
    say("checking the back-up")
    require_whole(folder, manifest)
    places = list(_places(config, folder, manifest))
    if not over:
        _require_empty(config, tables, places)
    create_tables(tables, config.the_run, config.hbase.regions)
    _require_known(config, tables, manifest)
    for copy in manifest.tables:
        say(f"table {copy.name}")
        table = tables.table(config.the_run.table(copy.name))
        for rows in _rows(folder / STATE / "tables" / f"{copy.name}.parquet"):
            table.put_timed(rows)
    say("files")
    for source, target, _ in places:
        copied_file(source, target)
    say("checking what is restored")
    return [*_same_tables(config, tables, manifest), *_same_files(places)]


def _rows(path: Path) -> Iterator[list[tuple[bytes, dict[bytes, bytes], int]]]:
    """Yield the cells of a table's file, as `put_timed` takes them."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(20_000):
            columns = (batch.column(i).to_pylist() for i in range(batch.num_columns))
            yield [(key, {name: v}, stamp) for key, name, stamp, v in zip(*columns, strict=True)]


def _places(
    config: Config, folder: Path, manifest: Manifest
) -> Iterator[tuple[Path, Path, FileCopy]]:
    """Yield where each file of a back-up is, where it goes, and what it is."""
    for file in manifest.files:
        first, *rest = PurePosixPath(file.path).parts
        if ".." in rest:
            raise ConfigError(f"the back-up has a file outside its folder: {file.path}")
        if first == ARCHIVE:
            target = config.archive_path / config.run / Path(*rest)
        elif rest[0] == "tables":
            continue
        elif rest[0] == "files":
            target = config.run_path(rest[1]) / Path(*rest[2:])
        elif rest[0] == "shared":
            target = config.home / Path(*rest[1:])
        else:
            own = Path(config.catalog.path) if config.catalog.path else config.run_path("catalogs")
            target = own / Path(*rest[1:])
        yield folder / file.path, target, file


def _require_empty(
    config: Config, tables: Tables, places: Iterable[tuple[Path, Path, FileCopy]]
) -> None:
    prefix = config.the_run.table("")
    filled = [
        name
        for name in tables.names()
        if name.startswith(prefix) and next(tables.table(name).scan(limit=1), None) is not None
    ]
    there = [str(target) for _, target, file in places if _differs(target, file)]
    if filled or there:
        raise ConfigError(
            f"run {config.run} is not empty: {(filled or there)[0]} is there; "
            "--over writes over it, to go on with a restore that was interrupted"
        )


def _differs(target: Path, file: FileCopy) -> bool:
    return target.is_file() and digest_of(target) != file.sha256


def _require_known(config: Config, tables: Tables, manifest: Manifest) -> None:
    names = set(tables.names())
    unknown = [c.name for c in manifest.tables if config.the_run.table(c.name) not in names]
    if unknown:
        raise ConfigError(f"this version has no table {unknown[0]}, which the back-up has")


def _same_tables(config: Config, tables: Tables, manifest: Manifest) -> Iterator[Restored]:
    for copy in manifest.tables:
        now = content_of(tables.table(config.the_run.table(copy.name)), copy.name)
        yield Restored(f"table {copy.name}", copy.rows, now.rows, now == copy)


def _same_files(places: Iterable[tuple[Path, Path, FileCopy]]) -> Iterator[Restored]:
    counts: dict[str, list[bool]] = {}
    for _, target, file in places:
        parts = PurePosixPath(file.path).parts
        kind = parts[0] if parts[0] == ARCHIVE else parts[1] if parts[1] == _CATALOGS else parts[2]
        is_same = target.is_file() and digest_of(target) == file.sha256
        counts.setdefault(kind, []).append(is_same)
    for kind, same in sorted(counts.items()):
        yield Restored(kind, len(same), sum(same), all(same))
