"""How schemas and dead letters stand on topics.

A schema is a message of the compacted topic of schemas: its id in decimal as the key, its JSON
as the body. A dead letter is the body of the message that failed, with headers that say where it
stood, at which stage it failed, and why.
"""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from broker.avro import Schema
from broker.errors import AlertError
from broker.topics.topic import Message, Topics, TopicSettings
from broker.types import DEAD_LETTERS, SCHEMAS_TOPIC, Coordinate, Run

_REASON_BYTES = 2000
_HEADERS = ("topic", "partition", "offset", "stage", "reason", "timestamp")


def schemas_topic(run: Run) -> str:
    """Return the name of the topic with the schemas of what a run publishes."""
    return run.internal_topic(SCHEMAS_TOPIC)


def store_schemas(topics: Topics, run: Run, schemas: Mapping[int, Schema]) -> list[int]:
    """Put schemas on the topic of schemas, before the first packet that uses them.

    Parameters
    ----------
    topics : Topics
        Where.
    run : Run
        Whose.
    schemas : Mapping
        Schemas by id; an id is a hash of its schema, so one that is there is left as it is.

    Returns
    -------
    list of int
        The ids that were not there.
    """
    name = schemas_topic(run)
    topics.create(name, TopicSettings(partitions=1, compacted=True))
    there = read_schemas(topics, name)
    new = sorted(set(schemas) - set(there))
    topics.send(
        name,
        [
            Message(json.dumps(schemas[schema_id]).encode(), key=str(schema_id).encode())
            for schema_id in new
        ],
    )
    return new


def read_schemas(topics: Topics, name: str) -> dict[int, Schema]:
    """Return all schemas on a topic of schemas, by id."""
    found: dict[int, Schema] = {}
    for message in read_all(topics, name):
        if message.key is not None and message.value is not None:
            found[int(message.key)] = json.loads(message.value)
    return found


def read_all(topics: Topics, name: str) -> Iterator[Message]:
    """Yield every message that is on a topic now, partition by partition."""
    for part in topics.ranges(name):
        yield from topics.read(name, partition=part.partition, first=part.first, end=part.end)


@dataclass(frozen=True)
class DeadLetter:
    """A message that could not be used.

    Parameters
    ----------
    origin : Coordinate
        Where it stood.
    stage : str
        Where it failed: `decode`, `project`, `images`…
    reason : str
        Why, for a person.
    value : bytes or None
        Its body, as it came.
    key : bytes or None
        Its key.
    timestamp_ms : int
        When it failed. [ms since 1970]
    coordinate : Coordinate or None
        Where the dead letter itself stands.
    """

    origin: Coordinate
    stage: str
    reason: str
    value: bytes | None
    key: bytes | None
    timestamp_ms: int
    coordinate: Coordinate | None = None


def dead_letters_topic(run: Run) -> str:
    """Return the name of a run's topic of dead letters."""
    return run.internal_topic(DEAD_LETTERS)


def dead_letter(
    origin: Coordinate,
    stage: str,
    reason: str,
    value: bytes | None,
    *,
    key: bytes | None = None,
    timestamp_ms: int | None = None,
) -> Message:
    """Return the message that says that another could not be used.

    Parameters
    ----------
    origin : Coordinate
        Where the other stood.
    stage, reason : str
        Where it failed, and why.
    value, key : bytes or None
        Its body and key, kept as they came so that it can be sent again. A message without
        either gets its coordinate as the key, because Kafka takes no message of neither.
    timestamp_ms : int, optional
        When it failed; default now. [ms since 1970]
    """
    now = int(time.time() * 1000) if timestamp_ms is None else timestamp_ms
    texts = (
        origin.topic,
        str(origin.partition),
        str(origin.offset),
        stage,
        reason,
        str(now),
    )
    headers = tuple(
        (name, text.encode()[:_REASON_BYTES]) for name, text in zip(_HEADERS, texts, strict=True)
    )
    if key is None and value is None:
        key = str(origin).encode()
    return Message(value, key=key, headers=headers)


def read_dead_letter(message: Message) -> DeadLetter:
    """Return what a message of the topic of dead letters says.

    Raises
    ------
    AlertError
        If it lacks a header, or one has another form.
    """
    found = {name: message.header(name) for name in _HEADERS}
    try:
        texts = {name: (value or b"").decode(errors="replace") for name, value in found.items()}
        origin = Coordinate(texts["topic"], int(texts["partition"]), int(texts["offset"]))
        at = int(texts["timestamp"] or message.timestamp_ms or 0)
    except ValueError as error:
        raise AlertError(
            f"message {message.coordinate} is no dead letter: {error}",
            coordinate=str(message.coordinate),
        ) from error
    return DeadLetter(
        origin=origin,
        stage=texts["stage"],
        reason=texts["reason"],
        value=message.value,
        key=message.key,
        timestamp_ms=at,
        coordinate=message.coordinate,
    )


def read_dead_letters(topics: Topics, run: Run) -> Iterator[DeadLetter]:
    """Yield every dead letter of a run; none if the topic is not there yet."""
    name = dead_letters_topic(run)
    if name in topics.names():
        for message in read_all(topics, name):
            yield read_dead_letter(message)
