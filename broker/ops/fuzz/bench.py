"""Very many spoilt packets through the stream's own decode stage: JVM, Arrow, Python workers."""

import contextlib
import functools
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from broker.alerts.adapters import find_adapters
from broker.alerts.outgoing import packet_format
from broker.catalog.registry import Catalogs
from broker.config import Config
from broker.ops.fuzz.judge import IMAGES, SURVEYS, cutouts_of, judge, seeds_of
from broker.ops.fuzz.mutate import mutate
from broker.ops.trend import trend_of
from broker.science import Runner
from broker.science.registry import order_contributions
from broker.spark.decode import decode
from broker.spark.enrich import Enricher
from broker.spark.session import make_session, stop_session
from broker.spark.stats import BatchStats
from broker.store.alerts import AlertStore, create_tables
from broker.store.memory import MemoryTables
from broker.types import DEAD_LETTERS, Run

_RUN = Run("fuzz")
_BATCH = 1000
_LEAST_VALUES = 8
_COUNTS = ("consumed", "stored", "dead", "cutouts", "refused", "odd")
_STAGE = ", ".join([*(f"{name} int" for name in _COUNTS), "words array<string>"])
_MB = 1e6

Say = Callable[[str], None]


@dataclass(frozen=True)
class FuzzRow:
    """What became of the spoilt packets of one survey.

    Parameters
    ----------
    survey : str
    packets, alerts, dead_letters : int
        Sent in; that are alerts all the same; that are refused with a reason.
    cutouts, refused : int
        Cutouts of the alerts: read, and refused.
    odd : int
        Refused because a decoder stumbled in a way that it does not know.
    first_mb, last_mb : float
        Memory after a quarter of the packets, and after all: that of the Python processes, and
        what the JVM holds after a collection. What it has taken from the system only tells how
        much it may take. [MB]
    slope_mb, slope_error_mb : float
        Growth with 10,000 packets more, of a line through the second half, and its standard
        error; NaN where there are too few. [MB]
    """

    survey: str
    packets: int
    alerts: int
    dead_letters: int
    cutouts: int
    refused: int
    odd: int
    first_mb: float
    last_mb: float
    slope_mb: float
    slope_error_mb: float

    @property
    def unaccounted(self) -> int:
        """Packets that are neither."""
        return self.packets - self.alerts - self.dead_letters


def bench_fuzz(config: Config, packets: int, *, seed: int = 0, say: Say) -> list[FuzzRow]:
    """Send spoilt packets of each survey, and spoilt images, through what reads them.

    Parameters
    ----------
    config : Config
        For Spark's settings; no server is needed.
    packets : int
        In all: a fifth are images, which are read in this process.
    seed : int
        Chooses packets and mutations.
    say : callable
        Told what is being done.
    """
    spark = make_session(config, "fuzz")
    share = packets // (len(SURVEYS) + 1)
    try:
        rows = []
        for survey in SURVEYS:
            rng = np.random.default_rng([seed, SURVEYS.index(survey)])
            if survey == IMAGES:
                rows.append(_images(rng, share))
            else:
                n = packets - 4 * share + share if survey == "sim" else share
                rows.append(_survey(spark, rng, survey, n, say))
            say(f"{rows[-1]}")
        return rows
    finally:
        stop_session(spark)


def _made(rng: np.random.Generator, survey: str, n: int) -> list[bytes]:
    others = [packet for name in SURVEYS for packet in seeds_of(name)]
    return [mutate(rng, seeds_of(survey), others)[1] for _ in range(n)]


def _survey(spark: Any, rng: np.random.Generator, survey: str, n: int, say: Say) -> FuzzRow:
    total: Counter[str] = Counter()
    memory = []
    # By way of a file, as by way of Kafka: rows that are given directly, and dictionaries of
    # files, stay in the JVM.
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "packets.parquet"
        for first in range(0, n, _BATCH):
            size = min(_BATCH, n - first)
            made = _as_messages(survey, _made(rng, survey, size))
            pq.write_table(made, file, row_group_size=_BATCH // 4, use_dictionary=False)
            decoded = decode(spark.read.parquet(str(file)), {_topic(survey): survey})
            for row in decoded.mapInArrow(judge_batches, _STAGE).collect():
                total.update({name: row[name] for name in _COUNTS})
                for words in row["words"]:
                    say(f"{survey}: odd: {words}")
            python_mb, jvm_mb = _python_mb(), _jvm_mb(spark)
            memory.append(python_mb + jvm_mb)
            say(f"{survey}: {first + size} of {n}, Python {python_mb:.0f}, JVM {jvm_mb:.0f} MB")
    return FuzzRow(
        survey,
        n,
        total["stored"],
        total["dead"],
        total["cutouts"],
        total["refused"],
        total["odd"],
        *_growth(memory),
    )


def _growth(memory: list[float]) -> tuple[float, float, float, float]:
    """Return memory after a quarter and at the end, and the slope of the second half. [MB]"""
    late = memory[len(memory) // 2 :]
    slope = error = np.nan
    if len(late) >= _LEAST_VALUES:
        found = trend_of(np.arange(len(late)) * (_BATCH / 10_000.0), late)
        slope, error = found.slope, found.error
    return memory[len(memory) // 4], memory[-1], slope, error


def _images(rng: np.random.Generator, n: int) -> FuzzRow:
    total: Counter[bool] = Counter()
    memory = []
    for first in range(0, n, _BATCH):
        for packet in _made(rng, IMAGES, min(_BATCH, n - first)):
            total[judge(IMAGES, packet).is_alert] += 1
        memory.append(_python_mb())
    return FuzzRow(IMAGES, n, total[True], total[False], 0, 0, 0, *_growth(memory))


def _topic(survey: str) -> str:
    return _RUN.alerts_topic(survey)


def _as_messages(survey: str, packets: list[bytes]) -> pa.Table:
    n = len(packets)
    return pa.table(
        {
            "topic": pa.array([_topic(survey)] * n),
            "partition": pa.array(np.arange(n) % 2, pa.int32()),
            "offset": pa.array(np.arange(n), pa.int64()),
            "timestamp": pa.array([0] * n, pa.timestamp("us", "UTC")),
            "value": pa.array(packets, pa.binary()),
        }
    )


def judge_batches(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Run in a worker: the one pass without science, on tables in memory; count what came."""
    for batch in batches:
        enricher: Any = _enricher()
        stats = BatchStats()
        canonical: list[pa.Table] = []
        put = enricher.store.put

        def keep(table: pa.Table, put: Any = put, kept: Any = canonical, **more: Any) -> None:
            kept.append(table)
            put(table, **more)

        enricher.store.put = keep
        rows = enricher.enrich(batch, batch_id="fuzz-0", stats=stats).to_pylist()
        dead = [row for row in rows if row["topic"] == _RUN.internal_topic(DEAD_LETTERS)]
        reasons = [
            next(h["value"] for h in row["headers"] if h["key"] == "reason") or b"" for row in dead
        ]
        read = [cutouts_of(table) for table in canonical]
        odd = [r for r in reasons if b"cannot be read: " in r or b" failed: " in r]
        yield pa.RecordBatch.from_pylist(
            [
                {
                    "consumed": batch.num_rows,
                    "stored": stats.counts.get("stored", 0),
                    "dead": len(dead),
                    "cutouts": sum(n for n, _ in read),
                    "refused": sum(n for _, n in read),
                    "odd": len(odd),
                    "words": [words.decode(errors="replace") for words in odd],
                }
            ],
            schema=pa.schema(
                [
                    *((name, pa.int32()) for name in _COUNTS),
                    ("words", pa.list_(pa.string())),
                ]
            ),
        )


def _enricher() -> Enricher:
    """Return an enricher without science; its tables are new, so that memory can be flat."""
    found = _contributions()
    tables = MemoryTables()
    create_tables(tables, _RUN)
    nowhere = Path("/nowhere")
    return Enricher(
        run=_RUN,
        adapters=find_adapters(),
        catalogs=Catalogs(nowhere),
        contributions=found,
        runner=Runner(found, catalogs={}, isolate=False),
        store=AlertStore(tables, _RUN),
        packets=packet_format(found.qualified_columns, {}),
    )


@functools.cache
def _contributions() -> Any:
    return order_contributions((), {})


def _python_mb() -> float:
    """Return the memory of this process and the Python processes below it. [MB]"""
    me = psutil.Process(os.getpid())
    total = 0.0
    for one in (me, *me.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += 0.0 if one.name() == "java" else one.memory_info().rss / _MB
    return total


def _jvm_mb(spark: Any) -> float:
    """Return what the JVM holds after a collection: objects, classes and code. [MB]"""
    spark._jvm.java.lang.System.gc()
    beans = spark._jvm.java.lang.management.ManagementFactory.getMemoryMXBean()
    used = beans.getHeapMemoryUsage().getUsed() + beans.getNonHeapMemoryUsage().getUsed()
    return float(used) / _MB
