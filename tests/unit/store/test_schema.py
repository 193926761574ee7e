"""Packed rows come back bit by bit."""

import struct

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import ConfigError, ServiceError
from broker.store.layouts import Shared
from broker.store.memory import MemoryTable
from broker.store.schema import Layout, layout_of, pack, unpack, unpack_many
from broker.store.table import Family

VALUES = {
    pa.bool_(): st.booleans(),
    pa.int8(): st.integers(-(2**7), 2**7 - 1),
    pa.int32(): st.integers(-(2**31), 2**31 - 1),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.uint64(): st.integers(0, 2**64 - 1),
    pa.float32(): st.floats(width=32),
    pa.float64(): st.floats(),
    pa.string(): st.text(max_size=8),
    pa.binary(): st.binary(max_size=8),
}


@st.composite
def tables(draw):
    kinds = draw(st.lists(st.sampled_from(list(VALUES)), min_size=1, max_size=12))
    n_rows = draw(st.integers(1, 6))
    columns = {}
    for i, kind in enumerate(kinds):
        cells = st.one_of(st.none(), VALUES[kind])
        values = draw(st.lists(cells, min_size=n_rows, max_size=n_rows))
        columns[f"c{i}"] = pa.array(values, kind)
    return pa.table(columns)


def bits(value):
    """A value that is equal only if it is the same, NaN and -0.0 included."""
    return struct.pack(">d", value) if isinstance(value, float) else value


def same(got, expected):
    return [{k: bits(v) for k, v in row.items()} for row in got] == [
        {k: bits(v) for k, v in row.items()} for row in expected
    ]


@given(tables())
def test_rows_come_back_one_by_one_and_as_a_table(table):
    layout = layout_of(table)

    packed = pack(table, layout)

    assert same([unpack(value, layout) for value in packed], table.to_pylist())
    many = unpack_many(packed, layout)
    assert many.schema.types == table.schema.types
    assert same(many.to_pylist(), table.to_pylist())


def test_nan_is_not_null_and_zero_is_not_negative_zero():
    table = pa.table({"x": pa.array([float("nan"), None, -0.0, 0.0])})
    layout = layout_of(table)

    got = [unpack(value, layout)["x"] for value in pack(table, layout)]

    assert np.isnan(got[0])
    assert got[1] is None
    assert np.signbit(got[2])
    assert not np.signbit(got[3])


def test_the_bytes_are_those_of_the_documentation():
    """Id, nulls (the second of three), int32, float64 as zeros, length, text."""
    table = pa.table(
        {
            "n": pa.array([258], pa.int32()),
            "x": pa.array([None], pa.float64()),
            "s": pa.array(["é"]),
        }
    )
    layout = layout_of(table)

    (value,) = pack(table, layout)

    assert (
        value == layout.id + b"\x40" + b"\x00\x00\x01\x02" + bytes(8) + b"\0\0\0\x02" + b"\xc3\xa9"
    )


def test_a_layout_is_the_same_in_every_process_and_depends_on_names_types_and_order():
    base = Layout((("a", "int32"), ("b", "string")))

    assert base.id == Layout.parse(base.text).id
    others = (
        Layout((("a", "int64"), ("b", "string"))),
        Layout((("b", "string"), ("a", "int32"))),
        Layout((("a", "int32"), ("c", "string"))),
    )
    assert len({base.id, *(o.id for o in others)}) == 4


def test_dictionaries_and_large_texts_are_texts():
    table = pa.table(
        {
            "d": pa.array(["a", "b", None]).dictionary_encode(),
            "l": pa.array(["x", None, "z"], pa.large_string()),
        }
    )
    layout = layout_of(table)

    assert [unpack(v, layout) for v in pack(table, layout)] == [
        {"d": "a", "l": "x"},
        {"d": "b", "l": None},
        {"d": None, "l": "z"},
    ]


def test_chunked_and_empty_tables_are_packed():
    table = pa.concat_tables([pa.table({"s": ["a"], "n": [1]}), pa.table({"s": ["b"], "n": [2]})])
    layout = layout_of(table)

    assert [unpack(v, layout) for v in pack(table, layout)] == table.to_pylist()
    assert pack(table.slice(0, 0), layout) == []


@pytest.mark.parametrize(
    "values", [pa.array([[1]]), pa.array([{"a": 1}]), pa.array([0], pa.timestamp("us"))]
)
def test_other_types_are_refused_by_name(values):
    with pytest.raises(ConfigError, match="column odd"):
        layout_of(pa.table({"odd": values}))


def test_damaged_rows_are_refused():
    table = pa.table({"n": [1], "s": ["abc"]})
    layout = layout_of(table)
    (value,) = pack(table, layout)

    for wrong in (b"", value[:7], value[:-1], value + b"x", b"????" + value[4:]):
        with pytest.raises(ServiceError, match="damaged"):
            unpack(wrong, layout)


@pytest.fixture
def meta():
    return MemoryTable("meta", [Family("v")])


def test_rows_of_several_layouts_are_read_in_their_order(meta):
    old, new = pa.table({"n": [1, 3]}), pa.table({"n": [2, 4], "s": ["b", "d"]})
    writer = Shared(meta)
    a, c = writer.pack(old)
    b, d = writer.pack(new)

    got = Shared(meta).unpack_many([a, b, c, d])

    assert got.to_pylist() == [
        {"n": 1, "s": None},
        {"n": 2, "s": "b"},
        {"n": 3, "s": None},
        {"n": 4, "s": "d"},
    ]


def test_no_rows_are_no_table(meta):
    assert Shared(meta).unpack_many([]).num_rows == 0


def test_a_layout_that_no_one_stored_is_an_error(meta):
    (value,) = pack(pa.table({"n": [1]}), layout_of(pa.table({"n": [1]})))

    with pytest.raises(ServiceError, match="no layout"):
        Shared(meta).unpack(value)


def test_a_provenance_is_stored_once_and_read_by_another(meta):
    writer = Shared(meta)

    first = writer.provenance_id({"a": "1", "b": "2"})

    assert writer.provenance_id({"b": "2", "a": "1"}) == first
    assert writer.provenance_id({"a": "2", "b": "2"}) != first
    assert Shared(meta).provenance(first) == {"a": "1", "b": "2"}
