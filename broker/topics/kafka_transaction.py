"""Transactions: messages and the progress that they stand for, together or not at all.

Each partition of an input topic has a transaction of its own in every batch. With its messages
it commits, to a consumer group that has no members, how far the partition was read: so whoever
repeats a batch learns whether its messages have left, and does not send them again.
"""

import hashlib
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata

from broker.errors import ServiceError
from broker.topics.kafka_access import connection
from broker.topics.topic import Message

_MAX_REQUEST_BYTES = 48 << 20
_IN_FLIGHT_BYTES = 16 << 20
"""What is handed to the client before it waits: the client itself has no bound."""

_ASK_AGAIN_MS = 10
_OPEN_S = 60.0
"""How long a transaction that nobody ends holds up readers of committed messages. [s]"""


class Transaction:
    """One transaction of one sender; made by `TransactionalSender.begin`."""

    def __init__(self, producer: Any, group: str, place: tuple[str, int], done: int) -> None:
        self.done = done
        """Offset before which the messages of this place have left, committed."""
        self._producer, self._group, self._place = producer, group, place
        self._futures: list[Any] = []
        self._bytes = 0
        self._is_open = False

    def send(self, messages: Iterable[tuple[str, Message]]) -> None:
        """Send messages, each to the topic named with it; nobody reads them before `commit`."""
        for topic, message in messages:
            if not self._is_open:
                self._producer.begin_transaction()
                self._is_open = True
            self._futures.append(
                self._producer.send(
                    topic,
                    value=message.value,
                    key=message.key,
                    headers=list(message.headers),
                    timestamp_ms=message.timestamp_ms,
                )
            )
            self._bytes += len(message.value or b"")
            if self._bytes > _IN_FLIGHT_BYTES:
                self.flush()

    def commit(self, done: int) -> None:
        """Let readers see what was sent, and note that all before an offset has left."""
        if not self._is_open:
            return  # nothing was sent: a repeat sends nothing, too
        self.flush()
        offsets = {TopicPartition(*self._place): OffsetAndMetadata(done, "", -1)}
        self._producer.send_offsets_to_transaction(offsets, self._group)
        self._producer.commit_transaction()
        self._is_open = False
        self.done = done

    def flush(self) -> None:
        """Wait until all that was sent is acknowledged; nobody sees it yet."""
        self._producer.flush()
        for future in self._futures:
            future.get(timeout=0.0)
        self._futures, self._bytes = [], 0


class TransactionalSender:
    """Sends in transactions; one a process, kept.

    Parameters
    ----------
    bootstrap : str
        `host:port` of a server.
    timeout_s : float
        How long to wait for an answer. [s]
    """

    def __init__(self, bootstrap: str, *, timeout_s: float = 30.0) -> None:
        self._bootstrap, self._timeout_s = bootstrap, timeout_s
        self._admin: Any = None

    @contextmanager
    def begin(self, name: str, *, group: str, place: tuple[str, int]) -> Iterator[Transaction]:
        """Give a transaction; what is not committed at the end is dropped.

        Whoever had a transaction of this name and place before is shut out, and what it left open
        is ended first: so `Transaction.done` is final.

        Parameters
        ----------
        name : str
            Of whoever may send this: one at a time.
        group : str
            Where progress is kept.
        place : tuple of str and int
            Topic and partition that the messages are made from.

        Raises
        ------
        ServiceError
            If the server does not answer, or another has taken over.
        """
        producer: Any = None
        try:
            producer = self._producer(f"{name}.{place[0]}.{place[1]}")
            producer.init_transactions()
            transaction = Transaction(producer, group, place, self._done(group, place))
            yield transaction
        except (KafkaError, OSError) as error:
            self._forget()
            raise ServiceError(
                f"Kafka at {self._bootstrap}: {type(error).__name__} {error}",
                bootstrap=self._bootstrap,
            ) from error
        finally:
            if producer is not None:
                # Not committed is dropped: at once by whoever comes next, else after a minute.
                producer.close(timeout=self._timeout_s)

    def close(self) -> None:
        """Release connections."""
        self._forget()

    def _done(self, group: str, place: tuple[str, int]) -> int:
        if self._admin is None:
            self._admin = KafkaAdminClient(
                **connection(self._bootstrap),
                request_timeout_ms=int(self._timeout_s * 1000),
            )
        part = TopicPartition(*place)
        deadline = time.monotonic() + self._timeout_s
        while True:
            try:
                found = self._admin.list_group_offsets({group: [part]}).get(group, {})
            except KafkaError as error:
                # On a new server, nobody may be in charge of groups yet.
                if not error.retriable or time.monotonic() > deadline:
                    raise
                time.sleep(_ASK_AGAIN_MS / 1000.0)
                continue
            return max(0, int(found[part].offset)) if part in found else 0

    def _forget(self) -> None:
        if self._admin is not None:
            self._admin.close()
            self._admin = None

    def _producer(self, transactional_id: str) -> Any:
        return KafkaProducer(
            **connection(self._bootstrap),
            metrics_enabled=False,
            transactional_id=transactional_id,
            transaction_timeout_ms=int(_OPEN_S * 1000),
            acks="all",
            enable_idempotence=True,
            max_request_size=_MAX_REQUEST_BYTES,
            batch_size=1 << 20,
            linger_ms=2,
            max_block_ms=int(self._timeout_s * 1000),
            allow_auto_create_topics=False,
            # The server answers "not yet" while it looks for coordinators: ten times the wait else.
            retry_backoff_ms=_ASK_AGAIN_MS,
        )


def progress_group(run: str, query: str, checkpoint_id: str) -> str:
    """Return the group in which a query's progress is kept: one a checkpoint."""
    digest = hashlib.sha256(checkpoint_id.encode()).hexdigest()[:12]
    return f"broker.{run}.{query}.{digest}"
