"""A table that is created with split keys has regions there, and works like any other."""

import contextlib
import dataclasses

import psutil
import pytest

from broker.errors import ServiceError
from broker.local.split import presplit
from broker.store.hbase import HBaseTables
from broker.store.table import Family

KEYS = [b"\x01", b"\x02\x00\xff", b"c"]


@pytest.fixture
def create(stack):
    """What creates tables with regions; its Java process ends with the test."""
    create = presplit(stack)
    with contextlib.closing(create):
        yield create
    assert not [p for p in psutil.Process().children() if "py4j" in " ".join(p.cmdline())]


def regions(tables, name):
    found = tables._call(lambda connection: connection.table(name).regions())
    return [(region["start_key"], region["end_key"]) for region in found]


def test_regions_begin_at_the_split_keys(stack, create, run):
    hbase, name = stack.hbase, run.table("split")
    with contextlib.closing(HBaseTables(hbase.host, hbase.thrift_port, presplit=create)) as tables:
        tables.create(name, [Family("f", compression="GZ", max_versions=3), Family("g")], KEYS)
        tables.create(name, [Family("f")], KEYS)  # it exists, so nothing is changed
        table = tables.table(name)
        rows = [(key, {b"f:q": key}) for key in [b"\x00", *KEYS, b"z"]]
        table.put(rows)

        assert regions(tables, name) == list(zip([b"", *KEYS], [*KEYS, b""], strict=True))
        assert list(table.scan()) == rows
        families = tables._call(lambda connection: connection.table(name).families())
        assert families[b"f"]["max_versions"] == 3
        assert families[b"f"]["compression"] == b"GZ"
        assert set(families) == {b"f", b"g"}
        tables.drop(name)


def test_a_table_that_exists_is_left_and_a_bad_name_is_an_error(create, run):
    create(run.table("twice"), [Family("f")], [b"m"])
    create(run.table("twice"), [Family("f")], [b"m"])

    with pytest.raises(ServiceError, match=r"HBase did not create no good: .*IllegalArgument"):
        create("no good", [Family("f")], [b"m"])


def test_a_server_elsewhere_gets_no_regions_from_here(make_config):
    config = make_config()
    elsewhere = dataclasses.replace(config.hbase, host="192.0.2.1")

    assert presplit(dataclasses.replace(config, hbase=elsewhere)) is None
