"""Topics that flood: more alerts pass than was declared, so a share of them is held back, visibly.

What is held back stays in the tables under its topic; packets that go out say in the header
`throttled` what share goes out and why; the ledger counts what was held back. The decision for a
micro-batch follows from the batches recorded before it, and which alerts go out from their ids,
so a batch that is repeated sends the same packets.
"""

import hashlib
import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from broker.spark.stats import BatchStats
from broker.store.ledger import Batch
from broker.types import OffsetRange

HEADER = "throttled"
"""Header of the packets of a topic that floods, JSON: share, limit, alerts, kept."""

_SIGMAS = 5.0
_BYTES = 8


@dataclass(frozen=True)
class Share:
    """What part of the newest alerts passed the filter of a topic.

    Parameters
    ----------
    topic : str
    limit : float
        The part that it declares.
    alerts, passed, held : int
        Alerts looked at, those that passed, and of these those held back.
    enough : int
        Alerts that must have been looked at before it is judged.
    """

    topic: str
    limit: float
    alerts: int
    passed: int
    held: int
    enough: int

    @property
    def share(self) -> float:
        """The part that passed, 0 if there were no alerts."""
        return self.passed / self.alerts if self.alerts else 0.0

    @property
    def is_flood(self) -> bool:
        """Whether more passed than declared, by more than chance has it."""
        expected = self.limit * self.alerts
        spread = (expected * (1.0 - self.limit)) ** 0.5
        return self.alerts >= self.enough and self.passed > expected + _SIGMAS * spread

    @property
    def kept(self) -> float:
        """The part of those passing that goes out: what brings the share to its limit."""
        return self.limit / self.share if self.is_flood else 1.0

    @property
    def header(self) -> tuple[str, bytes]:
        """What packets of a topic that floods carry."""
        said = {
            "share": round(self.share, 6),
            "limit": self.limit,
            "alerts": self.alerts,
            "kept": round(self.kept, 6),
        }
        return HEADER, json.dumps(said).encode()

    def keeps(self, key: bytes) -> bool:
        """Tell whether the alert of a key goes out; the same for ever."""
        drawn = int.from_bytes(hashlib.blake2b(key, digest_size=_BYTES).digest(), "big")
        return drawn < self.kept * 256.0**_BYTES


def shares(
    limits: Mapping[str, float], batches: Sequence[Mapping[str, int]], enough: int
) -> dict[str, Share]:
    """Return the share of each topic over batches, by topic.

    Parameters
    ----------
    limits : mapping of str to float
        What each topic declares.
    batches : sequence of mappings
        Counts of batches, as the ledger has them.
    enough : int
        See `Share`.
    """
    total: dict[str, int] = {}
    for counts in batches:
        for name, n in counts.items():
            total[name] = total.get(name, 0) + n
    found = {}
    for topic, limit in limits.items():
        held = total.get(f"throttled:{topic}", 0)
        passed = total.get(f"topic:{topic}", 0) + held
        found[topic] = Share(topic, limit, total.get("stored", 0), passed, held, enough)
    return found


class FloodWatch:
    """Remembers the newest batches and says which topics flood.

    Parameters
    ----------
    limits : mapping of str to float
        What part of alerts each topic declares to pass.
    batches : sequence of Batch
        What is in the ledger, in order.
    window : int
        Alerts that the newest batches must have together; fewer are not judged.
    """

    def __init__(self, limits: Mapping[str, float], batches: Sequence[Batch], window: int) -> None:
        self._limits, self._window = limits, window
        self._newest: deque[tuple[Sequence[OffsetRange], Mapping[str, int]]] = deque()
        for batch in batches:
            self.note(batch.ranges, batch.counts)

    def note(self, ranges: Sequence[OffsetRange], counts: Mapping[str, int]) -> None:
        """Remember a batch that was recorded."""
        self._newest.append((tuple(ranges), dict(counts)))
        newest = counts.get("stored", 0)
        rest = sum(its.get("stored", 0) for _, its in self._newest)
        # The window must be full without the newest too: that may be the one that is repeated.
        while (oldest := self._newest[0][1].get("stored", 0)) + newest + self._window <= rest:
            if len(self._newest) < 2:
                break
            self._newest.popleft()
            rest -= oldest

    def shares(self, ranges: Sequence[OffsetRange] = ()) -> dict[str, Share]:
        """Return the share of each topic before a batch of these ranges."""
        chosen: list[Mapping[str, int]] = []
        alerts = 0
        for its, counts in reversed(self._newest):
            if alerts >= self._window:
                break
            if not _overlap(its, ranges):
                chosen.append(counts)
                alerts += counts.get("stored", 0)
        return shares(self._limits, chosen, self._window)

    def floods(self, ranges: Sequence[OffsetRange]) -> dict[str, Share]:
        """Return the topics that flood before a batch of these ranges."""
        return {topic: share for topic, share in self.shares(ranges).items() if share.is_flood}


def _overlap(some: Sequence[OffsetRange], others: Sequence[OffsetRange]) -> bool:
    return any(
        (a.topic, a.partition) == (b.topic, b.partition) and a.first < b.end and b.first < a.end
        for a in some
        for b in others
    )


def let_out(
    floods: Mapping[str, Share], topics: Sequence[str], key: bytes, stats: BatchStats
) -> Iterator[tuple[str, tuple[tuple[str, bytes], ...]]]:
    """Yield the topics that an alert goes out to, with the headers that these add; count all."""
    for topic in topics:
        share = floods.get(topic)
        if share is None:
            stats.count(f"topic:{topic}")
            yield topic, ()
        elif share.keeps(key):
            stats.count(f"topic:{topic}")
            yield topic, (share.header,)
        else:
            stats.count(f"throttled:{topic}")
