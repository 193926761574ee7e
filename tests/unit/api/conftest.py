"""An application over a broker in memory."""

import importlib.util
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from broker.api import make_app

_spec = importlib.util.spec_from_file_location("serving", Path(__file__).parents[2] / "serving.py")
serving = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(serving)


@pytest.fixture(scope="session")
def broker(tmp_path_factory):
    return serving.made_broker(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="session")
def app(broker):
    return make_app(broker.sources, requests_per_s=1e6, burst=1_000_000)


@pytest.fixture
def client(app):
    with TestClient(app, raise_server_exceptions=True) as made:
        yield made


@pytest.fixture(scope="session")
def words():
    """The constants of the broker in memory."""
    return serving
