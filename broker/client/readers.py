"""Where a subscription's messages come from, and who remembers how far they were handled."""

import time
from typing import Protocol

from broker.client.consumer import starting_offsets
from broker.topics.topic import Message, Topics

_AT_ONCE = 2000
"""Messages of a partition that are taken at once: a long backlog does not go into memory."""


class Reader(Protocol):
    """Where messages come from, and who remembers how far they were handled."""

    def poll(self, timeout_s: float) -> list[Message]:
        """Return what has come, after at most this long."""
        ...

    def handled(self, message: Message) -> None:
        """Take note that a message needs not come again."""
        ...

    def commit(self) -> None:
        """Keep what was noted."""
        ...

    def seek(self, start_ms: int) -> None:
        """Go on from a time: 0 is the first message, -1 the end. [ms since 1970]"""
        ...

    def lag(self) -> int:
        """Return how many messages wait."""
        ...

    def close(self) -> None:
        """Let go."""
        ...


class LooseReader:
    """Reads all partitions by itself and keeps its progress nowhere.

    Parameters
    ----------
    topics : Topics
        Where the topic is.
    name : str
        The topic in full.
    since : str
        See `broker.client.starting_offsets`.
    """

    def __init__(self, topics: Topics, name: str, since: str) -> None:
        self._topics, self._name = topics, name
        self._next = {p: first for p, (first, _) in starting_offsets(topics, name, since).items()}

    def poll(self, timeout_s: float) -> list[Message]:
        """Return what has come, after at most this long."""
        deadline = time.monotonic() + timeout_s
        while True:
            found: list[Message] = []
            for part in self._topics.ranges(self._name):
                first = max(self._next.get(part.partition, part.first), part.first)
                end = min(part.end, first + _AT_ONCE)
                if first < end:
                    found += self._topics.read(
                        self._name, partition=part.partition, first=first, end=end
                    )
                self._next[part.partition] = max(first, end)
            if found or time.monotonic() >= deadline:
                return found
            time.sleep(min(0.05, timeout_s))

    def handled(self, message: Message) -> None:
        """Nothing is kept."""

    def commit(self) -> None:
        """Nothing is kept."""

    def seek(self, start_ms: int) -> None:
        """Go on from a time: 0 is the first message, -1 the end. [ms since 1970]"""
        for part in self._topics.ranges(self._name):
            self._next[part.partition] = (
                part.end
                if start_ms < 0
                else self._topics.offset_at(
                    self._name, partition=part.partition, timestamp_ms=start_ms
                )
            )

    def lag(self) -> int:
        """Return how many messages have not been read."""
        ranges = self._topics.ranges(self._name)
        return sum(max(0, r.end - self._next.get(r.partition, r.first)) for r in ranges)

    def close(self) -> None:
        """Nothing is held."""
