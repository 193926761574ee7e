"""The watchlists that alerts of a batch are on, in the one pass."""

import logging
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from broker.spark.stats import BatchStats
from broker.spark.throttle import Share, let_out
from broker.watchlists import Sighting, WatchBoard

_LOG = logging.getLogger(__name__)

Watched = Mapping[int, Sequence[Sighting]]
"""The lists that an alert is on, by its row."""

Headers = tuple[tuple[str, bytes], ...]


def watched_of(
    board: WatchBoard | None,
    table: pa.Table,
    outputs: pa.Table,
    is_public: NDArray[np.bool_],
    stats: BatchStats,
) -> Watched:
    """Return the watchlists that each alert is on; whatever a list does, the stream goes on."""
    if board is None:
        return {}
    with stats.timed("watch"):
        try:
            found = board.match(table, outputs, is_public)
        except Exception as error:  # noqa: BLE001 - a user's list must not stop the stream
            _LOG.warning("watchlists cannot be matched: %s: %s", type(error).__name__, error)
            stats.count("watchlistsFailed")
            return {}
        stats.count("watchlistsFailed", len(board.failures))
    return found


def with_watched(topics: Sequence[Sequence[str]], watched: Watched) -> list[list[str]]:
    """Return the topics of each alert with those of the lists it is on, sorted.

    What a private list chose is on its own topic and is said nowhere else.
    """
    both = [list(names) for names in topics]
    for row, found in watched.items():
        shown = (one.topic for one in found if not one.listed.is_private)
        both[row] = sorted([*both[row], *shown])
    return both


def deliveries(
    floods: Mapping[str, Share],
    topics: Sequence[str],
    watched: Sequence[Sighting],
    key: bytes,
    stats: BatchStats,
) -> Iterator[tuple[str, Headers]]:
    """Yield the topics that an alert goes out to, with the headers that each adds; count all."""
    seen = {one.topic: one for one in watched}
    for topic, more in let_out(floods, topics, key, stats):
        yield topic, (*more, seen[topic].header) if topic in seen else more
    for one in watched:
        if one.listed.is_private:
            stats.count("privateMatches")
            yield one.topic, (one.header,)
