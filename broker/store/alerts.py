"""Enriched alerts: by object and time, by id, and by place on the sky.

An alert is one row of `alert` (object, time, id), one of `alert_id` that finds it by its id, and
one cell of `sky` that finds it by its place. Every cell has a fixed timestamp, because key and
column already say which alert, which module version and which Kafka coordinate it is about: a
batch that is repeated, or comes late, replaces cells by equal ones and hides nothing.
"""

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from broker.alerts.columns import CUTOUTS
from broker.catalog.regions import Region
from broker.errors import ConfigError
from broker.store import keys
from broker.store.blocks import is_class
from broker.store.index import AlertIndex, batch_entries
from broker.store.layouts import STAMP, Shared
from broker.store.moving import moving_rows
from broker.store.table import Tables
from broker.store.tables import create_tables, drop_tables
from broker.types import Coordinate, Run, night_of
from broker.units import separation_arcsec

_NOT_STORED = frozenset(("history", "origin", *CUTOUTS))
_CANONICAL, _PROVENANCE, _KEY = b"c:v", b"p:v", b"k:a"
_PLACE = struct.Struct(">dd")
_SCHEMA_ID = struct.Struct(">q")
_GET_ROWS = 500
_US_PER_DAY = 86_400e6

Cells = dict[bytes, bytes]

__all__ = ["AlertStore", "Sighting", "create_tables", "drop_tables"]


@dataclass(frozen=True)
class Sighting:
    """Where an alert was [deg], and the key of its row."""

    ra: float
    dec: float
    key: bytes


class AlertStore:
    """Enriched alerts in sorted tables.

    Writing is idempotent: a batch that Spark repeats after a failure leaves the tables as one
    write would.

    Parameters
    ----------
    tables : Tables
        HBase in production, memory in tests and on a laptop.
    run : Run
        Whose alerts.
    """

    def __init__(self, tables: Tables, run: Run) -> None:
        self._alerts = tables.table(run.table("alert"))
        self._ids = tables.table(run.table("alert_id"))
        self._sky = tables.table(run.table("sky"))
        self._moving = tables.table(run.table("moving"))
        self._shared = Shared(tables.table(run.table("meta")))
        self._index = AlertIndex(tables, run)

    def put(
        self,
        batch: pa.Table,
        *,
        outputs: pa.Table,
        topics: Sequence[Sequence[str]],
        provenance: Mapping[str, str],
    ) -> None:
        """Write a batch of alerts and wait until all are acknowledged.

        Parameters
        ----------
        batch : pa.Table
            Canonical columns and match columns; history and cutouts stay in the packets.
        outputs : pa.Table
            Columns `module@version:column`, a row an alert. A module that gave nothing but nulls
            for an alert leaves what an earlier run of that version gave.
        topics : sequence of sequences of str
            The topics that each alert was chosen for.
        provenance : Mapping
            Versions of code, schemas, catalogues and modules that made this batch.

        Raises
        ------
        ConfigError
            If the parts have different lengths or an output has another name.
        """
        if not batch.num_rows == outputs.num_rows == len(topics):
            raise ConfigError("a batch, its outputs and its topics have the same number of rows")
        if batch.num_rows == 0:
            return
        alert_keys, id_keys = _keys(batch)
        rows = self._cells(batch, outputs, topics, provenance)
        # The alert first, then what leads to it: a reader never finds a key without its alert.
        self._alerts.put(zip(alert_keys, rows, strict=True), STAMP)
        self._ids.put(
            ((key, {_KEY: alert}) for key, alert in zip(id_keys, alert_keys, strict=True)), STAMP
        )
        self._sky.put(_sky_rows(batch, alert_keys), STAMP)
        self._moving.put(moving_rows(batch, alert_keys), STAMP)
        self._index.put(batch_entries(batch, outputs=outputs, topics=topics))

    def put_outputs(self, batch: pa.Table, *, outputs: pa.Table) -> int:
        """Add outputs, named as in `put`, to alerts that are stored, and nothing else.

        Those of the same version are replaced; alerts that are not stored are left out. Returns
        how many are stored.
        """
        alert_keys = _keys(batch)[0] if batch.num_rows else []
        rows: list[Cells] = [{} for _ in alert_keys]
        for column, values in self._module_cells(outputs):
            for row, value in zip(rows, values, strict=True):
                if value is not None:
                    row[column] = value
        there = self._get_alerts(alert_keys)
        chosen = [(k, row) for k, row in zip(alert_keys, rows, strict=True) if row and k in there]
        self._alerts.put(chosen, STAMP)
        if any(map(is_class, outputs.column_names)):
            self._index.put_again(self.alerts([key for key, _ in chosen]))
        return sum(key in there for key in alert_keys)

    def alert(self, survey: str, dia_source_id: str) -> dict[str, Any] | None:
        """Return an alert by its id; None if unknown.

        Returns
        -------
        dict or None
            Columns by wire name, `outputs` by `module@version` and column, `topics`,
            `provenance`, and `origins` with topic, partition, offset and schemaId.
        """
        found = self._ids.get(keys.alert_id_key(survey, dia_source_id))
        row = self._alerts.get(found[_KEY]) if found else None
        return self._record(row) if row else None

    def object(self, survey: str, name: str, *, brief: bool = False) -> list[dict[str, Any]]:
        """Return the alerts of one object, oldest first; empty if unknown.

        A solar-system object is asked for as `ss:` and its ssObjectId. `brief`: the canonical
        columns and topics only, all else empty.
        """
        wanted = [_CANONICAL, b"t"] if brief else None
        rows = self._alerts.scan(*keys.object_range(survey, name), columns=wanted)
        return [self._record(row) for _, row in rows]

    def cone(self, ra: float, dec: float, radius_arcsec: float) -> list[dict[str, Any]]:
        """Return the objects around a place, the nearest first, each by its newest alert.

        Parameters
        ----------
        ra, dec : float
            Centre. [deg]
        radius_arcsec : float
            Largest distance of an object's newest position in its pixel.

        Returns
        -------
        list of dict
            As of `alert`, with `separation` in arcsec.
        """
        ranges = keys.cone_ranges(ra, dec, radius_arcsec, keys.SKY_ORDER)

        def near(there_ra: float, there_dec: float) -> float | None:
            separation = float(separation_arcsec(ra, dec, there_ra, there_dec))
            return separation if separation <= radius_arcsec else None

        found = sorted(self._newest(ranges, near).values())
        rows = self._get_alerts([key for _, key in found])
        return [
            {**self._record(rows[key]), "separation": separation}
            for separation, key in found
            if key in rows
        ]

    def region(self, region: Region, *, limit: int) -> tuple[list[dict[str, Any]], int]:
        """Return the objects in a part of the sky, each by its newest alert there.

        Parameters
        ----------
        region : Region
            A box, a polygon or a coverage.
        limit : int
            At most so many.

        Returns
        -------
        list of dict
            As of `alert`, by survey and object.
        int
            How many there are in all.
        """
        ranges = keys.merged_ranges(region.first, region.end, keys.SKY_ORDER)

        def inside(ra: float, dec: float) -> float | None:
            return 0.0 if region.contains(np.array([ra]), np.array([dec]))[0] else None

        newest = self._newest(ranges, inside)
        chosen = [newest[thing][1] for thing in sorted(newest)[:limit]]
        rows = self._get_alerts(chosen)
        return [self._record(rows[key]) for key in chosen if key in rows], len(newest)

    def sightings(
        self, ranges: Sequence[tuple[int, int]], first_mjd: float, last_mjd: float
    ) -> Iterator[Sighting]:
        """Yield every alert in ranges of pixels of order `SKY_ORDER` and in a time.

        Parameters
        ----------
        ranges : sequence of (int, int)
            First pixel, and the one after the last.
        first_mjd, last_mjd : float
            Bounds, MJD, TAI, wider by a microsecond. [d]
        """
        first_us, last_us = (int(t) for t in keys.time_us([first_mjd, last_mjd]))
        for first, end in ranges:
            for _, row in self._sky.scan(*keys.pixel_range(first, end)):
                for value in row.values():
                    key = value[_PLACE.size :]
                    if first_us - 1 <= keys.split_alert_key(key)[2] <= last_us + 1:
                        ra, dec = _PLACE.unpack_from(value)
                        yield Sighting(ra, dec, key)

    def alerts(self, alert_keys: Sequence[bytes]) -> list[dict[str, Any]]:
        """Return alerts by the keys of their sightings, as of `alert`; absent ones left out."""
        rows = self._get_alerts(alert_keys)
        return [self._record(rows[key]) for key in alert_keys if key in rows]

    def night(self, night: str) -> Iterator[dict[str, Any]]:
        """Yield the alerts observed in a night (`YYYYMMDD`), as of `alert`, in no order.

        The whole table is read: this is for the table that is written once a night.
        """
        for key, row in self._alerts.scan():
            if night_of(keys.split_alert_key(key)[2] / _US_PER_DAY) == night:
                yield self._record(row)

    def every(self) -> Iterator[dict[str, Any]]:
        """Yield all alerts, as of `alert`; the whole table is read."""
        return (self._record(row) for _, row in self._alerts.scan())

    def origins(self) -> Iterator[tuple[str, str, list[Coordinate]]]:
        """Yield survey, diaSourceId and the coordinates of its packets, of every alert."""
        for key, row in self._alerts.scan(columns=[b"o"]):
            survey, _, _, dia_source_id = keys.split_alert_key(key)
            yield survey, dia_source_id, [keys.parse_coordinate(column[2:]) for column in row]

    def _cells(
        self,
        batch: pa.Table,
        outputs: pa.Table,
        topics: Sequence[Sequence[str]],
        provenance: Mapping[str, str],
    ) -> list[Cells]:
        hot = batch.select([name for name in batch.column_names if name not in _NOT_STORED])
        made_by = self._shared.provenance_id(provenance)
        rows = [
            {_CANONICAL: value, _PROVENANCE: made_by, origin: schema_id}
            for value, (origin, schema_id) in zip(
                self._shared.pack(hot), _origin_cells(batch), strict=True
            )
        ]
        for column, values in self._module_cells(outputs):
            for row, value in zip(rows, values, strict=True):
                if value is not None:
                    row[column] = value
        for row, chosen in zip(rows, topics, strict=True):
            for topic in chosen:
                row[b"t:" + topic.encode()] = b"1"
        return rows

    def _module_cells(self, outputs: pa.Table) -> Iterator[tuple[bytes, Sequence[bytes | None]]]:
        """Yield the column of each module's version and its packed outputs, None if all null."""
        for module, names in _by_module(outputs.column_names).items():
            columns = [outputs[f"{module}:{name}"] for name in names]
            packed: list[bytes | None] = list(
                self._shared.pack(pa.Table.from_arrays(columns, names=names))
            )
            if all(column.null_count for column in columns):
                nulls = [column.is_null().to_numpy() for column in columns]
                for i in np.flatnonzero(np.logical_and.reduce(nulls)):
                    packed[i] = None
            yield b"m:" + module.encode(), packed

    def _record(self, row: Cells) -> dict[str, Any]:
        record: dict[str, Any] = dict(self._shared.unpack(row[_CANONICAL]))
        record["outputs"] = {
            column[2:].decode(): self._shared.unpack(value)
            for column, value in sorted(row.items())
            if column.startswith(b"m:")
        }
        record["topics"] = sorted(column[2:].decode() for column in row if column[:2] == b"t:")
        made_by = row.get(_PROVENANCE)
        record["provenance"] = self._shared.provenance(made_by) if made_by else {}
        origins = sorted(
            (keys.parse_coordinate(c[2:]), v) for c, v in row.items() if c[:2] == b"o:"
        )
        record["origins"] = [
            {
                "topic": at.topic,
                "partition": at.partition,
                "offset": at.offset,
                "schemaId": _SCHEMA_ID.unpack(value)[0],
            }
            for at, value in origins
        ]
        return record

    def _newest(
        self,
        ranges: Sequence[tuple[int, int]],
        separation_of: Callable[[float, float], float | None],
    ) -> dict[tuple[str, str], tuple[float, bytes]]:
        """Return separation and alert key of the newest alert of each object in ranges of pixels.

        `separation_of` says how far a place [deg] is; None if it is not asked for.
        """
        newest: dict[tuple[str, str], tuple[float, bytes]] = {}
        times: dict[tuple[str, str], bytes] = {}
        for first, end in ranges:
            for key, row in self._sky.scan(*keys.pixel_range(first, end), first_cell=True):
                ((column, value),) = row.items()
                separation = separation_of(*_PLACE.unpack_from(value))
                thing = keys.split_sky_key(key)[1:]
                # Qualifiers are times, the newest first.
                if separation is not None and column < times.get(thing, b"~"):
                    times[thing] = column
                    newest[thing] = (separation, value[_PLACE.size :])
        return newest

    def _get_alerts(self, alert_keys: Sequence[bytes]) -> dict[bytes, Cells]:
        rows: dict[bytes, Cells] = {}
        for low in range(0, len(alert_keys), _GET_ROWS):
            rows.update(self._alerts.get_many(alert_keys[low : low + _GET_ROWS]))
        return rows


def _keys(batch: pa.Table) -> tuple[list[bytes], list[bytes]]:
    surveys = batch["survey"].to_pylist()
    ids = batch["diaSourceId"].to_pylist()
    times = keys.time_us(batch["midpointMjdTai"].to_numpy()).tolist()
    alert_keys = [
        keys.alert_key(survey, name, at, dia_source_id)
        for survey, name, at, dia_source_id in zip(
            surveys, _object_parts(batch), times, ids, strict=True
        )
    ]
    return alert_keys, [keys.alert_id_key(s, i) for s, i in zip(surveys, ids, strict=True)]


def _object_parts(batch: pa.Table) -> list[str]:
    columns = (batch[name].to_pylist() for name in ("diaObjectId", "ssObjectId", "diaSourceId"))
    return [keys.object_part(*row) for row in zip(*columns, strict=True)]


def _sky_rows(batch: pa.Table, alert_keys: Sequence[bytes]) -> Iterator[tuple[bytes, Cells]]:
    ra, dec = batch["ra"].to_numpy(), batch["dec"].to_numpy()
    pixels = keys.pixels(ra, dec, keys.SKY_ORDER).tolist()
    times = keys.time_us(batch["midpointMjdTai"].to_numpy()).tolist()
    surveys, names = batch["survey"].to_pylist(), _object_parts(batch)
    places = zip(ra.tolist(), dec.tolist(), strict=True)
    for pixel, survey, name, at, place, alert in zip(
        pixels, surveys, names, times, places, alert_keys, strict=True
    ):
        column = b"k:" + keys.newest_first(at)
        yield keys.sky_key(pixel, survey, name), {column: _PLACE.pack(*place) + alert}


def _origin_cells(batch: pa.Table) -> Iterator[tuple[bytes, bytes]]:
    origin = batch["origin"].combine_chunks()
    if isinstance(origin, pa.ChunkedArray):
        origin = pa.concat_arrays(origin.chunks)
    fields = (
        pc.struct_field(origin, name).to_pylist()
        for name in ("topic", "partition", "offset", "schemaId")
    )
    for topic, partition, offset, schema_id in zip(*fields, strict=True):
        yield f"o:{topic}/{partition}/{offset}".encode(), _SCHEMA_ID.pack(schema_id)


def _by_module(names: Sequence[str]) -> dict[str, list[str]]:
    modules: dict[str, list[str]] = {}
    for name in names:
        module, colon, column = name.partition(":")
        if not colon or "@" not in module:
            raise ConfigError(f"output {name!r} is not named module@version:column", column=name)
        modules.setdefault(module, []).append(column)
    return modules
