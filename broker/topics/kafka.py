"""Topics on a Kafka server. The only module that imports the Kafka client."""

import functools
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError, TopicAlreadyExistsError, UnknownTopicOrPartitionError

from broker.errors import ServiceError
from broker.topics.kafka_access import connection
from broker.topics.topic import Message, OffsetRange, TopicSettings
from broker.types import Coordinate

_EARLIEST, _LATEST, _COMMITTED = -2, -1, "read_committed"
_MAX_REQUEST_BYTES = 48 << 20
"""Above the largest message, a whole detector of 32 MB, with its batch around it."""

_IN_FLIGHT_BYTES = 64 << 20
"""What `send` hands to the client before it waits: the client itself has no bound."""

_IN_FLIGHT_MESSAGES = 10_000
_POLL_MS = 500
_BOOTSTRAP_S = 10.0
"""How long to look for a server that never answered."""

F = TypeVar("F", bound=Callable[..., Any])

_DEFAULT = TopicSettings()


def _translated(method: F) -> F:
    """Turn the client's errors into ServiceError, with the server's address."""

    @functools.wraps(method)
    def wrapper(self: "KafkaTopics", *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except (KafkaError, OSError) as error:
            raise self._service_error(error) from error

    return cast(F, wrapper)


class KafkaTopics:
    """Topics on a Kafka server.

    Clients are made when they are first needed, so a new object costs nothing. Reads take
    partitions by hand, never as a consumer group: they leave no trace on the server.

    Parameters
    ----------
    bootstrap : str
        `host:port` of a server.
    timeout_s : float
        How long to wait for an answer. [s]
    """

    def __init__(self, bootstrap: str, *, timeout_s: float = 30.0) -> None:
        self._bootstrap = bootstrap
        self._timeout_s = timeout_s
        self._lock = threading.RLock()
        self._admin: Any = None
        self._producer: Any = None
        self._idle: list[Any] = []

    def __reduce__(self) -> tuple[Any, ...]:
        return (functools.partial(KafkaTopics, timeout_s=self._timeout_s), (self._bootstrap,))

    @_translated
    def create(self, name: str, settings: TopicSettings = _DEFAULT) -> None:
        """Create a topic and wait until it can be used; one that exists is left as it is."""
        configs = {
            "cleanup.policy": "compact" if settings.compacted else "delete",
            "retention.ms": str(settings.retention_ms),
            "max.message.bytes": str(settings.max_message_bytes),
        }
        topic = {
            "num_partitions": settings.partitions,
            "replication_factor": -1,
            "configs": configs,
        }
        with self._lock:
            admin = self._get_admin()
            try:
                admin.create_topics({name: topic})
            except TopicAlreadyExistsError:
                return
            admin.wait_for_topics([name], timeout_ms=int(self._timeout_s * 1000))

    @_translated
    def delete(self, name: str) -> None:
        """Delete a topic and its messages; an unknown one is no error."""
        with self._lock:
            try:
                self._get_admin().delete_topics([name])
            except UnknownTopicOrPartitionError:
                return
            self._wait_until_gone(name)
            self._drop_clients()

    @_translated
    def names(self) -> list[str]:
        """Return the names of all topics, sorted, internal ones of the server left out."""
        with self._lock:
            topics = self._get_admin().describe_topics()
        return sorted(
            topic["name"]
            for topic in topics
            if not topic["is_internal"] and not topic["name"].startswith("__")
        )

    @_translated
    def send(
        self, name: str, messages: Iterable[Message], partition: int | None = None
    ) -> list[Coordinate]:
        """Send and wait until all are acknowledged; coordinates in the order of `messages`.

        Raises
        ------
        ServiceError
            If the topic does not exist, a message is too large, or the server does not answer.
        """
        known = self._partitions(name)
        if partition is not None and partition not in known:
            raise ServiceError(f"topic {name} has no partition {partition}", topic=name)
        try:
            return self._send(self._get_producer(), name, messages, partition)
        except KafkaError:
            # After an error an idempotent producer may refuse all that follows.
            with self._lock:
                self._drop_producer()
            raise

    @_translated
    def ranges(self, name: str) -> list[OffsetRange]:
        """Return what there is to read, a row a partition; ServiceError if unknown."""
        partitions = self._partitions(name)
        first = self._offsets(name, dict.fromkeys(partitions, _EARLIEST))
        end = self._offsets(name, dict.fromkeys(partitions, _LATEST))
        return [OffsetRange(name, p, first[p], end[p]) for p in partitions]

    @_translated
    def read(self, name: str, *, partition: int, first: int, end: int) -> Iterator[Message]:
        """Return an iterator of the messages with first <= offset < end, in order.

        It ends where the partition ended when it was called, if that is before `end`. Offsets
        without a message (compacted, or markers of transactions) are skipped.
        """
        if partition not in self._partitions(name):
            raise ServiceError(f"topic {name} has no partition {partition}", topic=name)
        first = max(first, self._offsets(name, {partition: _EARLIEST})[partition])
        end = min(end, self._offsets(name, {partition: _LATEST})[partition])
        return self._read(TopicPartition(name, partition), first, end)

    @_translated
    def offset_at(self, name: str, *, partition: int, timestamp_ms: int) -> int:
        """Return the first offset whose message is not older than a time; the end if none."""
        if partition not in self._partitions(name):
            raise ServiceError(f"topic {name} has no partition {partition}", topic=name)
        found = self._offsets(name, {partition: max(timestamp_ms, 0)})[partition]
        return found if found >= 0 else self._offsets(name, {partition: _LATEST})[partition]

    @_translated
    def get(self, coordinate: Coordinate) -> Message | None:
        """Return one message; None if it is not (or no longer) there."""
        topic, partition, offset = coordinate.topic, coordinate.partition, coordinate.offset
        if partition not in (self._describe(topic) or ()) or offset < 0:
            return None
        found = self.read(topic, partition=partition, first=offset, end=offset + 1)
        return next((m for m in found if m.coordinate == coordinate), None)

    @_translated
    def delete_before(self, name: str, *, partition: int, offset: int) -> None:
        """Delete the messages of a partition below an offset."""
        if partition not in self._partitions(name):
            raise ServiceError(f"topic {name} has no partition {partition}", topic=name)
        with self._lock:
            self._get_admin().delete_records({TopicPartition(name, partition): offset})

    @_translated
    def topic_id(self, name: str) -> str:
        """Return the server's own id of a topic, which a new topic of that name does not share."""
        with self._lock:
            described = self._get_admin().describe_topics([name])
        if not described or described[0]["error_code"] != 0:
            raise ServiceError(f"there is no topic {name}", topic=name)
        return str(described[0]["topic_id"])

    @_translated
    def retention_ms(self, name: str) -> int:
        """Return how long messages of a topic stay, as the server has it set; -1 is for ever."""
        from kafka.admin import ConfigResource, ConfigResourceType

        with self._lock:
            found = self._get_admin().describe_configs(
                [ConfigResource(ConfigResourceType.TOPIC, name)]
            )
        return int(found["topic"][name]["retention.ms"]["value"])

    def close(self) -> None:
        """Release connections; they are made again when they are needed."""
        with self._lock:
            self._drop_clients()
            if self._admin is not None:
                self._admin.close()
                self._admin = None

    # Clients

    @property
    def _common(self) -> Mapping[str, Any]:
        return connection(self._bootstrap, bootstrap_s=min(self._timeout_s, _BOOTSTRAP_S))

    def _get_admin(self) -> Any:
        with self._lock:
            if self._admin is None:
                self._admin = KafkaAdminClient(
                    **self._common, request_timeout_ms=int(self._timeout_s * 1000)
                )
            return self._admin

    def _get_producer(self) -> Any:
        with self._lock:
            if self._producer is None:
                self._producer = KafkaProducer(
                    **self._common,
                    metrics_enabled=False,
                    acks="all",
                    enable_idempotence=True,
                    max_request_size=_MAX_REQUEST_BYTES,
                    batch_size=1 << 20,
                    linger_ms=2,
                    max_block_ms=int(self._timeout_s * 1000),
                    allow_auto_create_topics=False,
                )
            return self._producer

    @contextmanager
    def _consumer(self) -> Iterator[Any]:
        """Lend a consumer: reads that run side by side each have one of their own."""
        with self._lock:
            consumer = self._idle.pop() if self._idle else None
        if consumer is None:
            consumer = KafkaConsumer(
                **self._common,
                metrics_enabled=False,
                group_id=None,
                enable_auto_commit=False,
                allow_auto_create_topics=False,
                auto_offset_reset="earliest",
                isolation_level=_COMMITTED,
                # What is read is there already, and a fetch beyond it must not hold up the next.
                fetch_max_wait_ms=5,
                retry_backoff_ms=5,
                fetch_max_bytes=_MAX_REQUEST_BYTES,
                max_partition_fetch_bytes=4 << 20,
                receive_message_max_bytes=4 * _MAX_REQUEST_BYTES,
                max_poll_records=1000,
            )
        usable = False
        try:
            yield consumer
            usable = True
        except GeneratorExit:  # a reader that stops early
            usable = True
            raise
        finally:
            if usable:
                consumer.unsubscribe()
                with self._lock:
                    self._idle.append(consumer)
            else:
                consumer.close()

    def _drop_clients(self) -> None:
        """Forget producer and consumers, with what they believe about deleted topics."""
        self._drop_producer()
        while self._idle:
            self._idle.pop().close()

    def _drop_producer(self) -> None:
        if self._producer is not None:
            self._producer.close(timeout=self._timeout_s)
            self._producer = None

    # Parts

    def _describe(self, name: str) -> list[int] | None:
        with self._lock:
            described = self._get_admin().describe_topics([name])
        if not described or described[0]["error_code"] != 0:
            return None
        return sorted(part["partition_index"] for part in described[0]["partitions"])

    def _partitions(self, name: str) -> list[int]:
        partitions = self._describe(name)
        if not partitions:
            raise ServiceError(f"there is no topic {name} on {self._bootstrap}", topic=name)
        return partitions

    def _wait_until_gone(self, name: str) -> None:
        deadline = time.monotonic() + self._timeout_s
        while self._describe(name) is not None:
            if time.monotonic() > deadline:
                raise ServiceError(f"topic {name} is still there after its deletion", topic=name)
            time.sleep(0.05)

    def _offsets(self, name: str, specs: Mapping[int, int]) -> dict[int, int]:
        wanted = {TopicPartition(name, partition): spec for partition, spec in specs.items()}
        with self._lock:
            found = self._get_admin().list_partition_offsets(wanted, _COMMITTED)
        return {part.partition: int(answer.offset) for part, answer in found.items()}

    def _send(
        self, producer: Any, name: str, messages: Iterable[Message], partition: int | None
    ) -> list[Coordinate]:
        sent: list[Coordinate] = []
        waiting: list[Any] = []
        in_flight = 0
        for message in messages:
            waiting.append(self._hand_over(producer, name, message, partition))
            in_flight += len(message.value or b"")
            if in_flight > _IN_FLIGHT_BYTES or len(waiting) >= _IN_FLIGHT_MESSAGES:
                sent += self._acknowledged(producer, waiting)
                waiting, in_flight = [], 0
        return sent + self._acknowledged(producer, waiting)

    def _hand_over(self, producer: Any, name: str, message: Message, partition: int | None) -> Any:
        return producer.send(
            name,
            value=message.value,
            key=message.key,
            headers=list(message.headers),
            partition=partition,
            timestamp_ms=message.timestamp_ms,
        )

    def _acknowledged(self, producer: Any, waiting: list[Any]) -> list[Coordinate]:
        if not waiting:
            return []
        producer.flush(timeout=self._timeout_s + 0.001 * len(waiting))
        made = []
        for future in waiting:
            record = future.get(timeout=self._timeout_s)
            made.append(Coordinate(record.topic, record.partition, record.offset))
        return made

    def _read(self, part: Any, first: int, end: int) -> Iterator[Message]:
        if first >= end:
            return
        try:
            with self._consumer() as consumer:
                consumer.assign([part])
                consumer.seek(part, first)
                yield from self._poll(consumer, part, end)
        except (KafkaError, OSError) as error:
            raise self._service_error(error) from error

    def _poll(self, consumer: Any, part: Any, end: int) -> Iterator[Message]:
        deadline = time.monotonic() + self._timeout_s
        position = consumer.position(part)
        while position < end:
            records = consumer.poll(timeout_ms=_POLL_MS).get(part, ())
            for record in records:
                if record.offset >= end:
                    return
                yield to_message(record)
            # The position passes markers and compacted offsets, of which no record tells.
            reached = consumer.position(part)
            if reached > position:
                position, deadline = reached, time.monotonic() + self._timeout_s
            elif time.monotonic() > deadline:
                raise ServiceError(
                    f"{self._bootstrap} sent nothing of {part.topic}/{part.partition} from offset "
                    f"{position} for {self._timeout_s:g} s",
                    topic=part.topic,
                )

    def _service_error(self, error: Exception) -> ServiceError:
        name, text = type(error).__name__, str(error)
        said = text if name in text else f"{name} {text}"
        return ServiceError(f"Kafka at {self._bootstrap}: {said}", bootstrap=self._bootstrap)


def to_message(record: Any) -> Message:
    """Return the client's record as a message."""
    return Message(
        value=record.value,
        key=record.key,
        headers=tuple(record.headers),
        timestamp_ms=record.timestamp,
        coordinate=Coordinate(record.topic, record.partition, record.offset),
    )
