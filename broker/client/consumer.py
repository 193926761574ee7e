"""Topics as Python iterators of records."""

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from broker.avro import Schema, decode, parse, unframe
from broker.errors import AlertError, ConfigError
from broker.topics.publish import read_schemas
from broker.topics.topic import Message, Topics

_AGO = re.compile(r"^-(\d+(?:\.\d+)?)([smhd])$")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}

NOTES = ("throttled", "watchlist")
"""Headers, JSON, with which the broker says why a packet is on a topic, or others are not."""


@dataclass(frozen=True)
class Packet:
    """One packet of a public topic.

    Parameters
    ----------
    record : dict
        The alert, by wire names.
    message : Message
        The message that carried it: key, headers, coordinate.
    schema_id : int
        Id of the schema that it was written with.
    """

    record: dict[str, Any]
    message: Message
    schema_id: int

    @property
    def notes(self) -> dict[str, Any]:
        """What the broker noted on this packet beside the record, by name.

        `throttled`: the topic floods, and of the `share` of alerts that passes only the part
        `kept` goes out, so that it stays within its `limit`. `watchlist`: the list that the alert
        is on, the nearest entry, and how far it is. [arcsec]
        """
        found = {name: self.message.header(name) for name in NOTES}
        return {name: json.loads(value) for name, value in found.items() if value is not None}


class Schemas:
    """Schemas by id, read from the compacted topic that the broker keeps them on.

    The topic is read when a packet has a schema that is not known yet; so each schema is fetched
    and parsed once, and a packet of a schema that was made after the reader started is read too.

    Parameters
    ----------
    topics : Topics
        Where to read.
    topic : str
        Name of the topic with the schemas.
    """

    def __init__(self, topics: Topics, topic: str) -> None:
        self._topics, self._topic = topics, topic
        self._by_id: dict[int, Schema] = {}

    def get(self, schema_id: int) -> Schema:
        """Return a schema, parsed; the topic is read when an id is not known yet.

        Raises
        ------
        AlertError
            If the topic does not have it.
        """
        if schema_id not in self._by_id:
            found = read_schemas(self._topics, self._topic)
            self._by_id |= {i: parse(s) for i, s in found.items() if i not in self._by_id}
        if schema_id not in self._by_id:
            raise AlertError(
                f"schema {schema_id} is not on topic {self._topic}", schema_id=schema_id
            )
        return self._by_id[schema_id]

    def open(self, message: Message) -> Packet:
        """Return the packet of a message.

        Raises
        ------
        AlertError
            If it cannot be read, or its schema is not on the topic.
        """
        schema_id, body = unframe(message.value or b"")
        return Packet(decode(self.get(schema_id), body), message, schema_id)


def starting_offsets(
    topics: Topics, name: str, since: str, *, now_s: float | None = None
) -> dict[int, tuple[int, int]]:
    """Return (first, end) offsets by partition for a starting point that a person can type.

    Parameters
    ----------
    topics : Topics
        Where the topic is.
    name : str
        The topic.
    since : str
        `earliest`, `latest`, `-1h` (s, m, h, d), or an ISO time (UTC if it names no zone).
    now_s : float, optional
        Seconds since 1970 that `-1h` counts from; default the clock.

    Raises
    ------
    ConfigError
        If `since` is none of these.
    """
    ranges = topics.ranges(name)
    if since == "earliest":
        return {part.partition: (part.first, part.end) for part in ranges}
    if since == "latest":
        return {part.partition: (part.end, part.end) for part in ranges}
    start_ms = starting_ms(since, now_s=now_s)
    return {
        part.partition: (
            topics.offset_at(name, partition=part.partition, timestamp_ms=start_ms),
            part.end,
        )
        for part in ranges
    }


def starting_ms(since: str, *, now_s: float | None = None) -> int:
    """Return a starting point as a time: 0 is `earliest`, -1 `latest`. [ms since 1970]

    Raises
    ------
    ConfigError
        If `since` is no starting point.
    """
    if since in ("earliest", "latest"):
        return 0 if since == "earliest" else -1
    return max(1, round(_seconds(since, time.time() if now_s is None else now_s) * 1000.0))


def _seconds(since: str, now_s: float) -> float:
    ago = _AGO.match(since)
    if ago:
        return now_s - float(ago[1]) * _SECONDS[ago[2]]
    try:
        moment = datetime.fromisoformat(since)
    except ValueError as error:
        raise ConfigError(
            f"{since!r} is no starting point: use earliest, latest, -1h (s, m, h, d) or an ISO time"
        ) from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def read_topic(
    topics: Topics,
    name: str,
    *,
    schemas: Schemas,
    since: str = "earliest",
    limit: int | None = None,
) -> Iterator[Packet]:
    """Yield the packets that a public topic holds now, each diaSource once.

    A broker that was killed may publish a packet again; repeats carry the same key and are
    dropped here.

    Parameters
    ----------
    topics : Topics
        Where the topic is.
    name : str
        The topic, in full: `public.young-supernova.slim`.
    schemas : Schemas
        Where the packets' schemas are found.
    since : str
        See `starting_offsets`.
    limit : int, optional
        At most so many packets.

    Raises
    ------
    ServiceError
        If there is no such topic.
    AlertError
        If a packet cannot be read.
    """
    seen: set[bytes] = set()
    for partition, (first, end) in sorted(starting_offsets(topics, name, since).items()):
        for message in topics.read(name, partition=partition, first=first, end=end):
            if limit is not None and len(seen) >= limit:
                return
            if message.value is None or message.key is None or message.key in seen:
                continue
            seen.add(message.key)
            yield schemas.open(message)
