"""Any program for one FITS file, run on thousands of them by Spark.

Spark hands out files in small groups, the largest files first, so that no core waits long at the
end. A worker writes each file's end as it comes to a part file beside the results; so a run that
is broken off goes on where it was, and a task that is repeated does not repeat its files.
"""

import atexit
import json
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from broker.batch.program_run import DONE, Outcome, ProgramRunner
from broker.batch.programs import Program
from broker.errors import ConfigError
from broker.spark.daemon import keep_what_is_loaded

FITS_ENDINGS = tuple(
    f"{name}{packed}" for name in (".fits", ".fit", ".fts") for packed in ("", ".gz", ".fz")
)

PARTS = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("seconds", pa.float64(), nullable=False),
        pa.field("cpuSeconds", pa.float64(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("modifiedNs", pa.int64(), nullable=False),
        pa.field("result", pa.string()),
        pa.field("log", pa.string(), nullable=False),
        pa.field("table", pa.binary(), nullable=False),
    ]
)
"""A row for each file. `bytes` and `modifiedNs` say which state of the file it was."""

_LEAST_GROUPS = 64
"""A task of Spark's costs a tenth of a second by itself, so they are not made arbitrarily small."""

_POLL_S = 0.5


@dataclass(frozen=True)
class Report:
    """How a run went.

    Parameters
    ----------
    statuses : dict
        Files by what became of them.
    files, resumed : int
        All files, and those that an earlier run had done.
    wall_s, task_s, cpu_s : float
        Of this run: the clock's time, the sum of the programs' times by the clock and by the
        processor. [s]
    cores : int
        How many files were worked on at once.
    """

    statuses: dict[str, int]
    files: int
    resumed: int
    wall_s: float
    task_s: float
    cpu_s: float
    cores: int

    @property
    def overhead(self) -> float:
        """Share of the cores' time in which no program ran."""
        return 1.0 - self.task_s / max(self.cores * self.wall_s, 1e-9)


def find_files(places: Iterable[Path]) -> list[Path]:
    """Return the FITS files of folders, and files that are named, sorted and once each.

    Raises
    ------
    ConfigError
        If a place does not exist, or there is no file at all.
    """
    found: set[Path] = set()
    for place in places:
        if place.is_dir():
            found.update(f for f in place.rglob("*") if f.name.lower().endswith(FITS_ENDINGS))
        elif place.exists():
            found.add(place)
        else:
            raise ConfigError(f"there is no file or folder {place}")
    files = sorted(f for f in found if not f.is_dir())
    if not files:
        raise ConfigError(f"there are no FITS files ({', '.join(FITS_ENDINGS)}) in these folders")
    return files


def run_images(
    spark: Any,
    program: Program,
    files: Sequence[Path],
    out: Path,
    *,
    resume: bool = False,
    advance: Callable[[int], object] = lambda n: n,
) -> Report:
    """Run a program on files with Spark and write `files.parquet`, `files.csv` and the tables.

    Parameters
    ----------
    spark : SparkSession
    program : Program
        From `find_program`.
    files : sequence of Path
        On a cluster, in a folder that all machines see, as `out`.
    out : Path
        Folder of the results. Tables that the program returned are put together in
        `rows.parquet` with their file's path (`rows-2.parquet` and so on for other columns), what
        it left in its working directory is in `products`.
    resume : bool
        Leave out files that the same program has done in an earlier run into this folder, if
        they have not changed since.
    advance : callable
        Called with the number of files done, now and then.

    Returns
    -------
    Report
    """
    out = out.resolve()
    home = out / ".parts" / program.digest
    known = read_parts(home) if resume else {}
    if not resume:
        shutil.rmtree(out / ".parts", ignore_errors=True)
    home.mkdir(parents=True, exist_ok=True)
    states = {str(f): _state(f) for f in files}
    ready = {p for p, row in known.items() if row["status"] == DONE and states.get(p) == _of(row)}
    todo = [p for p in states if p not in ready]
    advance(len(ready))
    context = spark.sparkContext
    cores = int(context.defaultParallelism)
    groups = make_groups(todo, {p: s[0] for p, s in states.items()}, cores)
    job = _Job(context.broadcast(program), _next_run(home), str(home), str(out / "products"))
    began = time.perf_counter()
    with _watched(home, advance, len(todo)):
        if groups:
            listed = context.parallelize(list(enumerate(groups)), len(groups))
            listed.map(job).collect()
    wall = time.perf_counter() - began
    rows = read_parts(home)
    mine = [rows[p] for p in todo]
    write_results(out, [rows[p] for p in states])
    return Report(
        dict(sorted(Counter(rows[p]["status"] for p in states).items())),
        len(states),
        len(ready),
        wall,
        sum(row["seconds"] for row in mine),
        sum(row["cpuSeconds"] for row in mine),
        cores,
    )


def make_groups(paths: Sequence[str], sizes: dict[str, int], cores: int) -> list[list[str]]:
    """Return files in groups, one a task: large files and large groups first, so the end is even.

    Each group is half of what would be a core's share of the files that are left.
    """
    ordered = sorted(paths, key=lambda p: (-sizes[p], p))
    least = max(len(ordered) // (cores * _LEAST_GROUPS), 1)
    groups, at = [], 0
    while at < len(ordered):
        size = max((len(ordered) - at) // (2 * cores), least)
        groups.append(ordered[at : at + size])
        at += size
    return groups


class _Job:
    """What a task does: sent to the workers, so it holds little."""

    def __init__(self, program: Any, run: int, home: str, products: str) -> None:
        self.program, self.run, self.home, self.products = program, run, home, products

    def __call__(self, numbered: tuple[int, list[str]]) -> int:
        from pyspark import SparkFiles, TaskContext

        number, paths = numbered
        context = TaskContext.get()
        attempt = context.attemptNumber() if context else 0
        program = self.program.value
        # On a cluster it is relative, and the program's process changes its folder.
        root = Path(SparkFiles.getRootDirectory()).resolve()
        runner = _runner(program, root, Path(self.products))
        home, name = Path(self.home), f"{self.run:04d}-{number:06d}"
        # What earlier attempts of this task wrote holds; the file of each is its own.
        done = {p for part in home.glob(f"{name}-*.arrows") for p in _read_part(part)}
        write_part(
            home / f"{name}-{attempt:02d}.arrows",
            (runner.run(path) for path in paths if path not in done),
        )
        return len(paths)


_runners: dict[tuple[str, float], ProgramRunner] = {}


def _runner(program: Program, root: Path, products: Path) -> ProgramRunner:
    """Return this worker's runner of a program, made when it first meets it.

    Another run of the same program finds it loaded.
    """
    key = (program.digest, program.timeout_s)
    if key not in _runners:
        for old in _runners.values():
            old.close()
        _runners.clear()
        _runners[key] = ProgramRunner(program, root / f"program-{program.digest}", products)
        atexit.register(_runners[key].close)
        keep_what_is_loaded()
    _runners[key].products = products
    return _runners[key]


def write_part(path: Path, outcomes: Iterable[Outcome]) -> None:
    """Write what became of files, each row as it comes: what is written stays if we are killed."""
    with path.open("wb", buffering=0) as file, pa.ipc.new_stream(file, PARTS) as writer:
        for outcome in outcomes:
            size, modified = _state(Path(outcome.path))
            row: dict[str, Any] = {
                "path": outcome.path,
                "status": outcome.status,
                "reason": outcome.reason,
                "seconds": outcome.seconds,
                "cpuSeconds": outcome.cpu_seconds,
                "bytes": size,
                "modifiedNs": modified,
                "result": outcome.result,
                "log": outcome.log,
                "table": outcome.table,
            }
            writer.write_batch(pa.RecordBatch.from_pylist([row], PARTS))


def read_parts(home: Path) -> dict[str, dict[str, Any]]:
    """Return the last row of each file, by path; whole rows of broken part files count too."""
    rows: dict[str, dict[str, Any]] = {}
    for part in sorted(home.glob("*.arrows")):
        rows |= _read_part(part)
    return rows


def _read_part(part: Path) -> dict[str, dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    try:
        # Mapped, so that tables stay on disk until they are wanted.
        with pa.ipc.open_stream(pa.memory_map(str(part))) as reader:
            for batch in reader:
                tables = [cell.as_buffer() for cell in batch.column("table")]
                light = batch.drop_columns(["table"]).to_pylist()
                for row, table in zip(light, tables, strict=True):
                    rows[row["path"]] = row | {"table": table}
    except (pa.ArrowInvalid, OSError):
        pass  # its writer was killed in mid-row, or has only begun
    return rows


def write_results(out: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write the files' rows and their tables, in the order of the rows."""
    import pyarrow.parquet as pq
    from pyarrow import csv

    light = PARTS.remove(PARTS.get_field_index("table"))
    files = pa.Table.from_pylist([{n: row[n] for n in light.names} for row in rows], light)
    pq.write_table(files, out / "files.parquet")
    csv.write_csv(files, out / "files.csv")
    for old in out.glob("rows*.parquet"):
        old.unlink()
    writers: dict[tuple[str, ...], Any] = {}
    for row in rows:
        if row["table"].size == 0:
            continue
        with pa.ipc.open_stream(row["table"]) as reader:
            table = reader.read_all()
        path = pa.array([row["path"]] * len(table), pa.string())
        table = table.add_column(0, _free_name(table.column_names), path)
        columns = tuple(map(str, table.schema))
        if columns not in writers:
            name = f"rows-{len(writers) + 1}.parquet" if writers else "rows.parquet"
            writers[columns] = pq.ParquetWriter(out / name, table.schema)
        writers[columns].write_table(table)
    for writer in writers.values():
        writer.close()


def _free_name(taken: Sequence[str]) -> str:
    return next(n for n in ("path", "filePath", "imagePath", "_path") if n not in taken)


def results(out: Path) -> list[dict[str, Any]]:
    """Return the rows of a folder of results, with `result` as Python values."""
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = pq.read_table(out / "files.parquet").to_pylist()
    for row in rows:
        row["result"] = None if row["result"] is None else json.loads(row["result"])
    return rows


def _state(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError:
        return -1, -1
    return stat.st_size, stat.st_mtime_ns


def _of(row: dict[str, Any]) -> tuple[int, int]:
    return row["bytes"], row["modifiedNs"]


def _next_run(home: Path) -> int:
    return max((int(p.name[:4]) for p in home.glob("*.arrows")), default=-1) + 1


@contextmanager
def _watched(home: Path, advance: Callable[[int], object], total: int) -> Iterator[None]:
    """Count the files done while a block runs, by the part files that grow."""
    ended = threading.Event()
    old = set(home.glob("*.arrows"))
    counts: dict[Path, tuple[int, int]] = {}

    def count() -> int:
        for part in set(home.glob("*.arrows")) - old:
            size = part.stat().st_size
            if counts.get(part, (0, 0))[0] != size:
                counts[part] = size, len(_read_part(part))
        return min(sum(n for _, n in counts.values()), total)

    def watch() -> None:
        seen = 0
        while not ended.wait(_POLL_S):
            now = count()
            advance(now - seen)
            seen = now
        advance(total - seen)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
