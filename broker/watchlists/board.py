"""Which alerts are on which watchlists: all lists in one look, taken up between two batches."""

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from broker.catalog.crossmatch import positions, within
from broker.catalog.partition import stamp
from broker.errors import ConfigError
from broker.science import Contributions
from broker.science.expression import Expression, read_expression
from broker.science.registry import provided_columns
from broker.watchlists.index import Index, Listed, open_index

HEADER = "watchlist"
"""Header of the packets of a watchlist's topic, JSON: list, and of the nearest entry `entry`,
`separation` [arcsec], and how many `entries` there are around it."""

MOST_SHARE = 0.2
"""Part of all alerts that a watchlist may choose; what is more is held back, visibly."""

_LOG = logging.getLogger(__name__)
_LOOK_EVERY_S = 1.0

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Sighting:
    """An alert on a watchlist.

    Parameters
    ----------
    listed : Listed
        The list.
    entry : str or None
        The nearest of its entries; None if it is a region.
    separation : float or None
        From there, if it has a place. [arcsec]
    n_entries : int
        Entries whose circle the alert is in.
    """

    listed: Listed
    entry: str | None = None
    separation: float | None = None
    n_entries: int = 0

    @property
    def topic(self) -> str:
        """The name of the list's topic."""
        return self.listed.topic

    @property
    def header(self) -> tuple[str, bytes]:
        """What its packet carries."""
        said: dict[str, Any] = {"list": self.listed.name}
        if self.entry is not None:
            said |= {"entry": self.entry, "entries": self.n_entries}
        if self.separation is not None:
            said["separation"] = round(self.separation, 4)
        return HEADER, json.dumps(said).encode()


class WatchBoard:
    """Looks alerts up in all watchlists of a run.

    Parameters
    ----------
    folder : Path
        `WatchBook.index`; it need not exist yet. Looked at once a second at most.
    contributions : Contributions
        Modules whose outputs expressions may read.
    """

    def __init__(self, folder: Path, contributions: Contributions) -> None:
        self._folder, self._contributions = folder, contributions
        provided = contributions.columns or provided_columns()
        self._own = {name: column.name for name, column in provided.items()}
        self._outputs = {c.python_name: n for n, c in contributions.qualified_columns.items()}
        self._index: Index | None = None
        self._conditions: dict[str, Expression] = {}
        self._stamp: Any = None
        self._looked_at = -np.inf
        self.failures: tuple[str, ...] = ()
        """Lists, or `all`, that cannot be used as they are now."""

    def lists(self) -> tuple[Listed, ...]:
        """Return the lists, as they are now."""
        self._look()
        return () if self._index is None else self._index.lists

    def match(
        self, batch: pa.Table, outputs: pa.Table, is_public: NDArray[np.bool_]
    ) -> dict[int, list[Sighting]]:
        """Return the lists that each alert is on, by row; rows on none are left out.

        Parameters
        ----------
        batch : pa.Table
            Canonical columns and matches.
        outputs : pa.Table
            Columns `module@version:column`.
        is_public : NDArray[np.bool_], shape (n,)
            What everyone may see: nothing else is on a list.
        """
        self._look()
        index, chosen = self._index, np.flatnonzero(is_public)
        if index is None or not index.lists or not chosen.size:
            return {}
        if chosen.size < batch.num_rows:
            batch = batch.take(pa.array(chosen))
            outputs = outputs.take(pa.array(chosen)) if outputs.num_columns else outputs
        found: dict[int, dict[int, Sighting]] = {}
        for part in (_near(index, batch), _named(index, batch), _inside(index, batch)):
            for number, rows in part.items():
                found.setdefault(number, {}).update(rows)
        true = self._true(found, batch, outputs)
        by_row: dict[int, list[Sighting]] = {}
        for number in sorted(found, key=lambda k: index.lists[k].name):
            where = index.lists[number].where
            for row in sorted(found[number]):
                if not where or row in true[where]:
                    by_row.setdefault(int(chosen[row]), []).append(found[number][row])
        return by_row

    def _true(
        self, found: Mapping[int, Mapping[int, Sighting]], batch: pa.Table, outputs: pa.Table
    ) -> dict[str, set[int]]:
        """Return, by expression, for which of the rows on lists with one it is true."""
        assert self._index is not None  # noqa: S101 - something was found in it
        where_of = {n: w for n in found if (w := self._index.lists[n].where)}
        rows = sorted({row for number in where_of for row in found[number]})
        # Of all lists together each column is converted once, each expression worked out once.
        true: dict[str, set[int]] = {where: set() for where in where_of.values()}
        asked = [self._conditions[where] for where in true if where in self._conditions]
        at = pa.array(rows, pa.int64())
        columns = {
            name: (
                outputs.column(self._outputs[name])
                if name in self._outputs
                else batch.column(self._own[name])
            )
            .take(at)
            .to_pandas()
            for name in sorted({name for condition in asked for name in condition.inputs})
        }
        for condition in asked:
            passes = condition(*(columns[name] for name in condition.inputs)).to_numpy(bool)
            true[condition.text] = set(np.asarray(rows)[passes].tolist())
        return true

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._looked_at < _LOOK_EVERY_S:
            return
        self._looked_at = now
        found = stamp(self._folder)
        if found == self._stamp:
            return
        try:
            index = open_index(self._folder)
        except ConfigError as error:  # the lists as they were go on; the next look tries again
            self.failures = ("all",)
            _LOG.warning("watchlists: %s", error.message)
            return
        self._take(index)
        self._stamp = found

    def _take(self, index: Index | None) -> None:
        """Use other lists from now on; one whose expression reads what is gone chooses nothing."""
        self._index, self._conditions, failures = index, {}, []
        for listed in index.lists if index else ():
            if listed.where and listed.where not in self._conditions:
                try:
                    self._conditions[listed.where] = condition_of(listed.where, self._contributions)
                except ConfigError as error:
                    failures.append(listed.name)
                    _LOG.warning("watchlist %s: %s", listed.name, error.message)
        self.failures = tuple(failures)


def condition_of(where: str, contributions: Contributions) -> Expression:
    """Return a list's expression; ConfigError if it is not allowed, as of `broker topic new`."""
    columns = dict(contributions.columns or provided_columns())
    columns |= {column.python_name: column for column in contributions.output_columns}
    return read_expression(where, columns)


def _near(index: Index, batch: pa.Table) -> dict[int, dict[int, Sighting]]:
    """Return the rows near an entry, by list."""
    found: dict[int, dict[int, Sighting]] = {}
    if not len(index.rows):
        return found
    position, row, separation = within(
        index.rows, batch.column("ra").to_numpy(), batch.column("dec").to_numpy()
    )
    if not row.size:
        return found
    of = index.list_of_row[row].astype(np.int64)
    # Pairs are in the order of positions, the nearest first: the first of each list is nearest.
    _, first, counts = np.unique(
        position * len(index.lists) + of, return_index=True, return_counts=True
    )
    ids = index.rows.table.column("id").take(pa.array(row[first])).to_pylist()
    for at, entry, n in zip(first.tolist(), ids, counts.tolist(), strict=True):
        number = int(of[at])
        one = Sighting(index.lists[number], entry, float(separation[at]), n)
        found.setdefault(number, {})[int(position[at])] = one
    return found


def _named(index: Index, batch: pa.Table) -> dict[int, dict[int, Sighting]]:
    """Return the rows of objects that are named, by list."""
    found: dict[int, dict[int, Sighting]] = {}
    if not index.names.size:
        return found
    for column in ("diaObjectId", "ssObjectId"):
        texts = batch.column(column).to_pylist()
        rows = [row for row, text in enumerate(texts) if text]
        if not rows:
            continue
        wanted = np.array([texts[row].encode() for row in rows], np.bytes_)
        first = np.searchsorted(index.names, wanted, side="left")
        end = np.searchsorted(index.names, wanted, side="right")
        for at in np.flatnonzero(end > first).tolist():
            for number in index.names_of[first[at] : end[at]].tolist():
                one = Sighting(index.lists[number], texts[rows[at]], None, 1)
                found.setdefault(number, {})[rows[at]] = one
    return found


def _inside(index: Index, batch: pa.Table) -> dict[int, dict[int, Sighting]]:
    """Return the rows in a region, by list."""
    found: dict[int, dict[int, Sighting]] = {}
    if not index.regions:
        return found
    at = positions(batch.column("ra").to_numpy(), batch.column("dec").to_numpy())
    for number, region in index.regions.items():
        rows: Rows = at.place[region.contains_pixels(at.pixels)]
        if rows.size:
            found[number] = dict.fromkeys(rows.tolist(), Sighting(index.lists[number]))
    return found
