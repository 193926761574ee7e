"""What a subscriber writes who has only the Kafka client and fastavro: a baseline to measure by."""

import io
from collections.abc import Mapping
from typing import Any

import fastavro
from kafka import KafkaConsumer


def read_plainly(
    bootstrap: str,
    topic: str,
    schemas: Mapping[int, Any],
    *,
    number: int,
    column: str = "diaSourceId",
) -> list[Any]:
    """Return one column of the first packets of a topic, each decoded.

    Parameters
    ----------
    bootstrap : str
        `host:port` of a server.
    topic : str
        Its name in full.
    schemas : mapping
        Schemas by id, parsed by fastavro.
    number : int
        How many packets; it waits until they are there.
    column : str
        What is returned of each.
    """
    consumer: Any = KafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    found: list[Any] = []
    try:
        for message in consumer:
            schema = schemas[int.from_bytes(message.value[1:5], "big")]
            alert: Any = fastavro.schemaless_reader(io.BytesIO(message.value[5:]), schema)
            found.append(alert[column])
            if len(found) == number:
                return found
    finally:
        consumer.close()
    return found
