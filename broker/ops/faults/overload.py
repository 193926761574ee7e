"""Too much, too slow, too full: faults after which everything still has to come through."""

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence

import psutil

from broker.errors import ServiceError
from broker.local import stack
from broker.ops.faults.bed import SURVEYS, Bed
from broker.ops.faults.soak import usage_of
from broker.topics.kafka_group import KafkaGroup
from broker.topics.publish import read_all
from broker.topics.topic import Message, Topics
from broker.types import Coordinate, Run

_LIVE_S = 3.0
_BATCHES = 10
"""A backlog of more batches than this shows whether another survey waits for it."""

_BURST_BATCH = 2000
_DELAY_S = 0.05
"""What a slow HBase takes longer for each piece of an answer or a question. [s]"""

_READ_EVERY_S = 0.5
_FILE_BYTES = 64 << 10
_WAIT_S = 600.0
_MORE_MB = 3000.0
"""What the stream may need more memory for a burst: its heap, once. [MB]"""


def slow_hbase(bed: Bed, seconds: float) -> None:
    """Let every piece that goes to HBase or comes from it take longer."""
    relay = bed.relay("cut-hbase")
    relay.slow(_DELAY_S)
    time.sleep(seconds)
    relay.slow(0.0)


def burst(bed: Bed, _: float) -> None:
    """Send a night's worth of alerts at once; memory has to stay in bounds, and lag to show."""
    bed.wait_for(bed.ends(), _WAIT_S)  # warm, with small batches
    before_mb = _memory_mb(bed)
    bed.kill_stream()
    bed.batch = _BURST_BATCH
    made = bed.load.make(bed.burst_alerts)
    bed.start_stream()
    with _peak(bed) as peak:
        began = time.monotonic()
        bed.load.send(made)
        sent_s = time.monotonic() - began
        ends = bed.ends()
        lag = _waiting(bed, ends)
        took = bed.wait_for(ends, _WAIT_S)
    bed.batch = 0  # from its next start; what has come meanwhile is still to be done
    if took is None:
        raise ServiceError(f"the burst stood still with {lag} messages waiting")
    bed.notes.append(
        f"{bed.burst_alerts} alerts in {sent_s:.1f} s, lag seen {lag}, through after {took:.0f} s, "
        f"memory {before_mb:.0f} to {max(peak):.0f} MB"
    )
    if lag < bed.burst_alerts // 2:
        raise ServiceError(
            f"of {bed.burst_alerts} messages that came at once, {lag} wait: no burst"
        )
    if max(peak) > before_mb + _MORE_MB:
        raise ServiceError(f"memory grew from {before_mb:.0f} to {max(peak):.0f} MB")


def outage(bed: Bed, seconds: float) -> None:
    """Leave the stream dead while one survey goes on; another that comes then is not behind it."""
    bed.kill_stream()
    backlogged, live = SURVEYS[:2]
    bed.load.only = backlogged
    time.sleep(seconds)
    missed = _waiting(bed, bed.ends())
    bed.load.only = live
    bed.start_stream()
    began = time.monotonic()
    time.sleep(_LIVE_S)
    topic = bed.servers.the_run.alerts_topic(live)
    took = bed.wait_for({at: end for at, end in bed.ends().items() if at[0] == topic}, _WAIT_S)
    bed.load.only = None
    left = _waiting(bed, bed.ends())
    bed.notes.append(
        f"{missed} messages of {backlogged} waited after {seconds:.0f} s; {live} was through "
        f"{time.monotonic() - began:.1f} s after the start, {left} waited then"
    )
    batch = bed.config.stream.max_alerts_per_trigger
    if took is None:
        raise ServiceError(f"no batch ended for {_WAIT_S:.0f} s after the outage")
    if missed > _BATCHES * batch and left < missed // 2:
        raise ServiceError(f"{live} had to wait for the backlog of {backlogged}")


def _waiting(bed: Bed, ends: dict[tuple[str, int], int]) -> int:
    done = bed.finished("alerts")
    return sum(end - done.get(place, 0) for place, end in ends.items())


def slow_subscriber(bed: Bed, seconds: float) -> None:
    """Let a subscriber take a message now and then, and at last all, each once."""
    name = _fullest(bed.topics, bed.servers.the_run)
    group = KafkaGroup(bed.servers.kafka.bootstrap, name, "slow-subscriber", start_ms=0)
    taken: list[Coordinate] = []
    waiting: list[Message] = []
    try:
        limit = time.monotonic() + seconds
        while time.monotonic() < limit:
            waiting += [] if waiting else group.poll(1.0)
            _take(group, waiting[:1], taken)
            del waiting[:1]
            time.sleep(_READ_EVERY_S)
        lag = group.lag()
        ends = {part.partition: part.end for part in bed.topics.ranges(name)}
        limit = time.monotonic() + _WAIT_S
        while group.lag() and time.monotonic() < limit:
            _take(group, [*waiting, *group.poll(1.0)], taken)
            waiting.clear()
        group.commit()
    finally:
        group.close()
    there = [m.coordinate for m in read_all(bed.topics, name)]
    then = [at for at in there if at is not None and at.offset < ends[at.partition]]
    mine = [at for at in taken if at.offset < ends[at.partition]]
    bed.notes.append(f"{lag} of {len(then)} waited for the subscriber")
    if sorted(map(str, mine)) != sorted(map(str, then)):
        raise ServiceError(f"the subscriber has {len(mine)} of {len(then)} packets of {name}")


def disk_full(bed: Bed, _: float) -> None:
    """Let Kafka write no file longer than a bound, as on a full disk, until it gives up."""
    kafka = bed.server("kafka")
    _, hard = kafka.rlimit(psutil.RLIMIT_FSIZE)
    kafka.rlimit(psutil.RLIMIT_FSIZE, (_FILE_BYTES, hard))
    try:
        kafka.wait(_WAIT_S)
    except psutil.TimeoutExpired:
        kafka.rlimit(psutil.RLIMIT_FSIZE, (hard, hard))
        raise ServiceError("Kafka goes on writing to a full disk") from None
    stack.up(bed.servers)


def _take(group: KafkaGroup, messages: Sequence[Message], taken: list[Coordinate]) -> None:
    for message in messages:
        group.handled(message)
        taken += [] if message.coordinate is None else [message.coordinate]


def _fullest(topics: Topics, run: Run) -> str:
    """Return the public topic with the most packets."""
    names = [n for n in topics.names() if n.startswith(f"run.{run.name}.") and n.endswith(".slim")]
    return max(names, key=lambda name: sum(p.end - p.first for p in topics.ranges(name)))


@contextlib.contextmanager
def _peak(bed: Bed) -> Iterator[list[float]]:
    """Give a list to which the stream's memory is added all the time. [MB]"""
    found, stopping = [_memory_mb(bed)], threading.Event()

    def watch() -> None:
        while not stopping.wait(0.5):
            found.append(_memory_mb(bed))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        stopping.set()
        thread.join()


def _memory_mb(bed: Bed) -> float:
    return usage_of(bed.stream_parts(), least_age_s=0.0)[0]
