"""Kafka and HBase for a measurement: those that run, or some of its own for as long as it takes."""

import contextlib
import random
import shutil
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType

from broker.config import Config
from broker.local import stack

_PORTS = (20_000, 32_000)
_TIMEOUT_S = 1.0


@contextmanager
def servers(config: Config, name: str) -> Iterator[Config]:
    """Give settings with which Kafka and HBase answer.

    Parameters
    ----------
    config : Config
        Where they may run already. If one of them does not answer, both are started on free ports
        with a home of their own below this one, and stopped and removed at the end.
    name : str
        Of that home, in `bench`.

    Yields
    ------
    Config

    Raises
    ------
    ConfigError, ServiceError
        If they cannot be started.
    """
    if _answers(config.kafka.host, config.kafka.port) and _answers(
        config.hbase.host, config.hbase.thrift_port
    ):
        yield config
        return
    own = own_config(config, name)
    shutil.rmtree(own.home, ignore_errors=True)
    with _ended_politely():
        try:
            stack.up(own)
            yield own
        finally:
            stack.down(own)
            shutil.rmtree(own.home, ignore_errors=True)


@contextmanager
def _ended_politely() -> Iterator[None]:
    """Let SIGTERM end this process as an exception does: what it has started is stopped."""

    def end(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def own_config(config: Config, name: str) -> Config:
    """Return settings of servers under a home of their own, with free ports of this machine."""
    ports = free_ports(6)
    kafka = replace(
        config.kafka,
        host="127.0.0.1",
        port=ports[0],
        controller_port=ports[1],
        advertised_port=0,
        secure=False,
        user_file="",
    )
    hbase = replace(
        config.hbase,
        host="127.0.0.1",
        thrift_port=ports[2],
        zookeeper_port=ports[3],
        master_port=ports[4],
        region_server_port=ports[5],
    )
    return replace(config, home=config.home / "bench" / name, kafka=kafka, hbase=hbase)


def free_ports(number: int) -> list[int]:
    """Return different ports of this machine on which nothing listens now."""
    found: set[int] = set()
    while len(found) < number:
        port = random.SystemRandom().randrange(*_PORTS)
        with contextlib.closing(socket.socket()) as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.add(port)
    return sorted(found)


def _answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=_TIMEOUT_S):
            return True
    except OSError:
        return False
