import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.alerts.columns import CUTOUTS, HISTORY, KINDS, SCALARS, Column
from broker.alerts.outgoing import module_columns, packet_format
from broker.alerts.tails import EPOCH_KINDS, NAMESPACE, encode_tails, tail_fields
from broker.avro import decode, encode, schema_id
from broker.errors import ConfigError

TAIL = {"type": "record", "name": "Tail", "namespace": NAMESPACE, "fields": tail_fields()}

floats = st.none() | st.floats(width=32)
epochs = st.fixed_dictionaries(
    {
        "midpointMjdTai": st.floats(50_000.0, 70_000.0),
        "band": st.none() | st.sampled_from("ugrizy"),
        "psfFlux": floats,
        "psfFluxErr": floats,
        "isPublic": st.booleans(),
        "kind": st.integers(0, len(KINDS) - 1),
    }
)
alerts = st.tuples(
    st.lists(epochs, max_size=80), *(st.none() | st.binary(max_size=200) for _ in CUTOUTS)
)


def finite(value):
    return value if value is not None and abs(value) < float("inf") else None


def expected(history):
    return [
        {
            "midpointMjdTai": e["midpointMjdTai"],
            "band": e["band"],
            "psfFlux": finite(e["psfFlux"]),
            "psfFluxErr": finite(e["psfFluxErr"]),
            "kind": EPOCH_KINDS[e["kind"]],
        }
        for e in history
        if e["isPublic"]
    ]


@settings(max_examples=60)
@given(batch=st.lists(alerts, max_size=6), skip=st.integers(0, 2))
def test_tails_are_what_an_avro_encoder_makes_of_the_public_epochs(batch, skip):
    columns = list(zip(*batch, strict=True)) or [[]] * 4
    table = pa.table(
        {
            "history": pa.array(columns[0], HISTORY),
            **{
                name: pa.array(c, pa.binary()) for name, c in zip(CUTOUTS, columns[1:], strict=True)
            },
        }
    ).slice(skip)

    made = encode_tails(table)

    assert made == [
        encode(TAIL, {"history": expected(history), **dict(zip(CUTOUTS, images, strict=True))})
        for history, *images in batch[skip:]
    ]


def test_a_schema_depends_on_the_declared_columns_alone():
    output = {"rise@1.0.0:rate": Column("rate", "float32", "nJy / d", "Slope.")}
    same = {"rise@1.0.0:rate": Column("rate", "float32", "nJy / d", "Another doc.")}
    other = {"rise@1.0.0:rate": Column("rate", "float64", "nJy / d", "Slope.")}

    ids = [packet_format(columns, {}).schemas for columns in (output, same, other)]

    assert [ids[0][v][0] for v in ids[0]] == [ids[1][v][0] for v in ids[1]]
    assert all(ids[0][v][0] != ids[2][v][0] for v in ids[0])
    assert ids[0]["slim"][0] != ids[0]["full"][0]


def test_a_slim_packet_is_the_beginning_of_a_full_one():
    schemas = packet_format({}, {"gaia": [Column("gaiaMatch", "int32", "", "Reading.")]}).schemas
    slim, full = (schemas[v][1]["fields"] for v in ("slim", "full"))

    assert full[: len(slim)] == slim
    names = [field["name"] for field in slim]
    assert names == [*(c.name for c in SCALARS), "gaiaMatch", "topics", "modules"]
    assert schema_id(schemas["slim"][1]) == schemas["slim"][0]


def test_units_stand_in_the_schema():
    fields = packet_format({}, {}).schemas["slim"][1]["fields"]

    (ra,) = [field for field in fields if field["name"] == "ra"]
    assert ra["doc"].endswith("[deg]")


def test_an_empty_history_is_an_empty_array():
    table = pa.table(
        {"history": pa.array([[]], HISTORY), **{n: pa.nulls(1, pa.binary()) for n in CUTOUTS}}
    )

    assert decode(TAIL, encode_tails(table)[0])["history"] == []


@pytest.mark.parametrize("name", ["rate", "rise:rate", "rise@1.0.0", "@1:rate"])
def test_an_output_without_module_and_version_is_refused(name):
    with pytest.raises(ConfigError, match="not named module@version:column"):
        module_columns({name: Column("rate", "float32", "", "Slope.")})
