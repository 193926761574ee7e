"""All watchlists of a run in one index on disk: what the stream's workers look alerts up in.

Positions of all lists are one catalogue, so a hundred lists are searched as fast as one; names are
one sorted array; regions stand one after the other. All is mapped, so workers share its pages.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from broker.catalog.coverage import Coverage
from broker.catalog.partition import (
    PIXEL,
    RADIUS,
    RANK,
    Layer,
    Rows,
    open_rows,
    sort_rows,
    stamp,
    write_rows,
    write_table,
)
from broker.errors import ConfigError
from broker.types import PRIVATE
from broker.watchlists.entries import NAMES, Entries

LIST = "watchlist"
"""Column of the catalogue: the number of the list that an entry is of."""

PREFIX = "watchlist-"
"""Beginning of the names of watchlists' topics."""

_LISTS, _NAMES, _NAMES_OF, _REGIONS = "lists.json", "names.npy", "names-of.npy", "regions.npy"


def topic_of(name: str, owner: str, *, is_private: bool) -> str:
    """Return the topic of a list: a private one's begins with what its owner alone may read."""
    topic = f"{PREFIX}{name}"
    return f"{PRIVATE}{owner}.{topic}" if is_private else topic


@dataclass(frozen=True)
class Listed:
    """A list as the index knows it.

    Parameters
    ----------
    name, kind, where, is_private, changed_ms, owner
        As of `broker.watchlists.book.Watchlist`; an index of an earlier version knows no owner.
    """

    name: str
    kind: str
    where: str
    is_private: bool
    changed_ms: int
    owner: str = ""

    @property
    def topic(self) -> str:
        """The name of its topic."""
        return topic_of(self.name, self.owner, is_private=self.is_private)


@dataclass(frozen=True)
class Index:
    """All lists, opened.

    Parameters
    ----------
    lists : tuple of Listed
        By number.
    rows : Rows
        The positions of all lists.
    names : NDArray[np.bytes_], shape (n_names,)
        The names of all lists, sorted.
    names_of : NDArray[np.int32], shape (n_names,)
        The number of the list of each.
    regions : dict of int to Coverage
        By the number of their list.
    """

    lists: tuple[Listed, ...]
    rows: Rows
    names: NDArray[Any]
    names_of: NDArray[np.int32]
    regions: dict[int, Coverage]

    @cached_property
    def list_of_row(self) -> NDArray[np.int32]:
        """The number of the list of each row."""
        return self.rows.numbers(LIST)


def write_index(
    folder: Path, lists: Sequence[Listed], contents: Sequence[Entries | Coverage]
) -> None:
    """Write the index of lists, then make it the current one."""
    tables, names, names_of, regions, bounds = [], list[str](), list[int](), [], dict[int, Any]()
    n_ranges = 0
    for number, content in enumerate(contents):
        if isinstance(content, Coverage):
            regions.append(np.stack([content.first, content.end], axis=1))
            bounds[number] = (n_ranges, n_ranges + content.first.size)
            n_ranges += content.first.size
        elif content.kind == NAMES:
            names += content.table.column("id").to_pylist()
            names_of += [number] * len(content)
        else:
            of = pa.array(np.full(len(content), number, np.int32))
            tables.append(content.table.append_column(LIST, of))
    version = f"v{time.time_ns()}"
    about = {"lists": [asdict(one) for one in lists], "regions": bounds}

    def write(table: pa.Table, path: Path) -> None:
        write_table(table, path)
        sorted_names = np.array([name.encode() for name in names] or [b""], np.bytes_)
        order = np.argsort(sorted_names, kind="stable")
        np.save(path.with_name(_NAMES), sorted_names[order][: len(names)])
        np.save(path.with_name(_NAMES_OF), np.array(names_of, np.int32)[order[: len(names)]])
        np.save(path.with_name(_REGIONS),
                np.concatenate(regions) if regions else np.empty((0, 2), np.uint64))  # fmt: skip
        path.with_name(_LISTS).write_text(json.dumps(about), encoding="utf-8")

    table, layers = _sorted(tables)
    write_rows(folder, Rows("watchlists", version, table, layers), write=write)


def _sorted(tables: Sequence[pa.Table]) -> tuple[pa.Table, tuple[Layer, ...]]:
    if tables:
        table = pa.concat_tables(tables).combine_chunks()
        radius = table.column("radiusArcsec").to_numpy()
        return sort_rows(table.drop_columns(["radiusArcsec"]), radius)
    types = {"id": pa.large_string(), "ra": pa.float64(), "dec": pa.float64(), LIST: pa.int32()}
    types |= {PIXEL: pa.uint64(), RADIUS: pa.float64(), RANK: pa.int64()}
    return pa.table({name: pa.array([], kind) for name, kind in types.items()}), ()


def open_index(folder: Path) -> Index | None:
    """Open the current index; None if no list was ever added.

    Raises
    ------
    ConfigError
        If it cannot be read.
    """
    if stamp(folder) is None:
        return None
    rows = open_rows(folder)
    try:
        # The version is in the folder's name, so that all parts are of one index.
        (at,) = folder.glob(f"*-{rows.version}")
        about = json.loads((at / _LISTS).read_text(encoding="utf-8"))
        ranges = np.load(at / _REGIONS, mmap_mode="r")
        names = np.load(at / _NAMES, mmap_mode="r")
        names_of = np.load(at / _NAMES_OF)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"the watchlists in {folder} cannot be read: {error}") from error
    regions = {
        int(number): Coverage(*(np.ascontiguousarray(part) for part in ranges[first:end].T))
        for number, (first, end) in about["regions"].items()
    }
    lists = tuple(Listed(**one) for one in about["lists"])
    return Index(lists, rows, names, names_of, regions)
