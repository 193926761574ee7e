"""The raw packets of a run on disk, by survey and by the night in which they arrived."""

import heapq
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from broker.archive.files import (
    ArchiveFile,
    FileWriter,
    merge_ranges,
    parse_name,
    remove_temporaries,
)
from broker.types import ALERTS, Coordinate, Run
from broker.units import SECONDS_PER_DAY

ORIGIN_HEADER = "origin"
"""Header of a replayed packet: where it stood when it was archived, `topic/partition/offset`. A
packet that has it is not archived again."""

ROWS = pa.schema(
    [
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("timestamp_ms", pa.int64(), nullable=False),
        pa.field("value", pa.binary()),
    ]
)
"""Arrow schema of what `Archive.write` takes."""

_FOLDER_CLOCK_NS = 50_000_000
"""A folder's time of change is coarser than this. [ns]"""


class Archive:
    """The archive of one run: written by one query, read by anyone.

    Parameters
    ----------
    path : Path
        Folder of all archives; made when something is written.
    run : Run
        The run, which has a folder of its own in it.
    """

    def __init__(self, path: Path, run: Run) -> None:
        self.path = Path(path) / run.name
        self._run = run
        self._folders: dict[Path, tuple[int, dict[tuple[str, int], list[ArchiveFile]]]] = {}

    def survey_of(self, topic: str) -> str:
        """Return the survey whose packets stand on a topic: its name without run and `alerts`."""
        name = topic.removeprefix(self._run.internal_topic(""))
        return name.removeprefix(f"{ALERTS}.")

    def write(
        self, topic: str, partition: int, batches: Iterable[pa.RecordBatch | pa.Table]
    ) -> list[ArchiveFile]:
        """Write what a micro-batch has of one partition: a file per night, seen when it is whole.

        Parameters
        ----------
        topic : str
            Topic the packets stood on.
        partition : int
            Its partition.
        batches : iterable of Arrow batches
            With the columns of `ROWS`, offsets rising from row to row and from batch to batch.

        Returns
        -------
        list of ArchiveFile
            What was written; the same rows make the same files, byte for byte.
        """
        writers: dict[str, FileWriter] = {}
        try:
            for batch in batches:
                self._append(writers, topic, partition, batch)
            return [writer.commit() for writer in writers.values()]
        except BaseException:
            for writer in writers.values():
                writer.abandon()
            raise

    def _append(
        self, writers: dict[str, FileWriter], topic: str, partition: int, batch: Any
    ) -> None:
        offsets = _numbers(batch.column("offset"))
        timestamps = _numbers(batch.column("timestamp_ms"))
        values = batch.column("value")
        if isinstance(values, pa.ChunkedArray):
            values = values.combine_chunks()
        nights = _nights_of(timestamps)
        for night in np.unique(nights):
            name = str(night).replace("-", "")
            if name not in writers:
                folder = self.path / self.survey_of(topic) / name
                writers[name] = FileWriter(folder, topic=topic, partition=partition)
            chosen = nights == night
            if chosen.all():
                writers[name].append(offsets, timestamps, values)
            else:
                writers[name].append(
                    offsets[chosen], timestamps[chosen], values.filter(pa.array(chosen))
                )

    def get(self, coordinate: Coordinate) -> bytes | None:
        """Return one packet as it came; None if it is not in the archive."""
        for folder in self._night_folders(self.survey_of(coordinate.topic)):
            files = self._files(folder).get((coordinate.topic, coordinate.partition), [])
            for file in files:
                if file.first > coordinate.offset:
                    break
                if file.last < coordinate.offset:
                    continue
                place = file.find(coordinate.offset)
                if place is not None:
                    return file.read(*place)
        return None

    def packets(self, survey: str, night: str) -> Iterator[tuple[Coordinate, int, bytes]]:
        """Yield the packets of a night, each once: (coordinate, timestamp [ms], packet).

        In the order of arrival; packets of one partition always in that of their offsets.
        """
        files = self._files(self.path / survey / night)
        yield from _merged(
            _partition_packets(topic, partition, files[topic, partition])
            for topic, partition in sorted(files)
        )

    def surveys(self) -> list[str]:
        """Return the surveys that have packets here, sorted."""
        if not self.path.is_dir():
            return []
        return sorted(folder.name for folder in self.path.iterdir() if folder.is_dir())

    def nights(self, survey: str | None = None) -> list[str]:
        """Return the nights with packets, of one survey or of all, sorted."""
        chosen = self.surveys() if survey is None else [survey]
        folders = (folder for name in chosen for folder in self._night_folders(name))
        return sorted({folder.name for folder in folders if self._files(folder)})

    def archived(self) -> dict[tuple[str, int], list[tuple[int, int]]]:
        """Return which offsets are here: half-open ranges by (topic, partition), merged."""
        found: dict[tuple[str, int], list[tuple[int, int]]] = {}
        for survey in self.surveys():
            for folder in self._night_folders(survey):
                for place, files in self._files(folder).items():
                    runs = (run for file in files for run in _runs(file))
                    found.setdefault(place, []).extend(runs)
        return {place: merge_ranges(ranges) for place, ranges in sorted(found.items())}

    def clean(self) -> int:
        """Remove what killed writers left; call it while no writer is at work."""
        return remove_temporaries(self.path)

    def _night_folders(self, survey: str) -> list[Path]:
        folder = self.path / survey
        return sorted(folder.iterdir(), reverse=True) if folder.is_dir() else []

    def _files(self, folder: Path) -> dict[tuple[str, int], list[ArchiveFile]]:
        """Return the files of a night by (topic, partition), sorted; listed when it has changed."""
        try:
            changed = folder.stat().st_mtime_ns
        except FileNotFoundError:
            return {}
        known = self._folders.get(folder)
        if known is not None and known[0] == changed:
            return known[1]
        # What is added in the very tick of the folder's clock in which it is listed must be seen
        # the next time: such a listing is not kept.
        settled = time.time_ns() - changed > _FOLDER_CLOCK_NS
        files: dict[tuple[str, int], list[ArchiveFile]] = {}
        old = {file: file for group in (known[1] if known else {}).values() for file in group}
        for path in sorted(folder.iterdir()):
            file = parse_name(path)
            if file is not None:
                files.setdefault((file.topic, file.partition), []).append(old.get(file, file))
        if settled:
            self._folders[folder] = (changed, files)
        return files


def _numbers(column: Any) -> NDArray[np.int64]:
    return np.asarray(column, dtype=np.int64)


def _nights_of(timestamps_ms: NDArray[np.int64]) -> NDArray[np.datetime64]:
    """Return the night of each time as a day: that on whose noon (UTC) it began."""
    half_day_ms = int(SECONDS_PER_DAY * 500)
    return (timestamps_ms - half_day_ms).astype("datetime64[ms]").astype("datetime64[D]")


def _runs(file: ArchiveFile) -> Iterator[tuple[int, int]]:
    """Yield half-open ranges of offsets that are in a file without a gap."""
    offsets = np.asarray(file.index["offset"])
    breaks = np.flatnonzero(np.diff(offsets) > 1) + 1
    for part in np.split(offsets, breaks):
        yield int(part[0]), int(part[-1]) + 1


def _partition_packets(
    topic: str, partition: int, files: list[ArchiveFile]
) -> Iterator[tuple[int, Coordinate, bytes]]:
    """Yield a partition's packets in the order of offsets; files may overlap, offsets do not."""
    last = -1
    for group in _overlapping(files):
        streams = [file.packets() for file in group]
        for offset, timestamp_ms, packet in heapq.merge(*streams, key=lambda entry: entry[0]):
            if offset > last:
                last = offset
                yield timestamp_ms, Coordinate(topic, partition, offset), packet


def _overlapping(files: list[ArchiveFile]) -> Iterator[list[ArchiveFile]]:
    """Yield groups of files whose ranges overlap, nearly always of one file."""
    group: list[ArchiveFile] = []
    end = -1
    for file in files:
        if group and file.first > end:
            yield group
            group = []
        group.append(file)
        end = max(end, file.last)
    if group:
        yield group


def _merged(
    streams: Iterable[Iterator[tuple[int, Coordinate, bytes]]],
) -> Iterator[tuple[Coordinate, int, bytes]]:
    for timestamp_ms, coordinate, packet in heapq.merge(*streams, key=lambda entry: entry[:2]):
        yield coordinate, timestamp_ms, packet
