"""Topics in memory: for tests, notebooks and dry runs."""

import itertools
import threading
import time
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from broker.errors import ServiceError
from broker.topics.topic import Message, OffsetRange, TopicSettings
from broker.types import Coordinate

_DEFAULT = TopicSettings()


@dataclass
class _Log:
    """One partition: what is left of it, and the offset of its first message."""

    first: int = 0
    messages: list[Message] = field(default_factory=list)

    @property
    def end(self) -> int:
        return self.first + len(self.messages)


@dataclass
class _Topic:
    settings: TopicSettings
    logs: list[_Log]
    turn: Iterator[int] = field(default_factory=itertools.count)


class MemoryTopics:
    """Topics in a dictionary, with the same behaviour as `KafkaTopics`.

    Nothing is compacted and nothing expires: both are things that a server may do at any time,
    or never.
    """

    def __init__(self) -> None:
        self._topics: dict[str, _Topic] = {}
        self._lock = threading.RLock()

    def create(self, name: str, settings: TopicSettings = _DEFAULT) -> None:
        """Create a topic; one that exists is left as it is."""
        with self._lock:
            if name not in self._topics:
                logs = [_Log() for _ in range(settings.partitions)]
                self._topics[name] = _Topic(settings, logs)

    def delete(self, name: str) -> None:
        """Delete a topic and its messages; an unknown one is no error."""
        with self._lock:
            self._topics.pop(name, None)

    def names(self) -> list[str]:
        """Return the names of all topics, sorted."""
        with self._lock:
            return sorted(self._topics)

    def send(
        self, name: str, messages: Iterable[Message], partition: int | None = None
    ) -> list[Coordinate]:
        """Append messages; coordinates in the order of `messages`.

        Raises
        ------
        ServiceError
            If the topic or the partition does not exist, or a message is too large.
        """
        with self._lock:
            topic = self._topic(name)
            return [self._append(name, topic, message, partition) for message in messages]

    def ranges(self, name: str) -> list[OffsetRange]:
        """Return what there is to read, a row a partition; ServiceError if unknown."""
        with self._lock:
            logs = self._topic(name).logs
            return [OffsetRange(name, p, log.first, log.end) for p, log in enumerate(logs)]

    def read(self, name: str, *, partition: int, first: int, end: int) -> Iterator[Message]:
        """Return an iterator of the messages with first <= offset < end, in order."""
        with self._lock:
            log = self._log(name, partition)
            low = max(first - log.first, 0)
            return iter(log.messages[low : max(end - log.first, low)])

    def offset_at(self, name: str, *, partition: int, timestamp_ms: int) -> int:
        """Return the first offset whose message is not older than a time; the end if none."""
        with self._lock:
            log = self._log(name, partition)
            young = (
                offset
                for offset, message in enumerate(log.messages, log.first)
                if (message.timestamp_ms or 0) >= timestamp_ms
            )
            return next(young, log.end)

    def get(self, coordinate: Coordinate) -> Message | None:
        """Return one message; None if it is not (or no longer) there."""
        with self._lock:
            topic = self._topics.get(coordinate.topic)
            if topic is None or not 0 <= coordinate.partition < len(topic.logs):
                return None
            log = topic.logs[coordinate.partition]
            inside = log.first <= coordinate.offset < log.end
            return log.messages[coordinate.offset - log.first] if inside else None

    def delete_before(self, name: str, *, partition: int, offset: int) -> None:
        """Delete the messages of a partition below an offset."""
        with self._lock:
            log = self._log(name, partition)
            if offset > log.end:
                raise ServiceError(
                    f"{name}/{partition} ends at offset {log.end}, before {offset}", topic=name
                )
            if offset > log.first:
                del log.messages[: offset - log.first]
                log.first = offset

    def close(self) -> None:
        """Release nothing: there are no connections."""

    def _topic(self, name: str) -> _Topic:
        if name not in self._topics:
            raise ServiceError(f"there is no topic {name}", topic=name)
        return self._topics[name]

    def _log(self, name: str, partition: int) -> _Log:
        logs = self._topic(name).logs
        if not 0 <= partition < len(logs):
            raise ServiceError(f"topic {name} has no partition {partition}", topic=name)
        return logs[partition]

    def _append(
        self, name: str, topic: _Topic, message: Message, partition: int | None
    ) -> Coordinate:
        size = len(message.value or b"") + len(message.key or b"")
        limit = topic.settings.max_message_bytes
        if size > limit:
            raise ServiceError(
                f"a message of {size} bytes is too large for topic {name}, which takes {limit}",
                topic=name,
            )
        if partition is None:
            turn = next(topic.turn) if message.key is None else zlib.crc32(message.key)
            partition = turn % len(topic.logs)
        log = self._log(name, partition)
        coordinate = Coordinate(name, partition, log.end)
        stamp = int(time.time() * 1000) if message.timestamp_ms is None else message.timestamp_ms
        log.messages.append(
            replace(
                message,
                headers=tuple(message.headers),
                timestamp_ms=stamp,
                coordinate=coordinate,
            )
        )
        return coordinate
