"""What tests of API, portal and browser share: a broker in memory with alerts and their packets."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa

from broker.alerts.adapters import find_adapters
from broker.api import Sources
from broker.api.questions import EXAMPLE_ALERT, EXAMPLE_OBJECT, EXAMPLE_SCHEMA, EXAMPLE_TOPIC
from broker.archive import Archive
from broker.avro import encode, frame
from broker.catalog.registry import Catalogs, install_catalog
from broker.science import find_contributions
from broker.science.samples import sample_alerts
from broker.simulation.packets import simulate_packets
from broker.store.alerts import AlertStore, create_tables
from broker.store.ledger import Ledger
from broker.store.memory import MemoryTables
from broker.topics.memory import MemoryTopics
from broker.topics.publish import dead_letters_topic, store_schemas
from broker.topics.topic import Message, OffsetRange, TopicSettings
from broker.types import Coordinate, Run

RUN = Run("served")
HOSTILE = '"><script>alert(1)<b>'
BIG = str(2**63 - 25)
"""An id that a double cannot hold."""

SLIM = {
    "type": "record",
    "name": "Alert",
    "fields": [
        {"name": "survey", "type": "string"},
        {"name": "diaSourceId", "type": "string"},
        {"name": "diaObjectId", "type": ["null", "string"]},
        {"name": "ssObjectId", "type": ["null", "string"]},
        {"name": "isPublic", "type": "boolean"},
        {"name": "isNegative", "type": "boolean"},
        {"name": "midpointMjdTai", "type": "double"},
        {"name": "band", "type": ["null", "string"]},
        {"name": "ra", "type": "double"},
        {"name": "dec", "type": "double"},
        {"name": "psfFlux", "type": "float"},
        {"name": "psfFluxErr", "type": "float"},
        {"name": "snr", "type": "float"},
        {"name": "reliability", "type": ["null", "float"]},
    ],
}


def put(store, batch, *, topics=(), outputs=None):
    """Store alerts; outputs are the same for all."""
    outputs = outputs or {"rise_rate@1.0.0:riseRate": pa.array([1.5] * batch.num_rows)}
    store.put(
        batch,
        outputs=pa.table(outputs),
        topics=[list(topics)] * batch.num_rows,
        provenance={"code": "0.1.0", "modules": "rise_rate@1.0.0"},
    )


def with_values(batch, **values):
    """Return a batch with whole columns replaced."""
    for name, column in values.items():
        at = batch.schema.get_field_index(name)
        field = batch.schema.field(at)
        batch = batch.set_column(at, field, pa.array(column, field.type))
    return batch


def made_broker(folder):
    """Return tables, topics and all else of a run in memory, with alerts of all kinds."""
    tables, topics = MemoryTables(), MemoryTopics()
    create_tables(tables, RUN)
    store = AlertStore(tables, RUN)
    matches = sample_alerts(1, cutouts=False)
    for survey, number in (("ztf", 3), ("lsst", 2)):
        name = RUN.alerts_topic(survey)
        topics.create(name, TopicSettings(partitions=1))
        packets = list(simulate_packets(survey, number, 1))
        topics.send(name, [Message(packet) for packet in packets])
        adapter = find_adapters()[survey]
        for offset, packet in enumerate(packets):
            batch = adapter.decode_one(packet, Coordinate(name, 0, offset))
            for column in matches.column_names[len(batch.column_names) :]:
                batch = batch.append_column(matches.schema.field(column), matches[column])
            put(store, batch, topics=[EXAMPLE_TOPIC])
    _put_samples(store)
    _publish(topics, store)
    Ledger(tables, RUN).record(
        "alerts",
        0,
        [
            OffsetRange(RUN.alerts_topic("ztf"), 0, 0, 3),
            OffsetRange(RUN.alerts_topic("lsst"), 0, 0, 2),
        ],
        {"consumed": 5, "stored": 5, f"topic:{EXAMPLE_TOPIC}": 1},
        {"seconds": {"batch": 0.5}},
    )
    topics.create(dead_letters_topic(RUN))
    catalogs = folder / "catalogs"
    install_catalog(
        catalogs,
        "reference",
        pa.table({"id": ["1"], "ra": [10.0], "dec": [10.0]}),
        "test-1",
    )
    sources = Sources(
        RUN,
        tables=tables,
        topics=topics,
        archive=Archive(folder / "archive", RUN),
        catalogs=Catalogs(catalogs),
        contributions=find_contributions(),
    )
    return SimpleNamespace(sources=sources, store=store, tables=tables, topics=topics)


def _put_samples(store):
    """Store alerts around RA 0, with ids of 64 bits, with text of an enemy, and not public."""
    n = 6
    batch = sample_alerts(n, seed=3, cutouts=False)
    put(
        store,
        with_values(
            batch,
            survey=["sim"] * n,
            diaObjectId=[BIG, BIG, "across", HOSTILE, "secret", "half"],
            ssObjectId=[None] * n,
            diaSourceId=[str(2**63 - 1 - i) for i in range(n)],
            isPublic=[True, True, True, True, False, True],
            midpointMjdTai=[61000.0 + i / 100 for i in range(n)],
            ra=[359.9998, 359.9998, 0.0001, 90.0, 359.9997, 200.0],
            dec=[1e-5, 1e-5, -1e-5, 45.0, 0.0, -30.0],
            visit=[2**62 + 1] * n,
            reliability=[None, 0.5, np.nan, 0.5, 0.5, 0.5],
        ),
    )
    newest = with_values(  # of an object whose older alert is public
        batch.slice(5, 1),
        survey=["sim"],
        diaObjectId=["half"],
        ssObjectId=[None],
        diaSourceId=["77"],
        isPublic=[False],
        midpointMjdTai=[61001.0],
        ra=[200.0],
        dec=[-30.0],
    )
    put(store, newest)


def _publish(topics, store):
    store_schemas(topics, RUN, {EXAMPLE_SCHEMA: SLIM})
    name = RUN.public_topic(EXAMPLE_TOPIC, "slim")
    topics.create(name)
    alerts = [*store.object("ztf", EXAMPLE_OBJECT), *store.object("sim", BIG)]
    alerts += store.object("sim", "secret")
    assert alerts[0]["diaSourceId"] == EXAMPLE_ALERT
    for number, alert in enumerate(alerts):
        body = frame(EXAMPLE_SCHEMA, encode(SLIM, alert))
        topics.send(
            name,
            [Message(body, key=alert["diaSourceId"].encode(), timestamp_ms=1000 + number)],
            partition=number % 2,
        )
