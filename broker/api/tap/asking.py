"""What a client asks TAP for, and its answer as a file."""

import io
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from broker.api.errors import ApiError
from broker.api.formats import MEDIA_TYPES, Info, votable
from broker.api.sources import Sources
from broker.api.tap.adql import Statement, statement_of
from broker.api.tap.engine import Answer, run
from broker.api.tap.snapshot import rows_of
from broker.api.tap.tables import TapTable, schema_rows, tap_tables

DEFAULT_ROWS, MOST_ROWS = 10_000, 100_000
"""Rows of an answer: if MAXREC does not say, and at most."""

SYNC_S = 30.0
"""How long an answer may take that a client waits for. [s]"""

FORMATS = {
    "votable": ("votable", "votable/td", "application/x-votable+xml", "text/xml"),
    "csv": ("csv", "text/csv"),
    "parquet": ("parquet", MEDIA_TYPES["parquet"]),
}
"""Names of formats, and how they may be asked for."""

_SYNC_AT_ONCE, _SYNC_WAITING, _PATIENCE_S = 2, 8, 10.0

_KNOWN = ("REQUEST", "LANG", "QUERY", "FORMAT", "RESPONSEFORMAT", "MAXREC", "RUNID", "VERSION")
_LANGUAGES = ("ADQL", "ADQL-2.0", "ADQL-2.1")


@dataclass(frozen=True)
class Asked:
    """A query and how its answer is wanted.

    Parameters
    ----------
    query : str
        ADQL.
    form : str
        Of `FORMATS`.
    rows : int
        At most so many.
    """

    query: str
    form: str = "votable"
    rows: int = DEFAULT_ROWS

    @property
    def media_type(self) -> str:
        """Of the answer."""
        return MEDIA_TYPES[self.form]


def asked_of(parameters: Mapping[str, str]) -> Asked:
    """Return what parameters ask for, their names in capitals; ApiError if it is not allowed."""
    if parameters.get("UPLOAD"):
        raise ApiError(400, "tables cannot be uploaded here", _KNOWN)
    request = parameters.get("REQUEST", "doQuery")
    if request.lower() != "doquery":
        raise ApiError(400, f"there is no REQUEST {request[:40]!r}", ("doQuery",))
    language = parameters.get("LANG", "ADQL")
    if language.upper() not in _LANGUAGES:
        raise ApiError(400, f"there is no LANG {language[:40]!r}", _LANGUAGES)
    wanted = parameters.get("RESPONSEFORMAT") or parameters.get("FORMAT") or "votable"
    return Asked(parameters.get("QUERY", ""), _form(wanted), _rows(parameters.get("MAXREC")))


def _form(wanted: str) -> str:
    name = wanted.partition(";")[0].strip().lower()
    for form, names in FORMATS.items():
        if name in names:
            return form
    raise ApiError(400, f"there is no format {wanted[:60]!r}", FORMATS)


def _rows(text: str | None) -> int:
    if not text:
        return DEFAULT_ROWS
    if not (text.isascii() and text.isdigit()):
        raise ApiError(400, f"MAXREC is {text[:40]!r}; it must be a whole number")
    return min(int(text[:12]), MOST_ROWS)


class Tap:
    """TAP over the public alerts of a run.

    Parameters
    ----------
    sources : Sources
        Where rows come from.
    """

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._running = threading.BoundedSemaphore(_SYNC_AT_ONCE)
        self._here = threading.BoundedSemaphore(_SYNC_AT_ONCE + _SYNC_WAITING)

    def tables(self) -> dict[str, TapTable]:
        """Return the tables by name."""
        return tap_tables(self._sources.contributions, self._sources.catalogs.definitions)

    def answer_soon(self, asked: Asked) -> bytes:
        """Return the answer to a client that waits; ApiError 503 if too many do."""
        with self._turn():
            return self.answer(asked, seconds=SYNC_S)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        words = "too many queries run; ask again later, or ask /tap/async, which has a queue"
        if not self._here.acquire(blocking=False):
            raise ApiError(503, words)
        try:
            if not self._running.acquire(timeout=_PATIENCE_S):
                raise ApiError(503, words)
            try:
                yield
            finally:
                self._running.release()
        finally:
            self._here.release()

    def answer(self, asked: Asked, *, seconds: float, stop: threading.Event | None = None) -> bytes:
        """Return the answer to a query as a file.

        Parameters
        ----------
        asked : Asked
        seconds : float
            After which it is stopped. [s]
        stop : Event, optional
            Ends it earlier.

        Raises
        ------
        ApiError
            If it cannot be answered.
        """
        tables = self.tables()
        statement = self.check(asked, tables)
        fixed = schema_rows(tables)
        views = {
            one.view: fixed[one.table]
            if one.table in fixed
            else rows_of(self._sources, one, tables[one.table])
            for one in statement.references
        }
        answer = run(statement, views, most=asked.rows, seconds=seconds, stop=stop)
        return _file(answer, asked, statement, tables)

    def check(self, asked: Asked, tables: Mapping[str, TapTable] | None = None) -> Statement:
        """Return a query as it would run; ApiError if it is none."""
        names = {name: table.names for name, table in (tables or self.tables()).items()}
        return statement_of(asked.query, tables=names, most=asked.rows + 1)


def _file(
    answer: Answer, asked: Asked, statement: Statement, tables: Mapping[str, TapTable]
) -> bytes:
    if asked.form == "parquet":
        parquet = io.BytesIO()
        pq.write_table(answer.table, parquet, compression="zstd")
        return parquet.getvalue()
    if asked.form == "csv":
        text = io.BytesIO()
        pa_csv.write_csv(answer.table, text, pa_csv.WriteOptions(quoting_style="needed"))
        return text.getvalue()
    known = {
        column.name: column
        for reference in statement.references
        for column in tables[reference.table].columns
        if column.name.lower() in statement.plain or "*" in statement.plain
    }
    more = [Info("QUERY_STATUS", "OVERFLOW", "There are more rows.")] if answer.overflow else []
    return votable(
        answer.table,
        units_of={name: column.unit for name, column in known.items()},
        meanings={name: column.ucd for name, column in known.items()},
        descriptions={name: column.description for name, column in known.items()},
        infos=[Info("QUERY_STATUS", "OK"), Info("QUERY", asked.query)],
        last_infos=more,
    )
