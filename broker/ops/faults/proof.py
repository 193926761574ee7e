"""What must hold after a fault: each message in one place, no row twice or torn, repeats equal."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from broker.ops.accounts import accounts_of
from broker.ops.faults.bed import Bed
from broker.store.alerts import AlertStore
from broker.store.table import Tables
from broker.topics.topic import Topics
from broker.types import Run


@dataclass(frozen=True)
class Finding:
    """What was found after a fault.

    Parameters
    ----------
    entered : int
        Messages on the input topics.
    lost : int
        Of these, those that stand in no place; and acknowledged ones that are on no topic.
    twice : int
        Those that stand in more than one place, and alerts with a row that is not whole.
    repeats : int
        Packets that were published again since the last look, equal to the first.
    unequal : int
        Those that were not equal, and keys that one variant of a topic lacks.
    """

    entered: int
    lost: int
    twice: int
    repeats: int
    unequal: int

    @property
    def is_good(self) -> bool:
        """Whether nothing is lost, twice or unequal."""
        return not (self.lost or self.twice or self.unequal)


class Published:
    """What a run has published so far; each look reads what is new."""

    def __init__(self, topics: Topics, run: Run) -> None:
        self.bodies: dict[str, dict[bytes, bytes]] = {}
        """Hash of the packet, by topic and key."""
        self._topics, self._run = topics, run
        self._next: dict[tuple[str, int], int] = {}

    def look(self) -> tuple[int, int]:
        """Return how many repeats are new, and how much is unequal."""
        repeats = unequal = 0
        for name in public_topics(self._topics, self._run):
            known = self.bodies.setdefault(name, {})
            for key, body in self._new(name):
                first = known.setdefault(key, body)
                if first is not body:
                    repeats += first == body
                    unequal += first != body
        for name, known in self.bodies.items():
            other = self.bodies.get(_other_variant(name), {})
            unequal += len(known.keys() ^ other.keys())
        return repeats, unequal

    def _new(self, name: str) -> Iterator[tuple[bytes, bytes]]:
        for part in self._topics.ranges(name):
            place = (name, part.partition)
            first = self._next.get(place, part.first)
            for message in self._topics.read(
                name, partition=part.partition, first=first, end=part.end
            ):
                yield message.key or b"", hashlib.sha256(message.value or b"").digest()
            self._next[place] = part.end


def public_topics(topics: Topics, run: Run) -> list[str]:
    """Return the topics that subscribers of a run read."""
    prefix = f"run.{run.name}."
    return [
        name
        for name in topics.names()
        if name.startswith(prefix) and name.endswith((".slim", ".full"))
    ]


def _other_variant(name: str) -> str:
    stem, _, variant = name.rpartition(".")
    return f"{stem}.{'full' if variant == 'slim' else 'slim'}"


def look(bed: Bed, published: Published) -> Finding:
    """Return what stands where, when both queries are at the end of the topics."""
    run = bed.servers.the_run
    accounts = accounts_of(bed.topics, bed.tables, run)
    ranges = [part for name in bed.inputs(run) for part in bed.topics.ranges(name)]
    entered = sum(part.end - part.first for part in ranges)
    gone = max(0, sum(len(sent) for sent in bed.load.sent.values()) - entered)
    repeats, unequal = published.look()
    lost = accounts.total.missing + accounts.unread + gone + entered - accounts.total.consumed
    twice = sum("several places" in problem.what for problem in accounts.problems)
    return Finding(entered, lost, twice + torn(bed.tables, run), repeats, unequal)


def torn(tables: Tables, run: Run) -> int:
    """Return how many alerts lack a part: what leads to them by id, or by their place."""
    ids = {row[b"k:a"] for _, row in tables.table(run.table("alert_id")).scan(columns=[b"k:a"])}
    places = {
        value[16:]  # after ra and dec
        for _, row in tables.table(run.table("sky")).scan()
        for value in row.values()
    }
    torn = 0
    for key, row in tables.table(run.table("alert")).scan():
        whole = b"c:v" in row and b"p:v" in row and any(name[:2] == b"o:" for name in row)
        torn += not (whole and key in ids and key in places)
    return torn


def differences(tables: Tables, topics: Topics, run: Run, control: Run) -> list[str]:
    """Return in what a run differs from one that nothing happened to, with the same packets.

    Rows are compared byte by byte, all but where the packets stood; packets by topic, key, bytes.
    """
    rows, theirs = (dict(_rows(tables, one)) for one in (run, control))
    found = [f"row {key!r}" for key in rows.keys() ^ theirs.keys()]
    found += [f"row {key!r}" for key in rows.keys() & theirs.keys() if rows[key] != theirs[key]]
    for one, other in ((run, control), (control, run)):
        sent, meant = Published(topics, one), Published(topics, other)
        sent.look(), meant.look()
        for name, packets in sent.bodies.items():
            expected = meant.bodies.get(name.replace(f"run.{one.name}.", f"run.{other.name}."), {})
            found += [
                f"packet {name} {key!r}" for key in packets if packets[key] != expected.get(key)
            ]
    return found


def _rows(tables: Tables, run: Run) -> Iterator[tuple[bytes, dict[bytes, bytes]]]:
    for key, row in tables.table(run.table("alert")).scan():
        yield key, {name: value for name, value in row.items() if name[:2] != b"o:"}


def stored_topics(tables: Tables, run: Run) -> dict[str, set[bytes]]:
    """Return the keys of the packets that each topic must have, as the rows say."""
    found: dict[str, set[bytes]] = {}
    for alert in AlertStore(tables, run).every():
        for topic in alert["topics"]:
            key = f"{alert['survey']}|{alert['diaSourceId']}".encode()
            found.setdefault(topic, set()).add(key)
    return found
