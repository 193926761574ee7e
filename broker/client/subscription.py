"""A topic that goes on: alerts as they come, each one once, committed after it was handled."""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from broker.client.consumer import Packet, Schemas, read_topic, starting_ms
from broker.client.readers import LooseReader as LooseReader
from broker.client.readers import Reader
from broker.config import Config, load_config
from broker.topics.publish import schemas_topic
from broker.topics.topic import Message
from broker.types import PRIVATE

if TYPE_CHECKING:
    import pandas as pd

_POLL_S = 0.2
_COMMIT_EVERY_S = 1.0
_DOTS_OF_PRIVATE = 2
_REMEMBERED = 200_000
"""Keys by which repeats are known, of the newest alerts."""


class Subscription:
    """Alerts of a topic, one after the other; a context manager and an iterator of records.

    An alert has been handled when the next one is asked for. What was handled is committed about
    once a second and at the end; an alert during which the program died, or the loop was left,
    comes again. Repeats, which a broker that was killed may publish, carry the same key and are
    left out.

    Parameters
    ----------
    reader : Reader
        Where messages come from.
    schemas : Schemas
        Where the packets' schemas are found; each is fetched once.
    idle_s : float, optional
        End when nothing has come for this long; default never. [s]
    clock : callable
        Seconds that only rise.
    on_close : callable, optional
        Called when the subscription is closed.
    """

    def __init__(
        self,
        reader: Reader,
        *,
        schemas: Schemas,
        idle_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        self._on_close = on_close
        self._reader, self._schemas = reader, schemas
        self._idle_s, self._clock = idle_s, clock
        self._seen: OrderedDict[bytes, None] = OrderedDict()
        self._committed_at = clock()
        self._given: Message | None = None

    def __enter__(self) -> "Subscription":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield each alert's record, by wire names."""
        return (packet.record for packet in self.packets())

    def packets(self) -> Iterator[Packet]:
        """Yield each alert with the message that carried it.

        Raises
        ------
        ServiceError
            If the server does not answer.
        AlertError
            If a packet cannot be read.
        """
        last = self._clock()
        while True:
            messages = self._reader.poll(_POLL_S)
            for message in messages:
                if self._is_new(message):
                    self._given = message
                    yield self._schemas.open(message)
                self._remember(message)
                self._commit_now_and_then()
            now = self._clock()
            if messages:
                last = now
            elif self._idle_s is not None and now - last >= self._idle_s:
                self._reader.commit()
                return
            self._commit_now_and_then()

    def frames(self, rows: int = 1000) -> "Iterator[pd.DataFrame]":
        """Yield data frames of at most so many alerts; a frame is handled when the next is asked.

        The last frame is what there was when the subscription ended.
        """
        waiting: dict[bytes, dict[str, Any]] = {}
        held: list[Message] = []
        last = self._clock()
        while True:
            messages = self._reader.poll(_POLL_S)
            for message in messages:
                held.append(message)
                if message.key is not None and message.key not in waiting and self._is_new(message):
                    waiting[message.key] = self._schemas.open(message).record
                if len(waiting) >= rows:
                    yield _frame(list(waiting.values()))
                    waiting = self._let_go(held)
            now = self._clock()
            if messages:
                last = now
            elif waiting and now - last >= self._patience_s:
                yield _frame(list(waiting.values()))
                waiting = self._let_go(held)
            elif self._idle_s is not None and now - last >= self._idle_s:
                self._let_go(held)
                return

    def save(self, folder: Path, *, form: str = "parquet", rows: int = 1000) -> Iterator[Path]:
        """Write alerts to files, and yield each file when it is whole.

        A file holds a run of offsets of one partition, and its name says which; what the folder
        has already is not written again. So a program that died goes on with the same folder, and
        each alert is in it once. Progress is committed after the files are on disk.

        Parameters
        ----------
        folder : Path
            Made if it is absent.
        form : str
            `parquet`, `avro` or `jsonl`: one JSON object a line.
        rows : int
            Alerts that wait in memory before files are written.

        Raises
        ------
        ConfigError
            If there is no such format.
        """
        from broker.client.files import PacketFiles

        files = PacketFiles(folder, form)
        held: list[Message] = []
        waiting: dict[bytes, Packet] = {}
        last = self._clock()
        while True:
            messages = self._reader.poll(_POLL_S)
            for message in messages:
                held.append(message)
                if message.key not in waiting and self._is_new(message) and files.lacks(message):
                    waiting[message.key or b""] = self._schemas.open(message)
            now = self._clock()
            last = now if messages else last
            ended = not messages and self._idle_s is not None and now - last >= self._idle_s
            if len(waiting) >= rows or ended or (waiting and now - last >= self._patience_s):
                yield from files.write(waiting.values(), self._schemas.get)
                waiting = {}
                self._let_go(held)
            if ended:
                return

    def done(self) -> None:
        """Say that the last alert was handled though no other is asked for."""
        if self._given is not None:
            self._remember(self._given)
            self._given = None

    def seek(self, since: str) -> None:
        """Go on from another place: `earliest`, `latest`, `-2h` or an ISO time.

        Call it before the loop, or in it: messages that were fetched are still given. With a
        group it moves this member's partitions, whatever the group has committed. Alerts that
        were given come again.
        """
        self._seen.clear()
        self._reader.seek(starting_ms(since))

    def lag(self) -> int:
        """Return how many messages wait."""
        return self._reader.lag()

    def close(self) -> None:
        """Commit what was handled and let go."""
        try:
            self._reader.commit()
        finally:
            self._reader.close()
            if self._on_close is not None:
                self._on_close()

    def _is_new(self, message: Message) -> bool:
        return (
            message.value is not None and message.key is not None and message.key not in self._seen
        )

    def _remember(self, message: Message) -> None:
        if message.key is not None:
            self._seen[message.key] = None
            self._seen.move_to_end(message.key)
            if len(self._seen) > _REMEMBERED:
                self._seen.popitem(last=False)
        self._reader.handled(message)

    @property
    def _patience_s(self) -> float:
        """How long a frame that is not full waits for more. [s]"""
        return _COMMIT_EVERY_S if self._idle_s is None else min(_COMMIT_EVERY_S, self._idle_s)

    def _let_go(self, held: list[Message]) -> dict[bytes, dict[str, Any]]:
        """Take note that all that is held was handled; return that nothing waits."""
        for message in held:
            self._remember(message)
        held.clear()
        self._reader.commit()
        return {}

    def _commit_now_and_then(self) -> None:
        if self._clock() - self._committed_at >= _COMMIT_EVERY_S:
            self._reader.commit()
            self._committed_at = self._clock()


def subscribe(
    topic: str,
    *,
    since: str = "latest",
    group: str | None = None,
    full: bool = False,
    idle_s: float | None = None,
    config: Config | None = None,
) -> Subscription:
    """Subscribe to a topic.

    Parameters
    ----------
    topic : str
        A filter's topic (`young-supernova`), or a name in full.
    since : str
        Where to begin: `earliest`, `latest`, `-2h` (s, m, h, d) or an ISO time. A group that has
        committed before goes on where it stopped.
    group : str, optional
        A name under which the server keeps how far was handled; several machines that use the
        same name share the topic. Without it progress is kept nowhere.
    full : bool
        Packets with history and cutouts.
    idle_s : float, optional
        End when nothing has come for this long; default never. [s]
    config : Config, optional
        Where the server is and which run; default the settings of this process.

    Raises
    ------
    ConfigError
        If `since` is no starting point.
    ServiceError
        If the server does not answer, or there is no such topic.
    """
    from broker.topics.kafka import KafkaTopics
    from broker.topics.kafka_group import KafkaGroup

    config = load_config() if config is None else config
    name, start_ms = full_name(config, topic, full=full), starting_ms(since)
    topics = KafkaTopics(config.kafka.bootstrap)
    schemas = Schemas(topics, schemas_topic(config.the_run))
    reader: Reader
    if group is None:
        reader = LooseReader(topics, name, since)
    else:
        reader = KafkaGroup(config.kafka.bootstrap, name, group, start_ms=start_ms)
    return Subscription(reader, schemas=schemas, idle_s=idle_s, on_close=topics.close)


def full_name(config: Config, topic: str, *, full: bool = False) -> str:
    """Return a topic's name in full; one that is in full already, with dots, is left as it is.

    A private list's, `private.<owner>.<topic>`, is not in full before a variant ends it.
    """
    is_private = topic.startswith(PRIVATE) and topic.count(".") == _DOTS_OF_PRIVATE
    if "." in topic and not is_private:
        return topic
    return config.the_run.public_topic(topic, "full" if full else "slim")


def read_frame(
    topic: str,
    *,
    since: str = "earliest",
    limit: int | None = None,
    full: bool = False,
    config: Config | None = None,
) -> "pd.DataFrame":
    """Return what a topic holds now as a data frame; parameters as of `subscribe`."""
    from broker.topics.kafka import KafkaTopics

    config = load_config() if config is None else config
    topics = KafkaTopics(config.kafka.bootstrap)
    try:
        schemas = Schemas(topics, schemas_topic(config.the_run))
        name = full_name(config, topic, full=full)
        packets = read_topic(topics, name, schemas=schemas, since=since, limit=limit)
        return _frame([packet.record for packet in packets])
    finally:
        topics.close()


def _frame(records: list[dict[str, Any]]) -> "pd.DataFrame":
    """Return records as a data frame, column by column: three times faster than row by row."""
    import pandas as pd

    if not records or any(record.keys() != records[0].keys() for record in records):
        return pd.DataFrame(records)
    return pd.DataFrame({name: [record[name] for record in records] for name in records[0]})
