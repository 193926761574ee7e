"""What a subscriber needs: topics as Python iterators. Loads neither Spark nor HBase."""

from broker.client.consumer import Packet, Schemas, read_topic, starting_offsets
from broker.client.subscription import Subscription, read_frame, subscribe

__all__ = [
    "Packet",
    "Schemas",
    "Subscription",
    "read_frame",
    "read_topic",
    "starting_offsets",
    "subscribe",
]
