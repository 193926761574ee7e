"""ZTF's packets: container files with a month of history and three gzipped cutouts."""

import functools
import json
import string
from dataclasses import dataclass
from typing import Any

import numpy as np
from isal import igzip
from numpy.typing import NDArray

from broker import avro
from broker.alerts.wire import SYNC_BYTES, container_header, to_container, varint
from broker.avro import Schema
from broker.simulation.packets.common import (
    Place,
    RecordTemplate,
    Text,
    array,
    assemble,
    blob,
    cards,
    draw_fluxes,
    gaussian,
    padded,
    part,
    text,
)
from broker.simulation.packets.ztf_fields import (
    CANDIDATE,
    CANDIDATE_ONLY,
    CONSTANT,
    FORCED,
    FORCED_CONSTANT,
    LIMIT,
    LIMIT_CONSTANT,
    UNKNOWN,
)
from broker.units import SECONDS_PER_DAY, flux_err_to_mag_err, flux_to_mag, mag_to_flux

VERSIONS = ("3.3", "4.01")
"""Those of the public samples."""

FIRST_JD = 2_457_754.5
"""Night 1 of ZTF's numbers began on the day after this."""

_FIRST_NIGHT, _NIGHTS = 2300, 1000
_ALERTS_A_VISIT = 256
_VISIT_S = 40.0
_QUADRANTS = 64
_SIZE = 63
_SKY, _SCIENCE_NOISE, _TEMPLATE_NOISE = 100.0, 6.0, 2.7
_PSF_SIGMA_PX = 0.9
_NAME_LETTERS = 7
_SOLAR_SYSTEM_SHARE = 0.05

_HEADER = cards(
    "SIMPLE  =  T",
    "BITPIX  =                  -32",
    "NAXIS   =                    2",
    f"NAXIS1  =                   {_SIZE}",
    f"NAXIS2  =                   {_SIZE}",
    "BUNIT   = 'DN      '",
)


@dataclass(frozen=True)
class _Version:
    """What all packets of a version share."""

    schema: Schema
    header: bytes
    candidate: RecordTemplate
    moving: RecordTemplate
    detection: RecordTemplate
    limit: RecordTemplate
    forced: RecordTemplate | None
    failed: RecordTemplate | None


@functools.cache
def _version(name: str) -> _Version:
    schema = avro.read_schema(f"ztf/{name}")
    candidate, previous = part(schema, "candidate"), part(schema, "prv_candidates")
    constant = {**CONSTANT, **CANDIDATE_ONLY}
    there = {field["name"] for field in schema["fields"]}
    forced = part(schema, "fp_hists") if "fp_hists" in there else None
    return _Version(
        schema=schema,
        header=_container_header(schema),
        candidate=RecordTemplate(candidate, {**constant, "ssnamenr": "null"}, CANDIDATE),
        moving=RecordTemplate(candidate, constant, {**CANDIDATE, "ssnamenr": Text(6)}),
        detection=RecordTemplate(previous, {**CONSTANT, "ssnamenr": "null"}, CANDIDATE),
        limit=RecordTemplate(previous, {**LIMIT_CONSTANT, "rcid": 1}, LIMIT),
        forced=_forced_template(forced, "0"),
        failed=_forced_template(forced, "61"),
    )


def _forced_template(schema: Schema | None, status: str) -> RecordTemplate | None:
    if schema is None:
        return None
    return RecordTemplate(schema, {**FORCED_CONSTANT, "procstatus": status}, FORCED)


def _container_header(schema: Schema) -> bytes:
    """Return a header without its sync marker, filled up to the length that real ones have.

    Real headers are longer by their documentation; here blanks behind the schema's JSON are.
    """
    plain = {key: value for key, value in schema.items() if key != "headerBytes"}
    content = json.dumps(plain)
    missing = schema["headerBytes"] - len(container_header(content, bytes(SYNC_BYTES)))
    header = container_header(content + " " * missing, bytes(SYNC_BYTES))
    return header[:-SYNC_BYTES]


def packet(
    rng: np.random.Generator, seed: int, index: int, place: Place, *, version: str, history: str
) -> bytes:
    """Return one packet: a whole container file."""
    del history  # ZTF's packets always hold a month
    shared = _version(version)
    epoch = _Epoch.draw(rng, seed, index)
    alert = _candidate(rng, shared, epoch, place)
    earlier, n_earlier = _previous(rng, shared, epoch)
    parts = {
        "schemavsn": text(version),
        "publisher": text("ZTF (www.ztf.caltech.edu)"),
        "objectId": text(_object_id(seed, index)),
        "candid": varint(epoch.candid),
        "candidate": alert,
        "prv_candidates": array(earlier, n_earlier),
        **_cutouts(rng, epoch),
    }
    if shared.forced is not None and shared.failed is not None:
        parts["fp_hists"] = _forced(rng, shared.forced, shared.failed, epoch)
    sync = rng.bytes(SYNC_BYTES)
    return to_container(shared.header + sync, assemble(shared.schema, parts))


@dataclass(frozen=True)
class _Epoch:
    """One alert's exposure and source. Fluxes in nJy."""

    jd: float
    pid: int
    candid: int
    rcid: int
    fid: int
    limit: float
    zero_point: float
    flux: float
    flux_err: float
    is_negative: bool

    @classmethod
    def draw(cls, rng: np.random.Generator, seed: int, index: int) -> "_Epoch":
        night = _FIRST_NIGHT + seed % _NIGHTS
        visit = index // _ALERTS_A_VISIT
        day = 0.1 + (visit * _VISIT_S / SECONDS_PER_DAY) % 0.5
        rcid = index % _QUADRANTS
        pid = ((night * 100_000 + round(day * 100_000)) * 100 + rcid) * 100 + 15
        limit = float(rng.normal(20.4, 0.25))
        flux_err = float(mag_to_flux(limit)) / 5.0
        return cls(
            jd=FIRST_JD + night + day,
            pid=pid,
            candid=pid * 1_000_000 + index,
            rcid=rcid,
            fid=1 + visit % 2,
            limit=limit,
            zero_point=float(rng.normal(26.2, 0.1)),
            flux=flux_err * float(np.clip(5.5 * rng.pareto(1.2) + 5.5, 5.5, 400.0)),
            flux_err=flux_err,
            is_negative=bool(rng.random() < 0.2),
        )


def _object_id(seed: int, index: int) -> str:
    """Return a name like ZTF's, another for each (seed, index)."""
    number = ((seed % _NIGHTS) * 1_000_000 + index) * 2_654_435_761 % 26**_NAME_LETTERS
    letters = []
    for _ in range(_NAME_LETTERS):
        number, letter = divmod(number, 26)
        letters.append(string.ascii_lowercase[letter])
    return "ZTF24" + "".join(letters)


def _magnitudes(flux: Any, flux_err: Any) -> dict[str, Any]:
    mag, mag_err = flux_to_mag(flux), flux_err_to_mag_err(flux_err, flux)
    return {
        "magpsf": mag,
        "sigmapsf": mag_err,
        "magap": mag + 0.05,
        "sigmagap": mag_err * 1.2,
        "magapbig": mag + 0.03,
        "sigmagapbig": mag_err * 1.5,
    }


def _measured(rng: np.random.Generator, epoch: _Epoch, place: Place, n: int) -> dict[str, Any]:
    """Return what is drawn for detections, the alert's own and earlier ones alike."""
    unit = rng.random((7, n))
    narrow = max(np.cos(np.radians(place.dec)), 1e-6)
    east, north = rng.normal(0.0, 0.1 / 3600.0, (2, n))
    return {
        "ra": (place.ra + east / narrow) % 360.0,
        "dec": np.clip(place.dec + north, -90.0, 90.0),
        "ranr": place.ra,
        "decnr": place.dec,
        "rb": unit[0],
        "drb": 1.0 - unit[1] ** 2,
        "fwhm": 1.6 + 2.0 * unit[2],
        "elong": 1.0 + 0.4 * unit[3],
        "xpos": 3072.0 * unit[4],
        "ypos": 3080.0 * unit[5],
        "distnr": 2.0 * unit[6],
        "magnr": 17.0 + 4.0 * unit[0],
        "sigmagnr": 0.02 + 0.1 * unit[1],
        "scorr": 10.0 + unit[2],
        "rcid": epoch.rcid,
        "ssdistnr": UNKNOWN,
        "jdstarthist": epoch.jd - 30.0 * unit[5],
        "jdendhist": epoch.jd,
    }


def _candidate(rng: np.random.Generator, shared: _Version, epoch: _Epoch, place: Place) -> bytes:
    measured = max(epoch.flux + rng.normal(0.0, epoch.flux_err), 5.0 * epoch.flux_err)
    values = _measured(rng, epoch, place, 1) | _magnitudes(measured, epoch.flux_err)
    values |= {
        "jd": epoch.jd,
        "fid": epoch.fid,
        "pid": epoch.pid,
        "candid": epoch.candid,
        "diffmaglim": epoch.limit,
        "magzpsci": epoch.zero_point,
        "ndethist": 1 + int(40 * rng.random()),
        "isdiffpos": b"f" if epoch.is_negative else b"t",
    }
    if rng.random() < _SOLAR_SYSTEM_SHARE:
        values |= {"ssdistnr": 3.0 * rng.random(), "ssnamenr": b"%06d" % rng.integers(1, 999_999)}
        return shared.moving.rows(1, **values).tobytes()
    return shared.candidate.rows(1, **values).tobytes()


def _previous(rng: np.random.Generator, shared: _Version, epoch: _Epoch) -> tuple[bytes, int]:
    """Return `prv_candidates`: detections and limits of a month, oldest first."""
    n = int(rng.integers(15, 46))
    days = np.sort(rng.uniform(-30.0, -0.02, n))
    limit = rng.normal(20.4, 0.25, n)
    flux_err = mag_to_flux(limit) / 5.0
    flux = draw_fluxes(rng, epoch.flux, days) + rng.normal(0.0, flux_err)
    found = np.flatnonzero(flux > 5.0 * flux_err)
    values = {
        "jd": epoch.jd + days,
        "fid": rng.integers(1, 3, n),
        "diffmaglim": limit,
        "magzpsci": rng.normal(26.2, 0.1, n),
        "pid": epoch.pid + np.rint(days * 100_000).astype(np.int64) * 10_000,
    }
    records = list(shared.limit.rows(n, **values))
    detected: dict[str, Any] = {name: column[found] for name, column in values.items()}
    detected |= _measured(rng, epoch, Place(180.0, 0.0), len(found))
    detected |= _magnitudes(flux[found], flux_err[found])
    detected |= {
        "candid": detected["pid"] * 1_000_000 + 1,
        "ndethist": 1,
        "isdiffpos": b"f" if epoch.is_negative else b"t",
    }
    for row, record in zip(found, shared.detection.rows(len(found), **detected), strict=True):
        records[row] = record
    return b"".join(record.tobytes() for record in records), n


def _forced(
    rng: np.random.Generator, good: RecordTemplate, failed: RecordTemplate, epoch: _Epoch
) -> bytes:
    """Return `fp_hists`: counts in the zero point of their exposure, a few of them failed."""
    n = int(rng.integers(9, 22))
    days = np.sort(rng.uniform(-30.0, -0.5, n))
    limit, zero_point = rng.normal(20.4, 0.25, n), rng.normal(26.2, 0.1, n)
    counts = 1.0 / mag_to_flux(zero_point)
    error = mag_to_flux(limit) / 5.0
    flux = draw_fluxes(rng, epoch.flux, days) * (-1.0 if epoch.is_negative else 1.0)
    is_failed = rng.random(n) < 0.25
    values = {
        "jd": epoch.jd + days,
        "fid": rng.integers(1, 3, n),
        "pid": epoch.pid + np.rint(days * 100_000).astype(np.int64) * 10_000,
        "diffmaglim": limit,
        "magzpsci": zero_point,
        "forcediffimflux": (flux + rng.normal(0.0, error)) * counts,
        "forcediffimfluxunc": error * counts,
    }
    unknown = values | {"forcediffimflux": -99_999.0, "forcediffimfluxunc": -99_999.0}
    done = zip(good.rows(n, **values), failed.rows(n, **unknown), is_failed, strict=True)
    return array(b"".join((bad if is_bad else ok).tobytes() for ok, bad, is_bad in done), n)


def _cutouts(rng: np.random.Generator, epoch: _Epoch) -> dict[str, bytes]:
    """Return the three cutouts: a science image, a template, their difference."""
    dx, dy = rng.uniform(-0.5, 0.5, 2)
    counts = epoch.flux / float(mag_to_flux(epoch.zero_point))
    source = gaussian(_SIZE, _PSF_SIGMA_PX, dx, dy) * np.float32(counts)
    template = _noise(rng, _TEMPLATE_NOISE) + np.float32(_SKY)
    difference = _noise(rng, _SCIENCE_NOISE) + (-source if epoch.is_negative else source)
    images = {
        "cutoutScience": template + difference,
        "cutoutTemplate": template,
        "cutoutDifference": difference,
    }
    return {
        name: text(f"candid{epoch.candid}_{name}.fits.gz") + blob(_gzipped(pixels))
        for name, pixels in images.items()
    }


def _noise(rng: np.random.Generator, sigma: float) -> NDArray[np.float32]:
    return rng.standard_normal((_SIZE, _SIZE), np.float32) * np.float32(sigma)


def _gzipped(pixels: NDArray[np.float32]) -> bytes:
    raw = _HEADER + padded(pixels.astype(">f4").tobytes())
    compressed: bytes = igzip.compress(raw, 1, mtime=0)
    return compressed
