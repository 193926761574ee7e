"""Our own alerts: Rubin's names, and canonical quantities already."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from broker import avro
from broker.alerts.adapter import Adapter, Projection, survey_schemas
from broker.alerts.arrays import child, flags, floats, ints
from broker.alerts.columns import CUTOUTS, DETECTION, FORCED
from broker.alerts.rubin import EPOCH, epochs, identifier, valid_sql

_FLOATS = (
    "raErr",
    "decErr",
    "snr",
    "templateFlux",
    "templateFluxErr",
    "scienceFlux",
    "scienceFluxErr",
    "reliability",
    "fwhm",
    "elongation",
    "limitingMag",
    "zeroPoint",
)

_DIA_SOURCE = pa.struct(
    [
        ("diaSourceId", pa.int64()),
        ("visit", pa.int64()),
        ("detector", pa.int32()),
        ("diaObjectId", pa.int64()),
        ("ssObjectId", pa.int64()),
        ("midpointMjdTai", pa.float64()),
        ("ra", pa.float64()),
        ("dec", pa.float64()),
        ("psfFlux", pa.float32()),
        ("psfFluxErr", pa.float32()),
        ("band", pa.string()),
        ("isNegative", pa.bool_()),
        ("isDipole", pa.bool_()),
        ("flags", pa.int64()),
        *((name, pa.float32()) for name in _FLOATS),
    ]
)

STRUCT = pa.struct(
    [
        ("diaSource", _DIA_SOURCE),
        ("prvDiaSources", pa.list_(EPOCH)),
        ("prvDiaForcedSources", pa.list_(EPOCH)),
        (
            "diaObject",
            pa.struct([("firstDiaSourceMjdTai", pa.float64()), ("nDiaSources", pa.int32())]),
        ),
        ("ssSource", pa.struct([("ssObjectId", pa.int64()), ("ephOffset", pa.float32())])),
        *((name, pa.binary()) for name in CUTOUTS),
    ]
)


def project(decoded: pa.StructArray) -> Projection:
    """Return our own packets' values under their canonical names."""
    source, about = child(decoded, "diaSource"), child(decoded, "diaObject")
    columns = {name: floats(child(source, name)) for name in _FLOATS} | {
        "diaSourceId": identifier(child(source, "diaSourceId")),
        "diaObjectId": identifier(child(source, "diaObjectId")),
        "ssObjectId": identifier(
            pc.coalesce(child(source, "ssObjectId"), child(decoded, "ssSource", "ssObjectId"))
        ),
        "ssSeparation": floats(child(decoded, "ssSource", "ephOffset")),
        "isPublic": np.ones(len(decoded), np.bool_),
        "midpointMjdTai": floats(child(source, "midpointMjdTai")),
        "visit": child(source, "visit"),
        "detector": child(source, "detector"),
        "ra": floats(child(source, "ra")),
        "dec": floats(child(source, "dec")),
        "psfFlux": floats(child(source, "psfFlux")),
        "psfFluxErr": floats(child(source, "psfFluxErr")),
        "isNegative": flags(child(source, "isNegative")),
        "isDipole": flags(child(source, "isDipole")),
        "flags": ints(child(source, "flags"), 0),
        "firstMjdTai": floats(child(about, "firstDiaSourceMjdTai")),
        "nDiaSources": ints(child(about, "nDiaSources"), 0),
    }
    history = [
        epochs(child(decoded, "prvDiaSources"), DETECTION),
        epochs(child(decoded, "prvDiaForcedSources"), FORCED),
    ]
    cutouts = {name: child(decoded, name) for name in CUTOUTS}
    return Projection(columns, child(source, "band"), history, cutouts)


ADAPTER = Adapter(
    survey="sim",
    wire="framed",
    schemas=survey_schemas("sim", lambda _, schema: avro.schema_id(schema)),
    struct=STRUCT,
    valid_sql=valid_sql("sim"),
    project=project,
)
