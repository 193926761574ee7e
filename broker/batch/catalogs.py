"""Batch work on installed catalogues: the same code on a laptop and on a cluster.

Spark hands out blocks of rows, and a worker looks neighbours up in the index that it maps. So
there is no shuffle and there are no margins: what is across the border of a block is found as
what is within.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame, SparkSession

from broker.batch.blocks import AT_ONCE, blocks, collect, each, rows_of, source, spans
from broker.batch.clusters import NOISE, block_clusters, core_rows, join_parts
from broker.batch.density import LARGEST_ORDER, pixel_counts
from broker.catalog.crossmatch import within
from broker.catalog.distance import Distance
from broker.catalog.neighbours import nearest_k, pairs_within
from broker.catalog.partition import Rows
from broker.catalog.space import Space
from broker.catalog.windows import Window, rows_in_window
from broker.errors import ConfigError

_PAIRS = pa.schema(
    [("leftId", pa.string()), ("rightId", pa.string()), ("separation", pa.float64())]
)


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
    of_left, of_right = source(path, left), source(path, right)

    def work(first: int, end: int) -> Iterator[pa.RecordBatch]:
        a, b = of_left.rows(), of_right.rows()
        for start in range(first, end, AT_ONCE):
            some = slice(start, min(start + AT_ONCE, end))
            if radius_arcsec is None:
                at, row, separation = within(b, a.ra[some], a.dec[some], k=k)
            else:
                at, row, separation = pairs_within(b, a.ra[some], a.dec[some], radius_arcsec)
                kept = _numbers(at) < k if k is not None else slice(None)
                at, row, separation = at[kept], row[kept], separation[kept]
            yield _pair_batch(a, b, at + start, row, separation)

    ends = spans(len(of_left.rows()))
    return blocks(spark, ends).mapInArrow(each(work), sql_of(_PAIRS))


def neighbours(
    spark: SparkSession,
    path: Path,
    left: str,
    right: str,
    *,
    k: int,
    distance: Distance | None = None,
) -> DataFrame:
    """Return the k entries of one catalogue nearest to each of another, however far.

    Parameters
    ----------
    spark, path, left, right
        As of `crossmatch`. In a join of a catalogue with itself an entry is its own first
        neighbour.
    k : int
        How many; all if there are fewer.
    distance : Distance, optional
        Search in space: both catalogues have the column, and entries without a distance are left
        out. Separations are then lengths, in Mpc for comoving ones. Default: on the sky.
    """
    of_left, of_right = source(path, left), source(path, right)

    def on_sky(first: int, end: int) -> Iterator[pa.RecordBatch]:
        a, b = of_left.rows(), of_right.rows()
        for start in range(first, end, AT_ONCE):
            some = slice(start, min(start + AT_ONCE, end))
            at, row, separation = nearest_k(b, a.ra[some], a.dec[some], k)
            yield _pair_batch(a, b, at + start, row, separation)

    def in_space(first: int, end: int) -> Iterator[pa.RecordBatch]:
        assert distance is not None  # noqa: S101 - it is used with one only
        a, b = of_left.space(distance), of_right.space(distance)
        for start in range(first, end, AT_ONCE):
            some = slice(start, min(start + AT_ONCE, end))
            at, entry, separation = b.nearest_to_places(a.xyz[some], k)
            yield _pair_batch(a.rows, b.rows, a.row[at + start], b.row[entry], separation)

    if distance is None:
        return blocks(spark, spans(len(of_left.rows()))).mapInArrow(each(on_sky), sql_of(_PAIRS))
    of_right.space(distance)
    ends = spans(len(of_left.space(distance)))
    return blocks(spark, ends).mapInArrow(each(in_space), sql_of(_PAIRS))


def clusters(
    spark: SparkSession,
    path: Path,
    name: str,
    *,
    radius_arcsec: float | None = None,
    min_points: int,
    radius: float | None = None,
    distance: Distance | None = None,
) -> pa.Table:
    """Find density clusters, as DBSCAN does, exactly.

    Parameters
    ----------
    spark : SparkSession
    path : Path
        Folder of all catalogues.
    name : str
        The catalogue.
    radius_arcsec : float, optional
        Reach of an entry on the sky. [arcsec]
    min_points : int
        An entry with as many within its reach, itself one, is core.
    radius : float, optional
        Reach in space, in Mpc for comoving lengths; with `distance` instead of `radius_arcsec`.
    distance : Distance, optional
        Search in space; entries without a distance are left out.

    Returns
    -------
    pa.Table
        `id`, `cluster` (0, 1, …, or -1 for noise) and `isCore`, in the order of the catalogue's
        rows. A border entry is in the cluster of its nearest core entry.

    Raises
    ------
    ConfigError
        If the radius is missing, negative or NaN, or the catalogue has no such distances.
    """
    reach = radius_arcsec if distance is None else radius
    if reach is None or not reach >= 0.0:
        raise ConfigError(f"the radius of clusters is {reach}; it must be 0 or more")
    of = source(path, name)

    def entries() -> Rows | Space:
        return of.rows() if distance is None else of.space(distance)

    every = entries()
    core, cluster = _cluster(spark, entries, len(every), reach, min_points)
    if isinstance(every, Space):
        order = np.argsort(every.row)
        core, cluster = core[order], _renumbered(cluster[order], core[order])
        ids = every.rows.table.column("id").take(pa.array(every.row[order]))
        return pa.table({"id": ids, "cluster": cluster, "isCore": core})
    return pa.table({"id": every.table.column("id"), "cluster": cluster, "isCore": core})


def _cluster(
    spark: SparkSession, entries: Any, n: int, reach: float, min_points: int
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Return which entries are core, and the cluster of each."""

    def find_core(first: int, end: int) -> pa.RecordBatch:
        found = core_rows(entries(), first, end, radius=reach, min_points=min_points)
        return pa.record_batch({"row": np.arange(first, end)[found]})

    core = np.zeros(n, dtype=bool)
    core[collect(spark, spans(n), find_core)["row"]] = True
    shared = spark.sparkContext.broadcast(np.packbits(core))

    def find_parts(first: int, end: int) -> pa.RecordBatch:
        every = np.unpackbits(shared.value, count=n).view(bool)
        found = block_clusters(entries(), first, end, every, radius=reach)
        pairs = np.stack([np.arange(first, end), found.part], axis=1)
        a, b = np.concatenate([pairs, found.links]).T
        is_link = np.arange(a.size) >= end - first
        return pa.record_batch({"isLink": is_link, "a": a, "b": b})

    got = collect(spark, spans(n), find_parts)
    is_link = got["isLink"]
    part = np.empty(n, dtype=np.int64)
    part[got["a"][~is_link]] = got["b"][~is_link]
    links = np.stack([got["a"][is_link], got["b"][is_link]], axis=1)
    shared.unpersist()
    return core, join_parts(part, links)


def _renumbered(cluster: NDArray[np.int64], core: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return clusters with the numbers that the order of their first core entries gives."""
    found, first = np.unique(cluster[core], return_index=True)
    number = np.full(cluster.max(initial=0) + 1, NOISE)
    number[found[np.argsort(first)]] = np.arange(found.size)
    return np.where(cluster == NOISE, NOISE, number[cluster])


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
    of = source(path, name)

    def work(first: int, end: int) -> pa.RecordBatch:
        found, counts = pixel_counts(of.rows().pixels[first:end], order)
        return pa.record_batch({"pixel": found, "entries": counts})

    got = collect(spark, spans(len(of.rows())), work)
    total = np.zeros(12 * 4**order, dtype=np.int64)
    np.add.at(total, got["pixel"], got["entries"])
    return total


def window(spark: SparkSession, path: Path, name: str, windows: Sequence[Window]) -> DataFrame:
    """Return a catalogue's entries that are in all of some windows.

    Parameters
    ----------
    spark : SparkSession
    path : Path
        Folder of all catalogues.
    name : str
        The catalogue.
    windows : sequence of Window
        One or more, of `broker.catalog.windows`.

    Returns
    -------
    DataFrame
        `id`, `ra`, `dec` and the attached columns, in the order of the catalogue's rows.
    """
    of = source(path, name)
    rows = of.rows()
    schema = _plain(rows.entries.slice(0, 0)).schema
    for one in windows:
        if one.distance is not None:
            one.distance.values(rows, 0, 0)  # a column that is not there is told now

    def work(first: int, end: int) -> Iterator[pa.RecordBatch]:
        every = of.rows()
        row = rows_in_window(every, windows, first, end)
        taken = _plain(every.entries.take(pa.array(row)))
        yield from taken.combine_chunks().to_batches()

    from pyspark.sql.pandas.types import from_arrow_schema

    return blocks(spark, spans(len(rows))).mapInArrow(each(work), from_arrow_schema(schema))


def _plain(table: pa.Table) -> pa.Table:
    """Return a table whose texts are of the type that Spark has."""
    fields = [
        field.with_type(pa.string()) if pa.types.is_large_string(field.type) else field
        for field in table.schema
    ]
    return table.cast(pa.schema(fields))


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


def sql_of(schema: pa.Schema) -> str:
    """Return a schema in Spark's words."""
    kinds = {pa.string(): "string", pa.float64(): "double", pa.int64(): "long"}
    return ", ".join(f"{field.name} {kinds[field.type]}" for field in schema)


__all__ = ["clusters", "crossmatch", "density", "neighbours", "rows_of", "sql_of", "window"]
