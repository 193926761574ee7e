"""What simulated packets are put together from: records of fixed layout, places, light curves.

Writing a record field by field costs a microsecond a field, and a history has 40,000 of them. So
a record is written once by the Avro library, the bytes of its variable fields are found by writing
it again with other values, and a history is an array of copies in which columns are filled in.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from broker import avro
from broker.alerts.wire import varint
from broker.avro import Schema
from broker.units import ARCSEC_PER_DEG

Bytes = NDArray[np.uint8]

DOUBLE, FLOAT, BOOLEAN = "double", "float", "boolean"


@dataclass(frozen=True)
class Long:
    """A whole number that always takes the same bytes as a varint."""

    width: int


@dataclass(frozen=True)
class Text:
    """A string that always has the same length, in ASCII."""

    length: int


Kind = str | Long | Text


class RecordTemplate:
    """A record whose variable fields always take the same bytes.

    Parameters
    ----------
    schema : Schema
        Of the record, complete in itself.
    record : mapping
        Its constant fields.
    variable : mapping of str to Kind
        The fields that are filled in.
    """

    def __init__(
        self, schema: Schema, record: Mapping[str, Any], variable: Mapping[str, Kind]
    ) -> None:
        self._kinds = {k: v for k, v in variable.items() if k in _field_names(schema)}
        low = {name: _probe(kind, 1) for name, kind in self._kinds.items()}
        self._bytes = _encoded(schema, {**record, **low})
        self._at: dict[str, slice] = {}
        for name, kind in self._kinds.items():
            other = _encoded(schema, {**record, **low, name: _probe(kind, 2)})
            changed = np.flatnonzero(other != self._bytes)
            self._at[name] = slice(int(changed[0]), int(changed[-1]) + 1)

    def rows(self, n: int, **values: ArrayLike | bytes) -> Bytes:
        """Return n records; fields that the schema has not are left out.

        Parameters
        ----------
        n : int
        **values
            Of every variable field: one number a record, one number, or the bytes of a string.

        Returns
        -------
        NDArray[np.uint8], shape (n, bytes of a record)
        """
        rows = np.empty((n, self._bytes.size), np.uint8)
        rows[:] = self._bytes
        if not n:
            return rows
        for name, kind in self._kinds.items():
            rows[:, self._at[name]] = _column(kind, values[name])
        return rows


def _field_names(schema: Schema) -> set[str]:
    return {field["name"] for field in schema["fields"]}


def _encoded(schema: Schema, record: dict[str, Any]) -> Bytes:
    return np.frombuffer(avro.encode(schema, filled(schema, record)), np.uint8)


def _probe(kind: Kind, digit: int) -> Any:
    """Return a value all of whose bytes differ between digit 1 and digit 2."""
    if isinstance(kind, Text):
        return str(digit) * kind.length
    if isinstance(kind, Long):
        zigzag = sum(digit << (7 * k) for k in range(kind.width))
        return (zigzag >> 1) ^ -(zigzag & 1)
    if kind == BOOLEAN:
        return digit == 2
    code = "<d" if kind == DOUBLE else "<f"
    return struct.unpack(code, bytes([digit * 0x11]) * struct.calcsize(code))[0]


def _column(kind: Kind, values: Any) -> Bytes:
    """Return the bytes of one value a record, or of one for all, shape (n or 1, bytes)."""
    if isinstance(kind, Text):
        return np.frombuffer(values, np.uint8).reshape(-1, kind.length)
    if isinstance(kind, Long):
        zigzag = (np.asarray(values, np.int64).reshape(-1, 1) << 1).astype(np.uint64)
        groups = zigzag >> np.arange(0, 7 * kind.width, 7, dtype=np.uint64)
        digits = (groups & np.uint64(0x7F)).astype(np.uint8)
        digits[:, :-1] |= 0x80
        return digits
    dtype = {DOUBLE: "<f8", FLOAT: "<f4", BOOLEAN: "u1"}[kind]
    numbers = np.asarray(values).astype(dtype)
    return numbers.reshape(-1, 1).view(np.uint8)


def filled(schema: Schema, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record with null, zero or an empty string where no value is given."""
    zero = {"string": "", "bytes": b"", "boolean": False, "float": 0.0, "double": 0.0}
    record = {}
    for field in schema["fields"]:
        kind = field["type"]
        name = kind["type"] if isinstance(kind, dict) else kind
        empty = None if isinstance(kind, list) else zero.get(name, 0)
        record[field["name"]] = values.get(field["name"], empty)
    return record


def part(schema: Schema, *path: str) -> Schema:
    """Return the record at a field of a schema, through arrays and nullable types."""
    kind: Any = schema
    for name in path:
        kind = next(field["type"] for field in kind["fields"] if field["name"] == name)
        kind = _record(kind)
    return dict(kind)


def _record(kind: Any) -> Any:
    if isinstance(kind, list):
        kind = next(branch for branch in kind if branch != "null")
    if isinstance(kind, dict) and kind["type"] == "array":
        return _record(kind["items"])
    return kind


def assemble(schema: Schema, parts: Mapping[str, bytes]) -> bytes:
    """Return a record's body from the encoded fields; a nullable field without one is null."""
    out = []
    for field in schema["fields"]:
        kind, value = field["type"], parts.get(field["name"])
        if isinstance(kind, list):
            out.append(varint(kind.index("null") if value is None else _branch(kind)))
        if value is not None:
            out.append(value)
    return b"".join(out)


def _branch(kinds: Sequence[Any]) -> int:
    return next(i for i, kind in enumerate(kinds) if kind != "null")


def text(value: str) -> bytes:
    """Return a string as Avro writes it."""
    return blob(value.encode())


def blob(value: bytes) -> bytes:
    """Return bytes as Avro writes them."""
    return varint(len(value)) + value


def array(items: bytes, n: int) -> bytes:
    """Return encoded items as an Avro array of one block."""
    return varint(n) + items + varint(0) if n else varint(0)


@dataclass(frozen=True)
class Place:
    """Where an alert is. [deg]"""

    ra: float
    dec: float


NEAR_ARCSEC = 0.3
"""Scatter of alerts about a given position. [arcsec]"""


def draw_place(rng: np.random.Generator, near: NDArray[np.float64] | None) -> Place:
    """Draw a place near a given one, or anywhere north of -30 degrees."""
    if near is None:
        sine = rng.uniform(-0.5, 1.0)
        return Place(float(rng.uniform(0.0, 360.0)), float(np.degrees(np.arcsin(sine))))
    shift = rng.normal(0.0, NEAR_ARCSEC / ARCSEC_PER_DEG, 2)
    dec = float(np.clip(near[1] + shift[1], -90.0, 90.0))
    narrow = max(np.cos(np.radians(dec)), 1e-6)
    return Place(float((near[0] + shift[0] / narrow) % 360.0), dec)


def draw_fluxes(
    rng: np.random.Generator, flux: float, days: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Draw a light curve that ends at a flux: an exponential rise, or a pulsating star. [nJy]

    Parameters
    ----------
    rng : np.random.Generator
    flux : float
        At time 0. [nJy]
    days : NDArray[np.float64], shape (n,)
        Times before, negative. [d]
    """
    scale = rng.uniform(3.0, 30.0)
    if rng.random() < 0.5:
        return np.asarray(flux * np.exp(days / scale))
    phase = rng.uniform(0.0, 2.0 * np.pi)
    wave = 1.0 + 0.6 * np.sin(2.0 * np.pi * days / (0.1 * scale) + phase)
    return np.asarray(flux * wave / (1.0 + 0.6 * np.sin(phase)))


def gaussian(size: int, sigma_px: float, dx: float, dy: float) -> NDArray[np.float32]:
    """Return a Gaussian of unit sum near the middle of a square. Shape (size, size)."""
    axis = np.arange(size) - (size - 1) / 2
    x, y = (np.exp(-0.5 * ((axis - d) / sigma_px) ** 2) for d in (dx, dy))
    return np.outer(y, x).astype(np.float32) / np.float32(2.0 * np.pi * sigma_px**2)


def cards(*lines: str) -> bytes:
    """Return a FITS header of whole blocks from its cards."""
    joined = "".join(f"{line:<80}" for line in (*lines, "END")).encode("ascii")
    return joined.ljust(-(-len(joined) // 2880) * 2880)


def padded(data: bytes) -> bytes:
    """Return FITS data filled up to whole blocks."""
    return data.ljust(-(-len(data) // 2880) * 2880, b"\x00")
