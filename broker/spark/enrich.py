"""The one Arrow pass of the alert stream: decoded packets in, rows for Kafka out.

Crossmatch, science modules and filters run on a batch of canonical columns; its rows are stored,
acknowledged, before anything of it leaves. This module needs no Spark: an `Enricher` is built
once a Python worker, and as well in a test or a notebook.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

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
from broker.spark.stats import BatchStats
from broker.store.alerts import AlertStore
from broker.topics.publish import dead_letter
from broker.topics.topic import Message
from broker.types import DEAD_LETTERS, Run

_LOG = logging.getLogger(__name__)
_ASK_EVERY_S = 5.0

FILTER_VERSION = "filter"
"""What stands in the place of a version where a filter's failures are kept."""

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
    ) -> None:
        self.adapters, self.catalogs, self.runner = adapters, catalogs, runner
        self.store, self.packets, self.notices = store, packets, notices
        self.dead_letters = run.internal_topic(DEAD_LETTERS)
        self.addresses = {
            topic: tuple(run.public_topic(topic, variant) for variant in VARIANTS)
            for topic in contributions.topics
        }
        self.provenance = {
            "code": __version__,
            "modules": ",".join(module.label for module in contributions.modules),
        }
        self._labels = contribution_labels(contributions)
        self._quarantine, self._asked_at = quarantine, -np.inf

    def enrich(
        self, batch: pa.RecordBatch | pa.Table, *, batch_id: str, stats: BatchStats
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
        work = _Pass(self, batch, batch_id, stats)
        stats.count("consumed", batch.num_rows)
        surveys = batch.column("survey")
        for survey in pc.unique(surveys).to_pylist():
            work.survey(survey, np.flatnonzero(np.asarray(pc.equal(surveys, survey))))
        return work.out.table()

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


def contribution_labels(contributions: Contributions) -> dict[str, str]:
    """Return the version of each module and filter by name; a filter has none of its own."""
    modules = (*contributions.modules, *contributions.shadows)
    return {module.name: module.version for module in modules} | dict.fromkeys(
        contributions.topics, FILTER_VERSION
    )


class _Pass:
    """The work on one batch."""

    def __init__(
        self, tools: Enricher, batch: pa.RecordBatch | pa.Table, batch_id: str, stats: BatchStats
    ) -> None:
        self._tools, self._batch, self._stats = tools, batch, stats
        self._batch_id = batch_id.encode()
        self._source = Source.of(batch)
        self.out = MessageRows()

    def survey(self, survey: str, rows: Rows) -> None:
        """Judge, store and publish the rows of one survey."""
        with self._stats.timed("canonical"):
            table, rows = self._canonical(self._tools.adapters[survey], rows)
        if not len(rows):
            return
        with self._stats.timed("match"):
            match = self._tools.catalogs.match(
                *(table.column(name) for name in ("ra", "dec", "midpointMjdTai"))
            )
            table = _with_columns(_with_columns(table, match), self._notices(table))
        with self._stats.timed("science"):
            outcome = self._tools.runner.run(table)
        self._note(outcome)
        is_public = np.asarray(table.column("isPublic"))
        topics = _topics_of(
            {name: passed & is_public for name, passed in outcome.passes.items()}, len(rows)
        )
        with self._stats.timed("store"):
            outputs = _stored_outputs(outcome, table)
            self._tools.store.put(
                table, outputs=outputs, topics=topics, provenance=self._tools.provenance
            )
        self._stats.count("stored", len(rows))
        with self._stats.timed("notices"):
            self._publish_pairs(table)
        self._stats.count("notPublic", int((~is_public).sum()))
        with self._stats.timed("encode"):
            self._publish(table, outcome, topics, rows)

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
        self, table: pa.Table, outcome: Outcome, topics: Sequence[Sequence[str]], rows: Rows
    ) -> None:
        """Encode the alerts that passed a filter, each once, and address them to its topics."""
        chosen = np.flatnonzero([bool(names) for names in topics])
        if not len(chosen):
            return
        passing, outputs = table.take(pa.array(chosen)), _taken(outcome.outputs, chosen)
        names = [topics[i] for i in chosen.tolist()]
        packets = self._tools.packets.encode(
            passing, outputs=outputs, status=outcome.status, topics=names
        )
        ids = zip(
            passing.column("survey").to_pylist(),
            passing.column("diaSourceId").to_pylist(),
            strict=True,
        )
        for (survey, dia_source_id), bodies, its_topics, row in zip(
            ids, packets, names, rows[chosen].tolist(), strict=True
        ):
            key = f"{survey}|{dia_source_id}".encode()
            headers = self._headers(survey, dia_source_id, row)
            for topic in its_topics:
                self._stats.count(f"topic:{topic}")
                for address, body in zip(self._tools.addresses[topic], bodies, strict=True):
                    self.out.add(address, Message(body, key, headers))
        self._stats.count("published", len(chosen))

    def _headers(self, survey: str, dia_source_id: str, row: int) -> tuple[tuple[str, bytes], ...]:
        """Return what may differ between repeats of a packet, and what routes it unread."""
        return (
            ("diaSourceId", dia_source_id.encode()),
            ("survey", survey.encode()),
            ("batchId", self._batch_id),
            ("ingestTimestamp", str(self._source.timestamp_ms(row)).encode()),
            ("origin", str(self._source.coordinate(row)).encode()),
        )


def _stored_outputs(outcome: Outcome, table: pa.Table) -> pa.Table:
    """Return all outputs, of versions that run beside too: a row an alert even without modules."""
    made = [t for t in (outcome.outputs, outcome.shadow_outputs) if t.num_columns]
    if not made:
        return table.select([])
    return _with_columns(made[0], made[1]) if len(made) > 1 else made[0]


def _with_columns(table: pa.Table, more: pa.Table) -> pa.Table:
    arrays = [*table.columns, *more.columns]
    fields = [*table.schema, *more.schema]
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def _taken(outputs: pa.Table, rows: Rows) -> pa.Table:
    """Return some rows; without modules there are no columns, and no rows to take from."""
    return outputs.take(pa.array(rows)) if outputs.num_columns else outputs


def _topics_of(passes: Mapping[str, Any], n_alerts: int) -> list[list[str]]:
    """Return the names of the filters that each alert passed, sorted."""
    topics: list[list[str]] = [[] for _ in range(n_alerts)]
    for name in sorted(passes):
        for i in np.flatnonzero(passes[name]).tolist():
            topics[i].append(name)
    return topics
