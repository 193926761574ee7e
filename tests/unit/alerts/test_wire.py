"""Framing and container files: what is written is read, what is not ours is refused."""

import io
import json

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker import avro
from broker.alerts.adapters import find_adapters
from broker.alerts.wire import (
    LARGEST_BODY,
    SMALLEST_BODY,
    body_by_position,
    container_header,
    read_container,
    to_container,
    varint,
)
from broker.errors import AlertError
from broker.types import Coordinate

SCHEMA = {"type": "record", "name": "thing", "fields": [{"name": "data", "type": "bytes"}]}
SYNC = bytes(range(16))


def body_of(data):
    return avro.encode(SCHEMA, {"data": data})


def header():
    return container_header(json.dumps(SCHEMA), SYNC)


@given(identifier=st.integers(0, 2**32 - 1), body=st.binary(min_size=1))
def test_what_is_framed_is_unframed(identifier, body):
    assert avro.unframe(avro.frame(identifier, body)) == (identifier, body)


@given(number=st.integers(-(2**63), 2**63 - 1))
def test_a_varint_is_what_the_avro_library_writes(number):
    out = io.BytesIO()
    fastavro.schemaless_writer(out, {"type": "long"}, number)
    assert varint(number) == out.getvalue()


@given(data=st.binary(max_size=100))
def test_a_container_is_read_back(data):
    schema, record = read_container(to_container(header(), body_of(data)))
    assert schema == SCHEMA
    assert record == {"data": data}


@pytest.mark.parametrize("size", [SMALLEST_BODY, 50_000, LARGEST_BODY])
def test_a_body_of_known_place_is_cut_out(size):
    body = bytes(size)

    assert body_by_position(to_container(header(), body), len(header())) == body


@pytest.mark.parametrize("size", [SMALLEST_BODY - 1, LARGEST_BODY + 1])
def test_a_body_whose_length_takes_other_bytes_is_left_to_the_slow_path(size):
    assert body_by_position(to_container(header(), bytes(size)), len(header())) is None


def test_a_stranger_is_left_to_the_slow_path():
    good = to_container(header(), bytes(20_000))
    known = len(header())
    strangers = [
        b"",
        good[:-1],
        good + b"\x00",
        good[1:],
        good[:-16] + bytes(16),
        good[:known] + b"\x04" + good[known + 1 :],
        good[:known] + good[known + 4 :],
    ]
    assert body_by_position(good, known) == bytes(20_000)
    assert [body_by_position(s, known) for s in strangers] == [None] * len(strangers)


def test_every_real_packet_is_cut_by_position(sample_packets):
    adapter = find_adapters()["ztf"]
    for path in sorted(sample_packets.glob("ztf/*/*.avro")):
        packet = path.read_bytes()
        (known,) = (n for n in adapter.schemas if body_by_position(packet, n) is not None)
        body = body_by_position(packet, known)
        assert avro.decode(adapter.schemas[known], body) == read_container(packet)[1]


def test_a_compressed_container_with_another_header_gives_the_same_alert(sample_packets):
    path = next(iter(sorted(sample_packets.glob("ztf/v4.01/*.avro"))))
    packet = path.read_bytes()
    reader = fastavro.reader(io.BytesIO(packet))
    (record,) = reader
    adapter, origin = find_adapters()["ztf"], Coordinate("alerts.ztf", 0, 0)
    for codec in ("null", "deflate"):
        out = io.BytesIO()
        fastavro.writer(out, reader.writer_schema, [record], codec=codec)
        assert adapter.decode_one(out.getvalue(), origin).equals(adapter.decode_one(packet, origin))


@pytest.mark.parametrize("n", [0, 2])
def test_a_container_must_hold_one_record(n):
    out = io.BytesIO()
    fastavro.writer(out, SCHEMA, [{"data": b""}] * n)
    with pytest.raises(AlertError, match="must hold one record, this one has"):
        read_container(out.getvalue())


def test_another_codec_is_named():
    out = io.BytesIO()
    fastavro.writer(out, SCHEMA, [{"data": b""}], codec="bzip2")
    with pytest.raises(AlertError, match="codec bzip2 is not read"):
        read_container(out.getvalue())
