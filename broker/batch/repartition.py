"""A catalogue in parts of the sky or of space: exact, and the same bytes however it is made.

Each entry has a key: its HEALPix pixel, the bits of its distance, or its cell of an octree. Keys
are counted by their first bits, and what holds too many is divided further; so borders come from
all entries, where Spark's own ranges come from a sample. Then one task puts one part together,
sorted by key and id.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from broker.batch import kd_tree
from broker.batch.blocks import Source, blocks, collect, each, source, spans
from broker.batch.keys import (
    HEALPIX,
    KD_TREE,
    OCTREE,
    SHELLS,
    Counter,
    KeyArray,
    Keys,
    Parts,
    bounds_of,
    coordinates,
    equal_parts,
    shell_parts,
    tree_parts,
)
from broker.catalog.distance import Distance
from broker.catalog.space import half_side
from broker.catalog.table_files import write_table
from broker.errors import ConfigError

KINDS = (HEALPIX, SHELLS, OCTREE, KD_TREE)
MOST_PARTS = 100_000

LIST = "partitions.csv"
_ROW_GROUP = 131_072


def repartition(
    spark: SparkSession,
    path: Path,
    name: str,
    out: Path,
    *,
    by: str,
    distance: Distance | None = None,
    rows_per_part: int = 1_000_000,
    edges: tuple[float, ...] = (),
) -> pa.Table:
    """Write a catalogue as one Parquet file for each part of the sky or of space.

    Parameters
    ----------
    spark : SparkSession
    path : Path
        Folder of all catalogues.
    name : str
        The catalogue.
    out : Path
        A folder that is made; on a cluster, all machines see it.
    by : str
        One of `KINDS`: pixels of HEALPix, shells around the origin, cells of an octree, leaves of
        a k-d tree.
    distance : Distance, optional
        Needed for shells and octree; entries without a distance are left out. A k-d tree without
        one divides right ascension and declination.
    rows_per_part : int
        A pixel or a cell that holds more is divided; shells are made of that many entries each, as
        near as entries at the same distance allow. Leaves of a k-d tree, a power of two, hold as
        many as each other or one more, as near as equal coordinates allow.
    edges : tuple of float
        Borders of the shells in the unit of the column, instead of shells of equal content.

    Returns
    -------
    pa.Table
        What `partitions.csv` in the folder has: `file` (null for an empty shell), `entries`, bounds
        as of `broker.batch.keys.bounds_of`, `sha256`.

    Raises
    ------
    ConfigError
        If the folder exists, or what was asked for is not possible.
    """
    _check(by, distance, rows_per_part, edges, out)
    of = source(path, name)
    half = half_side(_longest(spark, of, distance)) if by == OCTREE and distance else 0.0
    keys = Keys(by, distance, half)
    if distance is not None:
        distance.values(of.rows(), 0, 0)  # a column that is not there is told now
    if by == KD_TREE:
        axes, most = 3 if distance else 2, MOST_PARTS + 1
        splits = kd_tree.halved(_node_counter(spark, of, distance), axes, rows_per_part, most)
        keys = Keys(by, distance, splits=splits)
        leaf = np.arange(2 ** len(splits.levels), dtype=np.uint64)
        parts = Parts(leaf, leaf + np.uint64(1))
    else:
        counter = _counter(spark, of, keys)
        parts = shell_parts(edges) if edges else _divided(counter, keys, rows_per_part)
    if not 0 < len(parts) <= MOST_PARTS:
        raise ConfigError(f"{name} makes {len(parts)} parts, not 1 to {MOST_PARTS}")
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    listed = _write(spark, of, keys, parts, partial)
    write_table(listed, partial / LIST)
    partial.rename(out)
    return listed


def _check(
    by: str, distance: Distance | None, rows_per_part: int, edges: tuple[float, ...], out: Path
) -> None:
    if by not in KINDS:
        raise ConfigError(f"{by} is none of {', '.join(KINDS)}")
    if by != KD_TREE and (distance is None) != (by == HEALPIX):
        raise ConfigError(f"parts by {by} {'have no' if by == HEALPIX else 'need a'} distance")
    if edges and by != SHELLS:
        raise ConfigError(f"borders are of shells, not of {by}")
    if rows_per_part < 1:
        raise ConfigError(f"{rows_per_part} rows a part: it must be 1 or more")
    if out.exists():
        raise ConfigError(f"{out} exists already; name a new folder", path=str(out))


def _longest(spark: SparkSession, of: Source, distance: Distance) -> float:
    """Return the largest distance of all entries, in the unit of lengths."""

    def work(first: int, end: int) -> pa.RecordBatch:
        value = distance.values(of.rows(), first, end)
        value = value[np.isfinite(value)]
        return pa.record_batch({"longest": [float(value.max(initial=-1.0))]})

    distance.values(of.rows(), 0, 0)
    most = collect(spark, spans(len(of.rows())), work)["longest"].max()
    if most < 0.0:
        raise ConfigError(f"no entry of {of.name} has a {distance.column}")
    return float(distance.lengths(most))


def _divided(count: Counter, keys: Keys, limit: int) -> Parts:
    return equal_parts(count, limit) if keys.by == SHELLS else tree_parts(count, keys.shifts, limit)


def _counter(spark: SparkSession, of: Source, keys: Keys) -> Counter:
    """Return what counts keys by their first bits, in one pass over the catalogue."""

    def count(shift: int, prefixes: KeyArray | None, prefix_shift: int) -> tuple[KeyArray, Any]:
        def work(first: int, end: int) -> pa.RecordBatch:
            _, key = keys.of(of.rows(), first, end)
            if prefixes is not None:
                key = key[np.isin(_above(key, prefix_shift), prefixes)]
            cells, counts = np.unique(_above(key, shift), return_counts=True)
            return pa.record_batch({"cell": cells.astype(np.int64), "entries": counts})

        got = collect(spark, spans(len(of.rows())), work)
        cells, place = np.unique(got["cell"].astype(np.uint64), return_inverse=True)
        total = np.zeros(cells.size, np.int64)
        np.add.at(total, place, got["entries"])
        return cells, total

    return count


def _node_counter(
    spark: SparkSession, of: Source, distance: Distance | None
) -> kd_tree.NodeCounter:
    """Return what counts the digits of coordinates by leaf, in one pass over the catalogue."""

    def count(
        splits: kd_tree.Splits, axis: int, prefixes: KeyArray | None, shift: int
    ) -> tuple[Any, Any]:
        def work(first: int, end: int) -> pa.RecordBatch:
            _, places = coordinates(distance, of.rows(), first, end)
            cell, counts = kd_tree.digits(places, splits, axis, prefixes, shift)
            return pa.record_batch({"cell": cell, "entries": counts})

        got = collect(spark, spans(len(of.rows())), work)
        cells, place = np.unique(got["cell"], return_inverse=True)
        total = np.zeros(cells.size, np.int64)
        np.add.at(total, place, got["entries"])
        return cells, total

    return count


def _above(key: KeyArray, shift: int) -> KeyArray:
    return key >> np.uint64(shift) if shift < 64 else np.zeros_like(key)


def _write(spark: SparkSession, of: Source, keys: Keys, parts: Parts, folder: Path) -> pa.Table:
    """Write the parts, each by one task; return their list."""
    bounds = bounds_of(keys, parts)

    def assign(first: int, end: int) -> Iterator[pa.RecordBatch]:
        row, key = keys.of(of.rows(), first, end)
        part = parts.of(key)
        inside = part >= 0
        yield pa.record_batch(
            {"part": part[inside], "key": key[inside].astype(np.int64), "row": row[inside]}
        )

    def together(some: pa.Table) -> pa.Table:
        part = some.column("part")[0].as_py()
        rows = of.rows()
        row = some.column("row").to_numpy()
        order = np.lexsort((rows.rank[row], some.column("key").to_numpy()))
        about = {"part": part, "by": keys.by, **{n: v[part].item() for n, v in bounds.items()}}
        digest = _write_part(
            rows.entries.take(pa.array(row[order])),
            folder / _file(part),
            {**about, "entries": row.size},
        )
        return pa.table({"part": [part], "entries": [row.size], "sha256": [digest]})

    assigned = blocks(spark, spans(len(of.rows()))).mapInArrow(
        each(assign), "part long, key long, row long"
    )
    written = assigned.groupBy("part").applyInArrow(
        together, "part long, entries long, sha256 string"
    )
    done = {row["part"]: row for row in written.toArrow().to_pylist()}
    numbers = range(len(parts))
    columns = {
        "file": pa.array([_file(p) if p in done else None for p in numbers], pa.string()),
        "entries": pa.array([done[p]["entries"] if p in done else 0 for p in numbers], pa.int64()),
        **bounds,
        "sha256": pa.array(
            [done[p]["sha256"] if p in done else None for p in numbers], pa.string()
        ),
    }
    return pa.table(columns)


def _file(part: int) -> str:
    return f"{part:06d}.parquet"


def _write_part(table: pa.Table, path: Path, about: dict[str, Any]) -> str:
    """Write one Parquet file, whole or not at all; return the SHA-256 of its bytes."""
    metadata = {f"partition.{name}": str(value) for name, value in about.items()}
    table = table.combine_chunks().replace_schema_metadata(metadata)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    pq.write_table(table, partial, row_group_size=_ROW_GROUP, compression="zstd")
    with partial.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    partial.replace(path)
    return digest
