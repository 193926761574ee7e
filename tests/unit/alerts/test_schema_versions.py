"""Every version of a schema that packets were written with reads on, in both directions."""

import hashlib
import itertools
import json
from pathlib import Path

import fastavro
import pyarrow as pa
import pytest

from broker import avro
from broker.alerts.adapters import find_adapters
from broker.alerts.columns import Column
from broker.alerts.outgoing import VARIANTS, packet_format

PUBLISHED = Path(__file__).with_name("published")
"""What was published once: the hash of each schema file, and the schemas of outgoing packets."""

OWN = ("sim", "broker/annotation", "broker/ccd-image", "broker/notice", "broker/retraction")
ZEROS = {
    "null": None,
    "boolean": True,
    "int": 7,
    "long": 2**53 + 1,
    "float": 0.5,
    "double": 1e-3,
    "string": "word",
    "bytes": b"bytes",
}


def all_versions():
    folder = avro.schema_folder()
    return sorted(
        p.relative_to(folder).as_posix().removesuffix(".avsc") for p in folder.rglob("*.avsc")
    )


def fingerprint(schema):
    """Hash of all that matters to bytes and to readers: everything but the documentation."""
    bare = json.dumps(without_docs(schema), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(bare.encode()).hexdigest()


def without_docs(node):
    if isinstance(node, dict):
        return {key: without_docs(value) for key, value in node.items() if key != "doc"}
    return [without_docs(part) for part in node] if isinstance(node, list) else node


def record_of(kind, filled, named):
    """A value of a type: the last branch of each union if it is filled, else the first."""
    if isinstance(kind, list):
        return record_of(kind[-1] if filled else kind[0], filled, named)
    if isinstance(kind, str):
        return ZEROS[kind] if kind in ZEROS else record_of(named[short(kind)], filled, named)
    if kind["type"] == "record":
        named[short(kind["name"])] = kind
        return {f["name"]: record_of(f["type"], filled, named) for f in kind["fields"]}
    if kind["type"] == "array":
        return [record_of(kind["items"], filled, named)] * (2 if filled else 0)
    if kind["type"] == "map":
        return {"a": record_of(kind["values"], filled, named)} if filled else {}
    if kind["type"] == "fixed":
        return b"\x01" * kind["size"]
    if kind["type"] == "enum":
        return kind["symbols"][-1 if filled else 0]
    return record_of(kind["type"], filled, named)


def short(name):
    return name.rpartition(".")[2]


def check_both_read(one, other):
    """A packet of either schema is read with the other; what both have keeps its value."""
    for writer, reader in itertools.permutations((one, other)):
        shared = {f["name"] for f in writer["fields"]} & {f["name"] for f in reader["fields"]}
        for filled in (True, False):
            record = record_of(writer, filled, {})
            body = avro.encode(writer, record)
            plain, resolved = avro.decode(writer, body), avro.decode(writer, body, reader)
            assert set(resolved) == {field["name"] for field in reader["fields"]}
            assert {n: resolved[n] for n in shared} == {n: plain[n] for n in shared}


def test_a_schema_file_is_never_changed_and_never_goes():
    kept = json.loads((PUBLISHED / "schemas.json").read_text())

    now = {name: fingerprint(avro.read_schema(name)) for name in all_versions()}

    assert now == kept, "a new version is a new file, with its line in published/schemas.json"


@pytest.mark.parametrize("family", OWN)
def test_our_own_versions_read_each_other(family):
    versions = [avro.read_schema(f"{family}/{v}") for v in avro.schema_versions(family)]
    for one, other in itertools.combinations_with_replacement(versions, 2):
        check_both_read(one, other)


@pytest.mark.parametrize("survey", sorted(find_adapters()))
def test_packets_of_every_version_of_a_survey_give_the_same_fields(survey):
    adapter = find_adapters()[survey]
    for writer in adapter.schemas.values():
        for filled in (True, False):
            body = avro.encode(writer, record_of(writer, filled, {}))
            plain = avro.decode(writer, body)
            read = pa.array([plain], adapter.struct)[0].as_py()
            assert_part_of(read, plain, survey)


def assert_part_of(read, plain, where):
    if isinstance(read, dict) and isinstance(plain, dict):
        for name, value in read.items():
            assert_part_of(value, plain.get(name), f"{where}.{name}")
    elif isinstance(read, list) and isinstance(plain, list):
        assert len(read) == len(plain), where
        for left, right in zip(read, plain, strict=True):
            assert_part_of(left, right, where)
    else:
        assert read == plain, where


@pytest.mark.parametrize("variant", VARIANTS)
def test_readers_of_what_was_published_before_read_what_is_published_now(variant):
    old = json.loads((PUBLISHED / f"{variant}-1.avsc").read_text())
    now = packet_format(
        {"rise@1.0.0:rate": Column("rate", "float32", "nJy / d", "Slope.")},
        {"gaia": [Column("gaia_match", "int32", "", "Whether it is there.")]},
    ).schemas[variant][1]
    check_both_read(old, now)


def test_a_removed_field_without_a_default_would_be_noticed():
    old = avro.read_schema("broker/ccd-image/1.0")
    field = next(f for f in old["fields"] if f["name"] == "visit")
    new = {**old, "fields": [f for f in old["fields"] if f is not field]}
    with pytest.raises(fastavro.read.SchemaResolutionError):
        check_both_read(new, old)


@pytest.mark.parametrize(
    ("before", "after", "is_fine"),
    [
        ("int", "long", True),
        ("float", "double", True),
        (["null", "int"], ["null", "long"], True),
        ("long", "int", False),
        ("double", "string", False),
    ],
)
def test_a_widened_type_is_read_and_a_narrowed_one_is_not(before, after, is_fine):
    old = {"type": "record", "name": "Alert", "fields": [{"name": "x", "type": before}]}
    new = {"type": "record", "name": "Alert", "fields": [{"name": "x", "type": after}]}
    body = avro.encode(old, {"x": 7})
    if is_fine:
        assert avro.decode(old, body, new) == {"x": 7}
    else:
        with pytest.raises(fastavro.read.SchemaResolutionError):
            avro.decode(old, body, new)
