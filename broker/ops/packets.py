"""An alert's packet, from wherever it is kept."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from broker.alerts.adapters import find_adapters
from broker.alerts.columns import CUTOUTS
from broker.archive import Archive
from broker.imaging.cutout import decode_cutout
from broker.topics.publish import DeadLetter
from broker.topics.topic import Topics
from broker.types import Coordinate


def find_packet(archive: Archive, topics: Topics, alert: dict[str, Any]) -> bytes | None:
    """Return an alert's packet from the archive, or from its topic while it is not archived.

    Parameters
    ----------
    archive : Archive
        The run's archive.
    topics : Topics
        Where the input topics are.
    alert : dict
        A stored alert, with its `origins`.

    Returns
    -------
    bytes or None
        The packet as it came in; None if it is in neither place.
    """
    return next(find_packets(archive, topics, alert), None)


def find_packets(archive: Archive, topics: Topics, alert: dict[str, Any]) -> Iterator[bytes]:
    """Yield all packets of an alert that are kept, as of `find_packet`: it may have come twice."""
    for origin in alert["origins"]:
        coordinate = Coordinate(origin["topic"], origin["partition"], origin["offset"])
        packet = archive.get(coordinate)
        if packet is not None:
            yield packet
            continue
        message = topics.get(coordinate)
        if message is not None and message.value is not None:
            yield message.value


def whole_letter(archive: Archive, topics: Topics, letter: DeadLetter) -> DeadLetter | None:
    """Return a dead letter with the message's bytes, wherever they are kept.

    What was refused after it had been decoded does not carry them.

    Parameters
    ----------
    archive : Archive
        The run's archive.
    topics : Topics
        Where the input topics are.
    letter : DeadLetter
        As it was read.

    Returns
    -------
    DeadLetter or None
        None if the bytes are in none of the places.
    """
    if letter.value is not None:
        return letter
    message = topics.get(letter.origin)
    if message is not None:
        return replace(letter, value=message.value, key=message.key)
    body = archive.get(letter.origin)
    return None if body is None else replace(letter, value=body, key=None)


def cutouts_of(survey: str, packet: bytes) -> dict[str, NDArray[np.float32]]:
    """Return the cutouts of a packet by canonical name, those that it has.

    Raises
    ------
    AlertError
        If the packet cannot be read.
    """
    table = find_adapters()[survey].decode_one(packet, Coordinate("", 0, 0))
    images = {}
    for name in CUTOUTS:
        value = table[name][0].as_py()
        if value is not None:
            images[name] = decode_cutout(value)
    return images
