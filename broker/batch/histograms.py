"""Statistics of a column by HEALPix pixel: how many, their sum, mean and quantiles.

A task has all entries of some whole pixels, so sums are added in one order and quantiles are
exact, whatever the number of workers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import SparkSession

from broker.batch import blocks
from broker.batch.density import LARGEST_ORDER
from broker.catalog.cone import rows_in_pixels
from broker.catalog.healpix import FINEST_ORDER, Floats
from broker.catalog.partition import Rows
from broker.errors import ConfigError

_Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Histogram:
    """A column by nested pixel; arrays have shape (12 * 4**order,).

    Parameters
    ----------
    counts : NDArray[np.int64]
        Entries.
    known : NDArray[np.int64]
        Entries that have a finite value.
    total, mean : NDArray[np.float64]
        Of the values, in the column's unit; NaN where there is none.
    quantiles : dict of float to NDArray[np.float64]
        Between values by straight lines, as `numpy.quantile` has them; NaN where there is none.
    """

    counts: _Ints
    known: _Ints
    total: Floats
    mean: Floats
    quantiles: dict[float, Floats] = field(default_factory=dict)


def histogram(
    spark: SparkSession,
    path: Path,
    name: str,
    column: str,
    *,
    order: int,
    quantiles: Sequence[float] = (),
) -> Histogram:
    """Return the statistics of a column in every HEALPix pixel of an order.

    Parameters
    ----------
    spark : SparkSession
    path : Path
        Folder of all catalogues.
    name : str
        The catalogue.
    column : str
        An attached column of numbers; null, NaN and infinite values are left out.
    order : int
        0 to `LARGEST_ORDER`.
    quantiles : sequence of float
        From 0 to 1.

    Raises
    ------
    ConfigError
        If the order, a quantile or the column is not possible.
    """
    if not 0 <= order <= LARGEST_ORDER:
        raise ConfigError(f"order {order} is not possible: 0 to {LARGEST_ORDER}")
    if not all(0.0 <= q <= 1.0 for q in quantiles):
        raise ConfigError(f"quantiles are from 0 to 1: not {', '.join(map(str, quantiles))}")
    of = blocks.source(path, name)
    rows = of.rows()
    _check_numbers(rows, column)
    names = ["pixel", "entries", "known", "total", *(f"q{i}" for i in range(len(quantiles)))]

    def work(first: int, end: int) -> pa.RecordBatch:
        found = statistics(of.rows(), column, order, (first, end), quantiles)
        return pa.record_batch(found, names=names)

    got = blocks.collect(spark, whole_pixels(rows, order), work)

    def spread(values: NDArray[np.float64]) -> Floats:
        every = np.full(12 * 4**order, np.nan)
        every[got["pixel"]] = values
        return every

    counts, known = (np.zeros(12 * 4**order, np.int64) for _ in range(2))
    counts[got["pixel"]], known[got["pixel"]] = got["entries"], got["known"]
    total = spread(got["total"])
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = total / known
    found = {q: spread(got[f"q{i}"]) for i, q in enumerate(quantiles)}
    return Histogram(counts, known, total, mean, found)


def _check_numbers(rows: Rows, column: str) -> None:
    if column not in rows.entries.column_names:
        raise ConfigError(f"{rows.name} has no column {column}")
    kind = rows.table.column(column).type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
        raise ConfigError(f"{column} of {rows.name} is {kind}, not a number")


def whole_pixels(rows: Rows, order: int) -> list[tuple[int, int]]:
    """Return ranges of pixels of an order that cover the sky, each with about a block of rows."""
    shift = np.uint64(2 * (FINEST_ORDER - order))
    at = [rows.pixels[a : b : blocks.BLOCK] for a, b in ((x.first, x.end) for x in rows.layers)]
    inner = np.unique(np.concatenate(at) >> shift).astype(np.int64)
    edges = np.unique(np.concatenate([[0], inner, [12 * 4**order]])).tolist()
    return list(pairwise(edges))


def statistics(
    rows: Rows,
    column: str,
    order: int,
    pixels: tuple[int, int],
    quantiles: Sequence[float] = (),
) -> list[NDArray[np.generic]]:
    """Return pixel, entries, known, total and quantiles of the pixels of a range with entries."""
    shift = np.uint64(2 * (FINEST_ORDER - order))
    first, end = (np.array([p], np.uint64) << shift for p in pixels)
    row = rows_in_pixels(rows, first, end)
    pixel = (rows.pixels[row] >> shift).astype(np.int64)
    taken = rows.table.column(column).take(pa.array(row)).cast(pa.float64(), safe=False)
    value = pc.fill_null(taken, np.nan).to_numpy()
    found, entries = np.unique(pixel, return_counts=True)
    finite = np.isfinite(value)
    pixel, value = pixel[finite], value[finite]
    in_order = np.lexsort((value, pixel))
    value = value[in_order]
    start = np.searchsorted(pixel[in_order], found)
    known = np.searchsorted(pixel[in_order], found, side="right") - start
    some = known > 0
    total = np.full(found.size, np.nan)
    if some.any():
        total[some] = np.add.reduceat(value, start[some])
    columns: list[NDArray[np.generic]] = [found, entries, known, total]
    for q in quantiles:
        level = np.full(found.size, np.nan)
        level[some] = _quantile(value, start[some], known[some], q)
        columns.append(level)
    return columns


def _quantile(value: Floats, start: _Ints, known: _Ints, q: float) -> Floats:
    """Return a quantile of runs of sorted values, as numpy's linear method rounds it."""
    place = q * (known - 1)
    low = np.floor(place).astype(np.int64)
    part = place - low
    a, b = value[start + low], value[start + np.minimum(low + 1, known - 1)]
    return np.where(part < 0.5, a + (b - a) * part, b - (b - a) * (1.0 - part))
