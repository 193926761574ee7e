"""Where an event was: an ellipse of error around a position, or a probability map."""

import io
import json
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from broker.catalog.galactic import equatorial_cover, to_galactic, to_icrs
from broker.catalog.healpix import (
    FINEST_ORDER,
    Floats,
    Pixels,
    centres,
    on_sky,
    pixels_in_cone,
    pixels_of,
)
from broker.errors import AlertError
from broker.units import ARCSEC_PER_DEG, separation_arcsec

GALACTIC = "galactic"

MAX_LEVEL = 0.99
"""What lies outside this credible level of a map is not kept."""


@dataclass(frozen=True)
class Ellipse:
    """A position with a Gaussian error, on the sky.

    Parameters
    ----------
    ra, dec : float
        The position, ICRS. [deg]
    major, minor : float
        Semi-axes of the ellipse. [deg]
    pa : float
        Position angle of the major axis, from north through east. [deg]
    containment : float
        The probability that the ellipse holds.
    """

    ra: float
    dec: float
    major: float
    minor: float
    pa: float = 0.0
    containment: float = 0.9

    def __post_init__(self) -> None:
        if not bool(on_sky(self.ra, self.dec)):
            raise AlertError(f"the position {self.ra}, {self.dec} is not on the sky")
        if not 0.0 < self.minor <= self.major <= 180.0:
            raise AlertError(
                f"the error is {self.major} by {self.minor} degrees; semi-axes are above 0 and at "
                "most 180, the larger one first"
            )
        if not 0.0 < self.containment < 1.0:
            raise AlertError(f"the containment probability is {self.containment}, not in 0 to 1")
        if not np.isfinite(self.pa):
            raise AlertError(f"the position angle is {self.pa}")

    def level(self, ra: ArrayLike, dec: ArrayLike) -> Floats:
        """Return the credible level of positions, shape (n,); NaN where not on the sky.

        The share of a two-dimensional Gaussian inside the ellipse through a position that is r
        times as large as the one that holds p: 1 - (1 - p)^(r^2).
        """
        ra, dec = np.asarray(ra, np.float64), np.asarray(dec, np.float64)
        there = np.where(on_sky(ra, dec), 1.0, np.nan)
        distance = separation_arcsec(self.ra, self.dec, ra, dec) / ARCSEC_PER_DEG
        turn = _position_angle(self.ra, self.dec, ra, dec) - np.radians(self.pa)
        along, across = distance * np.cos(turn), distance * np.sin(turn)
        squared = (along / self.major) ** 2 + (across / self.minor) ** 2
        level: Floats = -np.expm1(squared * np.log1p(-self.containment)) * there
        return level

    def separation(self, ra: ArrayLike, dec: ArrayLike) -> Floats:
        """Return the distances of positions from the centre, shape (n,). [arcsec]"""
        return separation_arcsec(self.ra, self.dec, ra, dec).astype(np.float64)

    def ranges(self, level: float) -> tuple[Pixels, Pixels]:
        """Return ranges of pixels of order 29 that hold all places up to a credible level."""
        return pixels_in_cone(self.ra, self.dec, min(self._reach(level), 180.0) * ARCSEC_PER_DEG)

    def may_hold(self, dec: Floats, level: float) -> NDArray[np.bool_]:
        """Return which declinations [deg] are near enough for places up to a credible level."""
        return np.asarray(np.abs(dec - self.dec) <= self._reach(level) * (1.0 + 1e-9))

    def _reach(self, level: float) -> float:
        """Return the semi-major axis of the ellipse that holds a credible level. [deg]"""
        ratio = np.log1p(-level) / np.log1p(-self.containment)
        return float(self.major * np.sqrt(ratio))

    def to_cells(self) -> dict[bytes, bytes]:
        """Return it as it is stored."""
        return {b"n:ellipse": json.dumps(self.__dict__, sort_keys=True).encode()}


@dataclass(frozen=True, eq=False)
class ProbabilityMap:
    """Credible levels by pixels of any order.

    Parameters
    ----------
    first, end : NDArray[np.uint64], shape (n,)
        Ranges of nested pixels of order 29, sorted, not overlapping.
    levels : NDArray[np.float32], shape (n,)
        The credible level of each range; what is not in a range lies outside `MAX_LEVEL`.
    frame : str
        Of the pixels: icrs or galactic. Positions are always in ICRS.
    """

    first: Pixels
    end: Pixels
    levels: np.ndarray[tuple[int], np.dtype[np.float32]]
    frame: str = "icrs"

    @cached_property
    def likeliest(self) -> tuple[float, float]:
        """The centre of the pixel with the smallest credible level. [deg]"""
        at = int(np.argmin(self.levels))
        size = int(self.end[at] - self.first[at])
        order = FINEST_ORDER - (size.bit_length() - 1) // 2
        pixel = np.array([int(self.first[at]) >> (2 * (FINEST_ORDER - order))], np.uint64)
        ra, dec = centres(pixel, order)
        if self.frame == GALACTIC:
            ra, dec = to_icrs(ra, dec)
        return float(ra[0]), float(dec[0])

    def level(self, ra: ArrayLike, dec: ArrayLike) -> Floats:
        """Return the credible level of positions, shape (n,).

        It is 1 outside what is kept, NaN where a position is not on the sky.
        """
        ra, dec = np.asarray(ra, np.float64), np.asarray(dec, np.float64)
        there = on_sky(ra, dec)
        found = np.where(there, 1.0, np.nan)
        at = ra[there], dec[there]
        pixels = pixels_of(*(to_galactic(*at) if self.frame == GALACTIC else at))
        row = np.searchsorted(self.first, pixels, side="right") - 1
        inside = (row >= 0) & (pixels < self.end[row])
        found[np.flatnonzero(there)[inside]] = self.levels[row[inside]]
        return found

    def may_hold(self, dec: Floats, level: float) -> NDArray[np.bool_]:  # noqa: ARG002 - as above
        """Return which declinations are near enough: all, as looking a place up is quick."""
        return np.ones(dec.shape, bool)

    def separation(self, ra: ArrayLike, dec: ArrayLike) -> Floats:
        """Return the distances of positions from the likeliest place, shape (n,). [arcsec]"""
        return separation_arcsec(*self.likeliest, ra, dec).astype(np.float64)

    def ranges(self, level: float) -> tuple[Pixels, Pixels]:
        """Return ranges of pixels of order 29 that hold all places up to a credible level.

        Those of a galactic map hold a rim of other places, too.
        """
        kept = self.levels <= level
        first, end = self.first[kept], self.end[kept]
        return equatorial_cover(first, end) if self.frame == GALACTIC else (first, end)

    def sky_share(self, level: float) -> float:
        """Return which share of the sky lies up to a credible level."""
        kept = self.levels <= level
        return float((self.end[kept] - self.first[kept]).sum() / (12 << (2 * FINEST_ORDER)))

    def to_cells(self) -> dict[bytes, bytes]:
        """Return it as it is stored: compressed columns."""
        sink = io.BytesIO()
        table = pa.table({"first": self.first, "end": self.end, "levels": self.levels})
        table = table.replace_schema_metadata({"frame": self.frame})
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
            writer.write_table(table)
        return {b"n:map": sink.getvalue()}


Place = Ellipse | ProbabilityMap


def place_of(cells: dict[bytes, bytes]) -> Place | None:
    """Return what `to_cells` stored; None if there is no place."""
    if b"n:ellipse" in cells:
        return Ellipse(**json.loads(cells[b"n:ellipse"]))
    if b"n:map" in cells:
        with pa.ipc.open_stream(cells[b"n:map"]) as reader:
            table = reader.read_all()
        first, end, levels = (table.column(n).to_numpy() for n in ("first", "end", "levels"))
        about = table.schema.metadata or {}
        return ProbabilityMap(first, end, levels, about.get(b"frame", b"icrs").decode())
    return None


def _position_angle(ra1: float, dec1: float, ra2: Floats, dec2: Floats) -> Floats:
    """Return the direction from one place to others, from north through east. [rad]"""
    a, d = np.radians(ra1), np.radians(dec1)
    da, e = np.radians(ra2) - a, np.radians(dec2)
    east = np.cos(e) * np.sin(da)
    north = np.cos(d) * np.sin(e) - np.sin(d) * np.cos(e) * np.cos(da)
    angle: Floats = np.arctan2(east, north)
    return angle
