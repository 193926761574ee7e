"""What the images query remembers: diaSources by diaObject and place, and detectors that were done.

Only the images query writes here.
"""

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from broker.errors import ConfigError
from broker.store import keys
from broker.store.keys import parse_coordinate
from broker.store.layouts import STAMP, Shared
from broker.store.retractions import Retraction
from broker.store.table import Row, Tables
from broker.types import Coordinate, Run
from broker.units import ARCSEC_PER_DEG, separation_arcsec

_ROW, _MARK = b"s:v", b"s:r"
_MARGIN_ARCSEC = 10.0
"""An object is kept by its first diaSource; its others lie this near, or nearer."""

OBJECT_PIXEL = "objectPixel"
"""Column with the HEALPix pixel that an object's rows are kept under."""

IS_RETRACTED = "isRetracted"
"""Column: the diaSource was withdrawn."""

DONE, NO_TEMPLATE, FAILED = "done", "no-template", "failed"
_RANKS = {FAILED: 1, NO_TEMPLATE: 2, DONE: 3}
"""Timestamps by status: a detector that is done stays done, whatever is repeated."""

_STATE = b"d:v"
_IDS = ("diaSourceId", "diaObjectId")


class AssociationStore:
    """All diaSources, found by place, each with its diaObject.

    Parameters
    ----------
    tables : Tables
        Where.
    run : Run
        Whose.
    """

    def __init__(self, tables: Tables, run: Run) -> None:
        self._table = tables.table(run.table("association"))
        self._shared = Shared(tables.table(run.table("meta")))

    def put(self, table: pa.Table) -> None:
        """Write diaSources and wait until all are acknowledged.

        Parameters
        ----------
        table : pa.Table
            Columns `diaSourceId`, `diaObjectId`, `midpointMjdTai`, `ra`, `dec` and any others of
            scalar types. `objectPixel`, as `around` returned it, must be there for diaSources of
            known objects; it may be absent or null for an object's first diaSource, whose id is
            the object's, and for others of an object that is new in this table.

        Raises
        ------
        ConfigError
            If a row's object is neither new nor has a pixel.
        """
        if table.num_rows == 0:
            return
        pixels = _object_pixels(table)
        kept = table.drop_columns([OBJECT_PIXEL]) if OBJECT_PIXEL in table.column_names else table
        packed = self._shared.pack(kept.append_column(OBJECT_PIXEL, pa.array(pixels)))
        columns = (table[name].cast(pa.string()).to_pylist() for name in _IDS)
        times = keys.time_us(table["midpointMjdTai"].to_numpy()).tolist()
        rows = [
            (keys.source_key(pixel, object_id, at, source_id), {_ROW: value})
            for pixel, at, value, source_id, object_id in zip(
                pixels.tolist(), times, packed, *columns, strict=True
            )
        ]
        self._table.put(rows, STAMP)

    def mark(self, table: pa.Table, retractions: Sequence[Retraction]) -> None:
        """Mark diaSources as withdrawn, or as found again; nothing is deleted.

        Parameters
        ----------
        table : pa.Table
            Rows of diaSources, as `around` returned them.
        retractions : sequence of Retraction
            One for each row; of two on the same source the later one counts.
        """
        columns = (table[name].cast(pa.string()).to_pylist() for name in _IDS)
        times = keys.time_us(table["midpointMjdTai"].to_numpy()).tolist()
        rows = zip(table[OBJECT_PIXEL].to_pylist(), times, *columns, retractions, strict=True)
        self._table.put_timed(
            (
                keys.source_key(pixel, object_id, at, source_id),
                {_MARK: one.to_json()},
                keys.time_ms(one.time_withdrawn_mjd_tai),
            )
            for pixel, at, source_id, object_id, one in rows
        )

    def around(
        self, ra: float, dec: float, radius_deg: float, *, with_retracted: bool = False
    ) -> pa.Table:
        """Return all diaSources of the objects in a cone, but those that were withdrawn.

        Parameters
        ----------
        ra, dec : float
            Centre. [deg]
        radius_deg : float
            An object is in if one of its diaSources is this near; then all of them are returned.
        with_retracted : bool
            Also those that were withdrawn; the column `isRetracted` tells which.

        Returns
        -------
        pa.Table
            As it was put, with `objectPixel`; sorted by object, time and id. No columns if there
            is nothing.
        """
        radius = radius_deg * ARCSEC_PER_DEG
        values: list[bytes] = []
        retracted: list[bool] = []
        ranges = keys.cone_ranges(ra, dec, radius + _MARGIN_ARCSEC, keys.OBJECT_ORDER)
        for first, end in ranges:
            for _, row in self._table.scan(*keys.pixel_range(first, end)):
                is_retracted = _MARK in row and Retraction.from_json(row[_MARK]).is_retracted
                if with_retracted or not is_retracted:
                    values.append(row[_ROW])
                    retracted.append(is_retracted)
        if not values:
            return pa.table({})
        found = self._shared.unpack_many(values)
        if with_retracted:
            found = found.append_column(IS_RETRACTED, pa.array(retracted))
        near = separation_arcsec(ra, dec, found["ra"].to_numpy(), found["dec"].to_numpy()) <= radius
        objects = pc.unique(found["diaObjectId"].filter(pa.array(near)))
        chosen = found.filter(pc.is_in(found["diaObjectId"], value_set=objects))
        order = [(n, "ascending") for n in ("diaObjectId", "midpointMjdTai", "diaSourceId")]
        return chosen.sort_by(order)


@dataclass(frozen=True)
class DetectorRow:
    """What became of one detector of one visit.

    Parameters
    ----------
    visit, detector : int
        Which.
    status : str
        `done`, `no-template` or `failed`.
    n_alerts : int
        Alerts that were made from it.
    reason : str
        Why there are none, if it was not done.
    origins : tuple of (Coordinate, str)
        The messages that carried it, in order, and the status that each one led to.
    first : Coordinate or None
        The message that was used; the other ones are repeats of it.
    template_version : str
        The set of templates it was compared with; a repeat uses the same.
    calibration_set : str
        The master calibrations that took the detector's signature out; empty if there was none.
    scorecard : mapping
        How good the image is, with its flags; empty if it could not be judged.
    """

    visit: int
    detector: int
    status: str
    n_alerts: int = 0
    reason: str = ""
    origins: tuple[tuple[Coordinate, str], ...] = ()
    first: Coordinate | None = None
    template_version: str = ""
    calibration_set: str = ""
    scorecard: Mapping[str, Any] = field(default_factory=dict)


class DetectorStore:
    """One row for each detector of each visit.

    Parameters
    ----------
    tables : Tables
        Where.
    run : Run
        Whose.
    """

    def __init__(self, tables: Tables, run: Run) -> None:
        self._table = tables.table(run.table("detector"))

    def put(self, rows: Sequence[DetectorRow]) -> None:
        """Write what became of detectors; origins are added to those that are there.

        A detector that is done stays so; one without a template may become done.

        Raises
        ------
        ConfigError
            If a status is unknown.
        """
        unknown = sorted({row.status for row in rows} - set(_RANKS))
        if unknown:
            raise ConfigError(f"{unknown[0]!r} is no status of a detector: use {', '.join(_RANKS)}")
        self._table.put_timed(cell for row in rows for cell in _detector_cells(row))

    def get(self, visit: int, detector: int) -> DetectorRow | None:
        """Return what became of a detector; None if nothing yet."""
        key = _detector_key(visit, detector)
        row = self._table.get(key)
        return _detector(key, row) if row else None

    def all(self) -> Iterator[DetectorRow]:
        """Yield every detector."""
        for key, row in self._table.scan():
            yield _detector(key, row)


def _object_pixels(table: pa.Table) -> NDArray[np.int64]:
    """Return the pixel of each row's object: as given, or that of its first diaSource."""
    source, thing = (table[name].cast(pa.string()) for name in _IDS)
    pixels = np.full(table.num_rows, -1, dtype=np.int64)
    if OBJECT_PIXEL in table.column_names:
        pixels = table[OBJECT_PIXEL].cast(pa.int64()).fill_null(-1).to_numpy().copy()
    first = pc.equal(source, thing).to_numpy() & (pixels < 0)
    ra, dec = table["ra"].to_numpy(), table["dec"].to_numpy()
    pixels[first] = keys.pixels(ra[first], dec[first], keys.OBJECT_ORDER)
    known = {
        name: pixel for name, pixel in zip(thing.to_pylist(), pixels, strict=True) if pixel >= 0
    }
    for i in np.flatnonzero(pixels < 0):
        name = thing[int(i)].as_py()
        if name not in known:
            raise ConfigError(
                f"diaObject {name} is not new here and has no {OBJECT_PIXEL}", dia_object_id=name
            )
        pixels[i] = known[name]
    return pixels


def _detector_key(visit: int, detector: int) -> bytes:
    name = f"{visit:016x}|{detector:04x}"
    return f"{zlib.crc32(name.encode()) % 256:02x}{name}".encode()


def _detector_cells(row: DetectorRow) -> Iterator[tuple[bytes, Row, int]]:
    key = _detector_key(row.visit, row.detector)
    state = {
        "status": row.status,
        "nAlerts": row.n_alerts,
        "reason": row.reason,
        "first": None if row.first is None else str(row.first),
        "templateVersion": row.template_version,
        "calibrationSet": row.calibration_set,
        "scorecard": dict(row.scorecard),
    }
    yield key, {_STATE: json.dumps(state).encode()}, _RANKS[row.status]
    for at, came_to in row.origins:
        yield key, {f"o:{at}".encode(): came_to.encode()}, _RANKS[came_to]


def _detector(key: bytes, row: Row) -> DetectorRow:
    visit, detector = key[2:].split(b"|")
    state = json.loads(row[_STATE])
    origins = sorted(
        (parse_coordinate(column[2:]), value.decode())
        for column, value in row.items()
        if column[:2] == b"o:"
    )
    return DetectorRow(
        visit=int(visit, 16),
        detector=int(detector, 16),
        status=state["status"],
        n_alerts=state["nAlerts"],
        reason=state["reason"],
        origins=tuple(origins),
        first=parse_coordinate(state["first"].encode()) if state["first"] else None,
        template_version=state["templateVersion"],
        # Rows of before there were raw images have none.
        calibration_set=state.get("calibrationSet", ""),
        scorecard=state.get("scorecard", {}),
    )
