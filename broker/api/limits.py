"""How many requests a client may send: a bucket of tokens for each."""

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

_CLIENTS = 10_000
"""Clients that are remembered; of more, those that were silent longest are forgotten."""


class TokenBuckets:
    """One bucket a client: a request takes a token, time brings new ones.

    Parameters
    ----------
    per_s : float
        Tokens that come each second.
    burst : int
        Tokens that a bucket holds.
    clock : callable
        Seconds that only rise.
    """

    def __init__(
        self, *, per_s: float, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_s, self._burst, self._clock = per_s, float(burst), clock
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str, per_s: float | None = None) -> int:
        """Take a token; 0 if there was one, else whole seconds after which there will be.

        Parameters
        ----------
        client : str
        per_s : float, optional
            This one's own rate, with as many seconds' worth at once as others have. [1/s]
        """
        now, rate = self._clock(), self._per_s if per_s is None else per_s
        most = max(1.0, self._burst * rate / self._per_s)
        with self._lock:
            tokens, then = self._buckets.pop(client, (most, now))
            tokens = min(most, tokens + (now - then) * rate)
            allowed = tokens >= 1.0
            self._buckets[client] = (tokens - allowed, now)
            if len(self._buckets) > _CLIENTS:
                self._buckets.popitem(last=False)
        return 0 if allowed else max(1, math.ceil((1.0 - tokens) / rate))
