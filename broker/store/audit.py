"""The audit: each coordinate that a query consumed stands in exactly one place.

A pure function of what the ledger, the tables and the dead-letter topic say. It holds two bytes
an offset.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from broker.store.ledger import merge_ranges
from broker.store.objects import DONE, NO_TEMPLATE, DetectorRow
from broker.types import Coordinate, OffsetRange

STORED, DUPLICATE, DEAD_LETTER, WITHOUT_TEMPLATE = 1, 2, 4, 8
_SEVERAL = 16
"""Set when a coordinate stands twice in places of one kind: on two alerts, for example."""

_NAMES = {
    STORED: "stored",
    DUPLICATE: "duplicate",
    DEAD_LETTER: "dead letter",
    WITHOUT_TEMPLATE: "no template",
}
_MOST_PROBLEMS = 1000


@dataclass(frozen=True)
class AuditRow:
    """What became of the messages of one topic that one query consumed."""

    query: str
    topic: str
    consumed: int
    stored: int
    duplicates: int
    dead_letters: int
    no_template: int
    missing: int

    def as_json(self) -> dict[str, object]:
        """Return it by wire names."""
        wire = asdict(self)
        wire["deadLetters"] = wire.pop("dead_letters")
        wire["noTemplate"] = wire.pop("no_template")
        return wire


@dataclass(frozen=True)
class Problem:
    """A coordinate that does not stand in exactly one place."""

    query: str
    coordinate: Coordinate
    what: str


@dataclass(frozen=True)
class Audit:
    """The result of an audit.

    Parameters
    ----------
    rows : tuple of AuditRow
        One a topic.
    problems : tuple of Problem
        The first thousand.
    n_problems : int
        How many there are in all; the ledger is closed if there is none.
    """

    rows: tuple[AuditRow, ...]
    problems: tuple[Problem, ...]
    n_problems: int

    @property
    def is_closed(self) -> bool:
        """Whether each coordinate stands in exactly one place."""
        return self.n_problems == 0


class _Part:
    """The state of every offset of one partition, in a byte, and whether it was consumed."""

    def __init__(self, ranges: Sequence[OffsetRange]) -> None:
        self.first = ranges[0].first
        self.state = np.zeros(ranges[-1].end - self.first, dtype=np.uint8)
        self.consumed = np.zeros(self.state.size, dtype=np.bool_)
        for r in ranges:
            self.consumed[r.first - self.first : r.end - self.first] = True

    def holds(self, offset: int) -> bool:
        at = offset - self.first
        return 0 <= at < self.state.size and bool(self.consumed[at])

    def mark(self, offset: int, place: int) -> None:
        at = offset - self.first
        # A dead letter may be written twice by a repeated batch: it is still one place.
        if self.state[at] & (STORED | DUPLICATE | WITHOUT_TEMPLATE) and place != DEAD_LETTER:
            self.state[at] |= _SEVERAL
        self.state[at] |= place

    def count(self, place: int) -> int:
        return int(np.count_nonzero(self.state[self.consumed] & place))

    def wrong(self) -> NDArray[np.intp]:
        """Return the indices of offsets that were consumed and do not stand in one place."""
        right = np.isin(self.state, (STORED, DUPLICATE, DEAD_LETTER, WITHOUT_TEMPLATE))
        return np.flatnonzero(self.consumed & ~right)


def audit(
    query: str,
    consumed: Iterable[OffsetRange],
    *,
    origins: Iterable[tuple[str, str, Sequence[Coordinate]]] = (),
    detectors: Iterable[DetectorRow] = (),
    dead_letters: Iterable[Coordinate] = (),
) -> Audit:
    """Account for each coordinate that a query consumed.

    Parameters
    ----------
    query : str
        Its name, for the rows.
    consumed : iterable of OffsetRange
        What it consumed, by the ledger.
    origins : iterable of (survey, diaSourceId, coordinates)
        Of every stored alert: the first of its coordinates is stored, others are duplicates.
    detectors : iterable of DetectorRow
        Of every detector: likewise, for coordinates that led to `done`; `no-template` is a class
        of its own; those that failed are expected among the dead letters.
    dead_letters : iterable of Coordinate
        Of every dead letter; those on topics that the query did not consume are not its own.

    Returns
    -------
    Audit
        A row a topic, and the coordinates that are missing, in two places, or not consumed.
    """
    parts = _parts(consumed)
    topics = {topic for topic, _ in parts}
    outside: list[Problem] = []
    for place, coordinate in _places(origins, detectors, dead_letters):
        part = parts.get((coordinate.topic, coordinate.partition))
        if part is not None and part.holds(coordinate.offset):
            part.mark(coordinate.offset, place)
        elif place != DEAD_LETTER or coordinate.topic in topics:
            outside.append(Problem(query, coordinate, f"{_NAMES[place]}, but was not consumed"))
    problems = [*_problems(query, parts), *outside[:_MOST_PROBLEMS]][:_MOST_PROBLEMS]
    return Audit(
        rows=tuple(_row(query, topic, parts) for topic in sorted(topics)),
        problems=tuple(problems),
        n_problems=sum(part.wrong().size for part in parts.values()) + len(outside),
    )


def total(rows: Iterable[AuditRow]) -> AuditRow:
    """Return the sum of rows, under the query and topic `total`."""
    rows = tuple(rows)
    return AuditRow(
        "total",
        "total",
        sum(row.consumed for row in rows),
        sum(row.stored for row in rows),
        sum(row.duplicates for row in rows),
        sum(row.dead_letters for row in rows),
        sum(row.no_template for row in rows),
        sum(row.missing for row in rows),
    )


def _parts(consumed: Iterable[OffsetRange]) -> dict[tuple[str, int], _Part]:
    ranges: dict[tuple[str, int], list[OffsetRange]] = {}
    for r in merge_ranges(consumed):
        if r.end > r.first:
            ranges.setdefault((r.topic, r.partition), []).append(r)
    return {where: _Part(of) for where, of in ranges.items()}


def _places(
    origins: Iterable[tuple[str, str, Sequence[Coordinate]]],
    detectors: Iterable[DetectorRow],
    dead_letters: Iterable[Coordinate],
) -> Iterator[tuple[int, Coordinate]]:
    """Yield each coordinate with the place where it stands."""
    for _, _, coordinates in origins:
        for i, coordinate in enumerate(sorted(coordinates)):
            yield (DUPLICATE if i else STORED), coordinate
    for row in detectors:
        done = sorted(at for at, status in row.origins if status == DONE)
        for i, coordinate in enumerate(done):
            yield (DUPLICATE if i else STORED), coordinate
        for coordinate, status in row.origins:
            if status == NO_TEMPLATE:
                yield WITHOUT_TEMPLATE, coordinate
    for coordinate in dead_letters:
        yield DEAD_LETTER, coordinate


def _row(query: str, topic: str, parts: dict[tuple[str, int], _Part]) -> AuditRow:
    mine = [part for (name, _), part in parts.items() if name == topic]
    return AuditRow(
        query=query,
        topic=topic,
        consumed=sum(int(part.consumed.sum()) for part in mine),
        stored=sum(part.count(STORED) for part in mine),
        duplicates=sum(part.count(DUPLICATE) for part in mine),
        dead_letters=sum(part.count(DEAD_LETTER) for part in mine),
        no_template=sum(part.count(WITHOUT_TEMPLATE) for part in mine),
        missing=sum(int(np.count_nonzero(part.consumed & (part.state == 0))) for part in mine),
    )


def _problems(query: str, parts: dict[tuple[str, int], _Part]) -> Iterator[Problem]:
    for (topic, partition), part in sorted(parts.items()):
        for at in part.wrong()[:_MOST_PROBLEMS]:
            state = int(part.state[at])
            names = [name for bit, name in _NAMES.items() if state & bit]
            if not names:
                what = "missing"
            elif len(names) > 1:
                what = f"in several places: {', '.join(names)}"
            else:
                what = f"in several places: {names[0]} more than once"
            yield Problem(query, Coordinate(topic, partition, part.first + int(at)), what)
