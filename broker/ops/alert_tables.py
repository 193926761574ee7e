"""Packets from files or from the archive as canonical alerts, as of each one, batch by batch."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from broker.alerts.adapter import Adapter
from broker.alerts.adapters import find_adapters
from broker.alerts.columns import ORIGIN
from broker.alerts.history import EPOCH_S
from broker.archive import Archive
from broker.catalog.registry import Catalogs
from broker.errors import AlertError
from broker.types import Coordinate
from broker.units import SECONDS_PER_DAY

BATCH = 500

Packet = tuple[Coordinate, bytes]


@dataclass
class Reading:
    """What was met on the way: filled while tables are read.

    Parameters
    ----------
    unreadable : dict of str to str
        Why a packet is left out, by its place.
    repeats : int
        Packets of an alert that was there already; only the first counts.
    later : int
        History entries dated after their own alert, which no one may see.
    """

    unreadable: dict[str, str] = field(default_factory=dict)
    repeats: int = 0
    later: int = 0


def read_files(files: Iterable[Path], catalogs: Catalogs, reading: Reading) -> Iterator[pa.Table]:
    """Yield canonical alerts with matches of packets in files; folders are searched for `*.avro`.

    Parameters
    ----------
    files : iterable of Path
        Files of one packet each, of any survey, and folders of them.
    catalogs : Catalogs
        What they are matched with.
    reading : Reading
        Told what is left out.
    """
    seen: set[tuple[str, str]] = set()
    packets = _packets(files)
    while some := list(islice(packets, BATCH)):
        tables: list[pa.Table] = []
        for path in some:
            try:
                tables.append(read_packet(path))
            except AlertError as error:
                reading.unreadable[str(path)] = error.message
        if tables:
            yield from _finished(pa.concat_tables(tables), catalogs, reading, seen)


def _packets(files: Iterable[Path]) -> Iterator[Path]:
    for path in files:
        yield from sorted(path.rglob("*.avro")) if path.is_dir() else [path]


def read_packet(file: Path) -> pa.Table:
    """Return one packet as canonical columns; the survey is the one that can read it.

    Raises
    ------
    AlertError
        If no survey can.
    """
    packet = file.read_bytes()
    wire = "container" if packet.startswith(b"Obj\x01") else "framed"
    reasons = []
    for survey, adapter in find_adapters().items():
        if adapter.wire == wire:
            try:
                return adapter.decode_one(packet, Coordinate(str(file), 0, 0))
            except AlertError as error:
                reasons.append(f"{survey}: {error.message}")
    raise AlertError(f"{file} is no packet of a known survey; {'; '.join(reasons)}")


def read_night(
    archive: Archive, survey: str, night: str, catalogs: Catalogs, reading: Reading
) -> Iterator[pa.Table]:
    """Yield canonical alerts with matches of an archived night, in the order of arrival.

    Parameters
    ----------
    archive : Archive
        A run's archive.
    survey, night : str
        Which part of it, `YYYYMMDD`.
    catalogs, reading
        As in `read_files`.
    """
    seen: set[tuple[str, str]] = set()
    adapter = find_adapters()[survey]
    packets = ((place, packet) for place, _, packet in archive.packets(survey, night))
    while some := list(islice(packets, BATCH)):
        table = _decoded(adapter, some, reading)
        if table is not None:
            yield from _finished(table, catalogs, reading, seen)


def _decoded(adapter: Adapter, packets: list[Packet], reading: Reading) -> pa.Table | None:
    records, places = [], []
    for place, packet in packets:
        try:
            identifier, record = adapter.read(packet)
        except AlertError as error:
            reading.unreadable[str(place)] = error.message
            continue
        records.append(record)
        row = {"topic": place.topic, "partition": place.partition, "offset": place.offset}
        places.append(row | {"schemaId": identifier})
    if not records:
        return None
    try:
        decoded = pa.array(records, adapter.struct)
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        return _one_by_one(adapter, packets, reading)
    done = adapter.to_canonical(decoded, pa.array(places, ORIGIN))
    for row_number, reason in done.problems.items():
        at: dict[str, Any] = places[row_number]
        reading.unreadable[f"{at['topic']}/{at['partition']}/{at['offset']}"] = reason
    return done.table


def _one_by_one(adapter: Adapter, packets: list[Packet], reading: Reading) -> pa.Table | None:
    tables = []
    for place, packet in packets:
        try:
            tables.append(adapter.decode_one(packet, place))
        except AlertError as error:
            reading.unreadable[str(place)] = error.message
    return pa.concat_tables(tables) if tables else None


def _finished(
    table: pa.Table, catalogs: Catalogs, reading: Reading, seen: set[tuple[str, str]]
) -> Iterator[pa.Table]:
    """Yield the alerts not seen before, cut to what was known at their time, with matches."""
    fresh = []
    for who in zip(
        table.column("survey").to_pylist(), table.column("diaSourceId").to_pylist(), strict=True
    ):
        fresh.append(who not in seen)
        seen.add(who)
    reading.repeats += fresh.count(False)
    table, later = as_of(table.filter(pa.array(fresh, pa.bool_())))
    reading.later += later
    if not table.num_rows:
        return
    matches = catalogs.match(table.column("ra").to_numpy(), table.column("dec").to_numpy())
    fields = [*table.schema, *matches.schema]
    columns = [*table.columns, *matches.columns]
    yield pa.Table.from_arrays(columns, schema=pa.schema(fields))


def as_of(alerts: pa.Table) -> tuple[pa.Table, int]:
    """Return alerts whose histories end with themselves, and how many later entries were cut.

    Packets hold nothing later when a survey keeps its word; that is not left to trust.
    """
    at = alerts.schema.get_field_index("history")
    history = alerts.column(at).combine_chunks()
    if isinstance(history, pa.ChunkedArray):
        history = history.chunk(0) if history.num_chunks else pa.array([], history.type)
    entries = history.flatten()
    lengths = pc.fill_null(pc.list_value_length(history), 0).to_numpy(zero_copy_only=False)
    alert = np.repeat(np.arange(len(history)), lengths)
    until = alerts.column("midpointMjdTai").to_numpy() + EPOCH_S / SECONDS_PER_DAY
    mjd = entries.field("midpointMjdTai").to_numpy(zero_copy_only=False)
    keep = mjd <= until[alert]
    if keep.all():
        return alerts, 0
    counts = np.bincount(alert[keep], minlength=len(history))
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    kept = pa.ListArray.from_arrays(offsets, entries.filter(pa.array(keep)), type=history.type)
    return alerts.set_column(at, alerts.schema.field(at), kept), int((~keep).sum())
