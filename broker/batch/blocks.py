"""How Spark hands out the rows of an installed catalogue: in blocks of a fixed size.

A worker maps the catalogue from the folder of catalogues, which on a cluster is a file system that
all machines share. Blocks depend on the catalogue alone, so answers do not depend on workers.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from broker.catalog.distance import Distance
from broker.catalog.partition import Rows, stamp
from broker.catalog.registry import Catalogs
from broker.catalog.space import Space, open_space
from broker.errors import ConfigError

BLOCK = 100_000
"""Rows that a worker takes at a time."""

AT_ONCE = 20_000
"""Rows that it looks up at a time."""

Work = Callable[[int, int], Iterator[pa.RecordBatch]]


def rows_of(path: Path, name: str) -> Rows:
    """Return an installed catalogue's rows; ConfigError if it has none."""
    rows = Catalogs(path).rows(name)
    if rows is None:
        raise ConfigError(f"the catalogue {name} has no rows: `broker catalog add`", catalog=name)
    return rows


@dataclass(frozen=True)
class Source:
    """One version of an installed catalogue, opened by workers again and again.

    Parameters
    ----------
    path : Path
        Folder of all catalogues.
    name : str
        The catalogue.
    version : tuple of int
        What `stamp` said when the work began.
    """

    path: Path
    name: str
    version: tuple[int, int] | None

    def rows(self) -> Rows:
        """Open its rows.

        Raises
        ------
        ConfigError
            If there are none, or it is another version by now: answers would mix the two.
        """
        return self._same(rows_of(self.path, self.name))

    def space(self, distance: Distance) -> Space:
        """Open its entries in space; ConfigError as of `rows`."""
        self.rows()
        found = open_space(self.path, self.name, distance)
        self._same(found.rows)
        return found

    def _same(self, rows: Rows) -> Rows:
        if stamp(self.path / self.name) != self.version:
            raise ConfigError(
                f"the catalogue {self.name} was replaced while it was worked on; start again",
                catalog=self.name,
            )
        return rows


def source(path: Path, name: str) -> Source:
    """Return the current version of an installed catalogue; ConfigError if it has no rows."""
    found = Source(path, name, stamp(path / name))
    rows_of(path, name)
    return found


def spans(n_rows: int, block: int | None = None) -> list[tuple[int, int]]:
    """Return the first row of each block and the one after its last; at least one block."""
    size = BLOCK if block is None else block
    return [(a, min(a + size, n_rows)) for a in range(0, max(n_rows, 1), size)]


def blocks(spark: SparkSession, ends: list[tuple[int, int]]) -> DataFrame:
    """Return spans as rows `first`, `end`, each a task of its own."""
    listed = spark.sparkContext.parallelize(ends, max(1, len(ends)))
    return spark.createDataFrame(listed, "first long, end long")


def each(work: Work) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Return what `mapInArrow` wants: the work on each span of `blocks`."""

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for first, end in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                yield from work(first, end)

    return run


def collect(
    spark: SparkSession, ends: list[tuple[int, int]], work: Callable[[int, int], pa.RecordBatch]
) -> dict[str, Any]:
    """Return the columns of what the work on all spans gives, in the order of spans.

    A span's answer travels as one value of bytes: as rows, each would be turned into Spark's form
    and back, which takes longer than most work.
    """

    def packed(first: int, end: int) -> Iterator[pa.RecordBatch]:
        yield pa.record_batch({"first": [first], "answer": [_to_bytes(work(first, end))]})

    found = blocks(spark, ends).mapInArrow(each(packed), "first long, answer binary").toArrow()
    order = np.argsort(found.column("first").to_numpy())
    answers = found.column("answer")
    tables = [pa.ipc.open_stream(answers[k].as_buffer()).read_all() for k in order.tolist()]
    table = pa.concat_tables(tables)
    return {name: table.column(name).to_numpy() for name in table.column_names}


def _to_bytes(batch: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    ways = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.ipc.new_stream(sink, batch.schema, options=ways) as stream:
        stream.write_batch(batch)
    return bytes(sink.getvalue().to_pybytes())
