"""The watchlists of a run on disk: whose they are, what they watch; added without a restart."""

import fcntl
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from broker.catalog.coverage import Coverage, read_coverage, write_coverage
from broker.errors import ConfigError
from broker.watchlists.entries import (
    KINDS,
    MOST_OF_SKY,
    MOST_RANGES,
    REGION,
    Entries,
)
from broker.watchlists.index import Listed, open_index, topic_of, write_index

MOST_LISTS, MOST_OF_OWNER, MOST_ROWS = 2000, 200, 10_000_000
"""Lists of a run, of one owner, and entries of all lists together."""

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,60}")
_ABOUT, _LOCK, _INDEX = "watchlist.json", ".lock", ".index"
_LONGEST_TEXT = 2000


@dataclass(frozen=True)
class Watchlist:
    """What is known of a watchlist, apart from its entries.

    Parameters
    ----------
    name, owner : str
        Lower-case letters, digits and dashes.
    kind : str
        `positions`, `names` or `region`.
    doc : str
        For whom it is, or what it holds.
    where : str
        An expression that must be true too; empty means none.
    radius_arcsec : float
        Of positions that said none. [arcsec]
    is_private : bool
        Whether nobody but its owner is shown it, or what is on it.
    n_entries : int
        Entries; of a region, ranges of pixels.
    sky_fraction : float
        Of a region, its part of the sky.
    changed_ms : int
        When it was written. [ms since 1970]
    """

    name: str
    owner: str
    kind: str
    doc: str = ""
    where: str = ""
    radius_arcsec: float = 2.0
    is_private: bool = False
    n_entries: int = 0
    sky_fraction: float = 0.0
    changed_ms: int = 0

    @property
    def topic(self) -> str:
        """The name of its topic."""
        return topic_of(self.name, self.owner, is_private=self.is_private)


def check_name(name: str, what: str = "watchlist") -> None:
    """Raise ConfigError if a name of a list or an owner is not allowed."""
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name[:80]!r} is no name of a {what}: at most 61 lower-case letters, digits, dashes"
        )


class WatchBook:
    """The watchlists of a run.

    What is written is one folder a list and, made of all of them, one index that the stream's
    workers map; its one pointer is replaced last, so a reader sees all lists as they were, or as
    they are. Writers take turns.

    Parameters
    ----------
    folder : Path
        `watchlists/<run>` under the home; made when something is written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def index(self) -> Path:
        """Folder of the index."""
        return self._folder / _INDEX

    def all(self) -> list[Watchlist]:
        """Return all lists, by name."""
        if not self._folder.is_dir():
            return []
        names = sorted(p.name for p in self._folder.iterdir() if _NAME.fullmatch(p.name))
        return [found for name in names if (found := self.find(name)) is not None]

    def find(self, name: str) -> Watchlist | None:
        """Return a list; None if there is none of that name."""
        if not _NAME.fullmatch(name):
            return None
        try:
            about = json.loads((self._folder / name / _ABOUT).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        about.pop("file")
        return Watchlist(**about)

    def entries(self, name: str) -> Entries | Coverage:
        """Return what a list watches; ConfigError if there is none of that name."""
        found = self._known(name)
        for _ in range(3):  # it may be replaced, or removed, just now
            try:
                about = json.loads((self._folder / name / _ABOUT).read_text(encoding="utf-8"))
                path = self._folder / name / about["file"]
                if path.suffix == ".fits":
                    return read_coverage(path)
                return Entries(about["kind"], pq.read_table(path))
            except FileNotFoundError:
                found = self._known(name)
        raise ConfigError(f"the entries of the watchlist {found.name} are gone", name=name)

    def put(
        self,
        wanted: Watchlist,
        content: Entries | Coverage,
        *,
        replaces: bool = False,
        before: Callable[[Watchlist], None] = lambda _: None,
    ) -> Watchlist:
        """Add a list, or put another in the place of one; the stream has it within seconds.

        Parameters
        ----------
        wanted : Watchlist
            Name, owner, doc, where, radius, privacy; the rest follows from its content.
        content : Entries or Coverage
            What it watches.
        replaces : bool
            Whether there must be a list of that name and owner; else there must be none.
        before : callable
            Called when all is checked and nothing is written: makes the topic.

        Raises
        ------
        ConfigError
            If the name is taken, not there or not allowed, or there is more than is allowed.
        """
        made = _complete(wanted, content)
        with self._locked():
            self._check_room(made, replaces)
            before(made)
            self._write(made, content)
            self._write_index()
        return made

    def put_all(self, lists: Sequence[tuple[Watchlist, Entries | Coverage]]) -> None:
        """Add many lists, with one index for all; ConfigError as of `put`.

        Those before one that is refused are there with the next change.
        """
        with self._locked():
            for wanted, content in lists:
                made = _complete(wanted, content)
                self._check_room(made, replaces=False)
                self._write(made, content)
            self._write_index()

    def _write(self, made: Watchlist, content: Entries | Coverage) -> None:
        folder = self._folder / made.name
        folder.mkdir(exist_ok=True)
        file = f"{time.time_ns()}" + (".fits" if made.kind == REGION else ".parquet")
        if isinstance(content, Coverage):
            write_coverage(folder / file, content)
        else:
            pq.write_table(content.table, folder / file, compression="zstd")
        _write(folder / _ABOUT, {**asdict(made), "file": file})
        for old in folder.iterdir():
            if old.name not in (file, _ABOUT):
                old.unlink()

    def remove(self, name: str) -> None:
        """Remove a list: nothing more goes to its topic; what is there stays.

        Raises
        ------
        ConfigError
            If there is none.
        """
        with self._locked():
            self._known(name)
            shutil.rmtree(self._folder / name)
            self._write_index()

    def refresh(self) -> None:
        """Write the index anew if it is not of the lists that are there, as after a crash."""
        if not self._folder.is_dir():
            return
        with self._locked():
            try:
                index = open_index(self.index)
            except ConfigError:
                index = None
            if (() if index is None else index.lists) != tuple(self._listed()):
                self._write_index()

    def _listed(self) -> list[Listed]:
        return [
            Listed(one.name, one.kind, one.where, one.is_private, one.changed_ms, one.owner)
            for one in self.all()
        ]

    def _known(self, name: str) -> Watchlist:
        found = self.find(name)
        if found is None:
            raise ConfigError(f"there is no watchlist {name[:80]!r}", name=name)
        return found

    def _check_room(self, made: Watchlist, replaces: bool) -> None:
        others = [one for one in self.all() if one.name != made.name]
        there = self.find(made.name)
        if replaces and (there is None or there.owner != made.owner):
            raise ConfigError(f"{made.owner} has no watchlist {made.name}", name=made.name)
        if not replaces and there is not None:
            raise ConfigError(
                f"there is a watchlist {made.name} already; take another name", name=made.name
            )
        of_owner = sum(one.owner == made.owner for one in others)
        if len(others) >= MOST_LISTS or of_owner >= MOST_OF_OWNER:
            raise ConfigError(
                f"{made.owner} has {of_owner} watchlists, at most {MOST_OF_OWNER}; there are "
                f"{len(others)} in all, at most {MOST_LISTS}"
            )
        rows = sum(one.n_entries for one in (*others, made) if one.kind != REGION)
        if rows > MOST_ROWS:
            raise ConfigError(f"all watchlists would have {rows:,} entries; at most {MOST_ROWS:,}")

    def _write_index(self) -> None:
        listed = self._listed()
        write_index(self.index, listed, [self.entries(one.name) for one in listed])

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / _LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _complete(wanted: Watchlist, content: Entries | Coverage) -> Watchlist:
    """Return a list with what follows from its content; ConfigError if it is not allowed."""
    check_name(wanted.name)
    check_name(wanted.owner, "owner")
    for text in (wanted.doc, wanted.where):
        if len(text) > _LONGEST_TEXT:
            raise ConfigError(f"a text of a watchlist has at most {_LONGEST_TEXT} characters")
    kind, n, fraction = REGION, 0, 0.0
    if isinstance(content, Coverage):
        n, fraction = int(content.first.size), content.fraction
        _check_region(wanted.name, n, fraction, wanted.where)
    else:
        kind, n = content.kind, len(content)
    assert kind in KINDS  # noqa: S101 - there are no others
    return replace(wanted, kind=kind, n_entries=n, sky_fraction=fraction,
                   changed_ms=time.time_ns() // 1_000_000)  # fmt: skip


def _check_region(name: str, n_ranges: int, fraction: float, where: str) -> None:
    if not n_ranges or not fraction > 0.0:
        raise ConfigError(f"{name}: the region is empty")
    if n_ranges > MOST_RANGES:
        raise ConfigError(
            f"{name}: the region has {n_ranges:,} ranges of pixels, at most {MOST_RANGES:,}; "
            "degrade it to a lower order"
        )
    if fraction > MOST_OF_SKY and not where:
        raise ConfigError(
            f"{name}: the region is {fraction:.0%} of the sky, at most {MOST_OF_SKY:.0%} without "
            "an expression that chooses among its alerts"
        )


def _write(path: Path, about: Mapping[str, Any]) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)
