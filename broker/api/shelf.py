"""Alerts of nights as the index has them, kept for a while: pages are turned, maps are drawn."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from broker.store.blocks import Entries
from broker.store.index import AlertIndex

_FOUND_S, _COUNTED_S = 15.0, 60.0
_MOST_KEPT = 1_500_000


class Shelf:
    """What was read of the index lately, as many alerts as memory allows.

    Parameters
    ----------
    index : AlertIndex
        Where they are read.
    """

    def __init__(self, index: AlertIndex) -> None:
        self._index, self._lock = index, threading.Lock()
        self._kept: OrderedDict[tuple[str, str], tuple[float, Entries]] = OrderedDict()

    def entries(self, night: str, topic: str | None) -> Entries:
        """Return the alerts of a night, of a topic if one is named, at most seconds old."""
        name = (night, "" if topic is None else f"topic {topic}")
        return self._read(name, _FOUND_S, lambda: self._index.entries(night, topic=topic))

    def counted(self, night: str) -> Entries:
        """Return what is counted of a night, at most a minute old."""
        return self._read((night, "counted"), _COUNTED_S, lambda: self._index.counted(night))

    def clear(self) -> None:
        """Forget all of it."""
        with self._lock:
            self._kept.clear()

    def _read(self, name: tuple[str, str], seconds: float, read: Callable[[], Entries]) -> Entries:
        now = time.monotonic()
        with self._lock:
            if name in self._kept and now < self._kept[name][0] + seconds:
                self._kept.move_to_end(name)
                return self._kept[name][1]
        found = read()
        with self._lock:
            self._kept[name] = (now, found)
            self._kept.move_to_end(name)
            while sum(len(e) for _, e in self._kept.values()) > _MOST_KEPT and len(self._kept) > 1:
                self._kept.popitem(last=False)
        return found
