"""The two ways packets come: a whole Avro container file, or a schema id before the body.

A container file (ZTF) is a header with the schema inside it, then one block: the count of
records and the bytes of the block as varints, the body, and the 16 bytes of the sync marker
that also end the header. With no compression the body is found by position alone, once the
header is recognised: by its length and by its sync marker being the packet's last 16 bytes.
"""

import io
import json
import zlib
from typing import Any

import fastavro

from broker.avro import Schema
from broker.errors import AlertError

CONTAINER_MAGIC = b"Obj\x01"
SYNC_BYTES = 16
ONE_RECORD = b"\x02"
"""The count of a block with one record: 1 as a zigzag varint."""

SMALLEST_BODY, LARGEST_BODY = 1 << 13, (1 << 20) - 1
"""Bytes of a body whose length takes three bytes as a varint."""

_CODECS = ("null", "deflate")


def varint(value: int) -> bytes:
    """Return a number as Avro's zigzag varint."""
    rest = (value << 1) ^ (value >> 63)
    out = bytearray()
    while rest > 0x7F:
        out.append((rest & 0x7F) | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


def container_header(schema_text: str, sync: bytes) -> bytes:
    """Return the header of a container file without compression.

    Parameters
    ----------
    schema_text : str
        The writer's schema as JSON.
    sync : bytes
        The 16 bytes of the sync marker.
    """
    entries = ((b"avro.codec", b"null"), (b"avro.schema", schema_text.encode()))
    pairs = b"".join(varint(len(k)) + k + varint(len(v)) + v for k, v in entries)
    return CONTAINER_MAGIC + varint(len(entries)) + pairs + varint(0) + sync


def to_container(header: bytes, body: bytes) -> bytes:
    """Return a container file with one record, from a header and the record's Avro body."""
    return header + ONE_RECORD + varint(len(body)) + body + header[-SYNC_BYTES:]


def body_by_position(packet: bytes, header_bytes: int) -> bytes | None:
    """Return the body of a container whose header has a known length; None if it has not.

    The same rule that the stream applies in SQL: see `broker.spark.decode`.
    """
    first = header_bytes + 1 + 3
    body = packet[first:-SYNC_BYTES]
    if not SMALLEST_BODY <= len(body) <= LARGEST_BODY:
        return None
    sync = packet[header_bytes - SYNC_BYTES : header_bytes]
    start = ONE_RECORD + varint(len(body))
    known = (
        packet.startswith(CONTAINER_MAGIC)
        and packet.endswith(sync)
        and packet[header_bytes:first] == start
    )
    return body if known else None


def read_container(packet: bytes) -> tuple[Schema, dict[str, Any]]:
    """Return the schema and the record of a container file, whatever its header.

    Raises
    ------
    AlertError
        If it is no Avro container, has an unknown codec, does not hold exactly one record, or
        ends too early.
    """
    if not packet:
        raise AlertError("the message is empty")
    if not packet.startswith(CONTAINER_MAGIC):
        raise AlertError(
            f"not an Avro container file: it begins with 0x{packet[:4].hex()}, not 0x4f626a01"
        )
    try:
        reader = fastavro.reader(io.BytesIO(packet))
        codec = reader.codec
        records = list(_first_two(reader)) if codec in _CODECS else []
    except (
        EOFError,
        ValueError,
        IndexError,
        TypeError,
        KeyError,
        OverflowError,
        MemoryError,
        StopIteration,
        AttributeError,
        zlib.error,
        fastavro.schema.SchemaParseException,
    ) as error:
        raise AlertError(
            f"the container cannot be read, it may be truncated: {type(error).__name__} {error}"
        ) from error
    if codec not in _CODECS:
        raise AlertError(f"codec {codec} is not read; a container has codec null or deflate")
    if len(records) != 1 or not isinstance(records[0], dict):
        raise AlertError(f"a container must hold one record, this one has {_count(records)}")
    return dict(json.loads(reader.metadata["avro.schema"])), records[0]


def _first_two(reader: Any) -> Any:
    for _, record in zip(range(2), reader, strict=False):
        yield record


def _count(records: list[Any]) -> str:
    return {0: "none", 1: "one that is no record"}.get(len(records), "more")
