"""The program that tells people: digests, not more often than they want, none forgotten.

Progress is kept only after a message was taken by the other side: if the program dies between, the
same alerts are told again. What cannot be sent waits and is tried again, ever less often.
"""

import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from broker.errors import BrokerError, ServiceError
from broker.ops.push import PushBook, PushSubscription
from broker.ops.push_send import Digest, Record
from broker.store.alerts import AlertStore

_LOG = logging.getLogger(__name__)
_LONGEST_WAIT_S = 3600.0
_FIRST_WAIT_S = 5.0


class Source(Protocol):
    """Where a subscription's alerts come from, and who remembers which were told."""

    def fresh(self) -> list[Record]:
        """Return alerts that have come since this was asked last."""
        ...

    def told(self) -> None:
        """Keep that all that was returned has been told."""
        ...

    def close(self) -> None:
        """Let go."""
        ...


class Reader(Protocol):
    """A member of a consumer group."""

    def poll(self, timeout_s: float) -> list[Any]: ...  # noqa: D102
    def handled(self, message: Any) -> None: ...  # noqa: D102
    def commit(self) -> None: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102


class TopicSource:
    """Alerts of a topic, each once; those that not everyone may see are left out.

    Parameters
    ----------
    reader : Reader
        A group of this subscription's own.
    read : callable
        Makes a message into a record.
    """

    def __init__(self, reader: Reader, read: Callable[[Any], Record]) -> None:
        self._reader, self._read = reader, read
        self._held: list[Any] = []
        self._keys: set[bytes] = set()

    def fresh(self) -> list[Record]:
        """Return alerts that have come since this was asked last."""
        found = []
        for message in self._reader.poll(0.05):
            self._held.append(message)
            if message.value is None or message.key in self._keys:
                continue
            self._keys.add(message.key)
            record = self._read(message)
            if record.get("isPublic", False):
                found.append(record)
        return found

    def told(self) -> None:
        """Commit what was returned."""
        for message in self._held:
            self._reader.handled(message)
        self._held.clear()
        self._keys.clear()
        self._reader.commit()

    def close(self) -> None:
        """Leave the group; what was not told comes again."""
        self._reader.close()


class ObjectSource:
    """Alerts of one object as they are stored; it remembers in a file which were told.

    Parameters
    ----------
    store : AlertStore
        Where alerts are.
    survey, object_id : str
        The object.
    path : Path
        The file. Without it, alerts that are there already count as told.
    clock : callable
        Seconds that only rise.
    look_every_s : float
        The store is asked so often. [s]
    """

    def __init__(
        self, store: AlertStore, survey: str, object_id: str, *, path: Path,
        clock: Callable[[], float], look_every_s: float,
    ) -> None:  # fmt: skip
        self._store, self._survey, self._object = store, survey, object_id
        self._path, self._clock, self._look_every_s = path, clock, look_every_s
        self._looked: float | None = None
        if path.exists():
            self._known = set(json.loads(path.read_text(encoding="utf-8")))
        else:
            self._known = {alert["diaSourceId"] for alert in self._alerts()}
            self.told()

    def _alerts(self) -> list[Record]:
        return [a for a in self._store.object(self._survey, self._object) if a["isPublic"]]

    def fresh(self) -> list[Record]:
        """Return alerts that have come since this was asked last."""
        now = self._clock()
        if self._looked is not None and now - self._looked < self._look_every_s:
            return []
        self._looked = now
        found = [alert for alert in self._alerts() if alert["diaSourceId"] not in self._known]
        self._known |= {alert["diaSourceId"] for alert in found}
        return found

    def told(self) -> None:
        """Write which were told."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        new = self._path.with_name(f".{self._path.name}")
        new.write_text(json.dumps(sorted(self._known)), encoding="utf-8")
        new.replace(self._path)

    def close(self) -> None:
        """Nothing is held."""


@dataclass
class _Line:
    """One subscription under way."""

    subscription: PushSubscription
    source: Source
    shown: list[Record] = field(default_factory=list)
    number: int = 0
    next_at: float = 0.0
    wait_s: float = _FIRST_WAIT_S


class Pusher:
    """Tells subscribers of alerts as they come.

    Parameters
    ----------
    book : PushBook
        Who is told; looked at again on every round, so that an ended subscription ends at once.
    open_source : callable
        Makes the source of a subscription.
    send : callable
        Sends a digest; raises ServiceError if it was not taken.
    url : str
        Address of the portal, for links.
    clock : callable
        Seconds that only rise.
    """

    def __init__(
        self, book: PushBook, *, open_source: Callable[[PushSubscription], Source],
        send: Callable[[Digest], None], url: str, clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self._book, self._open, self._send = book, open_source, send
        self._url, self._clock = url.rstrip("/"), clock
        self._lines: dict[str, _Line] = {}

    def turn(self) -> Counter[str]:
        """Look at every subscription once; return `alerts`, `sent` and `failed` messages."""
        counts: Counter[str] = Counter()
        self._follow_book()
        for line in self._lines.values():
            for alert in line.source.fresh():
                line.number += 1
                counts["alerts"] += 1
                if len(line.shown) < line.subscription.most:
                    line.shown.append(alert)
            if line.number and self._clock() >= line.next_at:
                counts["sent" if self._tell(line) else "failed"] += 1
        return counts

    @property
    def waiting(self) -> Mapping[str, int]:
        """Alerts that have not been told yet, by subscription."""
        return {name: line.number for name, line in self._lines.items()}

    def close(self) -> None:
        """Let go of all sources."""
        for line in self._lines.values():
            line.source.close()
        self._lines.clear()

    def _follow_book(self) -> None:
        wanted = {one.name: one for one in self._book.all()}
        for name in sorted(set(self._lines) - set(wanted)):
            self._lines.pop(name).source.close()
        for name, one in wanted.items():
            if name not in self._lines:
                try:
                    self._lines[name] = _Line(one, self._open(one))
                except BrokerError as error:  # its topic may come later; the others go on
                    _LOG.warning("subscription %s cannot begin: %s", name, error.message)

    def _tell(self, line: _Line) -> bool:
        one = line.subscription
        link = f"{self._url}/api/v1/unsubscribe?token={self._book.token(one.name)}"
        try:
            self._send(Digest(one, line.shown, line.number, self._url, link))
        except ServiceError as error:
            _LOG.warning("subscription %s was not told: %s", one.name, error.message)
            after = float(error.data.get("retry_after_s") or 0.0)
            line.next_at = self._clock() + max(line.wait_s, after)
            line.wait_s = min(2.0 * line.wait_s, _LONGEST_WAIT_S)
            return False
        line.source.told()
        line.shown, line.number = [], 0
        line.next_at, line.wait_s = self._clock() + one.every_s, _FIRST_WAIT_S
        return True
