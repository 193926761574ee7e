"""Rubin's alerts, every public version of their schema: times and fluxes are canonical as sent."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from broker.alerts.adapter import Adapter, Projection, survey_schemas
from broker.alerts.arrays import FloatArray, IntArray, child, flags, floats, ints
from broker.alerts.columns import CUTOUTS, DETECTION, FORCED
from broker.alerts.flags import QUALITY_FLAGS
from broker.alerts.rubin import EPOCH, epochs, identifier, valid_sql
from broker.avro import Schema

_FWHM_PER_SIGMA = np.sqrt(8.0 * np.log(2.0))

_AS_SENT = (
    "raErr",
    "decErr",
    "snr",
    "templateFlux",
    "templateFluxErr",
    "scienceFlux",
    "scienceFluxErr",
    "reliability",
)

_MOMENTS = ("ixx", "iyy", "ixy", "ixxPSF", "iyyPSF")

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
        ("is_negative", pa.bool_()),  # its name in 7.3 and 7.4
        ("isDipole", pa.bool_()),
        *((name, pa.float32()) for name in (*_AS_SENT, *_MOMENTS)),
        *((name, pa.bool_()) for name in QUALITY_FLAGS),
    ]
)

_DIA_OBJECT = pa.struct(
    [
        ("diaObjectId", pa.int64()),
        ("firstDiaSourceMjdTai", pa.float64()),
        ("nDiaSources", pa.int32()),
    ]
)

STRUCT = pa.struct(
    [
        ("diaSource", _DIA_SOURCE),
        ("prvDiaSources", pa.list_(EPOCH)),
        ("prvDiaForcedSources", pa.list_(EPOCH)),
        ("diaObject", _DIA_OBJECT),
        ("ssObject", pa.struct([("ssObjectId", pa.int64())])),  # until 7.4
        ("ssSource", pa.struct([("ssObjectId", pa.int64()), ("ephOffset", pa.float32())])),
        *((name, pa.binary()) for name in CUTOUTS),
    ]
)


def _schema_id(version: str, schema: Schema) -> int:  # noqa: ARG001
    """Return Rubin's id of a version: 9.0 has 900, 11.1 has 1101."""
    major, minor = version.split(".")
    return 100 * int(major) + int(minor)


def _quality(source: pa.StructArray) -> IntArray:
    """Return the flags as bits, one field a bit; null is not set."""
    bits = np.zeros(len(source), np.int64)
    for bit, name in enumerate(QUALITY_FLAGS):
        values = child(source, name)
        if values.true_count:
            bits |= flags(values).astype(np.int64) << bit
    return bits


def _seeing_arcsec(source: pa.StructArray) -> FloatArray:
    """Return the full width at half maximum of the PSF, from its second moments. [arcsec]

    The moments are in arcsec²; a Gaussian's mean moment is its sigma squared.
    """
    with np.errstate(invalid="ignore"):
        variance = 0.5 * (floats(child(source, "ixxPSF")) + floats(child(source, "iyyPSF")))
        return _FWHM_PER_SIGMA * np.sqrt(np.where(variance > 0.0, variance, np.nan))


def _elongation(source: pa.StructArray) -> FloatArray:
    """Return the ratio of the axes of the ellipse of the second moments."""
    ixx, iyy, ixy = (floats(child(source, name)) for name in ("ixx", "iyy", "ixy"))
    half, spread = 0.5 * (ixx + iyy), np.hypot(0.5 * (ixx - iyy), ixy)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(half > spread, np.sqrt((half + spread) / (half - spread)), np.nan)


def project(decoded: pa.StructArray) -> Projection:
    """Return Rubin's values under their canonical names."""
    source, about = child(decoded, "diaSource"), child(decoded, "diaObject")
    flux = floats(child(source, "psfFlux"))
    negative = pc.coalesce(child(source, "isNegative"), child(source, "is_negative"))
    columns = {name: floats(child(source, name)) for name in _AS_SENT} | {
        "diaSourceId": identifier(child(source, "diaSourceId")),
        "diaObjectId": pc.coalesce(
            identifier(child(source, "diaObjectId")), identifier(child(about, "diaObjectId"))
        ),
        "ssObjectId": pc.coalesce(
            identifier(child(source, "ssObjectId")),
            identifier(child(decoded, "ssSource", "ssObjectId")),
            identifier(child(decoded, "ssObject", "ssObjectId")),
        ),
        "ssSeparation": floats(child(decoded, "ssSource", "ephOffset")),
        "isPublic": np.ones(len(decoded), np.bool_),
        "midpointMjdTai": floats(child(source, "midpointMjdTai")),
        "visit": child(source, "visit"),
        "detector": child(source, "detector"),
        "ra": floats(child(source, "ra")),
        "dec": floats(child(source, "dec")),
        "psfFlux": flux,
        "psfFluxErr": floats(child(source, "psfFluxErr")),
        "isNegative": np.where(
            negative.is_null().to_numpy(zero_copy_only=False), flux < 0.0, flags(negative)
        ),
        "isDipole": flags(child(source, "isDipole")),
        "flags": _quality(source),
        "fwhm": _seeing_arcsec(source),
        "elongation": _elongation(source),
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
    survey="lsst",
    wire="framed",
    schemas=survey_schemas("lsst", _schema_id),
    struct=STRUCT,
    valid_sql=valid_sql("lsst"),
    project=project,
    identify=_schema_id,
)
