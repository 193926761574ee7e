"""What an earlier attempt of a batch has refused: a repeat refuses it, too.

A schema may come between two attempts, and its dead letters may have been sent again by then. A
message that the first attempt made a dead letter of stays one: else it would stand in two places.
"""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pyarrow as pa

from broker.spark.stats import BatchStats
from broker.streaming.checkpoint import batch_ranges, begun_batch
from broker.topics.publish import dead_letters_topic, read_dead_letter
from broker.topics.topic import Topics
from broker.types import Coordinate, Run

_SKEW_MS = 600_000
"""How much earlier the clock of whoever wrote a dead letter may be than that of the driver. [ms]"""


def refused_before(topics: Topics, run: Run, checkpoint: Path) -> tuple[int, frozenset[Coordinate]]:
    """Return the batch that was begun and not finished, and what it has made dead letters of.

    Parameters
    ----------
    topics : Topics
        Where the dead letters are.
    run : Run
        Whose.
    checkpoint : Path
        Of a query that does not run.

    Returns
    -------
    int
        The batch; -1 if none was begun.
    frozenset of Coordinate
        Messages of it that have a dead letter.

    Raises
    ------
    ServiceError
        If Kafka does not answer.
    """
    begun = begun_batch(checkpoint)
    name = dead_letters_topic(run)
    if begun is None or name not in topics.names():
        return -1, frozenset()
    batch_id, since_ms = begun
    taken = {(r.topic, r.partition): r for r in batch_ranges(checkpoint, batch_id)}
    found = set()
    for part in topics.ranges(name):
        first = topics.offset_at(name, partition=part.partition, timestamp_ms=since_ms - _SKEW_MS)
        for message in topics.read(name, partition=part.partition, first=first, end=part.end):
            at = read_dead_letter(message).origin
            mine = taken.get((at.topic, at.partition))
            if mine is not None and mine.first <= at.offset < mine.end:
                found.add(at)
    return batch_id, frozenset(found)


def without(
    batch: pa.RecordBatch | pa.Table, refused: Collection[Coordinate], stats: BatchStats
) -> pa.RecordBatch | pa.Table:
    """Return a batch without what was refused before, which is counted as consumed and dead.

    Parameters
    ----------
    batch : Arrow batch
        With columns topic, partition, offset.
    refused : collection of Coordinate
        Best a set.
    stats : BatchStats
        Added to.
    """
    if not refused:
        return batch
    columns = (batch.column(name).to_pylist() for name in ("topic", "partition", "offset"))
    kept = np.array(
        [Coordinate(*place) not in refused for place in zip(*columns, strict=True)], dtype=bool
    )
    n = int((~kept).sum())
    stats.count("consumed", n)
    stats.count("deadLetters", n)
    return batch if not n else batch.filter(pa.array(kept))
