"""What a notice says of an event, whatever it was written in."""

import hashlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from broker.errors import AlertError
from broker.notices.place import Place, place_of
from broker.units import unix_s_to_mjd_tai

INITIAL, UPDATE, RETRACTION = KINDS = ("initial", "update", "retraction")

_CELL = b"n:v"


@dataclass(frozen=True)
class Notice:
    """One notice of an event.

    Parameters
    ----------
    notice_id : str
        Names this notice: an update of the same event has another.
    event : str
        Names the event, by who reports it: what updates and retractions share.
    kind : str
        One of `KINDS`.
    is_test : bool
        Whether it is of no real event.
    reporter : str
        Mission and instrument, or the author.
    created_mjd_tai : float
        When it was written, MJD, TAI; of two notices of an event the later one is in force. [d]
    trigger_mjd_tai : float or None
        When the event was, MJD, TAI; None only for a retraction. [d]
    place : Ellipse, ProbabilityMap or None
        Where it was; None only for a retraction.
    cites : str
        The notice that it replaces or retracts, where it says one; empty otherwise.
    digest : str
        Of its bytes, by which a repeat is told from another notice of the same name.
    """

    notice_id: str
    event: str
    kind: str
    is_test: bool
    reporter: str
    created_mjd_tai: float
    trigger_mjd_tai: float | None
    place: Place | None = field(repr=False, default=None)
    cites: str = ""
    digest: str = ""

    def __post_init__(self) -> None:
        if not self.notice_id or not self.event:
            raise AlertError("a notice names itself and its event")
        if self.kind != RETRACTION and (self.place is None or self.trigger_mjd_tai is None):
            raise AlertError("a notice that is no retraction has a place and the event's time")

    def to_cells(self) -> dict[bytes, bytes]:
        """Return it as it is stored."""
        values = without_place(self)
        place = {} if self.place is None else self.place.to_cells()
        return {_CELL: json.dumps(values, sort_keys=True).encode(), **place}

    @classmethod
    def from_cells(cls, cells: dict[bytes, bytes]) -> "Notice":
        """Return what `to_cells` stored."""
        return cls(**json.loads(cells[_CELL]), place=place_of(cells))


def without_place(notice: Notice) -> dict[str, Any]:
    """Return all fields but the place, which may be large."""
    values = {**notice.__dict__}
    values.pop("place")
    return values


def digest_of(body: bytes) -> str:
    """Return what tells bodies apart."""
    return hashlib.sha256(body).hexdigest()[:16]


def mjd_tai_of(text: str, what: str) -> float:
    """Return a time of ISO 8601, UTC if it names no zone, as MJD, TAI. [d]

    Raises
    ------
    AlertError
        If it is no time, or not between 1980 and 2200.
    """
    try:
        moment = datetime.fromisoformat(text.strip())
    except (ValueError, AttributeError) as error:
        raise AlertError(f"{what} is {text!r}, no time as ISO 8601 has it") from error
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if not 1980 <= moment.year <= 2200:
        raise AlertError(f"{what} is {text!r}, not between 1980 and 2200")
    return float(unix_s_to_mjd_tai(moment.timestamp()))
