"""What leaves a micro-batch: messages to Kafka, in one write; numbers to the driver."""

from pyspark import SparkContext
from pyspark.accumulators import Accumulator, AccumulatorParam
from pyspark.sql import DataFrame

from broker.spark.stats import BatchStats
from broker.topics.kafka_access import java_options

_MAX_REQUEST_BYTES = 32 << 20
_PRODUCER_BUFFER_BYTES = 64 << 20


def write_messages(messages: DataFrame, bootstrap: str, *, by_workers: bool = False) -> None:
    """Publish rows of (topic, key, value, headers) and wait for all acknowledgements.

    Each row goes to the topic it names, which must exist. This is the one action of a
    micro-batch: whatever the frame's lineage does is done once.

    Parameters
    ----------
    messages : DataFrame
        Columns as `broker.spark.messages.OUTGOING`.
    bootstrap : str
        Kafka's address.
    by_workers : bool
        What makes the frame has sent all by itself and has no rows: only have it made.
    """
    if by_workers:
        messages.write.format("noop").mode("append").save()
        return
    (
        messages.write.format("kafka")
        .options(**java_options(bootstrap))
        .option("includeHeaders", "true")
        .option("kafka.acks", "all")
        .option("kafka.linger.ms", "5")
        .option("kafka.batch.size", str(256 << 10))
        .option("kafka.max.request.size", str(_MAX_REQUEST_BYTES))
        .option("kafka.buffer.memory", str(_PRODUCER_BUFFER_BYTES))
        .option("kafka.max.block.ms", "60000")
        .save()
    )


class _StatsParam(AccumulatorParam[BatchStats]):
    """Adds up what the tasks of a batch counted; a task that failed is not counted."""

    def zero(self, value: BatchStats) -> BatchStats:  # noqa: ARG002
        return BatchStats()

    def addInPlace(  # noqa: N802 - Spark's name
        self, value1: BatchStats, value2: BatchStats
    ) -> BatchStats:
        return value1.add(value2)


class StatsCollector:
    """Brings what the workers counted to the driver, without a second pass over a batch.

    Parameters
    ----------
    context : SparkContext
        The session's context.
    """

    def __init__(self, context: SparkContext) -> None:
        self.accumulator: Accumulator[BatchStats] = context.accumulator(BatchStats(), _StatsParam())

    def take(self) -> BatchStats:
        """Return what has come since the last call."""
        taken: BatchStats = self.accumulator.value
        self.accumulator.value = BatchStats()
        return taken
