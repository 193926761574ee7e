"""Our own alert, as bytes and as a record: Rubin's names in the framing of Rubin's packets."""

from collections.abc import Mapping
from typing import Any

from broker import avro
from broker.avro import Schema
from broker.errors import AlertError

SIM_VERSION = "1.0"
"""Version of the schema that our own alerts are written with."""


def sim_schema(version: str = SIM_VERSION) -> Schema:
    """Return the schema of our own alerts: `schemas/sim/<version>.avsc`."""
    return avro.read_schema(f"sim/{version}")


def encode_sim(record: Mapping[str, Any]) -> bytes:
    """Return the framed packet of one of our own alerts.

    Parameters
    ----------
    record : mapping
        The fields of `schemas/sim/1.0.avsc`; those with a default may be left out.

    Raises
    ------
    AlertError
        If a field is missing, or not of its type.
    """
    schema = sim_schema()
    try:
        body = avro.encode(schema, dict(record))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise AlertError(
            f"the record is not of schema sim/{SIM_VERSION}: {type(error).__name__} {error}",
            diaSourceId=record.get("diaSourceId"),
        ) from error
    return avro.frame(avro.schema_id(schema), body)


def decode_sim(packet: bytes) -> dict[str, Any]:
    """Return the record of one of our own packets.

    Raises
    ------
    AlertError
        If the framing, the schema id or the body is not ours.
    """
    identifier, body = avro.unframe(packet)
    schema = sim_schema()
    if identifier != avro.schema_id(schema):
        raise AlertError(f"schema id {identifier} is not that of sim/{SIM_VERSION}")
    return avro.decode(schema, body)
