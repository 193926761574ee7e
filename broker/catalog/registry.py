"""The match with all catalogues.

A catalogue is defined by one file: radius of the match and attached columns. Its rows come later,
or never: a catalogue that is defined but has no rows is "not searched", which reads -1 and is no
error.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray

from broker.alerts.columns import FOUND, NOT_FOUND, NOT_SEARCHED, Column
from broker.catalog.crossmatch import Positions, nearest_at, positions
from broker.catalog.definition import (
    CREDIBLE_LEVEL,
    MAP,
    ORBITS,
    Definition,
    definition_of,
    definitions,
    match_name,
    parse_definition,
    provided_matches,
    read_definitions,
)
from broker.catalog.install import install_catalog
from broker.catalog.moving import MovingObjects, predictions
from broker.catalog.partition import Rows, open_rows, stamp
from broker.catalog.sky_map import values_at
from broker.errors import ConfigError

__all__ = [
    "Catalogs",
    "Definition",
    "definition_of",
    "definitions",
    "install_catalog",
    "match_name",
    "parse_definition",
    "provided_matches",
    "read_definitions",
]

_LOOK_EVERY_S = 1.0


class Catalogs:
    """All catalogues of a folder, open for matching.

    Every process makes its own; the mapped rows are shared between processes. A new version is
    taken up between two calls, looked for at most once a second.

    Parameters
    ----------
    path : Path
        Folder of all catalogues; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._definitions: dict[str, Definition] = {}
        self._open: dict[str, Rows | None] = {}
        self._moving: dict[str, MovingObjects] = {}
        self._stamps: dict[str, Any] = {}
        self._looked_at = -np.inf

    def __reduce__(self) -> tuple[Any, ...]:
        return (Catalogs, (self._path,))

    @property
    def definitions(self) -> Mapping[str, Definition]:
        """What the catalogues are, by name; those that were defined at the first look."""
        self._look()
        return self._definitions

    def rows(self, name: str) -> Rows | None:
        """Return a catalogue's current rows; None if it has none yet.

        Raises
        ------
        ConfigError
            If the catalogue is not defined or its files cannot be read.
        """
        self._look()
        if name not in self._open:
            definition_of(name, self._path)
        return self._open.get(name)

    def moving(self, name: str) -> MovingObjects:
        """Return a catalogue of orbits, ready to be asked where its bodies are.

        Raises
        ------
        ConfigError
            If the catalogue is not defined, has no rows, or is none of orbits.
        """
        rows, definition = self.rows(name), self.definitions[name]
        if rows is None:
            raise ConfigError(f"the catalogue {name} has no rows yet: `broker catalog add`")
        if rows.kind != ORBITS:
            raise ConfigError(f"{name} is no catalogue of orbits", catalog=name)
        if name not in self._moving or self._moving[name].rows is not rows:
            self._moving[name] = MovingObjects(rows, definition.orbits.site)
        return self._moving[name]

    def match(self, ra: ArrayLike, dec: ArrayLike, mjd: ArrayLike | None = None) -> pa.Table:
        """Match positions with every catalogue that was defined at the first call.

        Parameters
        ----------
        ra, dec : array_like, shape (n,)
            Positions. [deg]
        mjd : array_like, shape (n,), optional
            When they were measured (TAI): entries with proper motion are where they were then. [d]

        Returns
        -------
        pa.Table, n rows
            The columns of `definitions()`. The reading is 1 found, 0 none within the radius, -1
            not searched: the catalogue has no rows or has not looked there, or the position is
            not on the sky.
        """
        self._look()
        at = positions(ra, dec, mjd)
        columns: dict[str, pa.Array] = {}
        for definition in self._definitions.values():
            columns |= self._match(definition, at)
        return pa.table(columns)

    def _match(self, definition: Definition, at: Positions) -> dict[str, pa.Array]:
        """Return one catalogue's match columns."""
        rows = self._open[definition.name]
        if rows is None or rows.kind != definition.kind:
            n, columns = at.ra.size, definition.match_columns
            nothing = {c.name: pa.nulls(n, c.arrow_type) for c in columns[1:]}
            return {columns[0].name: pa.array(np.full(n, NOT_SEARCHED, np.int32)), **nothing}
        if rows.kind == ORBITS:
            return _match_orbits(definition, self.moving(definition.name), at)
        if rows.kind == MAP:
            row = values_at(rows, at, frame=definition.positions.frame)
            return _match_columns(definition, rows, row, None, row >= 0, _levels(rows, row))
        row, separation = nearest_at(rows, at)
        covered = np.zeros(at.ra.size, dtype=bool)
        covered[at.place] = rows.coverage.contains_pixels(at.pixels)
        return _match_columns(definition, rows, row, separation, covered, None)

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._looked_at < _LOOK_EVERY_S:
            return
        if not self._definitions:
            # Once: what the columns of a match are does not change under a running query.
            self._definitions = read_definitions(self._path)
        for name in self._definitions:
            found = stamp(self._path / name)
            if name not in self._open or found != self._stamps[name]:
                self._open[name] = None if found is None else open_rows(self._path / name)
                self._stamps[name] = found
        self._looked_at = now


def _match_orbits(
    definition: Definition, moving: MovingObjects, at: Positions
) -> dict[str, pa.Array]:
    row, separation = moving.nearest(at)
    searched = np.zeros(at.ra.size, dtype=bool)
    searched[at.place] = moving.has_time(at)[at.place]
    mjd = np.full(at.ra.shape, np.nan) if at.mjd is None else at.mjd
    computed = predictions(moving, row, mjd)
    return _match_columns(definition, moving.rows, row, separation, searched, computed)


def _levels(rows: Rows, row: NDArray[np.int64]) -> pa.Table | None:
    if CREDIBLE_LEVEL.name not in rows.table.column_names:
        return None
    return rows.table.select([CREDIBLE_LEVEL.name]).take(pa.array(row, mask=row < 0))


def _match_columns(
    definition: Definition,
    rows: Rows,
    row: NDArray[np.int64],
    separation: NDArray[np.float64] | None,
    covered: NDArray[np.bool_],
    computed: pa.Table | None,
) -> dict[str, pa.Array]:
    """Return the columns of a match.

    Parameters
    ----------
    definition, rows
        The catalogue.
    row : NDArray[np.int64], shape (n,)
        Matched rows, -1 where there is none.
    separation : NDArray[np.float64], shape (n,), or None
        Their distances; None where there is no such thing. [arcsec]
    covered : NDArray[np.bool_], shape (n,)
        Where the catalogue has looked.
    computed : pa.Table or None
        The columns that are no columns of the rows.
    """
    n, found = row.size, row >= 0
    columns, searched = definition.match_columns, found | covered
    missing = ~found
    taken = pa.array(row, mask=missing)

    def attached(name: str, column: Column) -> pa.Array:
        """Return a column's values at matched positions, null at the others."""
        numbers = rows.whole_numbers.get(name)
        if numbers is not None and n and len(rows):
            return _flat(pa.array(numbers[row], mask=missing), column)
        return _flat(rows.table.column(name).chunk(0).take(taken), column)

    reading = np.where(found, FOUND, np.where(covered, NOT_FOUND, NOT_SEARCHED))
    version = pa.scalar(rows.version)
    values = [
        pa.array(reading.astype(np.int32)),
        attached("id", columns[1])
        if "id" in rows.table.schema.names
        else pa.nulls(n, columns[1].arrow_type),
        pa.nulls(n, pa.float32())
        if separation is None
        else pa.array(separation.astype(np.float32), mask=missing),
        pa.repeat(version, n)
        if searched.all()
        else pc.if_else(pa.array(searched), version, pa.scalar(None, pa.string())),
    ]
    values += [
        pa.nulls(n, c.arrow_type) if computed is None else _flat(computed.column(c.name), c)
        for c in definition.computed_columns
    ]
    present = _present(rows, definition.columns)
    values += [
        attached(c.name, c) if c.name in present else pa.nulls(n, c.arrow_type)
        for c in definition.columns
    ]
    return {column.name: value for column, value in zip(columns, values, strict=True)}


def _present(rows: Rows, columns: Sequence[Column]) -> list[str]:
    """Return which columns the rows have: a later version may have others, or other types."""
    schema = rows.table.schema
    return [
        c.name
        for c in columns
        if c.name in schema.names
        and (schema.field(c.name).type == c.arrow_type or c.dtype == "string")
    ]


def _flat(value: pa.Array | pa.ChunkedArray, column: Column) -> pa.Array:
    flat = value.combine_chunks() if isinstance(value, pa.ChunkedArray) else value
    return flat if flat.type == column.arrow_type else flat.cast(column.arrow_type)
