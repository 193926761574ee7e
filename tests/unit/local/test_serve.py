"""The pages that a demo leaves running answer at their address, and end with the servers."""

import socket
import sys
import urllib.request
from contextlib import closing
from dataclasses import replace

import pytest

from broker.config import Config, ServeConfig
from broker.local.stack import down, serve


@pytest.fixture
def config(tmp_path):
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = replace(Config(), home=tmp_path, serve=ServeConfig(port=port))
    yield config
    down(config)


def pages(config):
    port = str(config.serve.port)
    return [sys.executable, "-m", "http.server", port, "--bind", "127.0.0.1"]


def test_pages_answer_until_the_servers_are_stopped(config):
    address = serve(config, pages(config))

    assert address == f"http://127.0.0.1:{config.serve.port}/"
    assert urllib.request.urlopen(address).status == 200
    assert serve(config, pages(config)) == address  # started anew
    assert down(config) == ["serve"]
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(address)
    assert down(config) == []


def test_pages_that_cannot_start_have_no_address(config):
    assert serve(config, [sys.executable, "-c", "raise SystemExit(3)"]) is None
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", config.serve.port))
        taken.listen()
        assert serve(config, pages(config)) is None
