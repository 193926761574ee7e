"""The local servers: started, found again, killed, started again, stopped without a trace."""

import contextlib
import socket

import psutil
import pytest

from broker.errors import ServiceError
from broker.local import process
from broker.local.stack import down, status, up
from broker.store.hbase import HBaseTables
from broker.store.table import Family
from broker.topics.kafka import KafkaTopics
from broker.topics.topic import Message

pytestmark = pytest.mark.servers


@pytest.fixture
def own(make_config):
    """Settings of servers of this test's own, stopped at its end."""
    config = make_config()
    yield config
    down(config)


def pids(config):
    return {service.name: service.pid for service in status(config)}


def processes_of(config):
    return [
        running.pid
        for running in psutil.process_iter(["cmdline"])
        if any(str(config.home) in word for word in running.info["cmdline"] or ())
    ]


def write(config):
    """Send a message and put a row; return how to find them."""
    with contextlib.closing(KafkaTopics(config.kafka.bootstrap)) as topics:
        topics.create("kept")
        coordinate = topics.send("kept", [Message(b"a message")])[0]
    with contextlib.closing(HBaseTables(config.hbase.host, config.hbase.thrift_port)) as tables:
        tables.create("kept", [Family("f")])
        tables.table("kept").put([(b"key", {b"f:q": b"a row"})])
    return coordinate


def read(config, coordinate):
    with contextlib.closing(KafkaTopics(config.kafka.bootstrap)) as topics:
        message = topics.get(coordinate)
    with contextlib.closing(HBaseTables(config.hbase.host, config.hbase.thrift_port)) as tables:
        row = tables.table("kept").get(b"key")
    return message.value, row


def test_a_second_instance_lives_is_killed_and_comes_back_with_its_data(stack, own):
    before = pids(stack)

    assert [service.state for service in up(own)] == ["running"] * 3
    first = pids(own)
    up(own)
    assert pids(own) == first, "up twice is up once"

    coordinate = write(own)
    for pid in first.values():
        psutil.Process(pid).kill()
        psutil.Process(pid).wait()
    assert [service.state for service in status(own)] == ["dead"] * 3

    up(own)
    assert read(own, coordinate) == (b"a message", {b"f:q": b"a row"})
    assert not set(pids(own).values()) & set(first.values())

    psutil.Process(gateway := pids(own)["thrift"]).kill()
    psutil.Process(gateway).wait()
    second = pids(own)
    up(own)
    third = pids(own)
    assert third["kafka"] == second["kafka"]
    assert third["hbase"] == second["hbase"]
    assert read(own, coordinate)[1] == {b"f:q": b"a row"}

    assert down(own) == ["thrift", "hbase", "kafka"]
    assert processes_of(own) == []
    for port in (own.kafka.port, own.hbase.thrift_port, own.hbase.zookeeper_port):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=1)
    assert pids(stack) == before, "the other instance was left alone"


def test_a_server_that_cannot_start_takes_the_others_down_and_names_its_log(own):
    data = own.home / "kafka" / "data"
    data.mkdir(parents=True)
    (data / "meta.properties").write_text("version=1\nnode.id=7\ncluster.id=of-another-server\n")

    with pytest.raises(
        ServiceError, match=r"kafka ended while it started; its log is .*kafka\.log"
    ):
        up(own)

    assert processes_of(own) == []
    assert [service.state for service in status(own)] == ["stopped"] * 3


def test_only_the_loopback_is_listened_on(stack):
    for service in status(stack):
        listening = [
            connection.laddr.ip
            for connection in psutil.Process(service.pid).net_connections(kind="inet")
            if connection.status == psutil.CONN_LISTEN
        ]
        assert listening
        assert set(listening) <= {"127.0.0.1", "::ffff:127.0.0.1"}


def test_the_servers_are_small(stack):
    assert sum(service.memory_mb for service in status(stack)) < 3_500


def test_the_pid_files_hold_what_finds_each_process_again(stack):
    for service in status(stack):
        record, running = process.find(stack.home / "pid" / f"{service.name}.json")

        assert record.port == service.port
        assert running.pid == service.pid
