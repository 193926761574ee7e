"""The port to topics: named, partitioned logs of messages."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from broker.types import Coordinate
from broker.types import OffsetRange as OffsetRange


@dataclass(frozen=True)
class Message:
    """One message as it stands on a topic.

    Parameters
    ----------
    value : bytes or None
        The body; None is a tombstone.
    key : bytes or None
        Messages of one key keep their order.
    headers : sequence of (str, bytes)
        Clocks, batch ids and origins: what may differ between equal bodies.
    timestamp_ms : int or None
        Milliseconds since 1970; None when it is not sent yet and the server's clock decides.
    coordinate : Coordinate or None
        Where it stands; None when it is not sent yet.
    """

    value: bytes | None
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes]] = ()
    timestamp_ms: int | None = None
    coordinate: Coordinate | None = None

    def header(self, name: str) -> bytes | None:
        """Return the last header of that name, None if there is none."""
        return next((value for key, value in reversed(self.headers) if key == name), None)


@dataclass(frozen=True)
class TopicSettings:
    """What a topic is created with."""

    partitions: int = 2
    compacted: bool = False
    retention_ms: int = -1
    """How long messages stay; -1 is for ever. [ms]"""
    max_message_bytes: int = 33_554_432


class Topics(Protocol):
    """What every topic back end can do; the contract suite holds memory and Kafka to it."""

    def create(self, name: str, settings: TopicSettings = TopicSettings()) -> None:
        """Create a topic; one that exists is left as it is."""
        ...

    def delete(self, name: str) -> None:
        """Delete a topic and its messages; an unknown one is no error."""
        ...

    def names(self) -> list[str]:
        """Return the names of all topics, sorted, internal ones of the server left out."""
        ...

    def send(
        self, name: str, messages: Iterable[Message], partition: int | None = None
    ) -> list[Coordinate]:
        """Send and wait until all are acknowledged; coordinates in the order of `messages`.

        Raises
        ------
        ServiceError
            If the topic does not exist, a message is too large, or the server does not answer.
        """
        ...

    def ranges(self, name: str) -> list[OffsetRange]:
        """Return what there is to read, a row a partition; ServiceError if unknown."""
        ...

    def read(self, name: str, *, partition: int, first: int, end: int) -> Iterator[Message]:
        """Yield messages with first <= offset < end, in order; gaps (compaction) are skipped."""
        ...

    def offset_at(self, name: str, *, partition: int, timestamp_ms: int) -> int:
        """Return the first offset whose message is not older than a time; the end if none."""
        ...

    def get(self, coordinate: Coordinate) -> Message | None:
        """Return one message; None if it is not (or no longer) there."""
        ...

    def delete_before(self, name: str, *, partition: int, offset: int) -> None:
        """Delete the messages of a partition below an offset."""
        ...

    def close(self) -> None:
        """Release connections."""
        ...
