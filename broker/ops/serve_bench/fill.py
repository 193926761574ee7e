"""A run with many made-up alerts, and with a few whose packets are there."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from broker.alerts.adapters import find_adapters
from broker.science.samples import sample_alerts
from broker.simulation.packets import simulate_packets
from broker.store.alerts import AlertStore, create_tables
from broker.store.table import Tables
from broker.topics.topic import Message, Topics, TopicSettings
from broker.types import Run

SURVEY = "lsst"
TOPIC = "bench"
PER_OBJECT = 3
_NIGHTS = 20
_FIRST_MJD = 61_000.6
_A_BATCH = 1000
_CLASSES = ("hosted", "hostless", "variable-star", None)

Say = Callable[[str], None]


def fill(tables: Tables, run: Run, alerts: int, say: Say) -> None:
    """Write made-up alerts, three an object, over the southern sky and twenty nights.

    A run that has the last one already is left as it is.

    Parameters
    ----------
    tables : Tables
        HBase.
    run : Run
        Whose tables are made and filled.
    alerts : int
        How many.
    say : callable
        Is told what is being done.
    """
    create_tables(tables, run, 4)
    store = AlertStore(tables, run)
    if store.alert(SURVEY, str(alerts - 1)) is not None:
        return
    say(f"Writing {alerts} alerts …")
    sample = sample_alerts(min(_A_BATCH, alerts), seed=1, cutouts=False)
    began = time.perf_counter()
    for first in range(0, alerts, _A_BATCH):
        batch = _batch(sample, first, min(_A_BATCH, alerts - first))
        numbers = np.arange(first, first + batch.num_rows)
        outputs = pa.table(
            {
                "context@1.0.0:contextClass": pa.array([_CLASSES[n % 4] for n in numbers]),
                "rise_rate@1.0.0:riseRate": pa.array(numbers / alerts),
            }
        )
        chosen = [[TOPIC] if n % 100 == 0 else [] for n in numbers]
        store.put(batch, outputs=outputs, topics=chosen, provenance={"code": "bench"})
    say(f"{alerts / (time.perf_counter() - began):.0f} alerts/s were written")


def add_packets(topics: Topics, tables: Tables, run: Run, *, number: int = 120) -> list[str]:
    """Put packets with full histories on the run's input topic, their alerts into the tables.

    Parameters
    ----------
    topics, tables : Topics, Tables
        Kafka and HBase.
    run : Run
        Whose.
    number : int
        How many; a topic that has as many is left as it is.

    Returns
    -------
    list of str
        The objects that they are of.
    """
    name, adapter = run.alerts_topic(SURVEY), find_adapters()[SURVEY]
    packets = list(simulate_packets(SURVEY, number, 1, history="full"))
    topics.create(name, TopicSettings(partitions=1))
    (part,) = topics.ranges(name)
    if part.end - part.first != len(packets):
        topics.delete(name)
        topics.create(name, TopicSettings(partitions=1))
        topics.send(name, (Message(packet) for packet in packets))
    found = [
        adapter.decode_one(message.value, message.coordinate)
        for message in topics.read(name, partition=0, first=0, end=len(packets))
        if message.value is not None and message.coordinate is not None
    ]
    batch = pa.concat_tables(found)
    outputs = pa.table({"rise_rate@1.0.0:riseRate": pa.array(np.arange(len(packets)) / 10.0)})
    AlertStore(tables, run).put(
        batch,
        outputs=outputs,
        topics=[[] for _ in packets],
        provenance={"code": "bench"},
    )
    return sorted({name for name in batch["diaObjectId"].to_pylist() if name is not None})


def _batch(sample: pa.Table, first: int, n: int) -> pa.Table:
    numbers = np.arange(first, first + n)
    objects = numbers // PER_OBJECT
    ra, dec = places(objects)
    night = numbers // _A_BATCH % _NIGHTS
    values: dict[str, Any] = {
        "survey": [SURVEY] * n,
        "diaSourceId": [str(i) for i in numbers],
        "diaObjectId": [str(i) for i in objects],
        "ssObjectId": [None] * n,
        "isPublic": [True] * n,
        "midpointMjdTai": _FIRST_MJD + night + numbers % 9973 / 40_000.0,
        "ra": ra,
        "dec": dec,
    }
    batch = sample.slice(0, n)
    for name, column in values.items():
        at = batch.schema.get_field_index(name)
        field = batch.schema.field(at)
        batch = batch.set_column(at, field, pa.array(column, field.type))
    return batch


def places(objects: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return where objects are, by their numbers: even over Dec -75 to 0. [deg]"""
    golden = (np.asarray(objects) * 0.6180339887498949) % 1.0
    other = (np.asarray(objects) * 0.7548776662466927) % 1.0
    return golden * 360.0, np.degrees(np.arcsin(-other * np.sin(np.radians(75.0))))
