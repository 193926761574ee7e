"""What tables must do, asked of memory and of HBase."""

import uuid

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.errors import ServiceError
from broker.store.table import Family


@pytest.fixture(scope="module")
def table(tables):
    """One table for all tests: each keeps to keys of its own."""
    name = f"contract.{uuid.uuid4().hex[:12]}"
    tables.create(name, [Family("f"), Family("g")])
    yield tables.table(name)
    tables.drop(name)


@pytest.fixture
def at():
    """Return keys below a prefix that no other test uses."""
    prefix = uuid.uuid4().hex[:8].encode()
    return lambda suffix=b"": prefix + suffix


def test_a_row_comes_back_as_it_was_put(table, at):
    row = {b"f:a": b"1", b"f:b": b"", b"g:\x00\xff": bytes(range(256))}

    table.put([(at(), row)])

    assert table.get(at()) == row


def test_columns_and_families_can_be_chosen(table, at):
    table.put([(at(), {b"f:a": b"1", b"f:b": b"2", b"g:a": b"3"})])

    assert table.get(at(), [b"f:a"]) == {b"f:a": b"1"}
    assert table.get(at(), [b"f"]) == {b"f:a": b"1", b"f:b": b"2"}
    assert table.get(at(), [b"g:", b"f:b"]) == {b"f:b": b"2", b"g:a": b"3"}
    assert table.get(at(), [b"f:z"]) is None
    assert table.get_many([at()], [b"g"]) == {at(): {b"g:a": b"3"}}
    assert list(table.scan(at(), at(b"~"), columns=[b"g"])) == [(at(), {b"g:a": b"3"})]


def test_an_absent_row_is_none(table, at):
    assert table.get(at(b"absent")) is None
    assert table.get_many([at(b"absent"), at(b"too")]) == {}
    assert table.get_many([]) == {}


def test_cells_of_one_row_come_from_several_writes(table, at):
    table.put([(at(), {b"f:a": b"1"})])
    table.put([(at(), {b"f:b": b"2"})])

    assert table.get(at()) == {b"f:a": b"1", b"f:b": b"2"}


def test_writing_again_changes_nothing(table, at):
    rows = [(at(b"%d" % i), {b"f:a": b"%d" % i}) for i in range(5)]
    table.put(rows, 1000)
    before = list(table.scan(at(), at(b"~")))

    table.put(rows, 1000)

    assert list(table.scan(at(), at(b"~"))) == before


def test_a_copy_made_with_timestamps_hides_what_the_first_hides(table, at):
    table.put([(at(b"x1"), {b"f:a": b"1", b"g:b": b"2"})], 1000)
    table.put([(at(b"x1"), {b"f:c": b"3"})], 7)

    ((key, cells),) = table.scan_timed(at(b"x"), at(b"y"))
    assert (key, cells) == (
        at(b"x1"),
        {b"f:a": (1000, b"1"), b"f:c": (7, b"3"), b"g:b": (1000, b"2")},
    )
    copied = [(at(b"z1"), {name: value}, stamp) for name, (stamp, value) in cells.items()]
    table.put_timed(copied)
    table.put([(at(b"z1"), {b"f:a": b"late", b"f:c": b"newer"})], 8)

    assert table.get(at(b"z1")) == {b"f:a": b"1", b"f:c": b"newer", b"g:b": b"2"}


def test_an_equal_timestamp_replaces_and_an_older_one_stays_hidden(table, at):
    table.put([(at(), {b"f:a": b"first"})], 1000)
    table.put([(at(), {b"f:a": b"second"})], 1000)
    assert table.get(at()) == {b"f:a": b"second"}

    table.put([(at(), {b"f:a": b"late", b"f:b": b"late"})], 999)
    assert table.get(at()) == {b"f:a": b"second", b"f:b": b"late"}

    table.put([(at(), {b"f:a": b"newer"})], 1001)
    assert table.get(at())[b"f:a"] == b"newer"


def test_rows_with_times_of_their_own_each_keep_theirs(table, at):
    table.put_timed(
        [
            (at(b"1"), {b"f:a": b"old"}, 10),
            (at(b"1"), {b"f:a": b"new"}, 20),
            (at(b"2"), {b"f:a": b"new"}, 20),
            (at(b"2"), {b"f:a": b"old"}, 10),
        ]
    )

    assert table.get(at(b"1")) == table.get(at(b"2")) == {b"f:a": b"new"}


def test_a_scan_yields_rows_in_the_order_of_their_bytes(table, at):
    suffixes = [b"\x00", b"\x7f", b"\x80", b"\xff", b"a", b"aa", b"b", b""]
    table.put([(at(s), {b"f:a": s}) for s in suffixes])

    got = [key for key, _ in table.scan(at(), at(b"\xff\xff"))]

    assert got == [at(s) for s in sorted(suffixes)]


def test_a_scan_has_its_start_and_not_its_stop(table, at):
    table.put([(at(s), {b"f:a": b"1"}) for s in (b"a", b"b", b"c")])

    assert [k for k, _ in table.scan(at(b"a"), at(b"c"))] == [at(b"a"), at(b"b")]
    assert [k for k, _ in table.scan(at(b"a"), at(b"z"), limit=1)] == [at(b"a")]
    assert list(table.scan(at(b"a"), at(b"z"), limit=0)) == []
    assert list(table.scan(at(b"d"), at(b"e"))) == []


def test_a_scan_without_a_stop_goes_to_the_end(table):
    table.put([(b"\xff\xff\xfe", {b"f:a": b"1"})])

    assert [k for k, _ in table.scan(b"\xff\xff\xf0")] == [b"\xff\xff\xfe"]


def test_a_long_scan_is_complete_and_may_be_slow(table, at):
    keys = [at(b"%05d" % i) for i in range(2501)]
    table.put(((key, {b"f:a": key}) for key in keys), 1)
    scan = table.scan(at(), at(b"~"))

    got = [next(scan)]
    table.get(keys[7])  # another call in the midst of it
    got += scan

    assert [key for key, _ in got] == keys
    assert all(row == {b"f:a": key} for key, row in got)


def test_the_first_cell_of_each_row_can_be_had_alone(table, at):
    table.put([(at(b"1"), {b"f:b": b"2", b"f:a": b"1"}), (at(b"2"), {b"f:c": b"3"})])

    got = list(table.scan(at(), at(b"~"), first_cell=True))

    assert got == [(at(b"1"), {b"f:a": b"1"}), (at(b"2"), {b"f:c": b"3"})]


def test_rows_and_columns_can_be_deleted(table, at):
    table.put([(at(b"1"), {b"f:a": b"1", b"f:b": b"2", b"g:a": b"3"}), (at(b"2"), {b"f:a": b"1"})])

    table.delete(at(b"1"), [b"f:a"])
    assert table.get(at(b"1")) == {b"f:b": b"2", b"g:a": b"3"}
    table.delete(at(b"1"), [b"f"])
    assert table.get(at(b"1")) == {b"g:a": b"3"}
    table.delete(at(b"2"))
    table.delete(at(b"absent"))
    assert [k for k, _ in table.scan(at(), at(b"~"))] == [at(b"1")]


def test_a_row_without_cells_is_no_row(table, at):
    table.put([(at(), {})])

    assert table.get(at()) is None
    assert list(table.scan(at(), at(b"~"))) == []


def test_many_and_large_cells_pass(table, at):
    rows = [(at(b"%d" % i), {b"f:%d" % j: b"x" * 100 for j in range(50)}) for i in range(200)]
    rows += [(at(b"big%d" % i), {b"f:a": b"y" * 600_000}) for i in range(4)]

    table.put(rows, 5)

    got = table.get_many([key for key, _ in rows])
    assert got == dict(rows)


def test_an_unknown_family_is_an_error(table, at):
    with pytest.raises(ServiceError, match="family"):
        table.put([(at(), {b"h:a": b"1"})])


def test_an_unknown_table_is_an_error_that_names_it(tables):
    absent = tables.table("contract.absent")

    with pytest.raises(ServiceError, match=r"contract\.absent"):
        absent.get(b"k")
    with pytest.raises(ServiceError, match=r"contract\.absent"):
        list(absent.scan())


def test_a_table_is_created_once_and_dropped(tables):
    name = f"contract.{uuid.uuid4().hex[:12]}"
    tables.create(name, [Family("f")], [b"4", b"8"])
    tables.table(name).put([(b"5", {b"f:a": b"1"})])

    tables.create(name, [Family("g")])

    assert name in tables.names()
    assert tables.names() == sorted(tables.names())
    assert tables.table(name).get(b"5") == {b"f:a": b"1"}
    tables.drop(name)
    tables.drop(name)
    assert name not in tables.names()


def test_tables_survive_being_closed(tables, table, at):
    table.put([(at(), {b"f:a": b"1"})])

    tables.close()

    assert table.get(at()) == {b"f:a": b"1"}


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"a", b"b"]),
            st.sampled_from([b"f:a", b"f:b", b"g:a"]),
            st.integers(1, 4),
            st.binary(max_size=4),
        ),
        max_size=12,
    )
)
def test_the_newest_write_is_seen_whatever_the_order(table, writes):
    """The oracle: of each cell the write with the largest timestamp, the last of equal ones."""
    prefix = uuid.uuid4().hex[:8].encode()
    expected = {}
    for key, column, stamp, value in writes:
        table.put([(prefix + key, {column: value})], stamp)
        newest = expected.setdefault(prefix + key, {})
        if column not in newest or newest[column][0] <= stamp:
            newest[column] = (stamp, value)

    got = dict(table.scan(prefix, prefix + b"~"))

    assert got == {
        key: {column: value for column, (_, value) in cells.items()}
        for key, cells in expected.items()
    }
