"""Alerts of nights as the index has them, kept for a few seconds: pages are turned."""

import threading
import time
from collections import OrderedDict

from broker.store.blocks import Entries
from broker.store.index import AlertIndex

_KEPT_S = 15.0
_MOST_KEPT = 1_500_000


class Shelf:
    """Alerts of nights and topics, kept for a few seconds: pages are turned.

    Parameters
    ----------
    index : AlertIndex
        Where they are read.
    """

    def __init__(self, index: AlertIndex) -> None:
        self._index, self._lock = index, threading.Lock()
        self._kept: OrderedDict[tuple[str, str | None], tuple[float, Entries]] = OrderedDict()

    def entries(self, night: str, topic: str | None) -> Entries:
        """Return the alerts of a night, of a topic if one is named, at most seconds old."""
        name, now = (night, topic), time.monotonic()
        with self._lock:
            since, kept = self._kept.get(name, (0.0, None))
            if kept is not None and now - since < _KEPT_S:
                return kept
        found = self._index.entries(night, topic=topic)
        with self._lock:
            self._kept.pop(name, None)
            self._kept[name] = (now, found)
            while sum(len(e) for _, e in self._kept.values()) > _MOST_KEPT and len(self._kept) > 1:
                self._kept.popitem(last=False)
        return found
