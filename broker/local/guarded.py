"""A Kafka with users beside the one of the settings, for as long as something is measured on it."""

import dataclasses
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from broker.config import Config
from broker.local.stack import down, up


@contextmanager
def guarded_kafka(config: Config) -> Iterator[Config]:
    """Start a Kafka with users, TLS and rights; give the settings of its operator; stop it.

    Everything but Kafka and the home, which is deleted at the end, is as `config` says.

    Raises
    ------
    ConfigError, ServiceError
        As of `broker.local.stack.up`.
    """
    with tempfile.TemporaryDirectory() as home:
        port, controller_port = _free_ports()
        kafka = dataclasses.replace(
            config.kafka, host="127.0.0.1", port=port, controller_port=controller_port,
            advertised_port=0, secure=True, user_file="",
        )  # fmt: skip
        guarded = dataclasses.replace(config, home=Path(home), kafka=kafka)
        try:
            up(guarded, names=("kafka",))
            yield guarded
        finally:
            down(guarded)


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]
