"""What a subscriber needs: topics as Python iterators. Loads neither Spark nor HBase."""

from broker.client.consumer import Packet, Schemas, read_topic, starting_offsets

__all__ = ["Packet", "Schemas", "read_topic", "starting_offsets"]
