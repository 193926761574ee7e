"""What an annotator reads: packets as records, and the columns that they have."""

from collections.abc import Callable, Mapping
from typing import Any

from broker.alerts.columns import Column
from broker.avro import Schema, decode, unframe
from broker.config import Config
from broker.science.installed import installed
from broker.topics.topic import Message


def packet_reader(schema_of: Callable[[int], Schema]) -> Callable[[Message], Mapping[str, Any]]:
    """Return what makes a message of a public topic into a record.

    Parameters
    ----------
    schema_of : callable
        Returns the schema of an id.
    """

    def read(message: Message) -> Mapping[str, Any]:
        identifier, body = unframe(message.value or b"")
        return decode(schema_of(identifier), body)

    return read


def packet_columns(config: Config) -> dict[str, Column]:
    """Return the columns of a packet that an expression may use, by parameter name."""
    contributions = installed(config)
    outputs = {column.python_name: column for column in contributions.output_columns}
    return {**contributions.columns, **outputs}
