"""Plays packets into a topic, at a chosen pace, as the bytes they are."""

import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from broker.archive import ORIGIN_HEADER, Archive
from broker.errors import ConfigError
from broker.topics.topic import Message, Topics
from broker.types import Coordinate

Packet = tuple[bytes, int | None, Coordinate | None]
"""A packet, when it first arrived [ms since 1970], and where it stood; None where not known."""

_CHUNK_BYTES = 4 << 20
_CHUNK_PACKETS = 500
_RATE = re.compile(r"^(?P<number>\d+(?:\.\d+)?)(?P<kind>/s|x)$")


@dataclass(frozen=True)
class Rate:
    """A pace: so many packets a second, or a multiple of the pace at which they first came.

    Parameters
    ----------
    per_second : float or None
        Packets a second.
    speed_up : float or None
        Gaps between arrivals are this many times shorter; 1 keeps them.
    """

    per_second: float | None = None
    speed_up: float | None = None


MAX = Rate()
"""As fast as it goes."""


def parse_rate(text: str) -> Rate:
    """Return the rate that a person typed: `max`, `100/s`, `10x`.

    Raises
    ------
    ConfigError
        If it is none of these.
    """
    if text == "max":
        return MAX
    found = _RATE.match(text)
    if not found or float(found["number"]) <= 0.0:
        raise ConfigError(f"{text!r} is no rate: use max, 100/s or 10x", rate=text)
    number = float(found["number"])
    return Rate(per_second=number) if found["kind"] == "/s" else Rate(speed_up=number)


@dataclass(frozen=True)
class Played:
    """What was played."""

    packets: int
    bytes: int
    seconds: float


def replay(
    topics: Topics,
    packets: Iterable[Packet],
    *,
    to: str,
    rate: Rate = MAX,
    until_ms: int | None = None,
    advance: Callable[[int], None] = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Played:
    """Publish packets, unexamined and in their order.

    Packets whose origin is known go to the partition they came from, so that what was in order
    stays so.

    Parameters
    ----------
    topics : Topics
        Where to publish.
    packets : iterable of Packet
        From `from_files` or `from_archive`.
    to : str
        The topic; it must exist.
    rate : Rate
        The pace. A packet without a time of arrival follows the one before it at once.
    until_ms : int, optional
        Packets that first arrived at this time or later end the replay. [ms since 1970]
    advance : callable
        Called with the number of packets that were sent since the last call.
    clock, sleep : callable
        The clock [s] and how to wait [s].

    Raises
    ------
    ServiceError
        If the topic does not exist or the server does not answer.
    """
    began = clock()
    count = size = 0
    partitions = len(topics.ranges(to))
    for due, chunk in _chunks(_chosen(packets, until_ms), rate):
        wait = began + due - clock()
        if wait > 0.0:
            sleep(wait)
        for partition, messages in _by_partition(chunk, partitions):
            topics.send(to, messages, partition)
        count += len(chunk)
        size += sum(len(packet) for packet, _, _ in chunk)
        advance(len(chunk))
    return Played(count, size, clock() - began)


def from_files(paths: Iterable[Path]) -> Iterator[Packet]:
    """Yield the content of files, each one packet; nothing is looked at.

    Raises
    ------
    ConfigError
        If a file cannot be read.
    """
    for path in paths:
        try:
            yield path.read_bytes(), None, None
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error}", path=str(path)) from error


def from_archive(archive: Archive, *, survey: str, night: str) -> Iterator[Packet]:
    """Yield a night's packets of a survey in the order in which they arrived.

    Raises
    ------
    ConfigError
        If the archive has none.
    """
    nights = archive.nights(survey)
    if night not in nights:
        known = ", ".join(nights) or "none"
        raise ConfigError(
            f"the archive has no packets of {survey} for night {night}; there are: {known}",
            survey=survey,
            night=night,
        )
    for coordinate, timestamp_ms, packet in archive.packets(survey, night):
        yield packet, timestamp_ms, coordinate


def _chosen(packets: Iterable[Packet], until_ms: int | None) -> Iterator[Packet]:
    for packet in packets:
        if until_ms is not None and packet[1] is not None and packet[1] >= until_ms:
            return
        yield packet


def _due(packets: Iterable[Packet], rate: Rate) -> Iterator[tuple[float, Packet]]:
    """Yield packets with the time at which each is due, from the beginning. [s]"""
    first_ms: int | None = None
    due = began = 0.0
    for number, packet in enumerate(packets):
        if rate.per_second is not None:
            due = number / rate.per_second
        elif rate.speed_up is not None and packet[1] is not None:
            first_ms = packet[1] if first_ms is None else first_ms
            if packet[1] <= first_ms:  # the first, or the first once more: another round
                began = due
            due = max(due, began + (packet[1] - first_ms) / 1000.0 / rate.speed_up)
        yield due, packet


def _chunks(packets: Iterable[Packet], rate: Rate) -> Iterator[tuple[float, list[Packet]]]:
    """Yield packets that go out together: due within 50 ms of one another."""
    chunk: list[Packet] = []
    begin = size = 0.0
    for due, packet in _due(packets, rate):
        full = size >= _CHUNK_BYTES or len(chunk) >= _CHUNK_PACKETS
        if chunk and (full or due - begin > 0.05):
            yield begin, chunk
            chunk, size = [], 0.0
        if not chunk:
            begin = due
        chunk.append(packet)
        size += len(packet[0])
    if chunk:
        yield begin, chunk


def _by_partition(
    chunk: list[Packet], partitions: int
) -> Iterator[tuple[int | None, list[Message]]]:
    groups: dict[int | None, list[Message]] = {}
    for value, _, origin in chunk:
        headers = () if origin is None else ((ORIGIN_HEADER, str(origin).encode()),)
        place = None if origin is None else origin.partition % partitions
        groups.setdefault(place, []).append(Message(value, headers=headers))
    yield from groups.items()
