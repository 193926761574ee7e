"""An application with pages over a broker in memory."""

import contextlib

import pytest
import serving
from fastapi.testclient import TestClient

from broker.api import make_app
from broker.api.tap import add_tap
from broker.portal import add_portal


@pytest.fixture(scope="session")
def broker(tmp_path_factory):
    return serving.made_broker(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="session")
def app(broker):
    made = make_app(broker.sources, requests_per_s=1e6, burst=1_000_000)
    add_portal(made)
    with contextlib.closing(add_tap(made)):  # its page of examples is linked to
        yield made


@pytest.fixture
def client(app):
    with TestClient(app, raise_server_exceptions=True) as made:
        yield made


@pytest.fixture
def words():
    """The constants of the broker in memory."""
    return serving
