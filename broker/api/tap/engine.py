"""Queries in DuckDB, which sees the rows it is given and nothing else, for a limited time."""

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from broker.api.errors import ApiError
from broker.api.tap.adql import Statement
from broker.api.tap.geometry import DISTANCE
from broker.catalog.regions import Region
from broker.units import ARCSEC_PER_DEG, separation_arcsec

MEMORY_MB = 512
"""Of one query; its rows are not in it."""

MOST_BYTES = 200_000_000
"""Of an answer."""

_THREADS = 2
_LOOK_S = 0.05
_ROWS_A_READ = 20_000

_SETTINGS = (
    "SET temp_directory = ''",
    "SET enable_external_access = false",
    "SET allow_community_extensions = false",
    "SET integer_division = true",
    "SET error_on_division_by_zero = false",
    "SET TimeZone = 'UTC'",
)


@dataclass(frozen=True)
class Answer:
    """What a query gave.

    Parameters
    ----------
    table : pa.Table
        Its rows: booleans, numbers, texts.
    overflow : bool
        Whether there were more.
    """

    table: pa.Table
    overflow: bool


def run(
    statement: Statement,
    views: Mapping[str, pa.Table],
    *,
    most: int,
    seconds: float,
    stop: threading.Event | None = None,
) -> Answer:
    """Return what a query gives.

    Parameters
    ----------
    statement : Statement
        What to ask.
    views : mapping of str to pa.Table
        The tables that it reads.
    most : int
        Rows of the answer.
    seconds : float
        After which it is ended. [s]
    stop : Event, optional
        Ends it earlier.

    Raises
    ------
    ApiError
        If it cannot run, takes too long or too much memory.
    """
    import duckdb

    connection = _connection(views, statement.regions)
    try:
        with _ended(connection.interrupt, seconds, stop or threading.Event()) as ended:
            table = _read(connection, statement.sql, most + 1)
    except duckdb.OutOfMemoryException as error:
        words = f"the query takes more than {MEMORY_MB} MB of memory; ask for less at once"
        raise ApiError(400, words) from error
    except (duckdb.Error, pa.ArrowException) as error:
        if ended.is_set():
            raise _too_long(seconds) from error
        raise ApiError(400, f"the query cannot run: {_words(error, statement)}") from error
    finally:
        connection.close()
    return Answer(table.slice(0, most), table.num_rows > most)


@contextmanager
def _ended(
    end: Callable[[], None], seconds: float, stop: threading.Event
) -> Iterator[threading.Event]:
    """Call `end` after some seconds or when it is asked for; yield whether it was called.

    It is called again and again: a query that just begins does not notice the first time.
    """
    done, ended = threading.Event(), threading.Event()
    deadline = time.monotonic() + seconds

    def watch() -> None:
        while not done.wait(_LOOK_S):
            if stop.is_set() or time.monotonic() > deadline:
                ended.set()
                end()

    watching = threading.Thread(target=watch, daemon=True, name="tap-watch")
    watching.start()
    try:
        yield ended
    finally:
        done.set()
        watching.join()


def _too_long(seconds: float) -> ApiError:
    return ApiError(400, f"the query was stopped: it may take {seconds:g} s, or it was aborted")


def _connection(views: Mapping[str, pa.Table], regions: Mapping[str, Region]) -> Any:
    """Return a database in memory with the tables, and nothing that it may change."""
    import duckdb

    connection = duckdb.connect(
        ":memory:",
        config={
            "threads": min(_THREADS, os.cpu_count() or 1),
            "memory_limit": f"{MEMORY_MB}MB",
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "python_enable_replacements": False,  # else it would find our variables by name
        },
    )
    for setting in _SETTINGS:
        connection.execute(setting)
    for name, table in views.items():
        connection.register(name, table)
    # No macros: these are unfolded where they are used, and in each other without end.
    connection.create_function(DISTANCE, _distance, ["DOUBLE"] * 4, "DOUBLE", type="arrow")
    for name, region in regions.items():
        connection.create_function(name, _function(region), ["DOUBLE"] * 2, "BOOLEAN", type="arrow")
    connection.execute("SET lock_configuration = true")
    return connection


def _distance(ra: pa.Array, dec: pa.Array, other_ra: pa.Array, other_dec: pa.Array) -> pa.Array:
    places = _arrays((ra, dec, other_ra, other_dec))
    with np.errstate(invalid="ignore"):
        return pa.array(separation_arcsec(*places) / ARCSEC_PER_DEG)


def _arrays(columns: Iterable[pa.Array]) -> list[NDArray[np.float64]]:
    return [np.asarray(one.to_numpy(zero_copy_only=False), np.float64) for one in columns]


def _function(region: Region) -> Callable[[pa.Array, pa.Array], pa.Array]:
    def inside(ra: pa.Array, dec: pa.Array) -> pa.Array:
        with np.errstate(invalid="ignore"):
            return pa.array(region.contains(*_arrays((ra, dec))))

    return inside


def _read(connection: Any, sql: str, most: int) -> pa.Table:
    """Return the rows of an answer, as they come, until they are too many."""
    reader = connection.sql(sql).to_arrow_reader(_ROWS_A_READ)
    batches, rows, size = [], 0, 0
    for batch in reader:
        batches.append(batch)
        rows, size = rows + batch.num_rows, size + batch.nbytes
        if size > MOST_BYTES:
            raise ApiError(400, f"the answer has more than {MOST_BYTES} bytes; ask for fewer rows")
        if rows >= most:
            break
    return _simple(pa.Table.from_batches(batches, reader.schema))


def _simple(table: pa.Table) -> pa.Table:
    """Return a table with types that VOTable has."""
    columns = [_simple_column(column) for column in table.columns]
    names = [name.replace('"', "") for name in table.column_names]
    return pa.Table.from_arrays(columns, names=names)


def _simple_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _simple_column(column.cast(kind.value_type))
    if pa.types.is_boolean(kind) or kind in (pa.int16(), pa.int32(), pa.int64(), pa.string()):
        return column
    if pa.types.is_floating(kind):
        return column
    if pa.types.is_decimal(kind):
        whole = kind.scale == 0 and _fits(column)
        # By way of text a decimal becomes the nearest number.
        return column.cast(pa.int64()) if whole else column.cast(pa.string()).cast(pa.float64())
    if pa.types.is_integer(kind):
        return column.cast(pa.int16() if kind.bit_width <= 8 else pa.int64(), safe=True)
    return column.cast(pa.string())


def _fits(column: pa.ChunkedArray) -> bool:
    ends = pc.min_max(column).as_py()
    return ends["min"] is None or (ends["min"] >= -(2**63) and ends["max"] < 2**63)


def _words(error: Exception, statement: Statement) -> str:
    """Return what a query's author can read: no line of the rewritten query, no name of a view."""
    text = str(error).partition("LINE ")[0].strip()
    _, _, said = text.partition("Error: ")
    text = " ".join((said or text).split())
    for reference in statement.references:
        text = text.replace(reference.view, reference.table)
    return text[:400]
