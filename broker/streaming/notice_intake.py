"""What is done with messages of the topic of notices, without Spark.

The order makes a repeat harmless, and loses nothing: notices are kept, then announced, then the
stored alerts are searched, then pairs and dead letters leave. Alerts that come meanwhile read the
announcement after they are stored.
"""

import dataclasses
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from broker.errors import AlertError
from broker.notices import Notice, Window, parse_notice
from broker.notices.notice import RETRACTION
from broker.notices.wire import notice_matches_topic, notices_topic, pair_schemas
from broker.spark.notice_board import NoticeBoard
from broker.store.alerts import AlertStore
from broker.store.notices import NoticeStore
from broker.store.table import Tables
from broker.topics.publish import dead_letter, dead_letters_topic, store_schemas
from broker.topics.topic import Message, Topics, TopicSettings
from broker.types import Coordinate, Run

_LOG = logging.getLogger(__name__)
_STAGE = "notice"


def create_notice_topics(topics: Topics, run: Run, *, partitions: int) -> None:
    """Create the topics of notices and of pairs, and store the schema of pairs.

    Parameters
    ----------
    topics : Topics
        Where.
    run : Run
        Whose.
    partitions : int
        Of the topic of pairs; notices have one, so that they keep their order.
    """
    topics.create(notices_topic(run), TopicSettings(partitions=1))
    topics.create(notice_matches_topic(run), TopicSettings(partitions=partitions))
    topics.create(dead_letters_topic(run), TopicSettings(partitions=partitions))
    store_schemas(topics, run, pair_schemas())


class NoticeIntake:
    """Takes notices in, batch after batch.

    Parameters
    ----------
    topics, tables : Topics, Tables
        Where pairs go, and where notices and alerts are.
    run : Run
        The run.
    window : Window
        Which alerts count as near.
    maps : Path, optional
        The folder in which maps may be that notices name by path.
    """

    def __init__(
        self,
        *,
        topics: Topics,
        tables: Tables,
        run: Run,
        window: Window,
        maps: Path | None = None,
    ) -> None:
        self._topics, self._run, self._maps = topics, run, maps
        self._notices, self._alerts = NoticeStore(tables, run), AlertStore(tables, run)
        self._board = NoticeBoard(self._notices, run, window)

    def take(self, messages: Sequence[Message]) -> Counter[str]:
        """Do all that a batch of notices needs; when it returns, the batch is finished.

        Parameters
        ----------
        messages : sequence of Message
            With their coordinates, in the order of offsets.

        Returns
        -------
        Counter
            consumed = stored + duplicates + deadLetters; and `noticePairs` that were published.

        Raises
        ------
        ServiceError
            If a server does not answer.
        """
        counts = Counter(consumed=len(messages), stored=0, duplicates=0)
        letters: list[Message] = []
        fresh: list[Notice] = []
        for message in messages:
            at = message.coordinate
            if at is None:
                continue
            try:
                notice = self._keep(message.value, at)
            except AlertError as error:
                letters.append(_letter(message, at, error.message))
            except (ArithmeticError, LookupError, TypeError, ValueError, MemoryError) as error:
                # What a stranger's map does to a library shall not stop the query.
                reason = f"the notice cannot be read: {type(error).__name__}: {error}"
                letters.append(_letter(message, at, reason))
            else:
                counts["stored" if notice else "duplicates"] += 1
                fresh += [notice] if notice else []
        counts["deadLetters"] = len(letters)
        if fresh:
            self._notices.announce(str(max(m.coordinate for m in messages if m.coordinate)))
        pairs = [pair for notice in fresh for pair in self._board.pairs_of(notice, self._alerts)]
        counts["noticePairs"] = len(pairs)
        self._topics.send(notice_matches_topic(self._run), pairs)
        self._topics.send(dead_letters_topic(self._run), letters)
        return counts

    def _keep(self, body: bytes | None, at: Coordinate) -> Notice | None:
        """Store a notice and return it; None if it has come before."""
        notice = parse_notice(body, maps=self._maps)
        known = self._notices.filed(notice.notice_id)
        if known is not None and known.digest != notice.digest:
            raise AlertError(f"there is another notice {notice.notice_id}")
        if known is not None and known.origins and known.origins[0] != at:
            self._notices.add_origin(notice.notice_id, at)
            return None
        notice = self._with_event(notice)
        self._notices.put(notice, at)
        return notice

    def _with_event(self, notice: Notice) -> Notice:
        """Return a notice with the event of the one that it cites."""
        if not notice.cites:
            return notice
        cited = self._notices.filed(notice.cites)
        if cited is None and notice.kind == RETRACTION:
            _LOG.warning("%s retracts %s, which is not here", notice.notice_id, notice.cites)
        return notice if cited is None else dataclasses.replace(notice, event=cited.event)


def _letter(message: Message, at: Coordinate, reason: str) -> Message:
    return dead_letter(
        at, _STAGE, reason, message.value, key=message.key, timestamp_ms=message.timestamp_ms
    )
