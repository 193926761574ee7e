"""Forced fluxes at diaObjects, in every visit that covers them, by object and time."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from broker.store import keys
from broker.store.layouts import STAMP, Shared
from broker.store.table import Row, Tables
from broker.types import Run

FORCED_SOURCES = pa.schema(
    [
        pa.field("diaForcedSourceId", pa.int64(), nullable=False),
        pa.field("diaObjectId", pa.int64(), nullable=False),
        pa.field("visit", pa.int64(), nullable=False),
        pa.field("detector", pa.int32(), nullable=False),
        pa.field("midpointMjdTai", pa.float64(), nullable=False),
        pa.field("ra", pa.float64(), nullable=False),
        pa.field("dec", pa.float64(), nullable=False),
        pa.field("psfFlux", pa.float32(), nullable=False),
        pa.field("psfFluxErr", pa.float32(), nullable=False),
        pa.field("band", pa.string(), nullable=False),
    ]
)
"""Arrow schema of diaForcedSources, with the names of the packets' `prvDiaForcedSources`."""

_CHAPTER_D = 512
"""A row holds what one object has in so many days. [d]"""

_FAMILY = b"f"
_LATEST_DAY = 1 << 20


def dia_forced_source_ids(dia_object_ids: Iterable[int], visit: int, detector: int) -> list[int]:
    """Return identifiers of forced fluxes: 63 bits of a hash of object, visit and detector."""
    return [_identifier(f"{name}|{visit}|{detector}") for name in dia_object_ids]


def _identifier(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


class ForcedStore:
    """All diaForcedSources, found by object; each is recorded once.

    Parameters
    ----------
    tables : Tables
        Where.
    run : Run
        Whose.
    """

    def __init__(self, tables: Tables, run: Run) -> None:
        self._table = tables.table(run.table("forced"))
        self._shared = Shared(tables.table(run.table("meta")))

    def record(self, table: pa.Table, object_pixels: NDArray[np.int64]) -> int:
        """Keep the forced fluxes of one image and wait until all are acknowledged.

        One that is there already stays as it is, so that a repeat, even one that knows objects
        better, changes nothing that may have been published.

        Parameters
        ----------
        table : pa.Table
            `FORCED_SOURCES`.
        object_pixels : NDArray[np.int64], shape (n_rows,)
            The pixel that each object is kept under, as `AssociationStore` has it.

        Returns
        -------
        int
            How many are new.
        """
        if table.num_rows == 0:
            return 0
        at = list(self._places(table, object_pixels))
        there = self._table.get_many(
            sorted({key for key, _ in at}), sorted({column for _, column in at})
        )
        new = [i for i, (key, column) in enumerate(at) if column not in there.get(key, {})]
        packed = self._shared.pack(table.take(pa.array(new, pa.int64())))
        rows: dict[bytes, dict[bytes, bytes]] = {}
        for i, value in zip(new, packed, strict=True):
            key, column = at[i]
            rows.setdefault(key, {})[column] = value
        self._table.put([*rows.items()], STAMP)
        return len(new)

    def _places(self, table: pa.Table, pixels: NDArray[np.int64]) -> Iterator[tuple[bytes, bytes]]:
        names = ("diaObjectId", "midpointMjdTai", "visit", "detector")
        times = keys.time_us(table["midpointMjdTai"].to_numpy()).tolist()
        columns = (table[name].to_pylist() for name in names)
        for pixel, at_us, name, mjd, visit, detector in zip(
            pixels.tolist(), times, *columns, strict=True
        ):
            key = keys.forced_key(pixel, str(name), _chapter(mjd))
            yield key, b"%s:%016x|%x|%x" % (_FAMILY, at_us, visit, detector)

    def of_objects(
        self,
        objects: Sequence[tuple[int, int]],
        *,
        start: float = 0.0,
        end: float = float(_LATEST_DAY),
    ) -> pa.Table:
        """Return the forced fluxes of objects in a span of time.

        Parameters
        ----------
        objects : sequence of (int, int)
            Identifier, and the pixel it is kept under.
        start, end : float
            start <= time < end, MJD, TAI. [d]

        Returns
        -------
        pa.Table
            `FORCED_SOURCES`, sorted by object, time, visit and detector.
        """
        values: list[bytes] = []
        if start > 0.0 and end < _LATEST_DAY:
            chapters = range(_chapter(start), _chapter(end) + 1)
            wanted = [keys.forced_key(p, str(o), c) for o, p in objects for c in chapters]
            found: Iterable[Row] = self._table.get_many(wanted).values()
        else:
            found = self._scan(objects)
        for row in found:
            values += row.values()
        if not values:
            return FORCED_SOURCES.empty_table()
        table = self._shared.unpack_many(values).select(FORCED_SOURCES.names)
        time = table["midpointMjdTai"]
        table = table.filter(pc.and_(pc.greater_equal(time, start), pc.less(time, end)))
        order = [(n, "ascending") for n in ("diaObjectId", "midpointMjdTai", "visit", "detector")]
        return table.cast(FORCED_SOURCES).sort_by(order)

    def _scan(self, objects: Sequence[tuple[int, int]]) -> Iterator[Row]:
        for name, pixel in objects:
            first, last = (keys.forced_key(pixel, str(name), c) for c in (0, _LATEST_DAY))
            for _, row in self._table.scan(first, last):
                yield row


def _chapter(mjd: float) -> int:
    return max(int(mjd), 0) // _CHAPTER_D


def pixels_of_new_objects(ra: NDArray[np.float64], dec: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the pixels that objects are kept under whose first diaSources are here. [deg]"""
    return keys.pixels(ra, dec, keys.OBJECT_ORDER)
