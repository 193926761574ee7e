"""Slim reader schemas: they read every version, and say so when they cannot."""

import io

import fastavro
import pyarrow as pa
import pytest

from broker.alerts.adapters import find_adapters
from broker.alerts.flags import QUALITY_FLAGS, flag_bit, flag_names
from broker.alerts.schema import reader_schema
from broker.errors import ConfigError

WRITER = {
    "type": "record",
    "name": "a.v1.alert",
    "fields": [
        {"name": "now", "type": {"type": "record", "name": "a.v1.source", "fields": [
            {"name": "flux", "type": "float"}, {"name": "more", "type": "string"}]}},
        {"name": "before", "type": ["null", {"type": "array", "items": "a.v1.source"}]},
        {"name": "unused", "type": "bytes"},
    ],
}  # fmt: skip


def read(writer, reader, record):
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(writer), record)
    out.seek(0)
    return fastavro.schemaless_reader(
        out, fastavro.parse_schema(writer), fastavro.parse_schema(reader)
    )


def test_only_what_is_wanted_is_read_and_what_is_absent_is_null():
    wanted = pa.struct(
        [
            ("now", pa.struct([("flux", pa.float64()), ("absent", pa.int64())])),
            ("before", pa.list_(pa.struct([("flux", pa.float64()), ("absent", pa.int64())]))),
            ("nowhere", pa.struct([("x", pa.bool_())])),
        ]
    )
    row = {"flux": 0.5, "more": "m"}

    got = read(
        WRITER, reader_schema(WRITER, wanted), {"now": row, "before": [row] * 2, "unused": b"u"}
    )

    slim = {"flux": 0.5, "absent": None}
    assert got == {"now": slim, "before": [slim] * 2, "nowhere": None}


def test_one_record_read_in_two_ways_has_two_names():
    wanted = pa.struct(
        [
            ("now", pa.struct([("more", pa.string())])),
            ("before", pa.list_(pa.struct([("flux", pa.float32())]))),
        ]
    )

    reader = reader_schema(WRITER, wanted)

    fastavro.parse_schema(reader)  # a name defined twice would be refused
    assert reader["fields"][0]["type"][1]["name"] == "a.v1.source"
    assert reader["fields"][1]["type"][1]["items"]["name"] == "a.v1.source_before"


@pytest.mark.parametrize(
    "wanted",
    [
        pa.struct([("unused", pa.int64())]),
        pa.struct([("now", pa.string())]),
        pa.struct([("now", pa.list_(pa.int64()))]),
        pa.struct([("before", pa.struct([("flux", pa.float64())]))]),
        pa.struct([("now", pa.struct([("flux", pa.int64())]))]),
    ],
)
def test_a_field_of_another_type_is_refused(wanted):
    with pytest.raises(ConfigError, match="in the writer's schema"):
        reader_schema(WRITER, wanted)


def test_every_survey_has_a_reader_schema_for_each_version():
    for adapter in find_adapters().values():
        assert adapter.schemas
        for schema in adapter.reader_schemas.values():
            fastavro.parse_schema(schema)
            assert [f["name"] for f in schema["fields"]] == [f.name for f in adapter.struct]


def test_each_quality_flag_has_a_bit_of_its_own():
    assert len(set(QUALITY_FLAGS)) == len(QUALITY_FLAGS) < 63
    for name in QUALITY_FLAGS:
        assert flag_names(flag_bit(name)) == [name]
