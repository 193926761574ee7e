"""Batch work on installed catalogues: the same code on a laptop and on a cluster.

Spark hands out blocks of rows. A worker maps the catalogues from the folder of catalogues, which
on a cluster is a file system that all machines share, and looks neighbours up in their index. So
there is no shuffle and there are no margins: what is across the border of a block is found as
what is within.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame, SparkSession

from broker.batch.clusters import block_clusters, core_rows, join_parts
from broker.batch.density import LARGEST_ORDER, pixel_counts
from broker.catalog.crossmatch import within
from broker.catalog.neighbours import nearest_k, pairs_within
from broker.catalog.partition import Rows
from broker.catalog.registry import Catalogs
from broker.errors import ConfigError

BLOCK = 100_000
"""Rows that a worker takes at a time."""

_AT_ONCE = 20_000
_PAIRS = pa.schema(
    [("leftId", pa.string()), ("rightId", pa.string()), ("separation", pa.float64())]
)

Work = Callable[[int, int], Iterator[pa.RecordBatch]]


def rows_of(path: Path, name: str) -> Rows:
    """Return an installed catalogue's rows; ConfigError if it has none."""
    rows = Catalogs(path).rows(name)
    if rows is None:
        raise ConfigError(f"the catalogue {name} has no rows: `broker catalog add`", catalog=name)
    return rows


def crossmatch(
    spark: SparkSession,
    path: Path,
    left: str,
    right: str,
    *,
    radius_arcsec: float | None = None,
    k: int | None = None,
) -> DataFrame:
    """Join two catalogues by place.

    Parameters
    ----------
    spark : SparkSession
    path : Path
        Folder of all catalogues.
    left, right : str
        Their names.
    radius_arcsec : float, optional
        One radius for all; default each right entry's own. [arcsec]
    k : int, optional
        The k nearest only; default all.

    Returns
    -------
    DataFrame
        leftId, rightId, separation [arcsec]: for a left entry nearest first, then by rightId.
    """

    def work(first: int, end: int) -> Iterator[pa.RecordBatch]:
        a, b = rows_of(path, left), rows_of(path, right)
        for start in range(first, end, _AT_ONCE):
            some = slice(start, min(start + _AT_ONCE, end))
            if radius_arcsec is None:
                at, row, separation = within(b, a.ra[some], a.dec[some], k=k)
            else:
                at, row, separation = pairs_within(b, a.ra[some], a.dec[some], radius_arcsec)
                kept = _numbers(at) < k if k is not None else slice(None)
                at, row, separation = at[kept], row[kept], separation[kept]
            yield _pair_batch(a, b, at + start, row, separation)

    rows_of(path, right)
    return _blocks(spark, len(rows_of(path, left))).mapInArrow(_each(work), _sql(_PAIRS))


def neighbours(spark: SparkSession, path: Path, left: str, right: str, *, k: int) -> DataFrame:
    """Return the k entries of one catalogue nearest to each of another, however far.

    The columns are those of `crossmatch`. In a join of a catalogue with itself an entry is its
    own first neighbour.
    """

    def work(first: int, end: int) -> Iterator[pa.RecordBatch]:
        a, b = rows_of(path, left), rows_of(path, right)
        for start in range(first, end, _AT_ONCE):
            some = slice(start, min(start + _AT_ONCE, end))
            at, row, separation = nearest_k(b, a.ra[some], a.dec[some], k)
            yield _pair_batch(a, b, at + start, row, separation)

    rows_of(path, right)
    return _blocks(spark, len(rows_of(path, left))).mapInArrow(_each(work), _sql(_PAIRS))


def clusters(
    spark: SparkSession, path: Path, name: str, *, radius_arcsec: float, min_points: int
) -> pa.Table:
    """Find density clusters, as DBSCAN does, exactly.

    Parameters
    ----------
    spark : SparkSession
    path : Path
        Folder of all catalogues.
    name : str
        The catalogue.
    radius_arcsec : float
        Reach of an entry. [arcsec]
    min_points : int
        An entry with as many within its reach, itself one, is core.

    Returns
    -------
    pa.Table
        `id`, `cluster` (0, 1, …, or -1 for noise) and `isCore`, in the order of the catalogue's
        rows. A border entry is in the cluster of its nearest core entry.
    """
    rows = rows_of(path, name)

    def find_core(first: int, end: int) -> Iterator[pa.RecordBatch]:
        found = core_rows(
            rows_of(path, name), first, end, radius_arcsec=radius_arcsec, min_points=min_points
        )
        yield pa.record_batch({"row": np.arange(first, end)[found]})

    core = np.zeros(len(rows), dtype=bool)
    core[_collect(spark, len(rows), find_core, "row long")["row"]] = True
    shared = spark.sparkContext.broadcast(np.packbits(core))

    def find_parts(first: int, end: int) -> Iterator[pa.RecordBatch]:
        whole = rows_of(path, name)
        every = np.unpackbits(shared.value, count=len(whole)).view(bool)
        found = block_clusters(whole, first, end, every, radius_arcsec=radius_arcsec)
        mine = np.arange(first, end)
        yield _triples(np.zeros(end - first, np.int64), mine, found.part)
        yield _triples(np.ones(len(found.links), np.int64), found.links[:, 0], found.links[:, 1])

    got = _collect(spark, len(rows), find_parts, "kind long, a long, b long")
    is_link = got["kind"] == 1
    part = np.empty(len(rows), dtype=np.int64)
    part[got["a"][~is_link]] = got["b"][~is_link]
    links = np.stack([got["a"][is_link], got["b"][is_link]], axis=1)
    cluster = join_parts(part, links)
    shared.unpersist()
    return pa.table({"id": rows.table.column("id"), "cluster": cluster, "isCore": core})


def density(spark: SparkSession, path: Path, name: str, *, order: int) -> NDArray[np.int64]:
    """Count a catalogue's entries in every HEALPix pixel of an order.

    Returns
    -------
    NDArray[np.int64], shape (12 * 4**order,)
        By nested pixel number.

    Raises
    ------
    ConfigError
        If the order is not 0 to `LARGEST_ORDER`.
    """
    if not 0 <= order <= LARGEST_ORDER:
        raise ConfigError(f"order {order} is not possible: 0 to {LARGEST_ORDER}")

    def work(first: int, end: int) -> Iterator[pa.RecordBatch]:
        found, counts = pixel_counts(rows_of(path, name).pixels[first:end], order)
        yield pa.record_batch({"pixel": found, "entries": counts})

    got = _collect(spark, len(rows_of(path, name)), work, "pixel long, entries long")
    total = np.zeros(12 * 4**order, dtype=np.int64)
    np.add.at(total, got["pixel"], got["entries"])
    return total


def _numbers(sorted_groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the place of each element within its run of equal ones."""
    first = np.flatnonzero(np.diff(sorted_groups, prepend=-1))
    lengths = np.diff(first, append=sorted_groups.size)
    return np.arange(sorted_groups.size) - np.repeat(first, lengths)


def _pair_batch(a: Rows, b: Rows, at: Any, row: Any, separation: Any) -> pa.RecordBatch:
    ids = [r.table.column("id").take(pa.array(i)) for r, i in ((a, at), (b, row))]
    table = pa.table([*ids, separation], names=_PAIRS.names).cast(_PAIRS)
    return (
        table.combine_chunks().to_batches()[0]
        if len(table)
        else _PAIRS.empty_table().to_batches()[0]
    )


def _triples(kind: Any, a: Any, b: Any) -> pa.RecordBatch:
    return pa.record_batch({"kind": kind, "a": a, "b": b})


def _blocks(spark: SparkSession, n_rows: int) -> DataFrame:
    n_blocks = max(1, -(-n_rows // BLOCK))
    ends = [(k * BLOCK, min((k + 1) * BLOCK, n_rows)) for k in range(n_blocks)]
    listed = spark.sparkContext.parallelize(ends, n_blocks)
    return spark.createDataFrame(listed, "first long, end long")


def _each(work: Work) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for first, end in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                yield from work(first, end)

    return run


def _collect(spark: SparkSession, n_rows: int, work: Work, sql: str) -> dict[str, Any]:
    found = _blocks(spark, n_rows).mapInArrow(_each(work), sql).toArrow()
    return {name: found.column(name).to_numpy() for name in found.column_names}


def _sql(schema: pa.Schema) -> str:
    kinds = {pa.string(): "string", pa.float64(): "double"}
    return ", ".join(f"{field.name} {kinds[field.type]}" for field in schema)
