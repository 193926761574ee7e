"""The alert stream on a Kafka with users: topics for whom they are for, and for nobody else."""

import dataclasses
import io
import json
import re
import ssl
import time
from contextlib import closing
from pathlib import Path

import fastavro
import pytest
from kafka import KafkaConsumer

from broker.client import subscribe
from broker.config import StreamConfig
from broker.errors import ServiceError
from broker.local.guarded import guarded_kafka
from broker.ops.users import add_user
from broker.ops.watchlists import keeper_of
from broker.science.installed import installed
from broker.simulation.packets import simulate_packets
from broker.store.alerts import AlertStore
from broker.store.audit import audit
from broker.store.ledger import Ledger
from broker.streaming.query import run_queries
from broker.topics.kafka import KafkaTopics
from broker.topics.kafka_users import KafkaRights
from broker.topics.topic import Message, TopicSettings
from broker.types import Run
from broker.watchlists import Watchlist, read_entries

N = 60
RUN = Run("t-guarded")
OPEN, HIDDEN = "watchlist-all", "private.ann.watchlist-hers"
WITHIN_S = 90.0

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def night(stack, tmp_path_factory):
    """Packets through the stream, on lists that everyone and that their owner may read."""
    settings = dataclasses.replace(stack, run=RUN.name, stream=StreamConfig(idle_s=0.0))
    with guarded_kafka(settings) as config:
        packets = list(simulate_packets("ztf", N, 12))
        names = {next(fastavro.reader(io.BytesIO(one)))["objectId"] for one in packets}
        entries = read_entries("diaObjectId\n" + "\n".join(sorted(names)))
        with closing(KafkaTopics(config.kafka.bootstrap)) as topics:
            keeper = keeper_of(config, topics, installed(config))
            keeper.put(Watchlist("all", "bob", ""), entries)
            keeper.put(Watchlist("hers", "ann", "", is_private=True), entries)
            topics.create(RUN.alerts_topic("ztf"), TopicSettings(partitions=2))
            topics.send(RUN.alerts_topic("ztf"), [Message(packet) for packet in packets])
            run_queries(config, ["archive", "alerts"], until_idle=True)
            yield config, topics, tmp_path_factory.mktemp("users")


@pytest.fixture(scope="module")
def people(night):
    """Settings of ann, who has a private list, and of bob, who reads what is public."""
    config, _, folder = night
    every = tuple(f"run.{RUN.name}.{name}" for name in ("public.", "watchlist-"))
    hers = f"run.{RUN.name}.private.ann."
    found = {}
    for name, reads in (("ann", (*every, hers)), ("bob", every)):
        out = folder / f"{name}.properties"
        add_user(config, KafkaRights(name, reads, (), 50.0), out)
        kafka = dataclasses.replace(config.kafka, secure=False, user_file=str(out))
        found[name] = dataclasses.replace(config, kafka=kafka)
    return found


def eventually(attempt):
    """Try until it does not raise: rights hold a moment after they were given."""
    limit = time.monotonic() + WITHIN_S
    while True:
        try:
            return attempt()
        except (AssertionError, ServiceError):
            if time.monotonic() > limit:
                raise
            time.sleep(0.5)


def taken(config, topic, user):
    with subscribe(topic, since="earliest", group=f"{user}-1", idle_s=2.0, config=config) as alerts:
        return {alert["diaSourceId"] for alert in alerts}


def test_all_that_entered_is_stored_and_published(night, hbase_tables):
    topics, store = night[1], AlertStore(hbase_tables, RUN)
    found = audit("alerts", Ledger(hbase_tables, RUN).consumed("alerts"), origins=store.origins(),
                  dead_letters=[])  # fmt: skip
    assert found.problems == ()
    (row,) = (row for row in found.rows if row.consumed)
    assert (row.consumed, row.stored) == (N, N)
    published = topics.ranges(RUN.public_topic(OPEN, "full"))
    assert sum(part.end - part.first for part in published) == N


def test_a_user_takes_its_topics_with_the_client_and_no_other(people):
    ids = eventually(lambda: taken(people["bob"], OPEN, "bob") or pytest.fail("nothing came"))
    assert len(ids) == N
    assert eventually(lambda: taken(people["ann"], HIDDEN, "ann")) == ids
    for topic in (HIDDEN, RUN.alerts_topic("ztf"), RUN.internal_topic("dead-letters")):
        with pytest.raises(ServiceError):
            taken(people["bob"], topic, "bob")


def test_a_user_takes_its_topics_with_the_plain_kafka_client(people):
    text = Path(people["bob"].kafka.user_file).read_text(encoding="utf-8")
    said = dict(line.split("=", 1) for line in text.splitlines())
    login = re.search(r'username="(.+?)" password="(.+?)"', said["sasl.jaas.config"])
    certificate = said["ssl.truststore.certificates"].replace("\\n", "\n")
    settings = {
        "bootstrap_servers": str(people["bob"].kafka.bootstrap),
        "auto_offset_reset": "earliest",
        "consumer_timeout_ms": 5000,
        "security_protocol": said["security.protocol"],
        "sasl_mechanism": said["sasl.mechanism"],
        "sasl_plain_username": login[1],
        "sasl_plain_password": login[2],
        "ssl_context": ssl.create_default_context(cadata=certificate),
    }

    def read(topic):
        with closing(KafkaConsumer(topic, **settings)) as consumer:
            found = list(consumer)
        assert found
        return found

    with closing(KafkaConsumer(**settings)) as consumer:
        mine = {name.removeprefix(f"run.{RUN.name}.") for name in consumer.topics()}
    assert {"watchlist-all.slim", "watchlist-all.full", "public.schemas"} <= mine
    assert {name.partition(".")[0] for name in mine} == {"watchlist-all", "public"}
    schemas = {int(one.key): fastavro.parse_schema(json.loads(one.value))
               for one in eventually(lambda: read(f"run.{RUN.name}.public.schemas"))}  # fmt: skip
    alerts = [
        fastavro.schemaless_reader(
            io.BytesIO(one.value[5:]), schemas[int.from_bytes(one.value[1:5], "big")]
        )
        for one in eventually(lambda: read(RUN.public_topic(OPEN, "slim")))
    ]
    assert len({alert["diaSourceId"] for alert in alerts}) == N
