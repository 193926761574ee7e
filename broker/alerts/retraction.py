"""A retraction as bytes and as a record: framed Avro, as our alerts are."""

from collections.abc import Mapping
from typing import Any

from broker import avro
from broker.avro import Schema
from broker.errors import AlertError

RETRACTION_SCHEMA = "broker/retraction/1.0"
"""Name of the schema that retractions are written with."""


def retraction_schemas() -> dict[int, Schema]:
    """Return the schema of retractions by its id, for the topic of schemas."""
    schema = avro.read_schema(RETRACTION_SCHEMA)
    return {avro.schema_id(schema): schema}


def encode_retraction(record: Mapping[str, Any]) -> bytes:
    """Return a retraction as a framed message.

    Parameters
    ----------
    record : mapping
        The fields of `schemas/broker/retraction/1.0.avsc`.
    """
    ((identifier, schema),) = retraction_schemas().items()
    return avro.frame(identifier, avro.encode(schema, dict(record)))


def decode_retraction(message: bytes) -> dict[str, Any]:
    """Return the record of a retraction.

    Raises
    ------
    AlertError
        If the framing, the schema id or the body is not that of a retraction.
    """
    ((expected, schema),) = retraction_schemas().items()
    identifier, body = avro.unframe(message)
    if identifier != expected:
        raise AlertError(f"schema id {identifier} is not that of {RETRACTION_SCHEMA}")
    return avro.decode(schema, body)
