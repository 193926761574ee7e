"""Rubin's packets: a schema id before the body, plain FITS cutouts, long histories."""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from broker import avro
from broker.alerts.wire import varint
from broker.avro import Schema
from broker.simulation.packets.common import (
    BOOLEAN,
    DOUBLE,
    FLOAT,
    Kind,
    Long,
    Place,
    RecordTemplate,
    Text,
    array,
    assemble,
    draw_fluxes,
    part,
)
from broker.simulation.packets.lsst_cutouts import draw_cutouts

VERSIONS = ("9.0", "10.0", "11.1")
"""With a real sample of the first two."""

FIRST_MJD = 61_000.0
"""Night of seed 0. [d]"""

_VISIT_S = 39.0
_ALERTS_A_VISIT = 512

_ID = Long(8)
_FIRST_ID = 1 << 52
_IDS_AN_ALERT = 1 << 12
_OWN_ID = _IDS_AN_ALERT - 1
_FORCED_IDS = 2048

_MINIMAL_SHARE, _NEW_SHARE, _SOLAR_SYSTEM_SHARE = 0.03, 0.15, 0.2
"""Packets with nearly every optional field null; of a new object; of a solar-system object. The
rest has a long history: 224 kB in the mean of all."""

_DOUBLES = ("ra", "dec", "midpointMjdTai")
_FLOATS = (
    *("raErr", "decErr", "psfFlux", "psfFluxErr", "snr", "reliability"),
    *("apFlux", "apFluxErr", "scienceFlux", "scienceFluxErr", "templateFlux", "templateFluxErr"),
)

_SOURCE: dict[str, Kind] = {
    **dict.fromkeys(_DOUBLES, DOUBLE),
    **dict.fromkeys(_FLOATS, FLOAT),
    **dict.fromkeys(("isNegative", "is_negative"), BOOLEAN),
    "diaSourceId": _ID,
    "visit": Long(4),
    "detector": Long(2),
    "diaObjectId": _ID,
    "band": Text(1),
}

_SOLAR: dict[str, Kind] = {k: v for k, v in _SOURCE.items() if k != "diaObjectId"} | {
    "ssObjectId": _ID
}

_BARE: dict[str, Kind] = {
    name: _SOURCE[name]
    for name in (
        *("diaSourceId", "visit", "detector", "midpointMjdTai", "ra", "dec", "band"),
        *("psfFlux", "psfFluxErr", "snr"),
    )
}

_FORCED: dict[str, Kind] = {
    "diaForcedSourceId": _ID,
    "diaObjectId": _ID,
    "ra": DOUBLE,
    "dec": DOUBLE,
    "visit": Long(4),
    "detector": Long(2),
    "psfFlux": FLOAT,
    "psfFluxErr": FLOAT,
    "midpointMjdTai": DOUBLE,
    "scienceFlux": FLOAT,
    "scienceFluxErr": FLOAT,
    "band": Text(1),
}

_OBJECT: dict[str, Kind] = {
    "diaObjectId": _ID,
    "ra": DOUBLE,
    "dec": DOUBLE,
    "firstDiaSourceMjdTai": DOUBLE,
    "lastDiaSourceMjdTai": DOUBLE,
    "nDiaSources": Long(1),
}

_ONE_BYTE = 64
"""Numbers from here on take two bytes as a varint."""

_SS: dict[str, Kind] = {"diaSourceId": _ID, "ssObjectId": _ID, "ephOffset": FLOAT}

_MEASURED = {
    "xErr": 0.6,
    "yErr": 0.8,
    "x": 754.2,
    "y": 3346.3,
    "ra_dec_Cov": -2.2e-10,
    "psfChi2": 1710.2,
    "psfNdata": 1681,
    "ixxPSF": 0.163,
    "iyyPSF": 0.159,
    "ixyPSF": 0.0009,
    "dipoleNdata": 0,
    "parentDiaSourceId": 0,
    "bboxSize": 12,
}

_BANDS = np.frombuffer(b"ugrizy", np.uint8)


@dataclass(frozen=True)
class _Version:
    """What all packets of a version share."""

    schema: Schema
    identifier: int
    source: RecordTemplate
    solar: RecordTemplate
    bare: RecordTemplate
    forced: RecordTemplate
    about: RecordTemplate
    about_many: RecordTemplate
    moving: RecordTemplate


@functools.cache
def _version(name: str) -> _Version:
    schema = avro.read_schema(f"lsst/{name}")
    source = part(schema, "diaSource")
    flags = {field["name"]: False for field in source["fields"] if "boolean" in field["type"]}
    full = {**_MEASURED, **flags}
    major, minor = name.split(".")
    moving = "ssSource" if int(major) >= 8 else "ssObject"
    return _Version(
        schema=schema,
        identifier=100 * int(major) + int(minor),
        source=RecordTemplate(source, {**full, "ssObjectId": 0}, _SOURCE),
        solar=RecordTemplate(source, full, _SOLAR),
        bare=RecordTemplate(source, {}, _BARE),
        forced=RecordTemplate(part(schema, "prvDiaForcedSources"), {}, _FORCED),
        about=RecordTemplate(part(schema, "diaObject"), {}, _OBJECT),
        about_many=RecordTemplate(
            part(schema, "diaObject"), {}, {**_OBJECT, "nDiaSources": Long(2)}
        ),
        moving=RecordTemplate(part(schema, moving), {}, _SS),
    )


def packet(
    rng: np.random.Generator, seed: int, index: int, place: Place, *, version: str, history: str
) -> bytes:
    """Return one packet: zero byte, schema id, body."""
    shared = _version(version)
    epoch = _Epoch.draw(rng, seed, index, place)
    kind = rng.random()
    if kind < _MINIMAL_SHARE:
        parts = {"diaSource": shared.bare.rows(1, **epoch.source()).tobytes()}
    elif kind < _MINIMAL_SHARE + _SOLAR_SYSTEM_SHARE:
        parts = _solar_system(rng, shared, epoch)
    else:
        is_new = kind < _MINIMAL_SHARE + _SOLAR_SYSTEM_SHARE + _NEW_SHARE
        parts = _of_an_object(rng, shared, epoch, history == "full" and not is_new)
    parts |= {"diaSourceId": varint(epoch.identifier), "alertId": varint(epoch.identifier)}
    return avro.frame(shared.identifier, assemble(shared.schema, parts))


@dataclass(frozen=True)
class _Epoch:
    """One alert's visit and source. Fluxes in nJy."""

    first_id: int
    mjd: float
    visit: int
    detector: int
    band: int
    place: Place
    flux: float
    flux_err: float
    measured: float
    reliability: float

    @classmethod
    def draw(cls, rng: np.random.Generator, seed: int, index: int, place: Place) -> "_Epoch":
        visit = index // _ALERTS_A_VISIT
        flux_err = float(rng.uniform(150.0, 400.0))
        flux = flux_err * float(np.clip(5.5 * rng.pareto(1.2) + 5.5, 5.5, 1000.0))
        flux = -flux if rng.random() < 0.3 else flux
        noisy = flux + float(rng.normal(0.0, flux_err))
        smallest = 5.0 * flux_err
        return cls(
            first_id=_FIRST_ID + ((seed % 1024) * 1_000_000 + index) * _IDS_AN_ALERT,
            mjd=FIRST_MJD + seed % 1024 + visit * _VISIT_S / 86_400.0,
            visit=2_000_000 + (seed % 1024) * 2000 + visit,
            detector=64 + index % 125,
            band=int(_BANDS[1 + visit % 4]),
            place=place,
            flux=flux,
            flux_err=flux_err,
            measured=noisy if abs(noisy) > smallest else float(np.copysign(smallest, flux)),
            reliability=float(rng.random()),
        )

    @property
    def identifier(self) -> int:
        """Its diaSourceId."""
        return self.first_id + _OWN_ID

    def source(self) -> dict[str, Any]:
        """Return the variable fields of its diaSource."""
        return {
            "diaSourceId": self.identifier,
            "diaObjectId": self.first_id,
            "ssObjectId": self.first_id + 1,
            "visit": self.visit,
            "detector": self.detector,
            "midpointMjdTai": self.mjd,
            "ra": self.place.ra,
            "dec": self.place.dec,
            "raErr": 3e-05,
            "decErr": 4e-05,
            "band": bytes([self.band]),
            "reliability": self.reliability,
            **_fluxes(self.measured, self.flux_err),
        }


def _fluxes(flux: Any, flux_err: Any) -> dict[str, Any]:
    return {
        "psfFlux": flux,
        "psfFluxErr": flux_err,
        "isNegative": np.less(flux, 0.0),
        "is_negative": np.less(flux, 0.0),
        "apFlux": flux * 1.05,
        "apFluxErr": flux_err * 2.0,
        "snr": np.abs(flux) / flux_err,
        "templateFlux": np.abs(flux) + 40_000.0,
        "templateFluxErr": flux_err * 0.3,
        "scienceFlux": np.abs(flux) + flux + 40_000.0,
        "scienceFluxErr": flux_err,
    }


def _solar_system(rng: np.random.Generator, shared: _Version, epoch: _Epoch) -> dict[str, bytes]:
    """Return a solar-system object's alert: no diaObject, no history."""
    values = epoch.source()
    moving = shared.moving.rows(1, ephOffset=rng.random(), **_some(values, _SS)).tobytes()
    return {
        "diaSource": shared.solar.rows(1, **values).tobytes(),
        "ssSource": moving,
        "ssObject": moving,
        **draw_cutouts(rng, epoch.place, epoch.flux),
    }


def _some(values: dict[str, Any], kinds: dict[str, Kind]) -> dict[str, Any]:
    return {name: values[name] for name in kinds if name in values}


def _of_an_object(
    rng: np.random.Generator, shared: _Version, epoch: _Epoch, is_long: bool
) -> dict[str, bytes]:
    """Return the alert of a diaObject with its history, oldest entries first."""
    n = int(rng.integers(300, 391)) if is_long else int(rng.integers(0, 21))
    n_forced = int(rng.integers(340, 781)) if is_long else int(rng.integers(0, 21))
    days = np.sort(rng.uniform(-365.0, -0.02, n))
    forced_days = np.sort(rng.uniform(-365.0, -0.02, n_forced))
    about = (shared.about if n + 1 < _ONE_BYTE else shared.about_many).rows(
        1,
        diaObjectId=epoch.first_id,
        ra=epoch.place.ra,
        dec=epoch.place.dec,
        firstDiaSourceMjdTai=epoch.mjd + (days[0] if n else 0.0),
        lastDiaSourceMjdTai=epoch.mjd,
        nDiaSources=n + 1,
    )
    return {
        "diaSource": shared.source.rows(1, **epoch.source()).tobytes(),
        "prvDiaSources": _earlier(rng, shared.source, epoch, days),
        "prvDiaForcedSources": _forced(rng, shared.forced, epoch, forced_days),
        "diaObject": about.tobytes(),
        **draw_cutouts(rng, epoch.place, epoch.flux),
    }


def _visits(rng: np.random.Generator, epoch: _Epoch, days: NDArray[np.float64]) -> dict[str, Any]:
    n = len(days)
    east, north = rng.normal(0.0, 0.05 / 3600.0, (2, n))
    narrow = max(np.cos(np.radians(epoch.place.dec)), 1e-6)
    return {
        "diaObjectId": epoch.first_id,
        "visit": 1_048_576 + rng.integers(0, 900_000, n),
        "detector": rng.integers(64, 189, n),
        "midpointMjdTai": epoch.mjd + days,
        "ra": (epoch.place.ra + east / narrow) % 360.0,
        "dec": np.clip(epoch.place.dec + north, -90.0, 90.0),
        "band": _BANDS[rng.integers(0, 6, n)].tobytes(),
    }


def _earlier(
    rng: np.random.Generator, template: RecordTemplate, epoch: _Epoch, days: NDArray[np.float64]
) -> bytes:
    n = len(days)
    flux_err = rng.uniform(150.0, 400.0, n)
    values = _visits(rng, epoch, days) | _fluxes(_noisy(rng, epoch, days, flux_err), flux_err)
    values |= {
        "diaSourceId": epoch.first_id + np.arange(n),
        "raErr": 3e-05,
        "decErr": 4e-05,
        "reliability": rng.random(n),
    }
    return array(template.rows(n, **values).tobytes(), n)


def _forced(
    rng: np.random.Generator, template: RecordTemplate, epoch: _Epoch, days: NDArray[np.float64]
) -> bytes:
    n = len(days)
    flux_err = rng.uniform(150.0, 400.0, n)
    values = _visits(rng, epoch, days) | _fluxes(_noisy(rng, epoch, days, flux_err), flux_err)
    values["diaForcedSourceId"] = epoch.first_id + _FORCED_IDS + np.arange(n)
    return array(template.rows(n, **values).tobytes(), n)


def _noisy(
    rng: np.random.Generator,
    epoch: _Epoch,
    days: NDArray[np.float64],
    flux_err: NDArray[np.float64],
) -> NDArray[np.float64]:
    return draw_fluxes(rng, epoch.flux, days) + rng.normal(0.0, flux_err)
