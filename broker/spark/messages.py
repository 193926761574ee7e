"""Messages as Arrow columns: where those of a batch stood, and those that leave it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from broker.alerts.columns import ORIGIN
from broker.topics.topic import Message
from broker.types import Coordinate

HEADERS = pa.list_(pa.struct([pa.field("key", pa.string()), pa.field("value", pa.binary())]))

OUTGOING = pa.schema(
    [
        pa.field("topic", pa.string()),
        pa.field("key", pa.binary()),
        pa.field("value", pa.binary()),
        pa.field("headers", HEADERS),
    ]
)
"""Arrow schema of what goes to Kafka: one row a message."""

OUTGOING_SQL = (
    "topic string, key binary, value binary, headers array<struct<key: string, value: binary>>"
)
"""The same for Spark."""


@dataclass(frozen=True)
class Source:
    """Where the rows of a batch stood.

    Parameters
    ----------
    topics : list of str, length n_rows
        Topics.
    partitions, offsets : NDArray[np.int64], shape (n_rows,)
        Places on them.
    timestamps_ms : NDArray[np.int64], shape (n_rows,)
        When Kafka had them. [ms since 1970]
    """

    topics: list[str]
    partitions: NDArray[np.int64]
    offsets: NDArray[np.int64]
    timestamps_ms: NDArray[np.int64]

    @classmethod
    def of(cls, batch: Any) -> "Source":
        """Return the places of a batch with columns topic, partition, offset, timestamp."""
        times = pc.cast(batch.column("timestamp"), pa.timestamp("us", "UTC")).cast(pa.int64())
        return cls(
            batch.column("topic").to_pylist(),
            np.asarray(batch.column("partition"), dtype=np.int64),
            np.asarray(batch.column("offset"), dtype=np.int64),
            np.asarray(times, dtype=np.int64) // 1000,
        )

    def coordinate(self, row: int) -> Coordinate:
        """Return where a row stood."""
        return Coordinate(self.topics[row], int(self.partitions[row]), int(self.offsets[row]))

    def timestamp_ms(self, row: int) -> int:
        """Return when Kafka had a row. [ms since 1970]"""
        return int(self.timestamps_ms[row])


class MessageRows:
    """Collects messages as columns of `OUTGOING`."""

    def __init__(self) -> None:
        self._columns: tuple[list[Any], ...] = ([], [], [], [])

    def add(self, topic: str, message: Message) -> None:
        """Add a message for a topic."""
        for column, value in zip(
            self._columns, (topic, message.key, message.value, message.headers), strict=True
        ):
            column.append(value)

    def table(self) -> pa.Table:
        """Return what was added."""
        topics, keys, values, headers = self._columns
        pairs = [pair for its in headers for pair in its]
        bounds = np.zeros(len(headers) + 1, np.int32)
        np.cumsum([len(its) for its in headers], out=bounds[1:])
        flat = pa.StructArray.from_arrays(
            [
                pa.array([key for key, _ in pairs], pa.string()),
                pa.array([value for _, value in pairs], pa.binary()),
            ],
            fields=list(HEADERS.value_type),
        )
        arrays = [
            pa.array(topics, pa.string()),
            pa.array(keys, pa.binary()),
            pa.array(values, pa.binary()),
            pa.ListArray.from_arrays(pa.array(bounds), flat, type=HEADERS),
        ]
        return pa.Table.from_arrays(arrays, schema=OUTGOING)


def origin_of(batch: Any) -> pa.StructArray:
    """Return the column `origin` of a batch with topic, partition, offset and schemaId."""
    columns = [whole(batch.column(field.name)).cast(field.type) for field in ORIGIN]
    return pa.StructArray.from_arrays(columns, fields=list(ORIGIN))


def whole(column: Any) -> pa.Array:
    """Return a column as one array."""
    if isinstance(column, pa.ChunkedArray):
        return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    return column
