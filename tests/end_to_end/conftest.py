"""The real command line, in a process of its own, against the servers of this test run."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass

import pytest


@pytest.fixture(scope="session")
def environ_of():
    """Make the environment that leads a command to the servers of a configuration."""
    return _environ_of


def _environ_of(config):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BROKER_")}
    return kept | {
        "BROKER_HOME": str(config.home),
        "BROKER_CACHE": str(config.cache),
        "BROKER_KAFKA__PORT": str(config.kafka.port),
        "BROKER_KAFKA__CONTROLLER_PORT": str(config.kafka.controller_port),
        "BROKER_HBASE__THRIFT_PORT": str(config.hbase.thrift_port),
        "BROKER_HBASE__ZOOKEEPER_PORT": str(config.hbase.zookeeper_port),
        "BROKER_HBASE__MASTER_PORT": str(config.hbase.master_port),
        "BROKER_HBASE__REGION_SERVER_PORT": str(config.hbase.region_server_port),
        "BROKER_STREAM__IDLE_S": "1",
    }


@dataclass(frozen=True)
class Said:
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        """The one document on its standard output."""
        return json.loads(self.out)


@pytest.fixture(scope="session")
def call(tmp_path_factory):
    """Call the command as a person does, from a folder that is no checkout.

    It must end with `code`, and whatever happens a person is shown no traceback.
    """
    folder = tmp_path_factory.mktemp("elsewhere")

    def call(*arguments, environ, code=0):
        done = subprocess.run(
            [sys.executable, "-m", "broker.cli", *map(str, arguments)],
            cwd=folder,
            env=environ,
            capture_output=True,
            text=True,
            timeout=540,
        )
        words = f"broker {' '.join(map(str, arguments))}: {done.returncode}\n{done.stderr}"
        assert done.returncode == code, words + done.stdout[-2000:]
        assert "Traceback" not in done.stderr, words
        return Said(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture(scope="session")
def broker(stack, call):
    """Call the command with the servers of this test run: `broker("ledger", "--json").json`."""

    def broker(*arguments, code=0, **more):
        return call(*arguments, code=code, environ=_environ_of(stack) | more)

    return broker
