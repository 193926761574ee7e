"""Faults one after the other under load; after each, proof that nothing was lost."""

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from broker.config import Config
from broker.errors import ServiceError
from broker.ops.faults.bed import BURST_ALERTS, Bed, bed_config, tail
from broker.ops.faults.kinds import KINDS
from broker.ops.faults.proof import Published, differences, look
from broker.streaming.query import checkpoint_path, run_queries
from broker.topics.topic import Message, TopicSettings

_PATIENCE_S = 240.0
"""How long a query may finish no batch. [s]"""

_BURST = 200
"""Messages that wait when a fault comes, so that it comes in the middle of work."""

_LATEST_S = 2.0
_SEND = 200
_CALM_BATCH = 1000
"""Alerts in a batch of the undisturbed run: rows and packets do not depend on it."""

OUTAGE = "outage"
OUTAGE_S = 600.0
"""How long the stream is away. [s]"""

Say = Callable[[str], None]


@dataclass(frozen=True)
class FaultRow:
    """What one fault did.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    recovery_s : float or None
        From the fault until all that had entered by then was finished; None if it never was. [s]
    entered, lost, twice, repeats, unequal : int
        As of `broker.ops.faults.proof.Finding`, of the whole run so far; repeats since the last
        fault.
    problem : str
        What went wrong, empty if nothing did.
    note : str
        What the fault has to tell besides.
    """

    kind: str
    recovery_s: float | None
    entered: int = 0
    lost: int = 0
    twice: int = 0
    repeats: int = 0
    unequal: int = 0
    problem: str = ""
    note: str = ""

    @property
    def is_survived(self) -> bool:
        """Whether the broker went on, with nothing lost, twice or unequal."""
        return self.recovery_s is not None and not (
            self.lost or self.twice or self.unequal or self.problem
        )


@dataclass(frozen=True)
class FaultBench:
    """All faults of a bench.

    Parameters
    ----------
    rows : list of FaultRow
        In the order in which they came.
    differences : list of str or None
        In what rows and packets differ from an undisturbed run; None if that was not run.
    """

    rows: list[FaultRow] = field(default_factory=list)
    differences: list[str] | None = None

    @property
    def is_good(self) -> bool:
        """Whether every fault was survived, and nothing differs from an undisturbed run."""
        return all(row.is_survived for row in self.rows) and not self.differences

    def recovery_s(self, kind: str | None = None) -> tuple[float, float]:
        """Return median and 95th percentile of the recovery time. [s]"""
        spans = [
            row.recovery_s
            for row in self.rows
            if row.recovery_s is not None and kind in (None, row.kind)
        ]
        if not spans:
            return np.nan, np.nan
        p50, p95 = np.percentile(spans, (50, 95))
        return float(p50), float(p95)


def bench_faults(
    config: Config,
    kinds: Sequence[str],
    *,
    seed: int = 0,
    pause_s: float = 10.0,
    outage_s: float = OUTAGE_S,
    burst_alerts: int = BURST_ALERTS,
    control: bool = True,
    transactions: bool = False,
    say: Say = lambda _: None,
) -> FaultBench:
    """Strike a running broker, again and again.

    Parameters
    ----------
    config : Config
        Settings; servers with a home below its own and free ports are started for this.
    kinds : sequence of str
        What to do, in this order; see `KINDS` and `draw`.
    seed : int
        Chooses the packets and the moments.
    pause_s : float
        How long a pause or a cut lasts. [s]
    outage_s : float
        How long an outage lasts. [s]
    burst_alerts : int
        Alerts of a burst.
    control : bool
        Afterwards run the same packets undisturbed, and compare all rows and packets.
    transactions : bool
        Send in Kafka's transactions; then a packet that comes twice is a problem.
    say : callable
        Told what happens.

    Raises
    ------
    ConfigError, ServiceError
        If the servers do not start.
    """
    rng = np.random.default_rng([seed, 1])
    bench = FaultBench()
    bed = Bed(bed_config(config, transactions=transactions), seed)
    bed.burst_alerts = burst_alerts
    with bed.running():
        published = Published(bed.topics, bed.servers.the_run)
        bed.load.burst(_BURST)
        bed.drain(_PATIENCE_S)  # warm
        for number, kind in enumerate(kinds, 1):
            wait_s = float(rng.uniform(0.0, _LATEST_S))
            row = _strike(bed, published, kind, wait_s, outage_s if kind == OUTAGE else pause_s)
            bench.rows.append(row)
            say(f"{number}/{len(kinds)} {_words(row)}")
            if row.recovery_s is None:
                say(tail(bed.folder / "stream.err"))
                return bench
        bed.kill_stream()
        if control:
            say("running the same packets undisturbed")
            return replace(bench, differences=_compare(bed))
    return bench


def _words(row: FaultRow) -> str:
    span = "never" if row.recovery_s is None else f"after {row.recovery_s:.1f} s"
    bad = "".join(f"; {words}" for words in (row.problem, row.note) if words)
    return (
        f"{row.kind}: all through {span}; of {row.entered} lost {row.lost}, twice {row.twice}, "
        f"repeats {row.repeats}, unequal {row.unequal}{bad}"
    )


def _strike(bed: Bed, published: Published, name: str, wait_s: float, pause_s: float) -> FaultRow:
    """Do one fault under load, wait until all is through, and look."""
    kind = KINDS[name]
    bed.notes.clear()
    bed.start_stream()
    bed.load.burst(_BURST)
    bed.load.start()
    problem = ""
    try:
        if kind.at_random:
            time.sleep(wait_s)
        began = time.monotonic()
        try:
            kind.strike(bed, pause_s)
        except ServiceError as error:
            problem = error.message
        if not kind.at_random:
            began = time.monotonic()
        entered = bed.ends()
        took = bed.wait_for(entered, _PATIENCE_S)
        recovery_s = None if took is None else time.monotonic() - began
    finally:
        bed.load.stop()
    if recovery_s is None or not bed.drain(_PATIENCE_S):
        return FaultRow(name, None, problem=problem or "the stream does not come to the end")
    found = look(bed, published)
    if found.repeats and bed.config.stream.transactions:
        problem = problem or f"{found.repeats} packets came twice in spite of transactions"
    return FaultRow(
        name,
        recovery_s,
        found.entered,
        found.lost,
        found.twice,
        found.repeats,
        found.unequal,
        problem,
        "; ".join(bed.notes),
    )


def _compare(bed: Bed) -> list[str]:
    """Send all packets to a run that nothing happens to; return what differs."""
    calm = replace(bed.config, run="calm")
    for survey, packets in bed.load.sent.items():
        name = calm.the_run.alerts_topic(survey)
        bed.topics.create(name, TopicSettings(partitions=calm.kafka.partitions))
        for first in range(0, len(packets), _SEND):
            bed.topics.send(name, [Message(p) for p in packets[first : first + _SEND]])
    shutil.rmtree(checkpoint_path(calm, "alerts").parent, ignore_errors=True)
    stream = replace(calm.stream, idle_s=0.0, max_alerts_per_trigger=_CALM_BATCH)
    quiet = replace(calm, stream=stream)
    run_queries(quiet, ["alerts"], until_idle=True)
    return differences(bed.tables, bed.topics, bed.servers.the_run, calm.the_run)
