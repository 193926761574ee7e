"""Avro schemas as files, their ids, and the framing of a packet: what pixels and packets share.

A framed packet is one zero byte, the schema's id in four bytes (big-endian), then the Avro body:
the framing of Confluent's schema registry, which Rubin uses.
"""

import functools
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import fastavro

import broker
from broker.errors import AlertError, ConfigError

MAGIC = b"\x00"
HEADER_BYTES = 5
FIRST_OWN_ID = 1 << 20
"""Ids of our own schemas start here: above Rubin's 100 × major + minor."""

Schema = dict[str, Any]


def schema_folder() -> Path:
    """Return the folder `schemas`: beside the package, in a checkout and in the installed wheel."""
    return Path(broker.__file__).parent.parent / "schemas"


@functools.cache
def read_schema(name: str) -> Schema:
    """Return a schema by its path below `schemas`, without the ending: `sim/1.0`.

    Raises
    ------
    ConfigError
        If there is no such file.
    """
    path = schema_folder().joinpath(f"{name}.avsc")
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise ConfigError(f"there is no schema {name}.avsc in schemas/", schema=name) from error


def schema_versions(folder: str) -> list[str]:
    """Return the versions in a folder of schemas, oldest first: `["7.0", "7.1", "10.0"]`."""
    names = [
        p.name.removesuffix(".avsc")
        for p in schema_folder().joinpath(folder).iterdir()
        if p.name.endswith(".avsc")
    ]
    return sorted(names, key=lambda name: tuple(int(part) for part in name.split(".")))


@functools.cache
def _parsed(text: str) -> Any:
    return fastavro.parse_schema(json.loads(text), _force=True)


def parse(schema: Schema) -> Any:
    """Return fastavro's parsed form of a schema, parsed once a process; a parsed one as it is."""
    if "__fastavro_parsed" in schema:
        return schema
    return _parsed(json.dumps(schema))


def schema_id(schema: Schema) -> int:
    """Return the id of one of our own schemas: a hash of its canonical form.

    The parsing canonical form of Avro's specification leaves out documentation and defaults, so
    that a change of words is no change of schema; defaults matter to a reader, not to the bytes.
    """
    canonical = fastavro.schema.to_parsing_canonical_form(parse(schema))
    digest = int.from_bytes(hashlib.sha256(canonical.encode()).digest()[:4], "big")
    return FIRST_OWN_ID + digest % (2**31 - FIRST_OWN_ID)


def frame(identifier: int, body: bytes) -> bytes:
    """Put the five bytes of framing before an Avro body."""
    return MAGIC + identifier.to_bytes(4, "big") + body


def unframe(packet: bytes) -> tuple[int, bytes]:
    """Return the schema id and the body of a framed packet.

    Raises
    ------
    AlertError
        If it is empty, too short, or does not begin with a zero byte.
    """
    if len(packet) <= HEADER_BYTES:
        raise AlertError(f"a framed packet has more than 5 bytes, this one has {len(packet)}")
    if packet[:1] != MAGIC:
        raise AlertError(f"a framed packet begins with byte 0x00, this one with 0x{packet[0]:02x}")
    return int.from_bytes(packet[1:HEADER_BYTES], "big"), packet[HEADER_BYTES:]


def encode(schema: Schema, record: dict[str, Any]) -> bytes:
    """Return the Avro body of a record."""
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, parse(schema), record)
    return buffer.getvalue()


def decode(schema: Schema, body: bytes, reader: Schema | None = None) -> dict[str, Any]:
    """Return the record of an Avro body.

    Raises
    ------
    AlertError
        If the body is truncated, has bytes left over, or is not of this schema.
    """
    buffer = io.BytesIO(body)
    try:
        record = fastavro.schemaless_reader(
            buffer, parse(schema), parse(reader) if reader else None
        )
    except EOFError as error:  # its text may hold an address in memory
        raise AlertError(
            f"the body is not of its schema, or truncated: it ends after {len(body)} bytes"
        ) from error
    except (
        ValueError,
        IndexError,
        TypeError,
        KeyError,
        OverflowError,
        MemoryError,
        StopIteration,
    ) as error:
        raise AlertError(
            f"the body is not of its schema: {type(error).__name__} {error}"
        ) from error
    if buffer.tell() != len(body):
        raise AlertError(f"{len(body) - buffer.tell()} bytes are left over after the record")
    return dict(record)
