"""Packets as if they had been observed at another time: every time in them moved by the same."""

import io
import json
from collections.abc import Iterable, Iterator
from typing import Any

import fastavro

from broker.alerts.adapter import Adapter
from broker.alerts.wire import body_by_position, container_header, read_container, to_container
from broker.avro import HEADER_BYTES, Schema, parse
from broker.errors import AlertError
from broker.replay.player import Packet
from broker.types import Coordinate

_SYNC = bytes(range(16))


def is_time(name: str) -> bool:
    """Tell whether a field of a packet is a moment: `jd…` of ZTF, `…MjdTai` of the others."""
    return name.endswith("MjdTai") or name in ("jd", "jdstarthist", "jdendhist")


def shifted(record: Any, days: float) -> Any:
    """Return a record with every moment in it moved, wherever it is. [d]"""
    if isinstance(record, dict):
        return {
            name: value + days
            if is_time(name) and isinstance(value, int | float) and value > 0.0
            else shifted(value, days)
            for name, value in record.items()
        }
    if isinstance(record, list):
        return [shifted(value, days) for value in record]
    return record


def shift_packet(adapter: Adapter, packet: bytes, days: float) -> bytes:
    """Return a packet with every moment in it moved; all else is as it was.

    Parameters
    ----------
    adapter : Adapter
        Of the survey whose packet it is.
    packet : bytes
        As the survey sent it.
    days : float
        By how much. [d]

    Raises
    ------
    AlertError
        If it cannot be read.
    """
    if adapter.wire == "framed":
        identifier = int.from_bytes(packet[1:HEADER_BYTES], "big")
        if packet[:1] != b"\x00" or identifier not in adapter.schemas:
            raise AlertError("the packet has no schema that is known, its times cannot be moved")
        schema = adapter.schemas[identifier]
        return packet[:HEADER_BYTES] + _moved(schema, packet[HEADER_BYTES:], days)
    for header, schema in adapter.schemas.items():
        body = body_by_position(packet, header)
        if body is not None:
            return to_container(packet[:header], _moved(schema, body, days))
    schema, record = read_container(packet)
    return to_container(container_header(json.dumps(schema), _SYNC), _encoded(schema, record, days))


def _moved(schema: Schema, body: bytes, days: float) -> bytes:
    try:
        record = fastavro.schemaless_reader(io.BytesIO(body), parse(schema), None)
    except (EOFError, ValueError, IndexError, TypeError, KeyError, OverflowError) as error:
        raise AlertError(
            f"the packet cannot be read, its times cannot be moved: {error}"
        ) from error
    return _encoded(schema, record, days)


def _encoded(schema: Schema, record: Any, days: float) -> bytes:
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, parse(schema), shifted(record, days))
    return buffer.getvalue()


def shift_packets(
    packets: Iterable[Packet], adapter: Adapter, *, to_mjd: float
) -> Iterator[Packet]:
    """Yield packets, moved so that the first one was observed at a given time.

    A packet that cannot be read is passed on as it is: what a stream does with such is to be
    tested too.

    Parameters
    ----------
    packets : iterable of Packet
        From files or the archive.
    adapter : Adapter
        Of their survey.
    to_mjd : float
        When the first one shall have been observed. [MJD, TAI]
    """
    days: float | None = None
    for packet, arrived_ms, origin in packets:
        try:
            if days is None:
                days = to_mjd - observed_mjd(adapter, packet)
            moved = shift_packet(adapter, packet, days)
        except AlertError:
            moved = packet
        yield moved, arrived_ms, origin


def observed_mjd(adapter: Adapter, packet: bytes) -> float:
    """Return when a packet's source was observed. [MJD, TAI]

    Raises
    ------
    AlertError
        If it cannot be read.
    """
    table = adapter.decode_one(packet, Coordinate("", 0, 0))
    return float(table.column("midpointMjdTai")[0].as_py())
