"""The ledger: what each query consumed, by Kafka's offsets, and the proof that nothing is missing.

consumed = stored + duplicates + deadLetters + noTemplate + missing, and missing must be 0.
"""

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from broker.store.keys import joined, split_joined
from broker.store.table import Row, Tables
from broker.types import OffsetRange, Run

_END, _BATCH = b"l:end", b"l:batch"


@dataclass(frozen=True)
class Batch:
    """One micro-batch of a query, as it was recorded when all its effects were done.

    Parameters
    ----------
    query : str
        `images`, `alerts` or `archive`.
    batch_id : int
        Spark's number; it begins anew with a new checkpoint.
    ranges : tuple of OffsetRange
        What it consumed.
    counts : Mapping
        What became of it, by kind.
    stats : Mapping
        Times and rates.
    recorded_ms : int
        When. [ms since 1970]
    """

    query: str
    batch_id: int
    ranges: tuple[OffsetRange, ...]
    counts: Mapping[str, int] = field(default_factory=dict)
    stats: Mapping[str, Any] = field(default_factory=dict)
    recorded_ms: int = 0


class Ledger:
    """What each query consumed.

    Parameters
    ----------
    tables : Tables
        Where.
    run : Run
        Whose.
    """

    def __init__(self, tables: Tables, run: Run) -> None:
        self._table = tables.table(run.table("ledger"))

    def record(
        self,
        query: str,
        batch_id: int,
        ranges: Sequence[OffsetRange],
        counts: Mapping[str, int],
        stats: Mapping[str, Any],
    ) -> None:
        """Record a batch; recording it again changes nothing but the stats.

        Call it when all rows and packets of the batch are acknowledged, before Spark commits.
        Empty ranges are left out; a batch of nothing else leaves no trace.
        """
        filled = sorted(
            (r for r in ranges if r.end > r.first), key=lambda r: (r.topic, r.partition, r.first)
        )
        text = json.dumps(
            {
                "batchId": batch_id,
                "ranges": [[r.topic, r.partition, r.first, r.end] for r in filled],
                "counts": dict(counts),
                "stats": dict(stats),
                "recordedMs": int(time.time() * 1000),
            }
        ).encode()
        rows: list[tuple[bytes, Row, int]] = []
        for i, r in enumerate(filled):
            cells = {_END: b"%d" % r.end}
            if i == 0:
                cells[_BATCH] = text
            # The end as timestamp: of two recordings from one offset, the longer one is seen.
            rows.append((_key(query, r), cells, r.end))
        self._table.put_timed(rows)

    def consumed(self, query: str) -> list[OffsetRange]:
        """Return what a query consumed, merged to the fewest ranges, sorted."""
        return merge_ranges(
            OffsetRange(*_place(key), int(row[_END])) for key, row in self._rows(query)
        )

    def batches(self, query: str) -> list[Batch]:
        """Return the batches of a query, in the order in which they were recorded."""
        found = [_parse(query, row[_BATCH]) for _, row in self._rows(query) if _BATCH in row]
        return sorted(found, key=lambda batch: (batch.recorded_ms, batch.batch_id))

    def newer(
        self, query: str, ends: Mapping[tuple[str, int], int]
    ) -> Iterator[tuple[OffsetRange, Batch | None]]:
        """Yield what a query has recorded beyond some ends; what lies before is not read.

        Parameters
        ----------
        query : str
            The query.
        ends : mapping of (topic, partition) to int
            Up to where each partition is known.

        Yields
        ------
        range : OffsetRange
            What was consumed.
        batch : Batch or None
            The whole batch, beside the first of its ranges.
        """
        prefix = joined((query,))
        start, stop = prefix + b"|", prefix + b"}"
        while first := next(iter(self._table.scan(start, stop, columns=[_END], limit=1)), None):
            topic, partition, _ = _place(first[0])
            known = OffsetRange(topic, partition, ends.get((topic, partition), 0), 0)
            start = joined((query, topic, f"{partition:08x}")) + b"}"
            for key, row in self._table.scan(_key(query, known), start):
                batch = _parse(query, row[_BATCH]) if _BATCH in row else None
                yield OffsetRange(*_place(key), int(row[_END])), batch

    def queries(self) -> list[str]:
        """Return the names of the queries that have recorded something, sorted."""
        return sorted({split_joined(key)[0] for key, _ in self._table.scan(columns=[_END])})

    def _rows(self, query: str) -> Iterator[tuple[bytes, dict[bytes, bytes]]]:
        prefix = joined((query,))
        return self._table.scan(prefix + b"|", prefix + b"}")


def merge_ranges(ranges: Iterable[OffsetRange]) -> list[OffsetRange]:
    """Return ranges with those that touch or overlap made one, sorted."""
    merged: list[OffsetRange] = []
    for r in sorted(ranges, key=lambda r: (r.topic, r.partition, r.first)):
        last = merged[-1] if merged else None
        if last and (last.topic, last.partition) == (r.topic, r.partition) and r.first <= last.end:
            merged[-1] = OffsetRange(r.topic, r.partition, last.first, max(last.end, r.end))
        else:
            merged.append(r)
    return merged


def _key(query: str, r: OffsetRange) -> bytes:
    return joined((query, r.topic, f"{r.partition:08x}", f"{r.first:016x}"))


def _place(key: bytes) -> tuple[str, int, int]:
    _, topic, partition, first = split_joined(key)
    return topic, int(partition, 16), int(first, 16)


def _parse(query: str, text: bytes) -> Batch:
    found = json.loads(text)
    return Batch(
        query=query,
        batch_id=found["batchId"],
        ranges=tuple(OffsetRange(*r) for r in found["ranges"]),
        counts=found["counts"],
        stats=found["stats"],
        recorded_ms=found["recordedMs"],
    )
