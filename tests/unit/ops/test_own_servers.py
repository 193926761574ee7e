"""Servers for a measurement: those that run, or its own."""

import signal
import socket
from contextlib import closing
from dataclasses import replace

import pytest

from broker.config import Config
from broker.local import stack
from broker.ops.own_servers import free_ports, own_config, servers


@pytest.fixture
def config(tmp_path):
    """Return settings with ports on which nothing listens."""
    kafka, thrift = free_ports(2)
    first = Config(home=tmp_path)
    return replace(
        first,
        kafka=replace(first.kafka, port=kafka),
        hbase=replace(first.hbase, thrift_port=thrift),
    )


def listening(port):
    probe = socket.socket()
    probe.bind(("127.0.0.1", port))
    probe.listen()
    return closing(probe)


def test_servers_that_answer_are_used_and_left_alone(config, monkeypatch):
    def refuse(_config):
        raise AssertionError

    monkeypatch.setattr(stack, "up", refuse)
    monkeypatch.setattr(stack, "down", refuse)
    with (
        listening(config.kafka.port),
        listening(config.hbase.thrift_port),
        servers(config, "images") as found,
    ):
        assert found is config


@pytest.mark.parametrize("one", ["kafka", "hbase", "none"])
def test_where_one_does_not_answer_both_are_started_and_ended_whatever_happens(
    config, monkeypatch, one
):
    done = []
    monkeypatch.setattr(stack, "up", lambda own: done.append(("up", own.home)))
    monkeypatch.setattr(stack, "down", lambda own: done.append(("down", own.home)))
    taken = {"kafka": config.kafka.port, "hbase": config.hbase.thrift_port}
    (port,) = free_ports(1)
    home = config.home / "bench" / "images"

    def interrupted():
        with servers(config, "images") as found:
            assert found.home == home
            home.mkdir(parents=True)
            raise KeyboardInterrupt

    with listening(taken.get(one, port)), pytest.raises(KeyboardInterrupt):
        interrupted()
    assert done == [("up", home), ("down", home)]
    assert not home.exists()


def test_they_are_ended_when_the_process_is_asked_to_end(config, monkeypatch):
    done = []
    monkeypatch.setattr(stack, "up", lambda _own: done.append("up"))
    monkeypatch.setattr(stack, "down", lambda _own: done.append("down"))
    before = signal.getsignal(signal.SIGTERM)

    def asked():
        with servers(config, "images"):
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(SystemExit):
        asked()
    assert done == ["up", "down"]
    assert signal.getsignal(signal.SIGTERM) == before


def test_own_servers_share_no_port_and_no_home_with_others(config):
    own = own_config(config, "images")
    ports = {
        own.kafka.port,
        own.kafka.controller_port,
        own.hbase.thrift_port,
        own.hbase.zookeeper_port,
        own.hbase.master_port,
        own.hbase.region_server_port,
    }
    assert len(ports) == 6
    assert own.home != config.home
    assert own.kafka.bootstrap.endswith(str(own.kafka.port))
