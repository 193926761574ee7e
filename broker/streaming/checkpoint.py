"""What a query has taken and finished, read from its checkpoint: Kafka's offsets, never rows seen.

Spark writes `offsets/<batch>` (where a batch ends, a line a source) before the batch runs and
`commits/<batch>` after it; where the first batch begins stands in `sources/<source>/0`.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from broker.errors import ConfigError, ServiceError
from broker.topics.topic import OffsetRange

Offsets = dict[tuple[str, int], int]
"""The next offset to read, by (topic, partition)."""

_NOTHING = "-"
"""What Spark writes for a source that had nothing to give yet."""

_HEAD = 2
"""Lines of an offset file before its sources: the version, and the batch's settings."""

_HEAD_FIRST = 1
"""Lines before where a source begins: the version."""


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
    found: Offsets = {}
    for file in sorted(checkpoint.glob("sources/*/0")):
        found |= _offsets(file, _HEAD_FIRST) or {}
    return found


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


def begun_batch(checkpoint: Path) -> tuple[int, int] | None:
    """Return the batch that an earlier process began and did not finish, and since when.

    Returns
    -------
    (int, int) or None
        Its id, and when it was begun [ms since 1970]; None if all that were begun are finished.
    """
    begun = [int(file.name) for file in checkpoint.glob("offsets/*") if file.name.isdigit()]
    newest, done = max(begun, default=None), last_commit(checkpoint)
    if newest is None or (done is not None and newest <= done):
        return None
    settings = (checkpoint / "offsets" / str(newest)).read_text(encoding="utf-8").splitlines()[1]
    return newest, int(json.loads(settings).get("batchTimestampMs", 0))


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


def divide(checkpoint: Path, sources: Sequence[Sequence[str]]) -> bool:
    """Bring a checkpoint into the layout of a query with these sources, in this order.

    Each topic goes on where it was, and a batch that was begun has what it had. For a query that
    does not run. What was cut short is finished by the next call.

    Parameters
    ----------
    checkpoint : Path
        May be missing.
    sources : sequence of sequence of str
        Topics of each source.

    Returns
    -------
    bool
        Whether something was changed.

    Raises
    ------
    ConfigError
        If the checkpoint has a topic that none of the sources reads.
    """
    changed = False
    offsets = [file for file in checkpoint.glob("offsets/*") if file.name.isdigit()]
    for file in sorted(offsets, key=lambda one: int(one.name)):
        lines = file.read_text(encoding="utf-8").splitlines()
        divided = lines[:_HEAD] + _divided(lines[_HEAD:], sources, checkpoint)
        if divided != lines:
            _write(file, divided)
            changed = True
    begins = sorted(checkpoint.glob("sources/*/0"))
    heads = [file.read_text(encoding="utf-8").splitlines() for file in begins]
    if heads:
        lines = [line for head in heads for line in head[_HEAD_FIRST:]]
        wanted = {
            checkpoint / "sources" / str(i) / "0": [*heads[0][:_HEAD_FIRST], line]
            for i, line in enumerate(_divided(lines, sources, checkpoint))
            if line != _NOTHING
        }
        if wanted != dict(zip(begins, heads, strict=True)):
            # The first is what a call that was cut short would be without: it comes last.
            for file, text in reversed(wanted.items()):
                _write(file, text)
            for file in set(begins) - set(wanted):
                _remove(file)
            changed = True
    return changed


def _divided(lines: Sequence[str], sources: Sequence[Sequence[str]], checkpoint: Path) -> list[str]:
    """Return a line for each source, with what lines of other sources say of its topics."""
    tree: dict[str, Any] = {}
    for line in lines:
        tree |= {} if line == _NOTHING else json.loads(line)
    unknown = sorted(set(tree) - {name for names in sources for name in names})
    if unknown:
        raise ConfigError(
            f"checkpoint {checkpoint} has read {unknown[0]}, which no survey sends any more: "
            "put the survey's schemas back"
        )
    parts = [{name: tree[name] for name in sorted(names) if name in tree} for names in sources]
    return [json.dumps(part, separators=(",", ":")) if part else _NOTHING for part in parts]


def _write(file: Path, lines: Sequence[str]) -> None:
    """Replace a file of Spark's at once; its checksum would not fit any more."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f".{file.name}.new")
    new.write_text("\n".join(lines), encoding="utf-8")
    file.with_name(f".{file.name}.crc").unlink(missing_ok=True)
    new.replace(file)


def _remove(file: Path) -> None:
    file.with_name(f".{file.name}.crc").unlink(missing_ok=True)
    file.unlink()


def _offsets(path: Path, head: int = _HEAD) -> Offsets | None:
    """Read one offset file: a version, for a batch its settings, then the offsets as JSON."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return None
    trees = [json.loads(line) for line in lines[head:] if line != _NOTHING]
    return {
        (topic, int(partition)): int(offset)
        for tree in trees
        for topic, partitions in tree.items()
        for partition, offset in partitions.items()
    }
