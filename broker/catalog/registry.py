"""Which catalogues there are, how rows are added, and the match with all of them.

A catalogue is defined by one file, `definitions/<name>.toml`: radius of the match and attached
columns. Its rows come later, or never: a catalogue that is defined but has no rows is "not
searched", which reads -1 and is no error.
"""

import functools
import time
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import ArrayLike

from broker.alerts.columns import (
    ARROW_TYPES,
    FOUND,
    MATCH_COLUMNS,
    NOT_FOUND,
    NOT_SEARCHED,
    Column,
    camel_case,
)
from broker.catalog.crossmatch import nearest
from broker.catalog.healpix import on_sky
from broker.catalog.partition import Rows, open_rows, sort_rows, stamp, write_rows
from broker.errors import ConfigError

_LOOK_EVERY_S = 1.0


@dataclass(frozen=True)
class Definition:
    """What a catalogue is, apart from its rows.

    Parameters
    ----------
    name : str
        First part of the names of its match columns.
    doc : str
        One sentence.
    radius_arcsec : float
        A position matches an entry within this radius. [arcsec]
    columns : tuple of Column
        The attached columns.
    radius_column : str or None
        An attached column in arcsec; where it is larger than `radius_arcsec`, it is the radius.
    radius_factor : float
        What `radius_column` is multiplied by to be a radius.
    """

    name: str
    doc: str
    radius_arcsec: float
    columns: tuple[Column, ...]
    radius_column: str | None = None
    radius_factor: float = 1.0

    @property
    def match_columns(self) -> tuple[Column, ...]:
        """What a batch of alerts gets from this catalogue, named as modules see it."""
        return tuple(
            Column(match_name(self.name, c.name), c.dtype, c.unit, c.doc, c.nullable)
            for c in (*MATCH_COLUMNS, *self.columns)
        )


def match_name(catalog: str, column: str) -> str:
    """Return a match column's name: `reference`, `sizeArcsec` make `referenceSizeArcsec`."""
    return catalog + column[0].upper() + column[1:]


@functools.cache
def read_definitions() -> dict[str, Definition]:
    """Return all defined catalogues by name, in the order of names.

    Raises
    ------
    ConfigError
        If a definition cannot be used; the message names the file.
    """
    folder = files("broker.catalog").joinpath("definitions")
    names = sorted(p.name for p in folder.iterdir() if p.name.endswith(".toml"))
    texts = {name: folder.joinpath(name).read_text(encoding="utf-8") for name in names}
    return {
        name.removesuffix(".toml"): parse_definition(name.removesuffix(".toml"), text)
        for name, text in texts.items()
    }


def parse_definition(name: str, text: str) -> Definition:
    """Return the definition of a catalogue from the text of its file.

    Raises
    ------
    ConfigError
        If it is not TOML, lacks a key, or has an unknown key, an unknown type, a column twice or
        a radius that is not positive.
    """
    where = f"catalog/definitions/{name}.toml"
    if not (name.isascii() and name.isalnum() and name[0].islower()):
        raise ConfigError(f"{where}: a catalogue's name is camelCase letters and digits")
    try:
        values = tomllib.loads(text)
        columns = tuple(Column(**column) for column in values.pop("columns"))
        definition = Definition(name=name, columns=columns, **values)
    except (tomllib.TOMLDecodeError, TypeError, KeyError) as error:
        raise ConfigError(f"{where} cannot be used: {error}", path=where) from error
    _check(definition, where)
    return definition


def _check(definition: Definition, where: str) -> None:
    names = [column.name for column in definition.columns]
    reserved = {"id", "ra", "dec", *(column.name for column in MATCH_COLUMNS)}
    for column in definition.columns:
        if column.dtype not in ARROW_TYPES:
            raise ConfigError(
                f"{where}: {column.name} is of type {column.dtype}; use {', '.join(ARROW_TYPES)}"
            )
        if names.count(column.name) > 1 or column.name in reserved:
            raise ConfigError(f"{where}: the name {column.name} is taken")
    if not (definition.radius_arcsec > 0.0 and definition.radius_factor > 0.0):
        raise ConfigError(f"{where}: radius_arcsec and radius_factor must be positive")
    if definition.radius_column is not None and definition.radius_column not in names:
        raise ConfigError(f"{where}: radius_column {definition.radius_column} is no column")


def definitions() -> dict[str, tuple[Column, ...]]:
    """Return the match columns of every defined catalogue: what a module may ask for."""
    return {name: d.match_columns for name, d in read_definitions().items()}


def definition_of(name: str) -> Definition:
    """Return one catalogue's definition; ConfigError if there is none of that name."""
    known = read_definitions()
    if name not in known:
        raise ConfigError(
            f"no catalogue {name!r} is defined; there are {', '.join(known)}. Add "
            f"broker/catalog/definitions/{name}.toml",
            catalog=name,
        )
    return known[name]


def install_catalog(path: Path, name: str, rows: Path | pa.Table, version: str) -> int:
    """Add the rows of a catalogue, or replace them by a new version.

    Running queries see the new version within a second, between two batches.

    Parameters
    ----------
    path : Path
        Folder of all catalogues.
    name : str
        A defined catalogue.
    rows : Path or pa.Table
        A Parquet file or a table: `id`, `ra`, `dec` [deg] and the attached columns, named as on
        the wire or in snake_case; a column that is absent is null. Others are left out.
    version : str
        What stands as the catalogue's version in every match: letters, digits, `.`, `_`, `-`.

    Returns
    -------
    int
        Number of rows.

    Raises
    ------
    ConfigError
        If there are no rows, an id or a place is missing or not possible, an id occurs twice, or
        a column cannot be read as its type. Nothing is changed then.
    """
    if not version or not all(c.isalnum() or c in "._-" for c in version):
        raise ConfigError(f"version {version!r} is not allowed: use letters, digits, . _ -")
    definition = definition_of(name)
    table = _chosen_columns(rows if isinstance(rows, pa.Table) else _read(rows), definition)
    _check_rows(table, name)
    table, layers = sort_rows(table, _radii(table, definition))
    write_rows(path / name, name=name, version=version, table=table, layers=layers)
    return int(table.num_rows)


def _read(path: Path) -> pa.Table:
    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise ConfigError(f"{path} cannot be read as Parquet: {error}", path=str(path)) from error


def _chosen_columns(table: pa.Table, definition: Definition) -> pa.Table:
    """Return `id`, `ra`, `dec` and the attached columns, in their types."""
    present = {camel_case(name): name for name in table.column_names}
    types = {"id": pa.string(), "ra": pa.float64(), "dec": pa.float64()}
    missing = sorted(set(types) - set(present))
    if missing:
        raise ConfigError(f"the rows have no column {missing[0]}; id, ra and dec are needed")
    types |= {column.name: column.arrow_type for column in definition.columns}
    columns = {}
    for name, kind in types.items():
        # Offsets of 64 bits: the strings of a large catalogue stay one chunk of the file.
        kind = pa.large_string() if kind == pa.string() else kind
        try:
            columns[name] = (
                table.column(present[name]).cast(kind, safe=not pa.types.is_floating(kind))
                if name in present
                else pa.chunked_array([pa.nulls(table.num_rows, kind)])
            )
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise ConfigError(f"column {name} of the rows is not {kind}: {error}") from error
    return pa.table(columns)


def _check_rows(table: pa.Table, name: str) -> None:
    if table.num_rows == 0:
        raise ConfigError(f"there are no rows to add to the catalogue {name}", catalog=name)
    if table.column("id").null_count:
        raise ConfigError(f"an entry of {name} has no id", catalog=name)
    ra, dec = (pc.fill_null(table.column(c), np.nan).to_numpy() for c in ("ra", "dec"))
    bad = np.flatnonzero(~on_sky(ra, dec))
    if bad.size:
        row = int(bad[0])
        raise ConfigError(
            f"{bad.size} entries of {name} are not on the sky; the first is id "
            f"{table.column('id')[row]} at ({ra[row]}, {dec[row]}): 0 to 360 and -90 to 90 deg",
            catalog=name,
        )
    counts = table.column("id").value_counts()
    twice = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(twice):
        raise ConfigError(f"id {twice[0]['values']} occurs {twice[0]['counts']} times in {name}")


def _radii(table: pa.Table, definition: Definition) -> Any:
    radius = np.full(table.num_rows, definition.radius_arcsec)
    if definition.radius_column is not None:
        own = pc.fill_null(table.column(definition.radius_column), 0.0).to_numpy()
        radius = np.fmax(radius, own.astype(np.float64) * definition.radius_factor)
    if not np.isfinite(radius).all():
        raise ConfigError(f"{definition.name}: {definition.radius_column} has an infinite value")
    return radius


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
        self._open: dict[str, Rows | None] = {}
        self._stamps: dict[str, Any] = {}
        self._looked_at = -np.inf

    def __reduce__(self) -> tuple[Any, ...]:
        return (Catalogs, (self._path,))

    def rows(self, name: str) -> Rows | None:
        """Return a catalogue's current rows; None if it has none yet.

        Raises
        ------
        ConfigError
            If the catalogue is not defined or its files cannot be read.
        """
        definition_of(name)
        self._look()
        return self._open[name]

    def match(self, ra: ArrayLike, dec: ArrayLike) -> pa.Table:
        """Match positions with every defined catalogue.

        Parameters
        ----------
        ra, dec : array_like, shape (n,)
            Positions. [deg]

        Returns
        -------
        pa.Table, n rows
            The columns of `definitions()`. The reading is 1 found, 0 none within the radius, -1
            not searched: the catalogue has no rows, or the position is not on the sky.
        """
        self._look()
        ra, dec = np.asarray(ra, dtype=np.float64), np.asarray(dec, dtype=np.float64)
        columns: dict[str, pa.Array] = {}
        for definition in read_definitions().values():
            columns |= _match(definition, self._open[definition.name], ra, dec)
        return pa.table(columns)

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._looked_at < _LOOK_EVERY_S:
            return
        for name in read_definitions():
            found = stamp(self._path / name)
            if name not in self._open or found != self._stamps[name]:
                self._open[name] = None if found is None else open_rows(self._path / name)
                self._stamps[name] = found
        self._looked_at = now


def _match(definition: Definition, rows: Rows | None, ra: Any, dec: Any) -> dict[str, pa.Array]:
    """Return one catalogue's match columns."""
    if rows is None:
        values: list[Any] = [np.full(ra.size, NOT_SEARCHED, np.int32)]
        values += [pa.nulls(ra.size, c.arrow_type) for c in definition.match_columns[1:]]
    else:
        row, separation = nearest(rows, ra, dec)
        searched, found = on_sky(ra, dec), row >= 0
        taken = rows.table.select(["id", *(c.name for c in definition.columns)]).take(
            pa.array(row, mask=~found)
        )
        values = [
            np.where(found, FOUND, np.where(searched, NOT_FOUND, NOT_SEARCHED)).astype(np.int32),
            taken.column("id"),
            pa.array(separation.astype(np.float32), mask=~found),
            pa.array([rows.version if one else None for one in searched], pa.string()),
            *taken.columns[1:],
        ]
    return {
        column.name: pa.array(value) if isinstance(value, np.ndarray) else _flat(value, column)
        for column, value in zip(definition.match_columns, values, strict=True)
    }


def _flat(value: pa.Array | pa.ChunkedArray, column: Column) -> pa.Array:
    if isinstance(value, pa.ChunkedArray):
        value = value.combine_chunks()
    return value.cast(column.arrow_type)
