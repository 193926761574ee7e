"""Tables on HBase, through its Thrift gateway. The only module that imports its client."""

import functools
import logging
import queue
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import happybase
from thriftpy2.thrift import TException

from broker.errors import ServiceError
from broker.store.table import Family, Row, Table, TimedRow

_LOG = logging.getLogger(__name__)

Presplit = Callable[[str, Sequence[Family], Sequence[bytes]], None]
"""Creates a table with split keys, which the Thrift gateway cannot do."""

_IDLE_S = 30.0
"""The gateway drops a connection that was idle for 60 s; ours is made anew before that."""

_CELLS_A_CALL = 4000
_BYTES_A_CALL = 1 << 20
_ROWS_A_CALL = 1000
_TEXT_LENGTH = 300
_NEVER_MET_S = 5.0
_FIRST_WAIT_S = 0.1
_LONGEST_WAIT_S = 3.0
_HOPELESS = (
    "TableNotFoundException",
    "NoSuchColumnFamilyException",
    "TableNotEnabledException",
    "IllegalArgument",
)
"""Errors of the server that no repetition mends."""

R = TypeVar("R")


class HBaseTables:
    """Tables on an HBase server.

    Connections are made when they are first needed, and anew when they break or were idle; a call
    has one to itself, and waits for one when all are taken. A call that fails is repeated, with
    growing waits, until `timeout_s` has passed: a repeated write with explicit timestamps changes
    nothing.

    Parameters
    ----------
    host, port : str, int
        The Thrift gateway (Thrift 1, buffered transport, binary protocol).
    timeout_s : float
        How long to wait for an answer, and how long to go on trying; a server that never
        answered is given up after 5 s. [s]
    presplit : callable, optional
        Called as `presplit(name, families, split_keys)` to create a table that has regions from
        the start; its `close`, if it has one, is called by ours. Without it tables start with
        one region and HBase splits them as they grow.
    connections : int
        How many calls may be on their way at once, by threads.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        timeout_s: float = 60.0,
        presplit: Presplit | None = None,
        connections: int = 1,
    ) -> None:
        self._host = host
        self._port = port
        self._timeout_s = timeout_s
        self._presplit = presplit
        self._connections = connections
        self._answered = False
        # The one that was used last comes first: the others may grow idle.
        self._free: queue.LifoQueue[_Line] = queue.LifoQueue()
        for _ in range(connections):
            self._free.put(_Line(host, port, timeout_s))

    def __reduce__(self) -> tuple[Any, ...]:
        recipe = functools.partial(
            HBaseTables,
            timeout_s=self._timeout_s,
            presplit=self._presplit,
            connections=self._connections,
        )
        return (recipe, (self._host, self._port))

    def create(
        self, name: str, families: Sequence[Family], split_keys: Sequence[bytes] = ()
    ) -> None:
        """Create a table, split into regions at these keys; one that exists is left as it is."""
        if name in self.names():
            return
        if split_keys and self._presplit is not None:
            self._presplit(name, families, split_keys)
            return
        options = {
            family.name: {
                "max_versions": family.max_versions,
                "compression": family.compression,
                "bloom_filter_type": "ROW",
                "block_cache_enabled": True,
            }
            for family in families
        }
        self._call(lambda connection: _create(connection, name, options))

    def drop(self, name: str) -> None:
        """Drop a table and its rows; an unknown one is no error."""
        if name in self.names():
            self._call(lambda connection: _drop(connection, name))

    def names(self) -> list[str]:
        """Return the names of all tables, sorted."""
        names = self._call(lambda connection: connection.tables())
        return sorted(name.decode() for name in names)

    def table(self, name: str) -> Table:
        """Return a table; nothing is asked of the server yet."""
        return _HBaseTable(name, self._call)

    def close(self) -> None:
        """Release connections, and what `presplit` holds; they are made again when needed."""
        lines = []
        with suppress(queue.Empty):
            while True:
                lines.append(self._free.get_nowait())
        for line in lines:
            line.close()
            self._free.put(line)
        if (release := getattr(self._presplit, "close", None)) is not None:
            release()

    def _call(self, action: Callable[[Any], R]) -> R:
        """Run an action on a connection until it succeeds or the time is over."""
        line = self._free.get()
        try:
            return self._insist(line, action)
        finally:
            self._free.put(line)

    def _insist(self, line: "_Line", action: Callable[[Any], R]) -> R:
        patience_s = self._timeout_s if self._answered else min(self._timeout_s, _NEVER_MET_S)
        deadline = time.monotonic() + patience_s
        wait_s = _FIRST_WAIT_S
        while True:
            try:
                result = action(line.connected())
                line.used = time.monotonic()
                self._answered = True
                return result
            except (TException, OSError, EOFError) as error:
                line.close()
                text = _text(error)
                late = time.monotonic() + wait_s > deadline
                if late or any(word in text for word in _HOPELESS):
                    raise ServiceError(
                        f"HBase at {self._host}:{self._port}: {text}",
                        host=self._host,
                        port=self._port,
                    ) from error
                _LOG.debug("HBase call is repeated after %s", text)
                time.sleep(wait_s)
                wait_s = min(2 * wait_s, _LONGEST_WAIT_S)


class _Line:
    """One connection to the gateway, of one call at a time."""

    def __init__(self, host: str, port: int, timeout_s: float) -> None:
        self._place = (host, port)
        self._timeout_ms = int(timeout_s * 1000)
        self._connection: Any = None
        self.used: float | None = None

    def connected(self) -> Any:
        """Return the connection, made anew if it was idle too long."""
        if self.used and time.monotonic() - self.used > _IDLE_S:
            self.close()
        if self._connection is None:
            self._connection = happybase.Connection(*self._place, timeout=self._timeout_ms)
        return self._connection

    def close(self) -> None:
        """Release it."""
        if self._connection is not None:
            with suppress(TException, OSError):
                self._connection.close()
            self._connection = None


class _HBaseTable:
    """One table, on the connection of its `HBaseTables`."""

    def __init__(self, name: str, call: Callable[[Callable[[Any], Any]], Any]) -> None:
        self._name = name.encode()
        self._call = call

    def put(self, rows: Iterable[tuple[bytes, Row]], timestamp_ms: int | None = None) -> None:
        for chunk in _chunks(rows):
            self._send(chunk, timestamp_ms)

    def put_timed(self, rows: Iterable[tuple[bytes, Row, int]]) -> None:
        # The gateway takes one timestamp a call, so rows go in groups of equal times.
        groups: dict[int, list[tuple[bytes, Row]]] = defaultdict(list)
        for key, row, stamp in rows:
            groups[stamp].append((key, row))
        for stamp, group in groups.items():
            self.put(group, stamp)

    def get(self, key: bytes, columns: Sequence[bytes] | None = None) -> dict[bytes, bytes] | None:
        chosen = _chosen(columns)
        found = self._call(
            lambda connection: connection.client.getRowWithColumns(self._name, key, chosen, {})
        )
        return _cells(found[0]) if found else None

    def get_many(
        self, keys: Sequence[bytes], columns: Sequence[bytes] | None = None
    ) -> dict[bytes, dict[bytes, bytes]]:
        chosen = _chosen(columns)
        made: dict[bytes, dict[bytes, bytes]] = {}
        for low in range(0, len(keys), _ROWS_A_CALL):
            part = list(keys[low : low + _ROWS_A_CALL])
            found = self._call(functools.partial(_get_rows, self._name, part, chosen))
            made.update((row.row, _cells(row)) for row in found if row.columns)
        return made

    def scan(
        self,
        start: bytes = b"",
        stop: bytes = b"",
        *,
        columns: Sequence[bytes] | None = None,
        limit: int | None = None,
        first_cell: bool = False,
    ) -> Iterator[tuple[bytes, dict[bytes, bytes]]]:
        for row in self._rows(start, stop, columns, limit, first_cell):
            yield row.row, _cells(row)

    def scan_timed(self, start: bytes = b"", stop: bytes = b"") -> Iterator[tuple[bytes, TimedRow]]:
        for row in self._rows(start, stop, None, None, first_cell=False):
            yield row.row, {name: (c.timestamp, c.value) for name, c in row.columns.items()}

    def _rows(
        self,
        start: bytes,
        stop: bytes,
        columns: Sequence[bytes] | None,
        limit: int | None,
        first_cell: bool,
    ) -> Iterator[Any]:
        # Each chunk is a scan of its own that begins after the last key: nothing is held open on
        # the server between chunks, so neither a slow reader nor a restart can break a scan.
        left = limit
        while left is None or left > 0:
            size = _ROWS_A_CALL if left is None else min(left, _ROWS_A_CALL)
            scan = _scan(start, stop, columns, size, first_cell)
            rows = self._call(functools.partial(_fetch, self._name, scan, size))
            yield from rows
            if len(rows) < size:
                return
            start = rows[-1].row + b"\x00"
            left = None if left is None else left - len(rows)

    def delete(self, key: bytes, columns: Sequence[bytes] | None = None) -> None:
        if columns is None:
            self._call(lambda connection: connection.client.deleteAllRow(self._name, key, {}))
            return
        doomed = _chosen(columns)
        self._call(lambda connection: connection.table(self._name).delete(key, doomed))

    def _send(self, rows: list[tuple[bytes, Row]], timestamp_ms: int | None) -> None:
        def send(connection: Any) -> None:
            batches = _batches(rows)
            if timestamp_ms is None:
                connection.client.mutateRows(self._name, batches, {})
            else:
                connection.client.mutateRowsTs(self._name, batches, timestamp_ms, {})

        self._call(send)


def _chosen(columns: Sequence[bytes] | None) -> list[bytes] | None:
    # The gateway takes a family without its colon only.
    return None if columns is None else [column.removesuffix(b":") for column in columns]


def _scan(
    start: bytes, stop: bytes, columns: Sequence[bytes] | None, size: int, first_cell: bool
) -> Any:
    return happybase.table.TScan(
        startRow=start,
        stopRow=stop or None,
        columns=_chosen(columns),
        caching=size,
        filterString=b"FirstKeyOnlyFilter()" if first_cell else None,
    )


def _fetch(name: bytes, scan: Any, size: int, connection: Any) -> list[Any]:
    client = connection.client
    scanner = client.scannerOpenWithScan(name, scan, {})
    rows: list[Any] = []
    while len(rows) < size:
        wanted = size - len(rows)
        more = client.scannerGetList(scanner, wanted)
        rows += more
        if len(more) < wanted:  # the gateway collects until the scan ends
            break
    client.scannerClose(scanner)
    return rows


def _batches(rows: Iterable[tuple[bytes, Row]]) -> list[Any]:
    mutation, batch = happybase.batch.Mutation, happybase.batch.BatchMutation
    return [
        batch(key, [mutation(False, column, value, True) for column, value in row.items()])
        for key, row in rows
    ]


def _chunks(rows: Iterable[tuple[bytes, Row]]) -> Iterator[list[tuple[bytes, Row]]]:
    """Cut rows into calls that the gateway takes in one piece."""
    chunk: list[tuple[bytes, Row]] = []
    cells = size = 0
    for key, row in rows:
        if not row:
            continue
        chunk.append((key, row))
        cells += len(row)
        size += sum(map(len, row.values())) + len(key) * len(row)
        if cells >= _CELLS_A_CALL or size >= _BYTES_A_CALL:
            yield chunk
            chunk, cells, size = [], 0, 0
    if chunk:
        yield chunk


def _get_rows(
    name: bytes, keys: list[bytes], columns: list[bytes] | None, connection: Any
) -> list[Any]:
    rows: list[Any] = connection.client.getRowsWithColumns(name, keys, columns, {})
    return rows


def _cells(row: Any) -> dict[bytes, bytes]:
    return {column: cell.value for column, cell in row.columns.items()}


def _create(connection: Any, name: str, options: dict[str, Any]) -> None:
    # Asked again because a repeated call may find what the first one made.
    if name.encode() not in connection.tables():
        connection.create_table(name, options)


def _drop(connection: Any, name: str) -> None:
    if name.encode() in connection.tables():
        connection.delete_table(name, disable=True)


def _text(error: BaseException) -> str:
    message = getattr(error, "message", None) or str(error)
    text = message.decode(errors="replace") if isinstance(message, bytes) else str(message)
    return f"{type(error).__name__} {next(iter(text.splitlines()), '')[:_TEXT_LENGTH]}"
