"""Which modules and filters failed, and which may not run until a person releases them."""

import itertools
import os
import time
from dataclasses import dataclass

from broker.store.keys import joined, split_joined
from broker.store.table import Row, Tables
from broker.types import Run

_FAILURES_TO_QUARANTINE = 5
_FAILURE, _RELEASE = b"f:failure-", b"f:release-"


@dataclass(frozen=True)
class QuarantineStatus:
    """Where one version of a module or filter stands.

    Parameters
    ----------
    name, version : str
        Which.
    failures : int
        Failures since it was last released.
    quarantined : bool
        Whether it may not run.
    last_failure_ms : int or None
        When it failed last. [ms since 1970]
    reason : str
        Why it failed last.
    """

    name: str
    version: str
    failures: int
    quarantined: bool
    last_failure_ms: int | None
    reason: str


class Quarantine:
    """Failures of modules and filters, by version.

    Parameters
    ----------
    tables : Tables
        Where.
    run : Run
        Whose.
    failures_to_quarantine : int
        How many failures since its release put one into quarantine.
    """

    def __init__(
        self, tables: Tables, run: Run, *, failures_to_quarantine: int = _FAILURES_TO_QUARANTINE
    ) -> None:
        self._table = tables.table(run.table("quarantine"))
        self._limit = failures_to_quarantine
        self._turn = itertools.count()

    def record_failure(self, name: str, version: str, reason: str) -> None:
        """Record that a module raised, hung, or gave something that is not allowed."""
        self._write(_FAILURE, name, version, reason)

    def release(self, name: str) -> int:
        """Let every version of a module run again; how many were in quarantine."""
        freed = 0
        for status in self.status():
            if status.name == name and status.failures:
                self._write(_RELEASE, name, status.version, "")
                freed += status.quarantined
        return freed

    def quarantined(self) -> set[str]:
        """Return those that may not run, as `module@version`."""
        return {f"{s.name}@{s.version}" for s in self.status() if s.quarantined}

    def status(self) -> list[QuarantineStatus]:
        """Return where each stands that ever failed, sorted by name and version."""
        return [self._status(key, row) for key, row in self._table.scan()]

    def _write(self, kind: bytes, name: str, version: str, reason: str) -> None:
        # Each event is a cell of its own: nothing is read, counted up or deleted.
        unique = b"%016x-%d-%d" % (time.time_ns(), os.getpid(), next(self._turn))
        row = {kind + unique: reason.encode()[:2000]}
        self._table.put([(joined((name, version)), row)])

    def _status(self, key: bytes, row: Row) -> QuarantineStatus:
        name, version = split_joined(key)
        releases = [_when(column, _RELEASE) for column in row if column.startswith(_RELEASE)]
        released = max(releases, default=-1)
        failures = sorted(
            (_when(column, _FAILURE), text)
            for column, text in row.items()
            if column.startswith(_FAILURE)
        )
        since = [failure for failure in failures if failure[0] > released]
        last_ns, reason = failures[-1] if failures else (None, b"")
        return QuarantineStatus(
            name=name,
            version=version,
            failures=len(since),
            quarantined=len(since) >= self._limit,
            last_failure_ms=None if last_ns is None else last_ns // 1_000_000,
            reason=reason.decode(errors="replace"),
        )


def _when(column: bytes, kind: bytes) -> int:
    """Return the time of an event. [ns since 1970]"""
    return int(column.removeprefix(kind).split(b"-")[0], 16)
