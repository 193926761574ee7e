"""A catalogue is replaced while the query that matches with it runs."""

import dataclasses
import itertools

import pyarrow as pa
import pytest
from sim_packets import sim_packet

from broker.catalog import install_catalog
from broker.catalog.coverage import all_sky
from broker.config import StreamConfig
from broker.store.alerts import AlertStore
from broker.streaming.query import run_queries
from broker.topics.topic import Message, TopicSettings

_PORTION, _MOST = 5, 2000


@pytest.mark.timeout(600)
def test_a_new_version_is_taken_up_by_a_running_query_and_no_alert_is_lost(
    stack, kafka_topics, hbase_tables, tmp_path, run
):
    config = dataclasses.replace(
        stack, home=tmp_path, run=run.name, stream=StreamConfig(idle_s=0.0)
    )
    topic, store = run.alerts_topic("sim"), AlertStore(hbase_tables, run)
    kafka_topics.create(topic, TopicSettings(partitions=2))
    numbers, sent, versions = itertools.count(1), [], []

    def add(version):
        ids = [f"{version}-{k}" for k in range(1, _MOST)]
        ra = [10.0 + 0.01 * k for k in range(1, _MOST)]
        rows = pa.table({"id": ids, "ra": ra, "dec": [-5.0] * len(ra), "class": ["star"] * len(ra)})
        install_catalog(config.catalog_path, "reference", rows, version, coverage=all_sky())
        versions.append(version)

    def send():
        new = list(itertools.islice(numbers, _PORTION))
        kafka_topics.send(topic, [Message(sim_packet(number)) for number in new])
        sent.extend(new)

    def is_seen(version):
        newest = store.alert("sim", str(sent[-1]))
        return newest is not None and newest["referenceVersion"] == version

    def is_complete():  # is asked by the running query whenever it looks around
        if versions == ["v1"] and is_seen("v1"):
            add("v2")
        if versions == ["v1", "v2"] and is_seen("v2"):
            return True
        if store.alert("sim", str(sent[-1])) is not None:
            send()
        return len(sent) >= _MOST - _PORTION

    add("v1")
    send()
    summary = run_queries(config, ["alerts"], until_idle=True, input_is_complete=is_complete)

    alerts = [store.alert("sim", str(number)) for number in sent]
    seen = [alert["referenceVersion"] for alert in alerts]
    assert None not in alerts
    assert set(seen) == {"v1", "v2"}
    for number, alert in zip(sent, alerts, strict=True):
        assert alert["referenceMatch"] == 1
        assert alert["referenceId"] == f"{alert['referenceVersion']}-{number}"
    assert summary["queries"]["alerts"]["restarts"] == 0
