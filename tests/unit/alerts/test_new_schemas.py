"""A schema that comes later than the broker: usable at once, or left out with a reason."""

import json

import pytest

from broker import avro
from broker.alerts import adapters as adapters_module
from broker.alerts.adapters import find_adapters, look_for_schemas
from broker.errors import AlertError
from broker.types import Coordinate

AT = Coordinate("alerts.lsst", 0, 0)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(adapters_module, "_new", {})
    look_for_schemas(tmp_path)
    return tmp_path


def renamed(version, **more):
    """Rubin's newest schema under another version, with a field that is new."""
    text = json.dumps(avro.read_schema("lsst/11.1")).replace("v11_1", f"v{version}_0")
    schema = json.loads(text)
    schema["fields"].append({"name": "brandNew", "type": ["null", "double"], "default": None})
    return schema | more


def packet(schema, key):
    (kind,) = (f["type"] for f in schema["fields"] if f["name"] == "diaSource")
    source = {f["name"]: None if isinstance(f["type"], list) else 1 for f in kind["fields"]}
    zero = {"string": "r", "boolean": False}
    source |= {f["name"]: zero[f["type"]] for f in kind["fields"] if str(f["type"]) in zero}
    source |= {"diaSourceId": 17, "midpointMjdTai": 61_000.0, "psfFlux": 5.0, "psfFluxErr": 1.0}
    record = {f["name"]: None for f in schema["fields"] if isinstance(f["type"], list)}
    record |= {f["name"]: 17 for f in schema["fields"] if str(f["type"]) == "long"}
    record |= {f["name"]: "x" for f in schema["fields"] if str(f["type"]) == "string"}
    return avro.frame(key, avro.encode(schema, record | {"diaSource": source, "brandNew": 0.5}))


def put(home, name, text):
    path = home / "schemas" / "lsst" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_packet_of_a_new_schema_is_read_once_its_file_is_there(home):
    schema = renamed(12)
    sent = packet(schema, 1200)
    with pytest.raises(AlertError, match="schema id 1200 is not known"):
        find_adapters()["lsst"].decode_one(sent, AT)

    put(home, "12.0.avsc", json.dumps(schema))

    (row,) = find_adapters()["lsst"].decode_one(sent, AT).to_pylist()
    assert (row["diaSourceId"], row["psfFlux"]) == ("17", 5.0)
    assert 1200 in find_adapters()["lsst"].reader_schemas
    assert find_adapters() is find_adapters()


def test_a_file_that_goes_is_forgotten(home):
    put(home, "12.0.avsc", json.dumps(renamed(12)))
    assert 1200 in find_adapters()["lsst"].schemas
    (home / "schemas" / "lsst" / "12.0.avsc").unlink()
    assert 1200 not in find_adapters()["lsst"].schemas


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("12.0.avsc", "{", "JSONDecodeError"),
        ("12.0.avsc", "[]", "no schema"),
        ("twelve.avsc", json.dumps(renamed(12)), "no schema of survey lsst"),
        ("12.0.avsc", json.dumps(renamed(12)).replace('"double"', '"string"'), "wanted is double"),
        ("11.1.avsc", json.dumps(renamed(11)), "is not the schema that is known by its id 1101"),
    ],
)
def test_a_file_that_cannot_be_used_is_left_out_and_said(home, caplog, name, text, reason):
    before = set(find_adapters()["lsst"].schemas)

    put(home, name, text)

    assert set(find_adapters()["lsst"].schemas) == before
    assert reason in caplog.text
    put(home, name, json.dumps(renamed(12)))  # mended, it is taken up
    assert (1200 in find_adapters()["lsst"].schemas) == (name == "12.0.avsc")


def test_other_surveys_keep_their_adapters(home):
    before = find_adapters()
    put(home, "12.0.avsc", json.dumps(renamed(12)))
    after = find_adapters()
    assert after["ztf"] is before["ztf"]
    assert after["sim"] is before["sim"]
