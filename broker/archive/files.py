"""One archive file: raw packets one after the other, and beside it an index of where each stands.

Two files share a name: `<topic>~<partition>~<first>~<last>.raw` holds the bytes as they came, and
`….npy` one entry per packet (`INDEX`), sorted by offset. Each is written under another name,
synced and renamed, the index last: a file whose index is there is whole, and a repeated batch
replaces it with the same bytes.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

INDEX = np.dtype(
    [("offset", "<i8"), ("position", "<i8"), ("length", "<i8"), ("timestamp_ms", "<i8")]
)
"""An index entry: Kafka's offset, where in the file the packet begins, its length [bytes], and
when Kafka had it [ms since 1970]."""

_TEMPORARY = ".tmp"


@dataclass(frozen=True)
class ArchiveFile:
    """A whole archive file of one (topic, partition).

    Parameters
    ----------
    folder : Path
        The night's folder.
    topic : str
        Topic the packets stood on.
    partition : int
        Its partition.
    first, last : int
        Lowest and highest offset in the file, both inclusive.
    """

    folder: Path
    topic: str
    partition: int
    first: int
    last: int

    @property
    def stem(self) -> str:
        """Name without its ending; offsets are padded so that names sort as numbers do."""
        return f"{self.topic}~{self.partition:04d}~{self.first:020d}~{self.last:020d}"

    @property
    def data_path(self) -> Path:
        """Where the packets are."""
        return self.folder / f"{self.stem}.raw"

    @property
    def index_path(self) -> Path:
        """Where the index is."""
        return self.folder / f"{self.stem}.npy"

    @cached_property
    def index(self) -> NDArray[Any]:
        """The index, memory-mapped, shape (n_packets,), of dtype `INDEX`."""
        return np.load(self.index_path, mmap_mode="r")

    @property
    def size(self) -> int:
        """Length of the data file. [bytes]"""
        return self.data_path.stat().st_size

    def find(self, offset: int) -> tuple[int, int] | None:
        """Return (position, length) of a packet; None if this file does not have it."""
        offsets = self.index["offset"]
        at = int(np.searchsorted(offsets, offset))
        if at == len(offsets) or offsets[at] != offset:
            return None
        return int(self.index["position"][at]), int(self.index["length"][at])

    def read(self, position: int, length: int) -> bytes:
        """Return some bytes of the data file, read at their place."""
        handle = os.open(self.data_path, os.O_RDONLY)
        try:
            return os.pread(handle, length, position)
        finally:
            os.close(handle)

    def packets(self) -> Iterator[tuple[int, int, bytes]]:
        """Yield (offset, timestamp [ms], packet) in the order of offsets."""
        with self.data_path.open("rb") as data:
            for offset, position, length, timestamp_ms in self.index.tolist():
                data.seek(position)
                yield offset, timestamp_ms, data.read(length)


def parse_name(path: Path) -> ArchiveFile | None:
    """Return the file of an index path; None for any other path."""
    parts = path.name.removesuffix(".npy").split("~")
    if not path.name.endswith(".npy") or len(parts) != 4:
        return None
    topic, partition, first, last = parts
    return ArchiveFile(path.parent, topic, int(partition), int(first), int(last))


class FileWriter:
    """Writes one archive file; nothing is to be seen of it before `commit`.

    Parameters
    ----------
    folder : Path
        The night's folder, made if it is absent.
    topic : str
        Topic the packets stood on.
    partition : int
        Its partition.
    """

    def __init__(self, folder: Path, *, topic: str, partition: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._topic, self._partition = folder, topic, partition
        # The process id keeps a late attempt of a task from writing into a newer one's file.
        self._temporary = folder / f"{topic}~{partition:04d}~{os.getpid()}{_TEMPORARY}"
        self._data: IO[bytes] = self._temporary.open("wb")
        self._entries: list[NDArray[Any]] = []
        self._position = 0

    def append(
        self, offsets: NDArray[np.int64], timestamps_ms: NDArray[np.int64], values: pa.Array
    ) -> None:
        """Add packets.

        Parameters
        ----------
        offsets : NDArray[np.int64], shape (n_packets,)
            Rising, above those already added.
        timestamps_ms : NDArray[np.int64], shape (n_packets,)
            When Kafka had them. [ms since 1970]
        values : pa.BinaryArray, length n_packets
            The packets; a null is kept as an empty one.
        """
        if not len(offsets):
            return
        bounds, content = _binary_content(values)
        entries = np.empty(len(offsets), dtype=INDEX)
        entries["offset"] = offsets
        entries["length"] = np.diff(bounds)
        entries["position"] = bounds[:-1] - bounds[0] + self._position
        entries["timestamp_ms"] = timestamps_ms
        self._data.write(content)
        self._position += len(content)
        self._entries.append(entries)

    def commit(self) -> ArchiveFile:
        """Make the file seen, whole and on disk."""
        entries = np.concatenate(self._entries)
        first, last = int(entries["offset"][0]), int(entries["offset"][-1])
        made = ArchiveFile(self._folder, self._topic, self._partition, first, last)
        _sync(self._data)
        self._data.close()
        index = self._temporary.with_suffix(f".npy{_TEMPORARY}")
        with index.open("wb") as handle:
            np.save(handle, entries)
            _sync(handle)
        self._temporary.replace(made.data_path)
        index.replace(made.index_path)
        _sync_folder(self._folder)
        return made

    def abandon(self) -> None:
        """Leave nothing behind."""
        self._data.close()
        self._temporary.unlink(missing_ok=True)


def remove_temporaries(folder: Path) -> int:
    """Remove what killed writers left in the folders of nights; to be called while none writes."""
    found = list(folder.glob(f"*/*/*{_TEMPORARY}"))
    for path in found:
        path.unlink(missing_ok=True)
    return len(found)


def merge_ranges(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join half-open ranges that touch or overlap; sorted."""
    merged: list[tuple[int, int]] = []
    for first, end in sorted(ranges):
        if merged and first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((first, end))
    return merged


def _binary_content(values: pa.Array) -> tuple[NDArray[np.int64], memoryview]:
    """Return the bounds of each value, shape (n + 1,), and all bytes between them, uncopied."""
    wide = pa.types.is_large_binary(values.type)
    if values.null_count:
        values = values.fill_null(b"")
    _, bounds_buffer, data = values.buffers()
    kind = np.int64 if wide else np.int32
    bounds = np.frombuffer(bounds_buffer, dtype=kind)[
        values.offset : values.offset + len(values) + 1
    ].astype(np.int64)
    view = memoryview(data if data is not None else b"")
    return bounds, view[int(bounds[0]) : int(bounds[-1])]


def _sync(handle: IO[bytes]) -> None:
    handle.flush()
    os.fsync(handle.fileno())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
