"""Members of a consumer group: they share a topic's partitions, and Kafka keeps their progress."""

import io
import time
from collections.abc import Mapping
from typing import Any

import fastavro
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import CommitFailedError, KafkaError
from kafka.structs import OffsetAndMetadata

from broker.errors import ServiceError
from broker.topics.kafka import to_message
from broker.topics.kafka_access import connection
from broker.topics.topic import Message

_MAX_BYTES = 48 << 20


class KafkaGroup:
    """One member of a consumer group, on one topic.

    Parameters
    ----------
    bootstrap : str
        `host:port` of a server.
    topic : str
        Its name in full.
    group : str
        The group's name: members of one group get different partitions.
    start_ms : int
        Where a partition begins that the group has never committed: 0 its first message, -1 its
        end, else the first message not older. [ms since 1970]
    timeout_s : float
        How long to wait for an answer. [s]

    Raises
    ------
    ServiceError
        If the server does not answer or there is no such topic.
    """

    def __init__(
        self, bootstrap: str, topic: str, group: str, *, start_ms: int, timeout_s: float = 30.0
    ) -> None:
        self._bootstrap, self._topic, self._start_ms = bootstrap, topic, start_ms
        self._timeout_s = timeout_s
        self._handled: dict[int, int] = {}
        self._committed: dict[int, int] = {}
        self._begun: set[Any] = set()
        try:
            self._consumer: Any = KafkaConsumer(
                **connection(bootstrap, bootstrap_s=min(timeout_s, 10.0)),
                group_id=group,
                enable_auto_commit=False,
                allow_auto_create_topics=False,
                auto_offset_reset="earliest" if start_ms >= 0 else "latest",
                isolation_level="read_committed",
                metrics_enabled=False,
                fetch_max_bytes=_MAX_BYTES,
                receive_message_max_bytes=4 * _MAX_BYTES,
                max_poll_records=1000,
            )
            if topic not in self._consumer.topics():
                self._consumer.close()
                raise ServiceError(f"there is no topic {topic} on {bootstrap}", topic=topic)
            self._consumer.subscribe([topic])
        except (KafkaError, OSError) as error:
            raise self._error(error) from error

    def poll(self, timeout_s: float) -> list[Message]:
        """Return what has come, after at most this long; it counts as handled when it is said."""
        try:
            records = self._consumer.poll(timeout_ms=int(timeout_s * 1000))
            for part in self._look_at_assignment():
                records.pop(part, None)
        except (KafkaError, OSError) as error:
            raise self._error(error) from error
        return [to_message(record) for part in sorted(records) for record in records[part]]

    def handled(self, message: Message) -> None:
        """Take note that a message needs not come again; `commit` tells the server."""
        if message.coordinate is not None:
            self._handled[message.coordinate.partition] = message.coordinate.offset + 1

    def commit(self) -> None:
        """Tell the server what has been handled and wait for its answer.

        A partition that has meanwhile gone to another member is left to it: what was handled and
        not committed comes again there.
        """
        owned = {part.partition for part in self._consumer.assignment()}
        new = {p: o for p, o in self._handled.items() if p in owned and self._committed.get(p) != o}
        if not new:
            return
        offsets = {
            TopicPartition(self._topic, p): OffsetAndMetadata(offset, "", -1)
            for p, offset in new.items()
        }
        try:
            self._consumer.commit(offsets)
        except CommitFailedError:
            return
        except (KafkaError, OSError) as error:
            raise self._error(error) from error
        self._committed |= new

    def seek(self, start_ms: int) -> None:
        """Go on from a time in this member's partitions: 0 the first message, -1 the end."""
        deadline = time.monotonic() + self._timeout_s
        while not self._consumer.assignment():  # the server gives them in answer to a poll
            if time.monotonic() > deadline:
                raise ServiceError(
                    f"Kafka at {self._bootstrap} assigned nothing", topic=self._topic
                )
            self._consumer.poll(timeout_ms=100)
        try:
            self._look_at_assignment()
            parts = list(self._consumer.assignment())
            for part in parts:
                self._handled.pop(part.partition, None)
            if start_ms < 0:
                self._consumer.seek_to_end(*parts)
            else:
                self._seek(parts, self._consumer.offsets_for_times(dict.fromkeys(parts, start_ms)))
        except (KafkaError, OSError) as error:
            raise self._error(error) from error

    def lag(self) -> int:
        """Return how many messages of this member's partitions have not been handled."""
        parts = self._consumer.assignment()
        try:
            ends = self._consumer.end_offsets(list(parts)) if parts else {}
            places = {part: self._place(part) for part in parts}
        except (KafkaError, OSError) as error:
            raise self._error(error) from error
        return int(sum(max(0, ends[part] - places[part]) for part in parts))

    def close(self) -> None:
        """Leave the group; what was handled and not committed comes again."""
        self._consumer.close(autocommit=False)

    def _place(self, part: Any) -> int:
        handled = self._handled.get(part.partition)
        return int(self._consumer.position(part)) if handled is None else handled

    def _look_at_assignment(self) -> list[Any]:
        """Put new partitions where they begin; return those whose records are to be read anew.

        The client sees to partitions that the group has committed, and to both ends. Only it can
        not be told in advance to begin at a time.
        """
        owned = set(self._consumer.assignment())
        new, gone = owned - self._begun, self._begun - owned
        self._begun = owned
        for part in new | gone:
            self._handled.pop(part.partition, None)
            self._committed.pop(part.partition, None)
        if self._start_ms <= 0:
            return []
        fresh = [part for part in new if self._consumer.committed(part) is None]
        if fresh:
            self._seek(
                fresh, self._consumer.offsets_for_times(dict.fromkeys(fresh, self._start_ms))
            )
        return fresh

    def _seek(self, parts: Any, found: Mapping[Any, Any]) -> None:
        for part in parts:
            at = found.get(part)
            if at is None or at.offset < 0:
                self._consumer.seek_to_end(part)
            else:
                self._consumer.seek(part, at.offset)

    def _error(self, error: Exception) -> ServiceError:
        return ServiceError(f"Kafka at {self._bootstrap}: {type(error).__name__} {error}")


def group_lag(bootstrap: str, topic: str, group: str) -> list[dict[str, int | None]]:
    """Return how far a group is, a row a partition, without becoming a member of it.

    Returns
    -------
    list of dict
        `partition`, `committed` (None: nothing yet), `end`, and `lag`, the messages that wait.

    Raises
    ------
    ServiceError
        If the server does not answer or there is no such topic.
    """
    try:
        consumer: Any = KafkaConsumer(
            **connection(bootstrap),
            group_id=group,
            enable_auto_commit=False,
            allow_auto_create_topics=False,
            isolation_level="read_committed",
            metrics_enabled=False,
        )
        try:
            if topic not in consumer.topics():
                raise ServiceError(f"there is no topic {topic} on {bootstrap}", topic=topic)
            numbers = sorted(consumer.partitions_for_topic(topic))
            parts = [TopicPartition(topic, number) for number in numbers]
            first, end = consumer.beginning_offsets(parts), consumer.end_offsets(parts)
            rows: list[dict[str, int | None]] = []
            for part in parts:
                at = consumer.committed(part)
                lag = max(0, end[part] - (first[part] if at is None else max(at, first[part])))
                row = {"partition": part.partition, "committed": at, "end": end[part], "lag": lag}
                rows.append(row)
            return rows
        finally:
            consumer.close(autocommit=False)
    except (KafkaError, OSError) as error:
        raise ServiceError(f"Kafka at {bootstrap}: {type(error).__name__} {error}") from error


def read_plainly(
    bootstrap: str,
    topic: str,
    schemas: Mapping[int, Any],
    *,
    number: int,
    column: str = "diaSourceId",
) -> list[Any]:
    """Return one column of the first packets of a topic, read with no part of our client.

    As one does who has only the Kafka client and fastavro: a baseline to measure by.

    Parameters
    ----------
    bootstrap : str
        `host:port` of a server.
    topic : str
        Its name in full.
    schemas : mapping
        Schemas by id, parsed by fastavro.
    number : int
        How many packets; it waits until they are there.
    column : str
        What is returned of each.
    """
    consumer: Any = KafkaConsumer(topic, **connection(bootstrap), auto_offset_reset="earliest")
    found: list[Any] = []
    try:
        for message in consumer:
            schema = schemas[int.from_bytes(message.value[1:5], "big")]
            alert: Any = fastavro.schemaless_reader(io.BytesIO(message.value[5:]), schema)
            found.append(alert[column])
            if len(found) == number:
                return found
    finally:
        consumer.close()
    return found
