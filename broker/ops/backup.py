"""Back-ups of a run: its tables, its archive, and what it keeps in files.

A back-up may be made while everything runs. Checkpoints are copied first, then the ledger, then the
other tables, then the archive: so all that a checkpoint or the ledger calls done is in what was
copied after it, and what was done meanwhile is done again, which changes nothing.

In the folder are `archive/`, to which each back-up adds the files that are new, and `state/`: a
Parquet file a table (key, column, time, value), the files, and `manifest.json` with the number of
rows and cells and a SHA-256 of each table's content, and length and SHA-256 of each file. A new
state takes the place of the old one when it is whole.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from broker import __version__
from broker.config import Config
from broker.errors import AlertError, ConfigError
from broker.store.table import Table, Tables, TimedRow

CELLS = pa.schema(
    [
        pa.field("key", pa.binary(), nullable=False),
        pa.field("column", pa.binary(), nullable=False),
        pa.field("time", pa.int64(), nullable=False),
        pa.field("value", pa.binary(), nullable=False),
    ]
)
"""Arrow schema of a table's file, in the order of keys and columns; time in ms since 1970."""

FORMAT = 1
STATE, ARCHIVE, MANIFEST = "state", "archive", "manifest.json"
_NEW, _OLD = "state.new", "state.old"
_CELLS_A_GROUP = 20_000
_PIECE = 1 << 20
_FIRST, _LEDGER = "checkpoints", "ledger"

_NOT_COPIED = frozenset(
    ("archive", "bench", "catalogs", "demo", "hbase", "kafka", "logs", "pid", "spark", "transfers")
)
"""Folders of the home that are copied otherwise, belong to a server, or can be made again."""

_SHARED = ("deprecations", "filters", "notices", "schemas")
"""Folders of the home that all runs use."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class TableCopy:
    """What a table held: its name without the run, rows, cells and SHA-256 of its content."""

    name: str
    rows: int
    cells: int
    sha256: str


@dataclass(frozen=True)
class FileCopy:
    """A file of a back-up: its path in it, length [bytes] and SHA-256."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a back-up has.

    Parameters
    ----------
    run, code, made : str
        Whose it is, the broker's version, and when it was begun (UTC).
    tables : tuple of TableCopy
        The content of each table.
    files : tuple of FileCopy
        All files, those of the tables and of the archive too.
    """

    run: str
    code: str
    made: str
    tables: tuple[TableCopy, ...]
    files: tuple[FileCopy, ...]

    def to_json(self) -> str:
        """Return it as the text of its file."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1)


def read_manifest(folder: Path) -> Manifest:
    """Return what a back-up says that it has.

    Raises
    ------
    ConfigError
        If there is no whole back-up in the folder, or one of another format.
    """
    for state in (STATE, _OLD):
        path = folder / state / MANIFEST
        if path.is_file():
            return _parsed(path)
    raise ConfigError(f"there is no whole back-up in {folder}", path=str(folder))


def _parsed(path: Path) -> Manifest:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        if tree.pop("format") != FORMAT:
            raise ConfigError(f"{path} has another format than this version reads")
        tables = tuple(TableCopy(**one) for one in tree.pop("tables"))
        files = tuple(FileCopy(**one) for one in tree.pop("files"))
        return Manifest(**tree, tables=tables, files=files)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is damaged: {error}", path=str(path)) from error


def back_up(config: Config, tables: Tables, folder: Path, *, say: Say = lambda _: None) -> Manifest:
    """Copy a run's tables, archive and files into a folder.

    Parameters
    ----------
    config : Config
        Whose run, and where its files are.
    tables : Tables
        Where its tables are.
    folder : Path
        Empty or absent, or with an earlier back-up of the same run.
    say : callable
        Told what is being copied.

    Raises
    ------
    ConfigError
        If the folder holds something else.
    ServiceError
        If a table cannot be read.
    """
    before = _before(config, folder)
    new = folder / _NEW
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True, mode=0o700)
    made = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    say("checkpoints")
    files = list(_copied_tree(config.home / _FIRST / config.run, new / "files" / _FIRST))
    copies = []
    for name in _names(config, tables):
        say(f"table {name}")
        path = new / "tables" / f"{name}.parquet"
        copies.append(_copied_table(tables.table(config.the_run.table(name)), name, path))
        files.append(_file(path))
    say("archive")
    archive = list(_copied_archive(config.archive_path / config.run, folder / ARCHIVE, before))
    say("files")
    for source, kind in other_folders(config):
        files += _copied_tree(source, new / kind)
    state = [_within(file, new, STATE) for file in files]
    manifest = Manifest(
        config.run,
        __version__,
        made,
        tuple(copies),
        (*state, *(_within(file, folder, "") for file in archive)),
    )
    (new / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    _take_over(folder)
    return manifest


def other_folders(config: Config) -> list[tuple[Path, str]]:
    """Return the folders with files of a run, beside checkpoints and archive, and their places."""
    kinds = sorted(path.name for path in config.home.iterdir()) if config.home.is_dir() else []
    own = [kind for kind in kinds if kind not in {*_NOT_COPIED, *_SHARED, _FIRST}]
    return [
        (config.catalog_path, "catalogs"),
        *((config.run_path(kind), f"files/{kind}") for kind in own),
        *((config.home / kind, f"shared/{kind}") for kind in _SHARED),
    ]


def check_files(folder: Path, manifest: Manifest) -> list[str]:
    """Return the files of a back-up that are absent or are not as they were written."""
    return [
        file.path
        for file in manifest.files
        if not (folder / file.path).is_file() or digest_of(folder / file.path) != file.sha256
    ]


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


class Content:
    """Counts the rows and cells of a table and hashes them, in their order."""

    def __init__(self) -> None:
        self.rows = self.cells = 0
        self._hash = hashlib.sha256()

    def add(self, key: bytes, cells: Iterable[tuple[bytes, int, bytes]]) -> None:
        """Take the next row: its key; column, time and value of each cell, by column."""
        self.rows += 1
        for column, stamp, value in cells:
            self.cells += 1
            for part in (key, column, b"%d" % stamp, value):
                self._hash.update(len(part).to_bytes(8, "big") + part)

    def of(self, name: str) -> TableCopy:
        """Return what was taken."""
        return TableCopy(name, self.rows, self.cells, self._hash.hexdigest())


def content_of(table: Table, name: str) -> TableCopy:
    """Return what a table holds now."""
    content = Content()
    for key, row in table.scan_timed():
        content.add(key, _cells(row))
    return content.of(name)


def _cells(row: TimedRow) -> list[tuple[bytes, int, bytes]]:
    return [(column, *row[column]) for column in sorted(row)]


def _before(config: Config, folder: Path) -> Mapping[str, FileCopy]:
    """Return the files of the back-up that is there already, by their paths."""
    if not folder.is_dir() or not any(folder.iterdir()):
        return {}
    if {path.name for path in folder.iterdir()} <= {_NEW, ARCHIVE}:
        return {}  # a first one that was interrupted
    manifest = read_manifest(folder)
    if manifest.run != config.run:
        raise ConfigError(f"{folder} has a back-up of run {manifest.run}, not of {config.run}")
    return {file.path: file for file in manifest.files}


def _names(config: Config, tables: Tables) -> list[str]:
    """Return the run's tables, the ledger first."""
    prefix = config.the_run.table("")
    names = [n.removeprefix(prefix) for n in tables.names() if n.startswith(prefix)]
    if not names:
        raise ConfigError(f"run {config.run} has no tables: there is nothing to back up")
    return sorted(names, key=lambda name: (name != _LEDGER, name))


def _copied_table(table: Table, name: str, path: Path) -> TableCopy:
    path.parent.mkdir(parents=True, exist_ok=True)
    content, group = Content(), []
    with pq.ParquetWriter(path, CELLS, compression="zstd") as writer:
        for key, row in table.scan_timed():
            cells = _cells(row)
            content.add(key, cells)
            group += [(key, *cell) for cell in cells]
            if len(group) >= _CELLS_A_GROUP:
                writer.write_table(_group(group))
                group = []
        writer.write_table(_group(group))
    return content.of(name)


def _group(cells: list[Any]) -> pa.Table:
    columns = list(zip(*cells, strict=True)) or [()] * len(CELLS)
    arrays = [pa.array(c, f.type) for c, f in zip(columns, CELLS, strict=True)]
    return pa.Table.from_arrays(arrays, schema=CELLS)


def _copied_archive(
    source: Path, target: Path, before: Mapping[str, FileCopy]
) -> Iterator[FileCopy]:
    """Copy archive files that are whole, each once: they never change."""
    for index in sorted(source.rglob("*.npy")):
        for path in (index.with_suffix(".raw"), index):  # the index last, as it was written
            inner = path.relative_to(source)
            known = before.get(f"{ARCHIVE}/{inner.as_posix()}")
            copy = target / inner
            if known and copy.is_file() and copy.stat().st_size == known.bytes:
                yield FileCopy(str(copy), known.bytes, known.sha256)
            else:
                yield copied_file(path, copy)


def _copied_tree(source: Path, target: Path) -> Iterator[FileCopy]:
    """Copy the files of a folder; those that go while it is copied are not missed."""
    if not source.is_dir():
        return
    for path in sorted(source.rglob("*")):
        if path.name.startswith(".") or path.suffix in (".tmp", ".part") or not path.is_file():
            continue
        with suppress(FileNotFoundError):
            yield copied_file(path, target / path.relative_to(source))


def copied_file(source: Path, target: Path) -> FileCopy:
    """Copy a file, seen only when it is whole and on disk; its access rights too."""
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = target.with_name(f"{target.name}.part")
    digest, length = hashlib.sha256(), 0
    with source.open("rb") as read, part.open("wb") as write:
        while piece := read.read(_PIECE):
            digest.update(piece)
            write.write(piece)
            length += len(piece)
        write.flush()
        os.fsync(write.fileno())
    shutil.copymode(source, part)
    part.replace(target)
    return FileCopy(str(target), length, digest.hexdigest())


def _file(path: Path) -> FileCopy:
    return FileCopy(str(path), path.stat().st_size, digest_of(path))


def _within(file: FileCopy, folder: Path, name: str) -> FileCopy:
    inner = Path(name) / Path(file.path).relative_to(folder)
    return FileCopy(inner.as_posix(), file.bytes, file.sha256)


def _take_over(folder: Path) -> None:
    """Put the new state in the place of the old one."""
    shutil.rmtree(folder / _OLD, ignore_errors=True)
    if (folder / STATE).is_dir():
        (folder / STATE).replace(folder / _OLD)
    (folder / _NEW).replace(folder / STATE)
    shutil.rmtree(folder / _OLD, ignore_errors=True)


def require_whole(folder: Path, manifest: Manifest) -> None:
    """Raise AlertError if a file of a back-up is absent or damaged."""
    bad = check_files(folder, manifest)
    if bad:
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        raise AlertError(f"the back-up is damaged: {bad[0]}{more}", path=bad[0])
