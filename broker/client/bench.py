"""The benchmark of the client: packets a second on one core, beside a loop without it."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from broker.avro import Schema, parse
from broker.client.subscription import subscribe
from broker.config import Config
from broker.errors import ServiceError
from broker.topics.kafka import KafkaTopics
from broker.topics.kafka_group import read_plainly
from broker.topics.publish import schemas_topic, store_schemas
from broker.topics.topic import Message, TopicSettings

LEAST_PER_S = 5000.0


@dataclass(frozen=True)
class ClientRates:
    """Packets per second of processor time, medians of the turns.

    Parameters
    ----------
    packets : int
        Packets of a turn.
    mean_bytes : float
        Of a packet.
    plain, loose, group, frames : float
        A plain loop; a subscription without and with a group; data frames. [1/s]
    """

    packets: int
    mean_bytes: float
    plain: float
    loose: float
    group: float
    frames: float


def bench_client(
    config: Config, schemas: Mapping[int, Schema], packets: Sequence[bytes], *,
    number: int, turns: int,
) -> ClientRates:  # fmt: skip
    """Measure the client on packets that stand on a topic of a run of its own.

    Parameters
    ----------
    config : Config
        Where Kafka is; its run is one that nothing else uses. Its topics are deleted afterwards.
    schemas : mapping
        The packets' schemas, by id.
    packets : sequence of bytes
        Framed packets, sent over and over under new keys.
    number : int
        Packets of a turn.
    turns : int
        Measured turns, after one that warms up.

    Raises
    ------
    ServiceError
        If Kafka does not answer, or a way of reading does not give every packet once.
    """
    topics, run = KafkaTopics(config.kafka.bootstrap), config.the_run
    name = run.public_topic("bench-client", "slim")
    try:
        topics.create(name, TopicSettings(partitions=1))
        store_schemas(topics, run, schemas)
        topics.send(
            name,
            (Message(packets[i % len(packets)], key=str(i).encode()) for i in range(number)),
        )
        parsed = {i: parse(schema) for i, schema in schemas.items()}

        def plain() -> int:
            return len(read_plainly(config.kafka.bootstrap, name, parsed, number=number))

        def subscribed(group: str | None) -> int:
            since = "earliest"
            with subscribe(name, since=since, group=group, config=config) as alerts:
                return sum(1 for _ in islice(alerts, number))

        def frames() -> int:
            found = 0
            with subscribe(name, since="earliest", config=config) as alerts:
                for frame in alerts.frames(1000):
                    found += len(frame)
                    if found >= number:
                        break
            return found

        groups = iter(range(turns + 1))
        tasks: dict[str, Callable[[], int]] = {
            "plain": plain,
            "loose": lambda: subscribed(None),
            "group": lambda: subscribed(f"{run.name}-{next(groups)}"),
            "frames": frames,
        }
        rates = in_turns(tasks, number=number, turns=turns)
    finally:
        for one in (name, schemas_topic(run)):
            topics.delete(one)
        topics.close()
    return ClientRates(number, statistics.mean(len(p) for p in packets), **rates)


def in_turns(
    tasks: Mapping[str, Callable[[], int]], *, number: int, turns: int
) -> dict[str, float]:
    """Return by name how many packets a task reads per second of processor time, the median."""
    spent: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(turns + 1):
        for name, task in tasks.items():
            began = time.process_time()
            found = task()
            if turn:
                spent[name].append(time.process_time() - began)
            if found != number:
                raise ServiceError(f"{name}: {found} packets were read, not {number}")
    return {name: number / statistics.median(seconds) for name, seconds in spent.items()}
