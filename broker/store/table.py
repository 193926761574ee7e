"""The port to tables: rows under sorted byte keys, cells with explicit timestamps."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

Row = Mapping[bytes, bytes]
"""Cells of one row by column, `family:qualifier`."""

TimedRow = dict[bytes, tuple[int, bytes]]
"""Timestamp [ms since 1970] and value of the cells of one row, by column."""


@dataclass(frozen=True)
class Family:
    """A column family: cells that are stored and scanned together."""

    name: str
    compression: str = "NONE"
    max_versions: int = 1


class Table(Protocol):
    """Rows in the order of their keys."""

    def put(self, rows: Iterable[tuple[bytes, Row]], timestamp_ms: int | None = None) -> None:
        """Write cells and wait for the acknowledgement.

        A cell of the same key, column and timestamp is replaced; one with an older timestamp
        than the cell that is there stays hidden. So a repeated write changes nothing. All rows
        of a call get `timestamp_ms`; None is the server's clock.
        """
        ...

    def put_timed(self, rows: Iterable[tuple[bytes, Row, int]]) -> None:
        """Write rows that each have a timestamp of their own. [ms since 1970]"""
        ...

    def get(self, key: bytes, columns: Sequence[bytes] | None = None) -> dict[bytes, bytes] | None:
        """Return a row, or its chosen columns or families (`b"f"` or `b"f:q"`); None if absent."""
        ...

    def get_many(
        self, keys: Sequence[bytes], columns: Sequence[bytes] | None = None
    ) -> dict[bytes, dict[bytes, bytes]]:
        """Return the rows that exist among many keys."""
        ...

    def scan(
        self,
        start: bytes = b"",
        stop: bytes = b"",
        *,
        columns: Sequence[bytes] | None = None,
        limit: int | None = None,
        first_cell: bool = False,
    ) -> Iterator[tuple[bytes, dict[bytes, bytes]]]:
        """Yield rows with start <= key < stop in the order of keys; an empty stop is the end.

        With `first_cell` a row has only the first of its columns; the server skips the others.
        """
        ...

    def scan_timed(self, start: bytes = b"", stop: bytes = b"") -> Iterator[tuple[bytes, TimedRow]]:
        """Yield rows as `scan` does, each cell with its timestamp [ms since 1970]: for copies."""
        ...

    def delete(self, key: bytes, columns: Sequence[bytes] | None = None) -> None:
        """Delete a row or some of its columns; an absent one is no error."""
        ...


class Tables(Protocol):
    """A set of tables: HBase, or a dictionary in memory."""

    def create(
        self, name: str, families: Sequence[Family], split_keys: Sequence[bytes] = ()
    ) -> None:
        """Create a table, split into regions at these keys; one that exists is left as it is."""
        ...

    def drop(self, name: str) -> None:
        """Drop a table and its rows; an unknown one is no error."""
        ...

    def names(self) -> list[str]:
        """Return the names of all tables, sorted."""
        ...

    def table(self, name: str) -> Table:
        """Return a table; nothing is asked of the server yet."""
        ...

    def close(self) -> None:
        """Release connections."""
        ...
