"""What a task sends by itself, in transactions: each packet once, also if its batch is repeated."""

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from broker.topics.kafka_transaction import Transaction, TransactionalSender
from broker.topics.topic import Message

Batch: TypeAlias = pa.RecordBatch | pa.Table
Place: TypeAlias = tuple[str, int]


class Outbox:
    """Messages of one task, in one transaction for each partition that it reads.

    What a partition's transaction commits with its messages is how far the partition was read.
    Rows before that were sent by an earlier attempt: they are worked on again, as a repeat does
    that changes nothing, and what they give is not sent.

    Parameters
    ----------
    bootstrap : str
        Kafka's address.
    name : str
        Of the query: one at a time may send under it.
    group : str
        Where progress is kept; see `broker.topics.kafka_transaction.progress_group`.
    """

    def __init__(self, bootstrap: str, *, name: str, group: str) -> None:
        self._sender, self._name, self._group = sender_for(bootstrap), name, group
        self._stack = ExitStack()
        self._open: dict[Place, Transaction] = {}
        self._ends: dict[Place, int] = {}

    def __enter__(self) -> "Outbox":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def take(self, batch: Batch, work: Callable[[Batch], pa.Table]) -> None:
        """Work on a batch and send what it gives.

        Parameters
        ----------
        batch : Arrow batch
            With columns topic, partition, offset.
        work : callable (Arrow batch) -> pa.Table
            Makes rows of `broker.spark.messages.OUTGOING`.
        """
        for place, rows, offsets in _places(batch):
            transaction = self._transaction(place)
            is_new = offsets >= transaction.done
            if not is_new.all():
                work(batch.take(pa.array(rows[~is_new])))
            if is_new.any():
                part = batch if is_new.all() and len(rows) == batch.num_rows else None
                made = work(batch.take(pa.array(rows[is_new])) if part is None else part)
                transaction.send(messages_of(made))
                self._ends[place] = max(self._ends.get(place, 0), int(offsets.max()) + 1)

    def flush(self) -> None:
        """Wait until all that was sent is acknowledged; nobody sees it yet."""
        for transaction in self._open.values():
            transaction.flush()

    def commit(self) -> None:
        """Let readers see what was sent."""
        for place, end in self._ends.items():
            self._open[place].commit(end)

    def _transaction(self, place: Place) -> Transaction:
        if place not in self._open:
            self._open[place] = self._stack.enter_context(
                self._sender.begin(self._name, group=self._group, place=place)
            )
        return self._open[place]


@functools.cache
def sender_for(bootstrap: str) -> TransactionalSender:
    """Return this process's sender."""
    return TransactionalSender(bootstrap)


def messages_of(table: pa.Table) -> Iterator[tuple[str, Message]]:
    """Yield rows of `broker.spark.messages.OUTGOING` as topic and message."""
    for batch in table.to_batches():
        columns = (batch.column(i).to_pylist() for i in range(4))
        for topic, key, value, headers in zip(*columns, strict=True):
            pairs = tuple((pair["key"], pair["value"]) for pair in headers or ())
            yield topic, Message(value, key, pairs)


def _places(batch: Batch) -> Iterator[tuple[Place, Any, Any]]:
    """Yield topic and partition, the rows that stood there, and their offsets."""
    topics = np.array(batch.column("topic").to_pylist(), dtype=np.str_)
    partitions = np.asarray(batch.column("partition"), dtype=np.int64)
    offsets = np.asarray(batch.column("offset"), dtype=np.int64)
    for topic, partition in sorted(set(zip(topics.tolist(), partitions.tolist(), strict=True))):
        rows = np.flatnonzero((topics == topic) & (partitions == partition))
        yield (topic, partition), rows, offsets[rows]
