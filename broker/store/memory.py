"""Tables in memory: for tests, notebooks and dry runs."""

import threading
import time
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence

from broker.errors import ServiceError
from broker.store.table import Family, Row, Table, TimedRow

_Cells = dict[bytes, tuple[int, bytes]]


class MemoryTable:
    """Rows in a dictionary, with their keys in order.

    Parameters
    ----------
    name : str
        Its name, for error messages.
    families : sequence of Family
        Only these may be written to.
    """

    def __init__(self, name: str, families: Sequence[Family]) -> None:
        self._name = name
        self._families = frozenset(family.name.encode() for family in families)
        self._rows: dict[bytes, _Cells] = {}
        self._keys: list[bytes] = []
        self._lock = threading.RLock()

    def put(self, rows: Iterable[tuple[bytes, Row]], timestamp_ms: int | None = None) -> None:
        """Write cells; an older timestamp than the cell that is there stays hidden."""
        now = int(time.time() * 1000) if timestamp_ms is None else timestamp_ms
        self.put_timed((key, row, now) for key, row in rows)

    def put_timed(self, rows: Iterable[tuple[bytes, Row, int]]) -> None:
        """Write rows that each have a timestamp of their own. [ms since 1970]"""
        with self._lock:
            for key, row, stamp in rows:
                self._check(row)
                if not row:
                    continue
                if key not in self._rows:
                    insort(self._keys, key)
                cells = self._rows.setdefault(key, {})
                for column, value in row.items():
                    if column not in cells or cells[column][0] <= stamp:
                        cells[column] = (stamp, value)

    def get(self, key: bytes, columns: Sequence[bytes] | None = None) -> dict[bytes, bytes] | None:
        """Return a row, or its chosen columns or families; None if absent."""
        with self._lock:
            return _chosen(self._rows.get(key, {}), columns) or None

    def get_many(
        self, keys: Sequence[bytes], columns: Sequence[bytes] | None = None
    ) -> dict[bytes, dict[bytes, bytes]]:
        """Return the rows that exist among many keys."""
        found = ((key, self.get(key, columns)) for key in keys)
        return {key: row for key, row in found if row is not None}

    def scan(
        self,
        start: bytes = b"",
        stop: bytes = b"",
        *,
        columns: Sequence[bytes] | None = None,
        limit: int | None = None,
        first_cell: bool = False,
    ) -> Iterator[tuple[bytes, dict[bytes, bytes]]]:
        """Yield rows with start <= key < stop in the order of keys; an empty stop is the end."""
        with self._lock:
            low = bisect_left(self._keys, start)
            high = bisect_left(self._keys, stop) if stop else len(self._keys)
            keys = self._keys[low:high]
        left = len(keys) if limit is None else limit
        for key in keys:
            if left <= 0:
                return
            row = self.get(key, columns)
            if row is not None:
                left -= 1
                yield key, dict([min(row.items())]) if first_cell else row

    def scan_timed(self, start: bytes = b"", stop: bytes = b"") -> Iterator[tuple[bytes, TimedRow]]:
        """Yield rows as `scan` does, each cell with its timestamp. [ms since 1970]"""
        for key, _ in self.scan(start, stop):
            with self._lock:
                cells = dict(self._rows.get(key, {}))
            if cells:
                yield key, cells

    def delete(self, key: bytes, columns: Sequence[bytes] | None = None) -> None:
        """Delete a row or some of its columns; an absent one is no error."""
        with self._lock:
            cells = self._rows.get(key)
            if cells is None:
                return
            for column in _chosen(cells, columns):
                del cells[column]
            if not cells:
                del self._rows[key]
                del self._keys[bisect_left(self._keys, key)]

    def _check(self, row: Row) -> None:
        for column in row:
            family = column.partition(b":")[0]
            if family not in self._families:
                raise ServiceError(
                    f"table {self._name} has no family {family.decode(errors='replace')}",
                    table=self._name,
                )


def _chosen(cells: _Cells, columns: Sequence[bytes] | None) -> dict[bytes, bytes]:
    if columns is None:
        return {column: value for column, (_, value) in cells.items()}
    exact = {column for column in columns if b":" in column and not column.endswith(b":")}
    families = {column.rstrip(b":") for column in columns if column not in exact}
    return {
        column: value
        for column, (_, value) in cells.items()
        if column in exact or column.partition(b":")[0] in families
    }


class MemoryTables:
    """Tables in a dictionary, with the same behaviour as `HBaseTables`."""

    def __init__(self) -> None:
        self._tables: dict[str, MemoryTable] = {}

    def create(
        self, name: str, families: Sequence[Family], split_keys: Sequence[bytes] = ()
    ) -> None:
        """Create a table; one that exists is left as it is. There are no regions to split."""
        del split_keys
        if name not in self._tables:
            self._tables[name] = MemoryTable(name, families)

    def drop(self, name: str) -> None:
        """Drop a table and its rows; an unknown one is no error."""
        self._tables.pop(name, None)

    def names(self) -> list[str]:
        """Return the names of all tables, sorted."""
        return sorted(self._tables)

    def table(self, name: str) -> Table:
        """Return a table."""
        return _Reference(self._tables, name)

    def close(self) -> None:
        """Release nothing: there are no connections."""


class _Reference:
    """A table by name, looked up at each use: it may be created or dropped later."""

    def __init__(self, tables: dict[str, MemoryTable], name: str) -> None:
        self._tables = tables
        self._name = name

    def _table(self) -> MemoryTable:
        if self._name not in self._tables:
            raise ServiceError(f"there is no table {self._name}", table=self._name)
        return self._tables[self._name]

    def put(self, rows: Iterable[tuple[bytes, Row]], timestamp_ms: int | None = None) -> None:
        self._table().put(rows, timestamp_ms)

    def put_timed(self, rows: Iterable[tuple[bytes, Row, int]]) -> None:
        self._table().put_timed(rows)

    def get(self, key: bytes, columns: Sequence[bytes] | None = None) -> dict[bytes, bytes] | None:
        return self._table().get(key, columns)

    def get_many(
        self, keys: Sequence[bytes], columns: Sequence[bytes] | None = None
    ) -> dict[bytes, dict[bytes, bytes]]:
        return self._table().get_many(keys, columns)

    def scan(
        self,
        start: bytes = b"",
        stop: bytes = b"",
        *,
        columns: Sequence[bytes] | None = None,
        limit: int | None = None,
        first_cell: bool = False,
    ) -> Iterator[tuple[bytes, dict[bytes, bytes]]]:
        return self._table().scan(start, stop, columns=columns, limit=limit, first_cell=first_cell)

    def scan_timed(self, start: bytes = b"", stop: bytes = b"") -> Iterator[tuple[bytes, TimedRow]]:
        return self._table().scan_timed(start, stop)

    def delete(self, key: bytes, columns: Sequence[bytes] | None = None) -> None:
        self._table().delete(key, columns)
