"""ZTF's alerts: magnitudes become fluxes, starts of exposures in UTC their middles in TAI.

Unknown numbers are -999 or -99999 in these packets, unknown names the word null. The keys of
the schemas are the bytes of a container's header, which has one length in each version.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from broker.alerts.adapter import Adapter, Projection, sql_all, sql_between, survey_schemas
from broker.alerts.arrays import (
    BoolArray,
    FloatArray,
    child,
    floats,
    ints,
    is_one_of,
    not_negative,
    positive,
)
from broker.alerts.columns import DETECTION, FORCED, UPPER_LIMIT
from broker.alerts.flags import flag_bit
from broker.alerts.history import EARLIEST_MJD, LATEST_MJD, Epochs, entries, flat_list
from broker.avro import Schema
from broker.units import (
    MJD_OF_JD,
    SECONDS_PER_DAY,
    jd_utc_to_mjd_tai,
    mag_err_to_flux_err,
    mag_to_flux,
)

EXPOSURE_S = 30.0
"""Length of an exposure where the packet does not say it. [s]"""

PIXEL_ARCSEC = 1.012
"""Side of a pixel (Bellm et al. 2019, PASP 131, 018002). `fwhm` is sent in pixels."""

LIMIT_SIGMA = 5.0
"""`diffmaglim` is a limit at this many sigma."""

PUBLIC = 1
"""The `programid` of alerts that everyone may see."""

GOOD_FORCED = ("0",)
"""The `procstatus` of forced photometry without a warning."""

_BANDS = pa.array(["g", "r", "i"])
_POSITIVE_WORDS, _NEGATIVE_WORDS = ("t", "1"), ("f", "0")
_FAINTEST_MAG = 40.0

_CANDIDATE = pa.struct(
    [
        ("jd", pa.float64()),
        ("fid", pa.int32()),
        ("pid", pa.int64()),
        ("programid", pa.int32()),
        ("isdiffpos", pa.string()),
        ("rcid", pa.int32()),
        ("ra", pa.float64()),
        ("dec", pa.float64()),
        ("nbad", pa.int32()),
        ("ssnamenr", pa.string()),
        ("ndethist", pa.int32()),
        ("jdstarthist", pa.float64()),
        *(
            (name, pa.float32())
            for name in (
                "magpsf",
                "sigmapsf",
                "diffmaglim",
                "magzpsci",
                "drb",
                "rb",
                "fwhm",
                "elong",
                "ssdistnr",
                "magnr",
                "sigmagnr",
                "exptime",
            )
        ),
    ]
)

_PREVIOUS = pa.struct(
    [
        ("jd", pa.float64()),
        ("fid", pa.int32()),
        ("programid", pa.int32()),
        ("isdiffpos", pa.string()),
        ("magpsf", pa.float32()),
        ("sigmapsf", pa.float32()),
        ("diffmaglim", pa.float32()),
    ]
)

_FORCED = pa.struct(
    [
        ("jd", pa.float64()),
        ("fid", pa.int32()),
        ("programid", pa.int32()),
        ("exptime", pa.float32()),
        ("magzpsci", pa.float32()),
        ("forcediffimflux", pa.float32()),
        ("forcediffimfluxunc", pa.float32()),
        ("procstatus", pa.string()),
    ]
)

_CUTOUT = pa.struct([("stampData", pa.binary())])

_CUTOUTS = ("cutoutScience", "cutoutTemplate", "cutoutDifference")

STRUCT = pa.struct(
    [
        ("objectId", pa.string()),
        ("candid", pa.int64()),
        ("candidate", _CANDIDATE),
        ("prv_candidates", pa.list_(_PREVIOUS)),
        ("fp_hists", pa.list_(_FORCED)),
        *((name, _CUTOUT) for name in _CUTOUTS),
    ]
)

VALID_SQL = sql_all(
    "coalesce(ztf.candid != 0, false)",
    "coalesce(length(ztf.objectId) > 0, false)",
    sql_between("ztf.candidate.ra", 0.0, 360.0),
    sql_between("ztf.candidate.dec", -90.0, 90.0),
    sql_between("ztf.candidate.jd", EARLIEST_MJD + MJD_OF_JD, LATEST_MJD + MJD_OF_JD),
    sql_between("ztf.candidate.magpsf", 0.0, _FAINTEST_MAG),
    sql_between("ztf.candidate.sigmapsf", 0.0, _FAINTEST_MAG),
    "ztf.candidate.sigmapsf != 0",
    "coalesce(ztf.candidate.isdiffpos IN ('t', '1', 'f', '0'), false)",
)


def _header_bytes(version: str, schema: Schema) -> int:  # noqa: ARG001
    return int(schema["headerBytes"])


def _midpoint(jd: FloatArray, exposure_s: FloatArray | float = EXPOSURE_S) -> FloatArray:
    """Return the middle of exposures that began at a Julian date (UTC) as MJD, TAI. [d]"""
    exposure_s = positive(np.asarray(exposure_s, np.float64))
    half = 0.5 * np.where(np.isfinite(exposure_s), exposure_s, EXPOSURE_S)
    return jd_utc_to_mjd_tai(jd) + half / SECONDS_PER_DAY


def _band(fid: pa.Array) -> pa.Array:
    """Return the passband of a filter's number: 1 g, 2 r, 3 i, null for another."""
    known = pc.and_(pc.greater_equal(fid, 1), pc.less_equal(fid, 3))
    return _BANDS.take(pc.if_else(known, pc.subtract(fid, 1), None))


def _codes(fid: pa.Array) -> Any:
    """Return indices into `broker.units.BANDS` (u g r i z y): the filter's own number."""
    number = ints(fid, -1)
    return np.where((number >= 1) & (number <= 3), number, -1).astype(np.int8)


def _flux(rows: pa.StructArray) -> tuple[FloatArray, FloatArray, BoolArray, BoolArray]:
    """Return flux, its error [nJy], where it is negative, and where the sign is known."""
    mag, mag_err = (positive(floats(child(rows, name))) for name in ("magpsf", "sigmapsf"))
    sign = child(rows, "isdiffpos")
    negative = is_one_of(sign, _NEGATIVE_WORDS)
    known = negative | is_one_of(sign, _POSITIVE_WORDS)
    size = mag_to_flux(mag)
    return np.where(negative, -size, size), mag_err_to_flux_err(mag_err, size), negative, known


def _is_public(rows: pa.StructArray) -> BoolArray:
    return np.asarray(ints(child(rows, "programid"), 0) == PUBLIC)


def _previous(lists: pa.ListArray) -> Epochs:
    """Return the entries of `prv_candidates`: detections, and limits where there is none."""
    alert, rows = flat_list(lists)
    flux, flux_err, _, known = _flux(rows)
    limit = mag_to_flux(positive(floats(child(rows, "diffmaglim")))) / LIMIT_SIGMA
    is_limit = child(rows, "magpsf").is_null().to_numpy(zero_copy_only=False)
    return entries(
        alert,
        _midpoint(floats(child(rows, "jd"))),
        band=_codes(child(rows, "fid")),
        flux=np.where(is_limit | ~known, np.nan, flux),
        flux_err=np.where(is_limit, limit, flux_err),
        is_public=_is_public(rows),
        kind=np.where(is_limit, UPPER_LIMIT, DETECTION),
    )


def _forced(lists: pa.ListArray) -> Epochs:
    """Return the entries of `fp_hists` whose status is good: counts by their own zero point."""
    alert, rows = flat_list(lists)
    scale = mag_to_flux(positive(floats(child(rows, "magzpsci"))))
    scale = np.where(is_one_of(child(rows, "procstatus"), GOOD_FORCED), scale, np.nan)
    counts, error = (floats(child(rows, f"forcediffimflux{x}")) for x in ("", "unc"))
    return entries(
        alert,
        _midpoint(floats(child(rows, "jd")), floats(child(rows, "exptime"))),
        band=_codes(child(rows, "fid")),
        flux=counts * scale,
        flux_err=positive(error) * scale,
        is_public=_is_public(rows),
        kind=FORCED,
    )


def _template(candidate: pa.StructArray) -> tuple[FloatArray, FloatArray]:
    """Return flux and error of the nearest source of the template. [nJy]"""
    flux = mag_to_flux(positive(floats(child(candidate, "magnr"))))
    return flux, mag_err_to_flux_err(positive(floats(child(candidate, "sigmagnr"))), flux)


def _name(values: pa.Array) -> pa.Array:
    return pc.if_else(is_one_of(values, ("null", "")), None, values)


def _reliability(candidate: pa.StructArray) -> FloatArray:
    deep, shallow = (not_negative(floats(child(candidate, name))) for name in ("drb", "rb"))
    return np.where(np.isfinite(deep), deep, shallow)


def project(decoded: pa.StructArray) -> Projection:
    """Return ZTF's values under their canonical names."""
    row = child(decoded, "candidate")
    flux, flux_err, negative, known = _flux(row)
    template, template_err = _template(row)
    object_id = _name(child(decoded, "objectId"))
    exposure = floats(child(row, "exptime"))
    first = positive(floats(child(row, "jdstarthist")))
    pid = child(row, "pid")
    columns = {
        "diaSourceId": pc.if_else(
            pc.equal(child(decoded, "candid"), 0), None, child(decoded, "candid")
        ).cast(pa.string()),
        "diaObjectId": object_id,
        "ssObjectId": _name(child(row, "ssnamenr")),
        "ssSeparation": not_negative(floats(child(row, "ssdistnr"))),
        "isPublic": _is_public(row),
        "midpointMjdTai": _midpoint(floats(child(row, "jd")), exposure),
        "visit": pc.divide(pid, 10_000),  # night and time of day; the rest is the quadrant
        "detector": child(row, "rcid"),
        "ra": floats(child(row, "ra")),
        "dec": floats(child(row, "dec")),
        "psfFlux": flux,
        "psfFluxErr": flux_err,
        "templateFlux": template,
        "templateFluxErr": template_err,
        "scienceFlux": template + flux,
        "scienceFluxErr": np.hypot(template_err, flux_err),
        "reliability": _reliability(row),
        "isNegative": negative,
        "isDipole": np.zeros(len(decoded), np.bool_),
        "flags": np.where(ints(child(row, "nbad"), 0) > 0, flag_bit("pixelFlags_bad"), 0),
        "fwhm": positive(floats(child(row, "fwhm"))) * PIXEL_ARCSEC,
        "elongation": positive(floats(child(row, "elong"))),
        "limitingMag": positive(floats(child(row, "diffmaglim"))),
        "zeroPoint": positive(floats(child(row, "magzpsci"))),
        "firstMjdTai": _midpoint(first),
        "nDiaSources": ints(child(row, "ndethist"), 0),
    }
    return Projection(
        columns,
        _band(child(row, "fid")),
        [_previous(child(decoded, "prv_candidates")), _forced(child(decoded, "fp_hists"))],
        {name: child(decoded, name, "stampData") for name in _CUTOUTS},
        [
            (~known, "isdiffpos is none of t, 1, f, 0"),
            (object_id.is_null().to_numpy(zero_copy_only=False), "objectId is missing"),
        ],
    )


ADAPTER = Adapter(
    survey="ztf",
    wire="container",
    schemas=survey_schemas("ztf", _header_bytes),
    struct=STRUCT,
    valid_sql=VALID_SQL,
    project=project,
    identify=_header_bytes,
)
