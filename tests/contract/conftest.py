"""Each port, on memory and on a real server: the same tests for both."""

import uuid

import pytest

from broker.store.memory import MemoryTables
from broker.store.tables import create_tables, drop_tables
from broker.topics.memory import MemoryTopics
from broker.types import Run


@pytest.fixture(
    scope="session", params=["memory", pytest.param("kafka", marks=pytest.mark.servers)]
)
def topics(request):
    if request.param == "memory":
        return MemoryTopics()
    return request.getfixturevalue("kafka_topics")


@pytest.fixture(
    scope="session", params=["memory", pytest.param("hbase", marks=pytest.mark.servers)]
)
def tables(request):
    if request.param == "memory":
        return MemoryTables()
    return request.getfixturevalue("hbase_tables")


@pytest.fixture
def name(topics):
    """A topic's name that no one else uses; the topic is gone afterwards."""
    name = f"contract-{uuid.uuid4().hex[:12]}"
    yield name
    topics.delete(name)


@pytest.fixture(scope="session")
def store_run(tables):
    """A run with all its tables; tests keep apart by survey, query or place."""
    run = Run(f"c{uuid.uuid4().hex[:12]}")
    create_tables(tables, run, regions=2)
    yield run
    drop_tables(tables, run)


@pytest.fixture
def survey():
    """A survey's name that no other test uses."""
    return f"s{uuid.uuid4().hex[:10]}"
