"""Topics of private watchlists that an earlier version named as public ones: moved."""

import itertools
from collections.abc import Iterator

from broker.alerts.outgoing import VARIANTS
from broker.config import Config
from broker.errors import ServiceError
from broker.topics.topic import Message, Topics, TopicSettings
from broker.watchlists import WatchBook, topic_of

_AT_ONCE = 500


def move_private_topics(config: Config, topics: Topics) -> tuple[str, ...]:
    """Move what is on topics of private lists that have public names; delete those topics.

    A move that is cut short is done again from its beginning: subscribers drop what they have seen
    by its key. Do it when no stream of the earlier version writes any more.

    Parameters
    ----------
    config : Config
        The run, and where its watchlists are.
    topics : Topics

    Returns
    -------
    tuple of str
        The topics that were moved, by their earlier names.

    Raises
    ------
    ServiceError
        If Kafka does not answer, or a topic did not arrive whole; nothing is deleted then.
    """
    run, moved = config.the_run, list[str]()
    there = set(topics.names())
    for one in WatchBook(config.run_path("watchlists")).all():
        if not one.is_private:
            continue
        before = topic_of(one.name, one.owner, is_private=False)
        for variant in VARIANTS:
            old, new = run.public_topic(before, variant), run.public_topic(one.topic, variant)
            if old in there:
                topics.create(new, TopicSettings(partitions=config.kafka.partitions))
                _move(topics, old, new)
                moved.append(old)
    return tuple(moved)


def _move(topics: Topics, old: str, new: str) -> None:
    messages, count = _all(topics, old), 0
    while part := list(itertools.islice(messages, _AT_ONCE)):
        topics.send(new, part)
        count += len(part)
    arrived = sum(part.end - part.first for part in topics.ranges(new))
    if arrived < count:
        raise ServiceError(f"{new} has {arrived} messages, {old} had {count}")
    topics.delete(old)


def _all(topics: Topics, name: str) -> Iterator[Message]:
    for part in topics.ranges(name):
        for one in topics.read(name, partition=part.partition, first=part.first, end=part.end):
            yield Message(one.value, one.key, one.headers, one.timestamp_ms)
