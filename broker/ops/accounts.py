"""The ledger of a run as an operator sees it: each query's messages, and where each one ended."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from broker.notices.wire import notices_topic
from broker.store.alerts import AlertStore
from broker.store.audit import AuditRow, Problem, audit, total
from broker.store.ledger import Ledger, merge_ranges
from broker.store.notices import NoticeStore
from broker.store.objects import DetectorStore
from broker.store.table import Tables
from broker.topics.publish import read_dead_letters
from broker.topics.topic import OffsetRange, Topics
from broker.types import IMAGES, Coordinate, Run, night_of
from broker.units import unix_s_to_mjd_tai

IMAGES_QUERY, ALERTS_QUERY, NOTICES_QUERY = QUERIES = ("images", "alerts", "notices")


@dataclass(frozen=True)
class Accounts:
    """What became of every message that the queries of a run consumed.

    Parameters
    ----------
    rows : tuple of AuditRow
        One a query and topic.
    problems : tuple of Problem
        Coordinates that do not stand in exactly one place; with a night chosen, missing ones only.
    unread : int
        Messages on the input topics that no query has consumed yet.
    """

    rows: tuple[AuditRow, ...]
    problems: tuple[Problem, ...]
    unread: int

    @property
    def total(self) -> AuditRow:
        """The sum of the rows."""
        return total(self.rows)

    @property
    def is_closed(self) -> bool:
        """Whether every message stands in exactly one place."""
        return not self.problems and self.total.missing == 0


def accounts_of(topics: Topics, tables: Tables, run: Run, *, night: str | None = None) -> Accounts:
    """Account for all that a run has consumed, or for what it consumed in one night.

    Parameters
    ----------
    topics, tables : Topics, Tables
        Where the run's messages and rows are.
    run : Run
        The run.
    night : str, optional
        `YYYYMMDD`: batches that were finished between its noon and the next (UTC).

    Raises
    ------
    ServiceError
        If a server does not answer.
    """
    if run.table("ledger") not in tables.names():
        return Accounts((), (), 0)
    ledger = Ledger(tables, run)
    dead = {letter.origin for letter in read_dead_letters(topics, run)}
    inputs = {run.internal_topic(IMAGES): IMAGES_QUERY, notices_topic(run): NOTICES_QUERY}
    audits = [
        audit(
            query,
            _consumed(ledger, query, night),
            origins=_origins(tables, run, query),
            detectors=DetectorStore(tables, run).all() if query == IMAGES_QUERY else (),
            dead_letters=[at for at in dead if inputs.get(at.topic, ALERTS_QUERY) == query],
        )
        for query in QUERIES
    ]
    problems = [problem for one in audits for problem in one.problems]
    if night is not None:  # what stands elsewhere was consumed on another night
        problems = [p for p in problems if "was not consumed" not in p.what]
    rows = tuple(row for one in audits for row in one.rows)
    return Accounts(rows, tuple(problems), _unread(topics, rows, ledger))


def _origins(
    tables: Tables, run: Run, query: str
) -> Iterable[tuple[str, str, Sequence[Coordinate]]]:
    if query == ALERTS_QUERY:
        return AlertStore(tables, run).origins()
    # A run that is older than this table has had no notices.
    if query == NOTICES_QUERY and run.table("notice") in tables.names():
        return NoticeStore(tables, run).origins()
    return ()


def _consumed(ledger: Ledger, query: str, night: str | None) -> list[OffsetRange]:
    if night is None:
        return ledger.consumed(query)
    return merge_ranges(
        part
        for batch in ledger.batches(query)
        if night_of(float(unix_s_to_mjd_tai(batch.recorded_ms / 1000.0))) == night
        for part in batch.ranges
    )


def _unread(topics: Topics, rows: Iterable[AuditRow], ledger: Ledger) -> int:
    ends = {
        (part.topic, part.partition): part.end
        for query in QUERIES
        for part in ledger.consumed(query)
    }
    known = set(topics.names())
    return sum(
        max(0, part.end - max(part.first, ends.get((part.topic, part.partition), 0)))
        for name in {row.topic for row in rows} & known
        for part in topics.ranges(name)
    )
