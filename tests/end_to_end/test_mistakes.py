"""What a person is told who asks for what is not there: one line, and the right exit code."""

import re

import pytest

from broker.store.tables import create_tables
from broker.types import Run

USAGE, BAD_DATA, SET_UP = 2, 20, 21


@pytest.fixture(scope="module")
def something(kafka_topics, hbase_tables):
    """A run whose queries have been started, and have had nothing to do."""
    run = Run("mistakes")
    create_tables(hbase_tables, run)
    for name in (run.public_topic("random-sample", "slim"), run.internal_topic("dead-letters")):
        kafka_topics.create(name)
    return run.name


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        ("alert show 12", BAD_DATA, "there is no alert 12"),
        ("alert show 12 --survey nothing", USAGE, "known are lsst, sim, ztf"),
        ("object show nothing", BAD_DATA, "there is no object nothing"),
        ("cone 400 0 1", USAGE, "RA"),
        ("cone 10 0", USAGE, "RADIUS_ARCSEC"),
        ("topic read nothing", SET_UP, "there is no topic run.mistakes.nothing.slim"),
        ("topic read random-sample --from yesterday", SET_UP, "no starting point"),
        ("dead-letter show alerts.ztf", USAGE, "no coordinate"),
        ("dead-letter show alerts.ztf/0/1", BAD_DATA, "there is no dead letter"),
        ("dead-letter reinject alerts.ztf/0/1", BAD_DATA, "there is no dead letter"),
        ("ledger --night yesterday", USAGE, "YYYYMMDD"),
        ("replay --night 20200101 --survey ztf --to alerts.ztf", SET_UP, "no packets of ztf"),
        ("replay --night 20200101 --to alerts.ztf", USAGE, "--night needs --survey"),
        ("replay --to alerts.ztf", USAGE, "either FILES or --night"),
        ("stream everything", USAGE, "everything"),
        ("module check nothing", SET_UP, "nothing"),
        ("simulate packets --survey ztf -n 0", USAGE, "-n"),
        ("nothing", USAGE, "No such command"),
    ],
)
def test_a_mistake_is_named(something, broker, command, code, words):
    said = broker("--run", something, *command.split(), code=code)

    assert words in said.err
    assert said.out == ""
    if code != USAGE:
        assert re.fullmatch(r"broker: .+\n", said.err), "one line"


@pytest.mark.parametrize(
    "command",
    ["cone 10 0 1", "ledger --audit", "alert show 1", "module status", "dead-letter list"],
)
def test_a_run_that_never_was_is_no_empty_one(something, broker, command):
    said = broker("--run", "mistake", *command.split(), code=SET_UP)

    assert re.fullmatch(r"broker: run mistake has no .+\n", said.err)


def test_a_run_has_a_name_that_fits_everywhere(broker):
    said = broker("--run", "My_Run", "ledger", code=SET_UP)

    assert "run name 'My_Run' is not allowed" in said.err


@pytest.mark.parametrize("command", ["cone 10 0 1", "stream alerts --until-idle"])
def test_servers_that_are_down_are_named_with_their_address(make_config, environ_of, call, command):
    from_nowhere = make_config()

    said = call(*command.split(), code=SET_UP, environ=environ_of(from_nowhere))

    ports = (from_nowhere.kafka.port, from_nowhere.hbase.thrift_port)
    assert any(f"127.0.0.1:{port}" in said.err for port in ports)
    assert len(said.err.strip().splitlines()) == 1
