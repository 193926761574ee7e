"""The one Arrow pass of the alert stream: decoded packets in, rows for Kafka out.

Crossmatch, science modules and filters run on a batch of canonical columns; its rows are stored,
acknowledged, before anything of it leaves. This module needs no Spark: an `Enricher` is built
once a Python worker, and as well in a test or a notebook.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from broker import __version__
from broker.alerts.adapter import Adapter
from broker.alerts.outgoing import VARIANTS, PacketFormat
from broker.catalog.registry import Catalogs
from broker.errors import AlertError
from broker.notices import not_searched
from broker.science import Contributions, Outcome, Runner
from broker.spark.messages import MessageRows, Source, origin_of, whole
from broker.spark.notice_board import NoticeBoard
from broker.spark.rows import (
    contribution_labels,
    stored_outputs,
    taken,
    topics_of,
    with_columns,
)
from broker.spark.stats import BatchStats
from broker.spark.throttle import Share
from broker.spark.watching import Watched, deliveries, watched_of, with_watched
from broker.store.alerts import AlertStore
from broker.topics.publish import dead_letter
from broker.topics.topic import Message
from broker.types import DEAD_LETTERS, Run
from broker.watchlists import WatchBoard

_ASK_EVERY_S = 5.0

Rows = NDArray[np.int64]


class AsksQuarantine(Protocol):
    """Knows which contributions are quarantined now."""

    def quarantined(self) -> set[str]:
        """Return them as `name@version`."""
        ...


class Enricher:
    """Turns decoded batches into stored rows and messages.

    Parameters
    ----------
    run : Run
        The run whose topics are written.
    adapters : mapping of str to Adapter
        By survey.
    catalogs : Catalogs
        Reference catalogues.
    contributions : Contributions
        Science modules and filters.
    runner : Runner
        Runs them.
    store : AlertStore
        Where rows are put.
    packets : PacketFormat
        How alerts become packets; its schemas must be on the schemas topic already.
    quarantine : AsksQuarantine, optional
        Asked every few seconds which contributions not to run.
    notices : NoticeBoard, optional
        The notices that alerts are matched with; without it they read "not searched".
    watchlists : WatchBoard, optional
        The lists of users, each with a topic of its own.
    """

    def __init__(
        self,
        *,
        run: Run,
        adapters: Mapping[str, Adapter],
        catalogs: Catalogs,
        contributions: Contributions,
        runner: Runner,
        store: AlertStore,
        packets: PacketFormat,
        quarantine: AsksQuarantine | None = None,
        notices: NoticeBoard | None = None,
        watchlists: WatchBoard | None = None,
    ) -> None:
        self.adapters, self.catalogs, self.runner = adapters, catalogs, runner
        self.store, self.packets, self.notices = store, packets, notices
        self.watchlists, self._run = watchlists, run
        self.dead_letters = run.internal_topic(DEAD_LETTERS)
        self.provenance = {
            "code": __version__,
            "modules": ",".join(module.label for module in contributions.modules),
        }
        self._labels = contribution_labels(contributions)
        self._quarantine, self._asked_at = quarantine, -np.inf

    def enrich(
        self,
        batch: pa.RecordBatch | pa.Table,
        *,
        batch_id: str,
        stats: BatchStats,
        floods: Mapping[str, Share] = MappingProxyType({}),
    ) -> pa.Table:
        """Store what a batch has and return what leaves.

        Parameters
        ----------
        batch : Arrow batch
            As `broker.spark.decode` makes it: topic, partition, offset, timestamp, survey,
            schemaId, value (only where the packet could not be decoded), and a struct a survey.
        batch_id : str
            Goes into the headers.
        stats : BatchStats
            Added to.
        floods : mapping of str to Share
            Topics of whose packets only a part goes out.

        Returns
        -------
        pa.Table
            Schema `OUTGOING`: packets by topic, and dead letters. All rows of the batch that are
            not dead letters have been stored and acknowledged.

        Raises
        ------
        ServiceError
            If the store does not answer for as long as its client goes on trying.
        """
        self._ask_quarantine()
        work = _Pass(self, batch, batch_id, stats, floods)
        stats.count("consumed", batch.num_rows)
        work.note_arrivals()
        surveys = batch.column("survey")
        for survey in pc.unique(surveys).to_pylist():
            work.survey(survey, np.flatnonzero(np.asarray(pc.equal(surveys, survey))))
        return work.out.table()

    def refill(
        self, batch: pa.RecordBatch | pa.Table, *, labels: Collection[str], stats: BatchStats
    ) -> None:
        """Add outputs to the alerts of a batch that are stored; nothing is published.

        Parameters
        ----------
        batch : Arrow batch
            As for `enrich`.
        labels : collection of str
            Modules whose outputs are stored, as `module@version`; others run for them only.
        stats : BatchStats
            Added to: `consumed`, `stored`, `notStored`, `deadLetters`.
        """
        self._ask_quarantine()
        work = _Pass(self, batch, "", stats, {})
        stats.count("consumed", batch.num_rows)
        surveys = batch.column("survey")
        for survey in pc.unique(surveys).to_pylist():
            rows = np.flatnonzero(np.asarray(pc.equal(surveys, survey)))
            work.refill(survey, rows, labels)

    def addresses(self, topic: str) -> tuple[str, ...]:
        """Return the Kafka topics of a filter or a watchlist, one a variant."""
        return tuple(self._run.public_topic(topic, variant) for variant in VARIANTS)

    def _ask_quarantine(self) -> None:
        now = time.monotonic()
        if self._quarantine is not None and now - self._asked_at > _ASK_EVERY_S:
            held = self._quarantine.quarantined()
            self.runner.quarantined = frozenset(
                name for name, version in self._labels.items() if f"{name}@{version}" in held
            )
            self._asked_at = now

    def close(self) -> None:
        """End the process that runs contributed code."""
        self.runner.close()


class _Pass:
    """The work on one batch."""

    def __init__(
        self,
        tools: Enricher,
        batch: pa.RecordBatch | pa.Table,
        batch_id: str,
        stats: BatchStats,
        floods: Mapping[str, Share],
    ) -> None:
        self._floods = floods
        self._tools, self._batch, self._stats = tools, batch, stats
        self._batch_id = batch_id.encode()
        self._source = Source.of(batch)
        self.out = MessageRows()

    def note_arrivals(self) -> None:
        """Note when the messages came, for the latency of the batch."""
        self._stats.arrive(self._source.timestamps_ms)

    def survey(self, survey: str, rows: Rows) -> None:
        """Judge, store and publish the rows of one survey."""
        table, outcome, rows = self._judge(survey, rows)
        if outcome is None:
            return
        is_public = np.asarray(table.column("isPublic"))
        topics = topics_of(
            {name: passed & is_public for name, passed in outcome.passes.items()}, len(rows)
        )
        board = self._tools.watchlists
        watched = watched_of(board, table, outcome.outputs, is_public, self._stats)
        topics = with_watched(topics, watched)
        with self._stats.timed("store"):
            outputs = stored_outputs(outcome, table)
            self._tools.store.put(
                table, outputs=outputs, topics=topics, provenance=self._tools.provenance
            )
        self._stats.count("stored", len(rows))
        with self._stats.timed("notices"):
            self._publish_pairs(table)
        self._stats.count("notPublic", int((~is_public).sum()))
        with self._stats.timed("encode"):
            self._publish(table, outcome, topics, watched, rows)

    def refill(self, survey: str, rows: Rows, labels: Collection[str]) -> None:
        """Run the modules on the rows of one survey, and store outputs of some of them."""
        table, outcome, rows = self._judge(survey, rows)
        if outcome is None:
            return
        outputs = stored_outputs(outcome, table)
        kept = [name for name in outputs.column_names if name.partition(":")[0] in labels]
        with self._stats.timed("store"):
            stored = self._tools.store.put_outputs(table, outputs=outputs.select(kept))
        self._stats.count("stored", stored)
        self._stats.count("notStored", len(rows) - stored)

    def _judge(self, survey: str, rows: Rows) -> tuple[pa.Table, Outcome | None, Rows]:
        """Return the rows of one survey as alerts with matches, and what is said of them."""
        with self._stats.timed("canonical"):
            table, rows = self._canonical(self._tools.adapters[survey], rows)
        if not len(rows):
            return table, None, rows
        with self._stats.timed("match"):
            match = self._tools.catalogs.match(
                *(table.column(name) for name in ("ra", "dec", "midpointMjdTai"))
            )
            table = with_columns(with_columns(table, match), self._notices(table))
        with self._stats.timed("science"):
            outcome = self._tools.runner.run(table)
        self._note(outcome)
        return table, outcome, rows

    def _canonical(self, adapter: Adapter, rows: Rows) -> tuple[pa.Table, Rows]:
        """Return the canonical table of some rows, and which of them it has."""
        values = self._batch.column("value")
        known = self._batch.column(adapter.survey)
        decoded = np.asarray(pc.and_(pc.is_null(values), pc.is_valid(known)))[rows]
        parts = []
        if decoded.any():
            parts.append(self._from_decoded(adapter, rows[decoded]))
        parts += [
            self._from_packet(adapter, values[row].as_py() or b"", row)
            for row in rows[~decoded].tolist()
        ]
        tables = [(table, its) for table, its in parts if len(its)]
        if len(tables) < 2:
            return tables[0] if tables else (None, rows[:0])
        # What was read one by one joins the rest, so that modules see one batch.
        return (
            pa.concat_tables([table for table, _ in tables]),
            np.concatenate([its for _, its in tables]),
        )

    def _from_decoded(self, adapter: Adapter, rows: Rows) -> tuple[pa.Table, Rows]:
        part = self._batch
        if len(rows) < part.num_rows:
            part = part.take(pa.array(rows))
        try:
            canonical = adapter.to_canonical(whole(part.column(adapter.survey)), origin_of(part))
        except Exception as error:  # noqa: BLE001 - one odd packet must not stop the stream
            return self._one_by_one(adapter, rows, error)
        for name, n in canonical.counts.items():
            self._stats.count(name, n)
        for at, reason in canonical.problems.items():
            self._dead(int(rows[at]), "canonical", reason, None)
        kept = np.ones(len(rows), dtype=bool)
        kept[list(canonical.problems)] = False
        return canonical.table, rows[kept]

    def _one_by_one(self, adapter: Adapter, rows: Rows, error: Exception) -> tuple[pa.Table, Rows]:
        """Find the packet that an adapter stumbles over; the others go on."""
        if len(rows) == 1:
            reason = f"the adapter {adapter.survey} failed: {type(error).__name__}: {error}"
            self._dead(int(rows[0]), "canonical", reason, None)
            return None, rows[:0]
        halves = [self._from_decoded(adapter, half) for half in np.array_split(rows, 2)]
        found = [(table, its) for table, its in halves if len(its)]
        if not found:
            return None, rows[:0]
        tables, kept = zip(*found, strict=True)
        return pa.concat_tables(tables), np.concatenate(kept)

    def _from_packet(self, adapter: Adapter, packet: bytes, row: int) -> tuple[pa.Table, Rows]:
        """Read a packet that the JVM did not: an unusual one, or a bad one."""
        try:
            table = adapter.decode_one(packet, self._source.coordinate(row))
        except AlertError as error:
            self._dead(row, "decode", error.message, packet)
            return None, np.empty(0, np.int64)
        except Exception as error:  # noqa: BLE001 - whatever bytes do to a decoder, the stream goes on
            reason = f"the packet cannot be read: {type(error).__name__}: {error}"
            self._dead(row, "decode", reason, packet)
            return None, np.empty(0, np.int64)
        self._stats.count("decodedOneByOne")
        return table, np.array([row])

    def _notices(self, table: pa.Table) -> pa.Table:
        board = self._tools.notices
        if board is None:
            return not_searched(table.num_rows)
        return board.match(*(table.column(name) for name in ("ra", "dec", "midpointMjdTai")))

    def _publish_pairs(self, table: pa.Table) -> None:
        """Publish the pairs with notices; after the alerts are stored, so that none is missed."""
        board = self._tools.notices
        if board is None:
            return
        for message in board.pairs(table):
            self.out.add(board.topic, message)
            self._stats.count("noticePairs")

    def _dead(self, row: int, stage: str, reason: str, packet: bytes | None) -> None:
        letter = dead_letter(
            self._source.coordinate(row),
            stage,
            reason,
            packet,
            timestamp_ms=self._source.timestamp_ms(row),
        )
        self.out.add(self._tools.dead_letters, letter)
        self._stats.count("deadLetters")

    def _note(self, outcome: Outcome) -> None:
        for name, seconds in outcome.seconds.items():
            self._stats.spend(f"module:{name}", seconds)
        for name, peak_mb in outcome.peak_mb.items():
            self._stats.take_memory(name, peak_mb)
        for name, reason in outcome.failures.items():
            self._stats.fail(name, reason)

    def _publish(
        self, table: pa.Table, outcome: Outcome, topics: Sequence[Sequence[str]],
        watched: Watched, rows: Rows,
    ) -> None:  # fmt: skip
        """Encode the alerts that passed a filter, each once, and address them to its topics."""
        chosen = np.flatnonzero([bool(names) or i in watched for i, names in enumerate(topics)])
        if not len(chosen):
            return
        passing, outputs = table.take(pa.array(chosen)), taken(outcome.outputs, chosen)
        names = [topics[i] for i in chosen.tolist()]
        packets = self._tools.packets.encode(
            passing, outputs=outputs, status=outcome.status, topics=names
        )
        ids = zip(
            passing.column("survey").to_pylist(),
            passing.column("diaSourceId").to_pylist(),
            strict=True,
        )
        for (survey, dia_source_id), bodies, its_topics, at in zip(
            ids, packets, names, chosen.tolist(), strict=True
        ):
            key = f"{survey}|{dia_source_id}".encode()
            headers = self._headers(survey, dia_source_id, int(rows[at]))
            its_lists = watched.get(at, ())
            went = list(deliveries(self._floods, its_topics, its_lists, key, self._stats))
            for topic, more in went:
                for address, body in zip(self._tools.addresses(topic), bodies, strict=True):
                    self.out.add(address, Message(body, key, (*headers, *more)))
            self._stats.count("published", int(bool(went)))

    def _headers(self, survey: str, dia_source_id: str, row: int) -> tuple[tuple[str, bytes], ...]:
        """Return what may differ between repeats of a packet, and what routes it unread."""
        return (
            ("diaSourceId", dia_source_id.encode()),
            ("survey", survey.encode()),
            ("batchId", self._batch_id),
            ("ingestTimestamp", str(self._source.timestamp_ms(row)).encode()),
            ("origin", str(self._source.coordinate(row)).encode()),
        )
