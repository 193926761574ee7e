"""What users and TLS cost a subscriber: the same packets from a Kafka with them and one without."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice

from broker.avro import Schema
from broker.client.bench import in_turns
from broker.client.subscription import subscribe
from broker.config import Config
from broker.topics.kafka import KafkaTopics
from broker.topics.publish import schemas_topic, store_schemas
from broker.topics.topic import Message, TopicSettings


def bench_secure(
    configs: Mapping[str, Config], schemas: Mapping[int, Schema], packets: Sequence[bytes], *,
    number: int, turns: int,
) -> dict[str, float]:  # fmt: skip
    """Measure a subscription at several Kafka servers, in turns.

    Parameters
    ----------
    configs : mapping of str to Config
        By name; the run is one that nothing else uses, and its topics are deleted afterwards.
    schemas, packets
        As of `broker.client.bench.bench_client`.
    number, turns : int
        Packets of a turn; measured turns, after one that warms up.

    Returns
    -------
    dict
        Packets per second of processor time, by name. [1/s]

    Raises
    ------
    ServiceError
        If a server does not answer, or a packet does not come once.
    """
    with contextlib.ExitStack() as stack:
        tasks = {
            name: stack.enter_context(_reading(config, schemas, packets, number))
            for name, config in configs.items()
        }
        return in_turns(tasks, number=number, turns=turns)


@contextlib.contextmanager
def _reading(
    config: Config, schemas: Mapping[int, Schema], packets: Sequence[bytes], number: int
) -> Iterator[Callable[[], int]]:
    """Put packets on a topic; give a function that reads them all and returns their number."""
    topics, run = KafkaTopics(config.kafka.bootstrap), config.the_run
    name = run.public_topic("bench-secure", "slim")

    def read() -> int:
        with subscribe(name, since="earliest", config=config) as alerts:
            return sum(1 for _ in islice(alerts, number))

    try:
        topics.create(name, TopicSettings(partitions=1))
        store_schemas(topics, run, schemas)
        sent = (Message(packets[i % len(packets)], key=str(i).encode()) for i in range(number))
        topics.send(name, sent)
        yield read
    finally:
        for one in (name, schemas_topic(run)):
            topics.delete(one)
        topics.close()
