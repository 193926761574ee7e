"""Where answers come from, and the rule that stands above all: what is not public is not there."""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from broker.alerts.adapters import find_adapters
from broker.alerts.columns import KINDS
from broker.api.errors import ApiError, not_found
from broker.api.rows import object_name
from broker.api.shelf import Shelf
from broker.archive import Archive
from broker.catalog.registry import Catalogs
from broker.errors import AlertError, ConfigError
from broker.ops.accounts import Accounts, accounts_of
from broker.ops.packets import find_packets
from broker.ops.topic_notes import Deprecation, deprecation
from broker.science import Contributions
from broker.store.alerts import AlertStore
from broker.store.index import AlertIndex
from broker.store.ledger import Batch, Ledger
from broker.store.quarantine import Quarantine, QuarantineStatus
from broker.store.search import counts_by_kind
from broker.store.table import Tables
from broker.topics.publish import read_schemas, schemas_topic
from broker.topics.topic import Topics
from broker.types import Coordinate, Run
from broker.units import separation_arcsec
from broker.watchlists import WatchBook, Watchlist

Alert = dict[str, Any]
T = TypeVar("T")

_LOG = logging.getLogger(__name__)

COUNTS_S, TOPICS_S, LEDGER_S, SCHEMAS_S = 60.0, 5.0, 60.0, 60.0
OLD_COUNTS_S = 3600.0
"""How old an answer may be that takes a whole table to find. [s]"""

_AT_ONCE = 8
"""Objects of one question that are read at the same time."""

_PACKETS = 64
"""Packets that are kept open, those asked for last."""


@dataclass(frozen=True)
class Packet:
    """A packet that was opened.

    Parameters
    ----------
    raw : bytes
        As it came in.
    canonical : dict
        Its canonical columns, with `history` and the cutouts' files.
    """

    raw: bytes
    canonical: dict[str, Any]

    @property
    def history(self) -> list[dict[str, Any]]:
        """Its epochs that everyone may see, oldest first; `kind` as a word."""
        return [
            {**entry, "kind": KINDS[entry["kind"]]}
            for entry in self.canonical["history"]
            if entry["isPublic"]
        ]

    @property
    def is_public(self) -> bool:
        """Whether everyone may see all of it."""
        return bool(self.canonical["isPublic"]) and all(
            entry["isPublic"] for entry in self.canonical["history"]
        )


@dataclass
class _Cached:
    value: Any = None
    until: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)


class Sources:
    """The stores of one run, as readers see them.

    Parameters
    ----------
    run : Run
        Whose.
    tables, topics : Tables, Topics
        HBase and Kafka, or memory.
    archive : Archive
        Where packets are.
    catalogs : Catalogs
        The installed reference catalogues.
    contributions : Contributions
        Modules and filters.
    """

    def __init__(
        self,
        run: Run,
        *,
        tables: Tables,
        topics: Topics,
        archive: Archive,
        catalogs: Catalogs,
        contributions: Contributions,
    ) -> None:
        self.run, self.tables, self.topics = run, tables, topics
        self.archive, self.catalogs, self.contributions = archive, catalogs, contributions
        self.watchlists: WatchBook | None = None
        self.deprecations: Path | None = None
        """Folder with announced ends of topics, if there is one."""
        self.surveys = tuple(sorted(find_adapters()))
        self._store = self.store = AlertStore(tables, run)
        self.index = AlertIndex(tables, run)
        self.shelf = Shelf(self.index)
        self._cached: dict[str, _Cached] = {}
        self._packets: OrderedDict[tuple[str, str], Packet] = OrderedDict()
        self._lock = threading.Lock()

    def check_survey(self, survey: str) -> None:
        """Raise ApiError if there is no such survey."""
        if survey not in self.surveys:
            raise not_found("survey", survey, self.surveys)

    def has_table(self, name: str) -> bool:
        """Return whether the run has a table; runs from before it was thought of have none."""
        return self.run.table(name) in self.kept("tables", TOPICS_S, self.tables.names)

    def check_index(self) -> None:
        """Raise ApiError if the run is older than the index of alerts."""
        if not self.has_table("index"):
            raise ApiError(
                404,
                f"run {self.run.name} is older than searches: it has no index of its alerts; its "
                f"operator makes one with: broker --run {self.run.name} upgrade",
            )

    def alert(self, survey: str, dia_source_id: str) -> Alert:
        """Return an alert; ApiError 404 if there is none that everyone may see."""
        self.check_survey(survey)
        found = self._store.alert(survey, dia_source_id)
        if found is None or not found["isPublic"]:
            raise not_found(f"alert of {survey}", dia_source_id)
        return found

    def object(self, survey: str, name: str) -> list[Alert]:
        """Return an object's alerts, oldest first; ApiError 404 if there is none."""
        found = self.find_object(survey, name)
        if not found:
            raise not_found(f"object of {survey}", name)
        return found

    def find_object(self, survey: str, name: str, *, brief: bool = False) -> list[Alert]:
        """Return an object's alerts, oldest first; empty if there is none."""
        self.check_survey(survey)
        found = self._store.object(survey, name, brief=brief)
        return [alert for alert in found if alert["isPublic"]]

    def find_objects(self, survey: str, names: Sequence[str]) -> dict[str, list[Alert]]:
        """Return the alerts of many objects by name; several at a time, without outputs."""
        self.check_survey(survey)
        chosen = list(dict.fromkeys(names))
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            found = pool.map(lambda name: self.find_object(survey, name, brief=True), chosen)
            return dict(zip(chosen, found, strict=True))

    def cone(self, ra: float, dec: float, radius_arcsec: float) -> list[Alert]:
        """Return the objects around a place, nearest first, each by its newest public alert."""
        found = []
        for alert in self._store.cone(ra, dec, radius_arcsec):
            shown = alert if alert["isPublic"] else self._newest_near(alert, ra, dec, radius_arcsec)
            if shown is not None:
                found.append(shown)
        return sorted(found, key=lambda a: (a["separation"], a["survey"], object_name(a)))

    def _newest_near(
        self, alert: Alert, ra: float, dec: float, radius_arcsec: float
    ) -> Alert | None:
        for older in reversed(self.find_object(alert["survey"], object_name(alert))):
            separation = float(separation_arcsec(ra, dec, older["ra"], older["dec"]))
            if separation <= radius_arcsec:
                return {**older, "separation": separation}
        return None

    def find_name(self, name: str, survey: str | None = None) -> Iterator[tuple[str, str, str]]:
        """Yield ("object" or "alert", survey, id) of what bears a name."""
        for one in self.surveys if survey is None else (survey,):
            if self.find_object(one, name):
                yield "object", one, name
            alert = self._store.alert(one, name)
            if alert is not None and alert["isPublic"]:
                yield "alert", one, name

    def packet(self, alert: Alert) -> Packet:
        """Return an alert's packet, opened.

        Raises
        ------
        ApiError
            If it is neither in the archive nor on its topic, or cannot be read.
        """
        name = (alert["survey"], alert["diaSourceId"])
        with self._lock:
            kept = self._packets.pop(name, None)
        found = kept or self._open_packet(alert)
        with self._lock:  # a page and the cutouts on it ask for the same one
            self._packets[name] = found
            if len(self._packets) > _PACKETS:
                self._packets.popitem(last=False)
        return found

    def _open_packet(self, alert: Alert) -> Packet:
        adapter = find_adapters()[alert["survey"]]
        for raw in find_packets(self.archive, self.topics, alert):
            try:
                table = adapter.decode_one(raw, Coordinate("", 0, 0))
            except AlertError as error:
                raise ApiError(404, f"the packet cannot be read: {error.message}") from error
            found = Packet(raw, table.slice(0, 1).to_pylist()[0])
            if found.canonical["isPublic"]:  # it may have been sent to partners before
                return found
        raise not_found("packet any more of alert", alert["diaSourceId"])

    # What takes a whole table or many calls: kept for a while.

    def night_counts(self) -> Mapping[str, Mapping[str, int]]:
        """Return the public alerts by night observed and survey; at most a minute old."""
        return self.kept("nights", COUNTS_S, self._count_nights)

    def _count_nights(self) -> dict[str, dict[str, int]]:
        by_night = {night: self.counts(night)["survey"] for night in self.nights()}
        return {night: dict(sorted(by.items())) for night, by in by_night.items() if by}

    def nights(self) -> list[str]:
        """Return the nights that the index has, oldest first; none if the run has no index."""
        if not self.has_table("index"):
            return []
        return self.kept("index-nights", TOPICS_S, self.index.nights)

    def counts(self, night: str) -> dict[str, dict[str, int]]:
        """Return how many public alerts a night has, by kind and value.

        Of the newest two nights it may be a minute old, of others an hour.
        """
        seconds = COUNTS_S if night in self.nights()[-2:] else OLD_COUNTS_S
        return self.kept(
            f"counts-{night}", seconds, lambda: counts_by_kind(self.shelf.counted(night))
        )

    def batches(self) -> list[Batch]:
        """Return all batches of all queries, in the order in which they were recorded."""
        return self.kept("batches", TOPICS_S, self._batches)

    def _batches(self) -> list[Batch]:
        ledger = Ledger(self.tables, self.run)
        found = [batch for query in ledger.queries() for batch in ledger.batches(query)]
        return sorted(found, key=lambda batch: batch.recorded_ms)

    def accounts(self) -> Accounts:
        """Return what became of every message."""
        return self.kept(
            "accounts", LEDGER_S, lambda: accounts_of(self.topics, self.tables, self.run)
        )

    def topic_counts(self) -> Mapping[str, int]:
        """Return how many messages each topic of this run holds."""
        return self.kept("topics", TOPICS_S, self._topic_counts)

    def _topic_counts(self) -> dict[str, int]:
        prefix = "" if self.run.is_live else f"run.{self.run.name}."
        return {
            name: sum(part.end - part.first for part in self.topics.ranges(name))
            for name in self.topics.names()
            if name.startswith(prefix) and (prefix or not name.startswith("run."))
        }

    def schemas(self) -> Mapping[int, Any]:
        """Return the schemas of what this run publishes, by id."""
        return self.kept("schemas", SCHEMAS_S, self._schemas)

    def _schemas(self) -> dict[int, Any]:
        name = schemas_topic(self.run)
        return read_schemas(self.topics, name) if name in self.topics.names() else {}

    def schema(self, schema_id: int) -> Any:
        """Return one schema; read again if it is not known yet."""
        if schema_id not in self.schemas():
            self._forget("schemas")
        found = self.schemas()
        if schema_id not in found:
            raise not_found("schema", str(schema_id), map(str, sorted(found)))
        return found[schema_id]

    def module_status(self) -> list[QuarantineStatus]:
        """Return the modules and filters that ever failed."""
        return Quarantine(self.tables, self.run).status()

    def watchlist_of(self, topic: str) -> Watchlist | None:
        """Return the watchlist whose topic it is; None if it is none's."""
        prefix = "watchlist-"
        if self.watchlists is None or not topic.startswith(prefix):
            return None
        return self.watchlists.find(topic.removeprefix(prefix))

    def end_of(self, topic: str) -> Deprecation | None:
        """Return the announced end of a topic; None if there is none that can be read."""
        try:
            return deprecation(self.deprecations, topic) if self.deprecations else None
        except ConfigError as error:  # a file that was edited by hand must not hide all topics
            _LOG.warning("%s", error.message)
            return None

    def _forget(self, name: str) -> None:
        with self._lock:
            self._cached.pop(name, None)

    def kept(self, name: str, seconds: float, make: Callable[[], T]) -> T:
        """Return what `make` gave, made anew when it is older than some seconds."""
        with self._lock:
            entry = self._cached.setdefault(name, _Cached())
        with entry.lock:  # of those who ask at once one works and the others wait
            if time.monotonic() >= entry.until:
                entry.value = make()
                entry.until = time.monotonic() + seconds
            found: T = entry.value
            return found
