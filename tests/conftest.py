"""What the tests share: one real Kafka and HBase a run, one Spark session, names of their own."""

import os
import random
import shutil
import socket
import uuid
from contextlib import closing
from pathlib import Path

import hypothesis
import pytest

from broker.config import Config, HBaseConfig, KafkaConfig, load_config
from broker.types import Run

# A machine that is busy must not fail a test.
hypothesis.settings.register_profile("untimed", hypothesis.settings(), deadline=None)
hypothesis.settings.load_profile("untimed")

_SERVER_FIXTURES = {"stack", "kafka_topics", "hbase_tables"}


def pytest_collection_modifyitems(items):
    """Mark each test by what it needs, so that the quick part can be chosen."""
    for item in items:
        used = set(getattr(item, "fixturenames", ()))
        if used & _SERVER_FIXTURES:
            item.add_marker(pytest.mark.servers)
        if "spark" in used:
            item.add_marker(pytest.mark.spark)
        if "browser" in item.path.parts:
            item.add_marker(pytest.mark.browser)
        if {"benchmarks", "stream"} & set(item.path.parts):
            item.add_marker(pytest.mark.slow)
        if "end_to_end" in item.path.parts:
            item.add_marker(pytest.mark.end_to_end)


def _free_port(taken):
    # Below the range from which the system draws the ports of outgoing connections, so that a
    # port stays free while its server is restarted.
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with closing(socket.socket()) as probe:
            if port not in taken:
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    continue
                return port


@pytest.fixture(scope="session")
def make_config(tmp_path_factory):
    """Make a configuration with a home and ports that nothing else uses; jars are shared."""
    taken = set()
    homes = []

    def port():
        taken.add(found := _free_port(taken))
        return found

    def make(**settings):
        homes.append(home := tmp_path_factory.mktemp("home"))
        return Config(
            home=home,
            cache=load_config().cache,
            kafka=KafkaConfig(port=port(), controller_port=port()),
            hbase=HBaseConfig(
                thrift_port=port(),
                zookeeper_port=port(),
                master_port=port(),
                region_server_port=port(),
            ),
            **settings,
        )

    yield make
    for home in homes:
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def stack_config(make_config):
    """The configuration of the servers of this run; they are not started by it."""
    return make_config()


@pytest.fixture(scope="session")
def stack(stack_config):
    """Kafka and HBase, started once a run: their configuration."""
    from broker.local.stack import down, up

    try:
        up(stack_config)
        yield stack_config
    finally:
        down(stack_config)


@pytest.fixture
def run():
    """A run of this test's own: its topics and tables meet those of no other."""
    return Run(f"t-{uuid.uuid4().hex[:12]}")


@pytest.fixture(scope="session")
def kafka_topics(stack):
    """Topics on the real Kafka; use names of a `run`."""
    from broker.topics.kafka import KafkaTopics

    with closing(KafkaTopics(stack.kafka.bootstrap)) as topics:
        yield topics


@pytest.fixture(scope="session")
def hbase_tables(stack):
    """Tables on the real HBase; use names of a `run`."""
    from broker.store.hbase import HBaseTables

    hbase = stack.hbase
    with closing(HBaseTables(hbase.host, hbase.thrift_port, timeout_s=hbase.timeout_s)) as tables:
        yield tables


@pytest.fixture(scope="session")
def spark(stack_config):
    """One Spark session a run."""
    from broker.spark.session import make_session, stop_session

    session = make_session(stack_config, "tests")
    yield session
    stop_session(session)


@pytest.fixture(scope="session")
def sample_packets():
    """Folder of real survey packets; a test that uses it is skipped where there is none."""
    named = os.environ.get("BROKER_SAMPLE_PACKETS")
    if not named:
        pytest.skip("real packets: set BROKER_SAMPLE_PACKETS to their folder")
    assert Path(named).is_dir(), f"BROKER_SAMPLE_PACKETS={named} is no folder"
    return Path(named)
