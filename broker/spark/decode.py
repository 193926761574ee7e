"""Packets from Kafka's bytes to columns, in the JVM: one struct column a survey.

Nothing is sent to Python but what is used: the slim struct of the survey, and the bytes of those
packets only that could not be decoded. Which schema a packet has is told by position: the id in
its framing, or the length and the sync marker of its container's header.
"""

import json
from collections.abc import Mapping

import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F  # noqa: N812
from pyspark.sql.avro.functions import from_avro
from pyspark.sql.pandas.types import from_arrow_type
from pyspark.sql.types import DataType

from broker.alerts.adapter import Adapter
from broker.alerts.adapters import find_adapters
from broker.alerts.wire import (
    CONTAINER_MAGIC,
    LARGEST_BODY,
    ONE_RECORD,
    SMALLEST_BODY,
    SYNC_BYTES,
)
from broker.avro import HEADER_BYTES, Schema
from broker.errors import ConfigError

COORDINATE = ("topic", "partition", "offset", "timestamp")
"""Columns of Kafka's source that are passed on; `headers` too where the source has them."""

_SIZE_BYTES = 3
"""Bytes of the varint with a container's block size, for all bodies that are cut by position."""


def decode(df: DataFrame, topics: Mapping[str, str]) -> DataFrame:
    """Decode the packets of Kafka's source.

    Parameters
    ----------
    df : DataFrame
        With Kafka's columns `topic`, `partition`, `offset`, `timestamp`, `value`, and perhaps
        `headers`.
    topics : mapping of str to str
        Survey of each topic.

    Returns
    -------
    DataFrame
        `topic`, `partition`, `offset`, `timestamp`, perhaps `headers`; `survey`; `schemaId` (0
        for a container, null where there is no framing); `value`: the packet's bytes where it
        was not decoded or is not usable (empty where there is no value), else null; and a struct
        a survey under its name, null for packets of another.

    Raises
    ------
    ConfigError
        If a survey has no adapter.
    """
    adapters = find_adapters()
    unknown = sorted(set(topics.values()) - set(adapters))
    if unknown:
        known = ", ".join(sorted(adapters))
        raise ConfigError(f"there is no adapter for survey {unknown[0]!r}; there are: {known}")
    kept = [*COORDINATE, *(["headers"] if "headers" in df.columns else [])]
    pairs = [F.lit(word) for pair in topics.items() for word in pair]
    named = df.select(
        *kept, "value", F.create_map(*pairs)[F.col("topic")].alias("survey") if pairs else _no_one()
    ).withColumn("schemaId", _schema_id(adapters))
    chosen = {name: adapters[name] for name in sorted(set(topics.values()))}
    decoded = named.select(
        *kept,
        "survey",
        "schemaId",
        "value",
        *(_struct(adapter).alias(name) for name, adapter in chosen.items()),
    )
    # Two projections, which Spark must not merge: the structs are used twice in the second one.
    usable = [F.when(F.col("survey") == name, F.expr(a.valid_sql)) for name, a in chosen.items()]
    is_usable = F.coalesce(*usable, F.lit(False)) if usable else F.lit(False)
    return decoded.select(
        *kept,
        "survey",
        "schemaId",
        F.when(~is_usable, F.coalesce("value", F.lit(b""))).alias("value"),
        *(
            F.col(n) if n in chosen else F.lit(None).cast(_type(a)).alias(n)
            for n, a in adapters.items()
        ),
    )


def _no_one() -> Column:
    return F.lit(None).cast("string").alias("survey")


def _type(adapter: Adapter) -> DataType:
    kind: DataType = from_arrow_type(pa.struct(adapter.struct))
    return kind


def _schema_id(adapters: Mapping[str, Adapter]) -> Column:
    framed = [name for name, adapter in adapters.items() if adapter.wire == "framed"]
    is_framed = F.col("survey").isin(framed)
    fits = (F.length("value") > HEADER_BYTES) & (F.substring("value", 1, 1) == F.lit(b"\x00"))
    number = F.conv(F.hex(F.substring("value", 2, 4)), 16, 10).cast("bigint")
    return F.when(~is_framed, F.lit(0).cast("bigint")).when(fits, number)


def _struct(adapter: Adapter) -> Column:
    """Return a survey's packets as a struct: one decoder a schema, chosen row by row."""
    chosen = None
    for key, writer in adapter.schemas.items():
        is_its, body = _framed(key) if adapter.wire == "framed" else _in_container(key)
        condition = (F.col("survey") == adapter.survey) & is_its
        value = _from_avro(body, writer, adapter.reader_schemas[key])
        chosen = F.when(condition, value) if chosen is None else chosen.when(condition, value)
    if chosen is None:
        raise ConfigError(f"survey {adapter.survey} has no schemas")
    return chosen


def _from_avro(body: Column, writer: Schema, reader: Schema) -> Column:
    options = {"mode": "PERMISSIVE", "avroSchema": json.dumps(reader)}
    return from_avro(body, json.dumps(writer), options)


def _framed(identifier: int) -> tuple[Column, Column]:
    is_its = F.col("schemaId") == F.lit(identifier)
    return is_its, F.substring("value", HEADER_BYTES + 1, 2**31 - 1)


def _in_container(header: int) -> tuple[Column, Column]:
    """Return whether a packet is a container with a header of this length, and its body.

    The same rule in Python: `broker.alerts.wire.body_by_position`.
    """
    first = header + len(ONE_RECORD) + _SIZE_BYTES
    size = F.length("value") - F.lit(first + SYNC_BYTES)
    is_its = (
        size.between(SMALLEST_BODY, LARGEST_BODY)
        & (F.substring("value", 1, len(CONTAINER_MAGIC)) == F.lit(CONTAINER_MAGIC))
        & (
            F.substring("value", -SYNC_BYTES, SYNC_BYTES)
            == F.substring("value", header - SYNC_BYTES + 1, SYNC_BYTES)
        )
        & (F.substring("value", header + 1, 1) == F.lit(ONE_RECORD))
        & (F.hex(F.substring("value", header + 2, _SIZE_BYTES)) == _varint_hex(size))
    )
    # The sync marker behind the record is left over; Avro reads the record and stops.
    return is_its, F.substring("value", first + 1, 2**31 - 1)


def _varint_hex(size: Column) -> Column:
    """Return a size as a zigzag varint of three bytes, in hexadecimal digits."""
    zigzag = size * 2
    return F.concat(
        F.hex(zigzag.bitwiseAND(0x7F).bitwiseOR(0x80)),
        F.hex(F.shiftright(zigzag, 7).bitwiseAND(0x7F).bitwiseOR(0x80)),
        F.lpad(F.hex(F.shiftright(zigzag, 14)), 2, "0"),
    )
