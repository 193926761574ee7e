"""Notices by the time of their events, with what later notices of an event say of it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

from broker.notices import Known, Notice
from broker.notices.notice import RETRACTION
from broker.store import keys
from broker.store.layouts import STAMP
from broker.store.table import Tables
from broker.types import Coordinate, Run

_GENERATION = b"!generation"
_KEY, _DIGEST, _ORIGIN, _VALUE = b"n:key", b"n:digest", b"n:o:", b"n:g"


@dataclass(frozen=True)
class Filed:
    """What is known of a notice by its name.

    Parameters
    ----------
    digest : str
        Of its bytes.
    event : str
        The event that it is of.
    origins : tuple of Coordinate
        Where it stood, sorted; it came anew with each but the first.
    """

    digest: str
    event: str
    origins: tuple[Coordinate, ...]


class NoticeStore:
    """Notices; writing one again changes nothing.

    Parameters
    ----------
    tables : Tables
        Where.
    run : Run
        Whose.
    """

    def __init__(self, tables: Tables, run: Run) -> None:
        self._table = tables.table(run.table("notice"))

    def put(self, notice: Notice, origin: Coordinate) -> None:
        """Keep a notice and wait until it is acknowledged.

        Parameters
        ----------
        notice : Notice
            The notice.
        origin : Coordinate
            Where it stood.
        """
        when = notice.trigger_mjd_tai
        key = _time_key(notice.created_mjd_tai if when is None else when, notice.notice_id)
        said = {"kind": notice.kind, "created": notice.created_mjd_tai}
        rows = [
            (key, notice.to_cells()),
            (_event_key(notice.event), {_said(notice): json.dumps(said).encode()}),
            (
                _id_key(notice.notice_id),
                {
                    _KEY: key,
                    _DIGEST: json.dumps([notice.digest, notice.event]).encode(),
                    _ORIGIN + str(origin).encode(): b"1",
                },
            ),
        ]
        for row in rows:  # the name last: who finds it finds the notice
            self._table.put([row], STAMP)

    def add_origin(self, notice_id: str, origin: Coordinate) -> None:
        """Take note that a notice that is here came once more."""
        self._table.put([(_id_key(notice_id), {_ORIGIN + str(origin).encode(): b"1"})], STAMP)

    def filed(self, notice_id: str) -> Filed | None:
        """Return what is known by a notice's name; None if it is not here."""
        row = self._table.get(_id_key(notice_id))
        if not row:
            return None
        digest, event = json.loads(row[_DIGEST])
        return Filed(digest, event, tuple(_origins(row)))

    def announce(self, generation: str) -> None:
        """Say that there are new notices, after they are kept.

        Who reads a generation that is not the one it knows reads the notices again.
        """
        self._table.put([(_GENERATION, {_VALUE: generation.encode()})])

    def generation(self) -> str:
        """Return what was announced last; empty before anything was."""
        row = self._table.get(_GENERATION)
        return row[_VALUE].decode() if row else ""

    def between(self, first_mjd: float, last_mjd: float) -> list[Known]:
        """Return the notices whose events were in a time, the earlier first; no retractions.

        Parameters
        ----------
        first_mjd, last_mjd : float
            Bounds, MJD, TAI. [d]
        """
        low, high = (int(t) for t in keys.time_us([first_mjd, last_mjd]))
        rows = self._table.scan(b"t|%016x" % low, b"t|%016x" % (high + 1))
        found = [n for n in (Notice.from_cells(row) for _, row in rows) if n.kind != RETRACTION]
        events = self._table.get_many(sorted({_event_key(n.event) for n in found}))
        return [_known(notice, events.get(_event_key(notice.event), {})) for notice in found]

    def all(self) -> Iterator[Notice]:
        """Yield every notice, retractions too, in the order of time."""
        for _, row in self._table.scan(b"t|", b"t}"):
            yield Notice.from_cells(row)

    def origins(self) -> Iterator[tuple[str, str, list[Coordinate]]]:
        """Yield where each notice stood, as an audit asks for it."""
        for key, row in self._table.scan(b"i|", b"i}"):
            yield "notice", keys.split_joined(key)[1], _origins(row)


def _known(notice: Notice, event: dict[bytes, bytes]) -> Known:
    said = sorted(
        (value["created"], column, value["kind"])
        for column, value in ((column, json.loads(text)) for column, text in event.items())
    )
    if not said:
        return Known(notice)
    _, newest, kind = said[-1]
    is_retracted = kind == RETRACTION
    return Known(notice, newest == _said(notice) and not is_retracted, is_retracted)


def _origins(row: dict[bytes, bytes]) -> list[Coordinate]:
    return sorted(
        keys.parse_coordinate(column.removeprefix(_ORIGIN))
        for column in row
        if column.startswith(_ORIGIN)
    )


def _said(notice: Notice) -> bytes:
    return b"n:" + notice.notice_id.encode()


def _time_key(mjd: float, notice_id: str) -> bytes:
    return b"t|%016x|" % int(keys.time_us(mjd)) + keys.joined((notice_id,))


def _id_key(notice_id: str) -> bytes:
    return keys.joined(("i", notice_id))


def _event_key(event: str) -> bytes:
    return keys.joined(("e", event))
