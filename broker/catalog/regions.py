"""Parts of the sky: a box, a polygon, a coverage map; and the catalogue entries in them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from broker.catalog.cone import rows_in_pixels
from broker.catalog.coverage import Coverage
from broker.catalog.healpix import Floats, Pixels, centres, pixel_side_arcsec, pixels_in_cone
from broker.catalog.partition import Rows
from broker.errors import AlertError
from broker.units import ARCSEC_PER_DEG, separation_arcsec


@dataclass(frozen=True)
class Region:
    """A part of the sky.

    Parameters
    ----------
    first, end : NDArray[np.uint64], shape (n_ranges,)
        Ranges of pixels of order 29 that hold it, some a little outside it; sorted, apart.
    contains : callable (ra, dec) -> NDArray[np.bool_]
        Says which positions [deg] of those pixels are in it.
    """

    first: Pixels
    end: Pixels
    contains: Callable[[Floats, Floats], NDArray[np.bool_]]


def region_search(rows: Rows, region: Region) -> pa.Table:
    """Return a catalogue's entries in a region: `id`, `ra`, `dec`, attached columns, by id."""
    row = rows_in_pixels(rows, region.first, region.end)
    row = row[region.contains(rows.ra[row], rows.dec[row])]
    return rows.entries.take(pa.array(row[np.argsort(rows.rank[row])]))


_FARTHEST_CORNER_IN_SIDES = 1.3
"""No point of a pixel is farther from its centre, in pixel sides; 1.16 at the poles of order 0."""

_MOST_CELLS = 2000
_BASE: Pixels = np.arange(12, dtype=np.uint64)


def box(ra: tuple[float, float], dec: tuple[float, float]) -> Region:
    """Return what is between two right ascensions and two declinations; limits are in.

    Parameters
    ----------
    ra : tuple of float
        From the first eastwards to the second: (350, 10) passes 0; (0, 360) is all. [deg]
    dec : tuple of float
        From south to north. [deg]

    Raises
    ------
    AlertError
        If the limits are not on the sky or declinations are in the wrong order.
    """
    if not (min(ra) >= 0.0 and max(ra) <= 360.0 and -90.0 <= dec[0] <= dec[1] <= 90.0):
        raise AlertError(f"no box has RA {ra} and Dec {dec}: 0 to 360, and -90 to 90 northwards")

    def contains(at_ra: Floats, at_dec: Floats) -> NDArray[np.bool_]:
        return _between(at_ra, ra) & (at_dec >= dec[0]) & (at_dec <= dec[1])

    return Region(*_pixels_in_box(ra, dec), contains)


def _width(ra: tuple[float, float]) -> float:
    return 360.0 if abs(ra[1] - ra[0]) == 360.0 else (ra[1] - ra[0]) % 360.0


def _between(ra: Floats, limits: tuple[float, float]) -> NDArray[np.bool_]:
    """Return which right ascensions are between two, to the last bit; 360 is 0."""
    if _width(limits) == 360.0:
        return np.ones(ra.shape, dtype=bool)
    west, east = (limit % 360.0 for limit in limits)
    ra = np.where(ra == 360.0, 0.0, ra)
    return (ra >= west) & (ra <= east) if west <= east else (ra >= west) | (ra <= east)


def _pixels_in_box(ra: tuple[float, float], dec: tuple[float, float]) -> tuple[Pixels, Pixels]:
    """Return ranges of pixels of order 29 that cover a box, some a little outside it."""
    cells, order = _BASE, 0
    while True:
        reach = _FARTHEST_CORNER_IN_SIDES * pixel_side_arcsec(order) / ARCSEC_PER_DEG
        there = centres(cells, order)
        cells = cells[_may_touch(*there, ra, dec, reach)]
        if cells.size > _MOST_CELLS or order == 20:
            break
        order += 1
        cells = ((cells[:, None] << np.uint64(2)) + _BASE[:4]).ravel()
    shift = np.uint64(2 * (29 - order))
    return cells << shift, (cells + np.uint64(1)) << shift


def _may_touch(
    there_ra: Floats,
    there_dec: Floats,
    ra: tuple[float, float],
    dec: tuple[float, float],
    reach: float,
) -> NDArray[np.bool_]:
    """Return which circles of a radius [deg] may touch a box."""
    high = np.abs(there_dec) + reach >= 90.0
    with np.errstate(invalid="ignore"):
        half = np.sin(np.radians(reach)) / np.cos(np.radians(there_dec))
        half = np.where(high | (half >= 1.0), 360.0, np.degrees(np.arcsin(np.minimum(half, 1.0))))
    east = (there_ra - ra[0] + half) % 360.0
    in_ra = (half >= 180.0) | (east <= _width(ra) + 2.0 * half)
    return in_ra & (there_dec >= dec[0] - reach) & (there_dec <= dec[1] + reach)


def polygon(ra: ArrayLike, dec: ArrayLike) -> Region:
    """Return what is in a polygon whose sides are great circles.

    Parameters
    ----------
    ra, dec : array_like, shape (n_corners,)
        Its corners, at least three, in either sense of turning; it need not be convex. [deg]

    Raises
    ------
    AlertError
        If there are fewer than three corners, one is not on the sky, or the polygon does not fit
        a circle of 80 deg.

    Notes
    -----
    Great circles are straight lines on the tangent plane of the middle, so a position is in if a
    line from it crosses the sides an odd number of times.
    """
    ra, dec = np.asarray(ra, dtype=np.float64), np.asarray(dec, dtype=np.float64)
    if ra.size < 3 or not ((ra >= 0) & (ra <= 360) & (np.abs(dec) <= 90.0)).all():
        raise AlertError("a polygon has three or more corners, RA 0 to 360 and Dec -90 to 90 deg")
    vectors = _vectors(ra, dec)
    middle = vectors.mean(axis=1)
    length = float(np.hypot.reduce(middle))
    middle_ra, middle_dec = _angles(middle)
    reach = separation_arcsec(middle_ra, middle_dec, ra, dec).max()
    if length < 1e-9 or reach > 80.0 * ARCSEC_PER_DEG:
        raise AlertError("the polygon is too large: it must fit into a circle of 80 deg")
    corners = _tangent(vectors, middle_ra, middle_dec)

    def contains(at_ra: Floats, at_dec: Floats) -> NDArray[np.bool_]:
        there = _vectors(at_ra, at_dec)
        inside = middle @ there > 0.0
        inside[inside] = _inside(_tangent(there[:, inside], middle_ra, middle_dec), corners)
        return inside

    return Region(*pixels_in_cone(middle_ra, middle_dec, float(reach)), contains)


def covered(coverage: Coverage) -> Region:
    """Return a coverage, as of a MOC file, as a region."""
    return Region(coverage.first, coverage.end, coverage.contains)


def _vectors(ra: Floats, dec: Floats) -> Floats:
    a, d = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)])


def _angles(vector: Floats) -> tuple[float, float]:
    x, y, z = vector.tolist()
    return float(np.degrees(np.arctan2(y, x)) % 360.0), float(
        np.degrees(np.arctan2(z, np.hypot(x, y)))
    )


def _tangent(vectors: Floats, ra: float, dec: float) -> Floats:
    """Project unit vectors onto the tangent plane of a place."""
    a, d = np.radians(ra), np.radians(dec)
    east = np.array([-np.sin(a), np.cos(a), 0.0])
    north = np.array([-np.sin(d) * np.cos(a), -np.sin(d) * np.sin(a), np.cos(d)])
    out = np.array([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)])
    return np.stack([east @ vectors, north @ vectors]) / (out @ vectors)


def _inside(points: Floats, corners: Floats) -> NDArray[np.bool_]:
    x, y = points
    inside = np.zeros(x.shape, dtype=bool)
    for (x0, y0), (x1, y1) in zip(corners.T, np.roll(corners.T, -1, axis=0), strict=True):
        if y0 == y1:
            continue
        crosses = (y0 > y) != (y1 > y)
        inside ^= crosses & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
    return inside
