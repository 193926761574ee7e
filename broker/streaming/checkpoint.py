"""What a query has taken and finished, read from its checkpoint: Kafka's offsets, never rows seen.

Spark writes `offsets/<batch>` (where a batch ends) before the batch runs and `commits/<batch>`
after it; where the first batch begins stands in `sources/0/0`.
"""

import json
from pathlib import Path

from broker.errors import ServiceError
from broker.topics.topic import OffsetRange

Offsets = dict[tuple[str, int], int]
"""The next offset to read, by (topic, partition)."""


def batch_ranges(checkpoint: Path, batch_id: int) -> list[OffsetRange]:
    """Return what a batch takes from each partition; partitions with nothing new left out.

    Raises
    ------
    ServiceError
        If the checkpoint does not know the batch.
    """
    ends = _offsets(checkpoint / "offsets" / str(batch_id))
    if ends is None:
        raise ServiceError(f"checkpoint {checkpoint} has no batch {batch_id}")
    before = _offsets(checkpoint / "offsets" / str(batch_id - 1)) if batch_id else None
    starts = before if before is not None else first_offsets(checkpoint)
    ranges = (
        # A partition that is new in this batch is read from its beginning.
        OffsetRange(topic, partition, starts.get((topic, partition), 0), end)
        for (topic, partition), end in sorted(ends.items())
    )
    return [r for r in ranges if r.end > r.first]


def first_offsets(checkpoint: Path) -> Offsets:
    """Return where the query's first batch begins; empty before it."""
    return _offsets(checkpoint / "sources" / "0" / "0") or {}


def committed(checkpoint: Path) -> Offsets:
    """Return where the query goes on after the last batch that it finished; empty before any."""
    batch_id = last_commit(checkpoint)
    if batch_id is None:
        return {}
    return _offsets(checkpoint / "offsets" / str(batch_id)) or {}


def last_commit(checkpoint: Path) -> int | None:
    """Return the id of the last batch that was finished; None before any."""
    folder = checkpoint / "commits"
    if not folder.is_dir():
        return None
    ids = [int(path.name) for path in folder.iterdir() if path.name.isdigit()]
    return max(ids, default=None)


def checkpoint_id(checkpoint: Path) -> str:
    """Return the id that Spark gave the query when its checkpoint was made.

    Raises
    ------
    ServiceError
        If the checkpoint has none: the query was never started.
    """
    try:
        return str(json.loads((checkpoint / "metadata").read_text(encoding="utf-8"))["id"])
    except (OSError, ValueError, KeyError) as error:
        raise ServiceError(f"checkpoint {checkpoint} has no id: {error}") from error


def is_caught_up(done: Offsets, available: list[OffsetRange]) -> bool:
    """Whether everything that was there to read is finished."""
    return all(
        part.end == part.first or done.get((part.topic, part.partition), 0) >= part.end
        for part in available
    )


def _offsets(path: Path) -> Offsets | None:
    """Read one offset file: a version, for a batch its settings, then the offsets as JSON."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return None
    tree = json.loads(lines[-1])
    return {
        (topic, int(partition)): int(offset)
        for topic, partitions in tree.items()
        for partition, offset in partitions.items()
    }
