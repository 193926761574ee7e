"""Windows on a catalogue, on the sky and in space: cones, boxes, spheres, shells, cubes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from broker.catalog.distance import Distance, vectors
from broker.catalog.healpix import Floats, on_sky, pixels_in_cone
from broker.catalog.partition import Rows
from broker.catalog.regions import Region
from broker.catalog.space import place_in_space
from broker.errors import AlertError
from broker.units import ARCSEC_PER_DEG, separation_arcsec

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Window:
    """A part of space.

    Parameters
    ----------
    contains : callable (ra, dec, value) -> NDArray[np.bool_]
        Says which entries are in it, from positions [deg] and values of the distance's column, NaN
        where there is none.
    region : Region, optional
        A part of the sky that all of it is in; default all the sky.
    distance : Distance, optional
        Needed where distances matter.
    """

    contains: Callable[[Floats, Floats, Floats | None], Mask]
    region: Region | None = None
    distance: Distance | None = None


def on_the_sky(region: Region) -> Window:
    """Return a part of the sky as a window, at any distance."""
    return Window(lambda ra, dec, _value: region.contains(ra, dec), region)


def cone(ra: float, dec: float, radius_arcsec: float) -> Region:
    """Return what is within a radius [arcsec] of a place [deg]; the rim is in.

    Raises
    ------
    AlertError
        If the place is not on the sky or the radius is negative or NaN.
    """
    if not on_sky(ra, dec):
        raise AlertError(f"({ra}, {dec}) is no place on the sky", ra=ra, dec=dec)
    if not radius_arcsec >= 0.0:
        raise AlertError(f"the radius is {radius_arcsec}; it must be 0 or more arcsec")

    def contains(at_ra: Floats, at_dec: Floats) -> Mask:
        return separation_arcsec(ra, dec, at_ra, at_dec) <= radius_arcsec

    return Region(*pixels_in_cone(ra, dec, min(radius_arcsec, 180.0 * ARCSEC_PER_DEG)), contains)


def shell(distance: Distance, inner: float, outer: float) -> Window:
    """Return what is at distances from `inner` to below `outer`, in the unit of the column.

    So shells side by side share no entry, and together hold all.
    """
    if not 0.0 <= inner <= outer:
        raise AlertError(f"no shell is from {inner} to {outer}: 0 or more, outwards")

    def contains(_ra: Floats, _dec: Floats, value: Floats | None) -> Mask:
        assert value is not None  # noqa: S101 - the window has a distance
        return (value >= inner) & (value < outer)

    return Window(contains, None, distance)


def sphere(distance: Distance, ra: float, dec: float, value: float, radius: float) -> Window:
    """Return what is within a radius of a place in space; the surface is in.

    Parameters
    ----------
    distance : Distance
        What distances are.
    ra, dec : float
        Of the middle. [deg]
    value : float
        Its distance, in the unit of the column: a redshift for redshifts.
    radius : float
        In the unit of lengths: Mpc for comoving ones.

    Raises
    ------
    AlertError
        If the middle is no place in space or the radius is negative or NaN.
    """
    if not radius >= 0.0:
        raise AlertError(f"the radius is {radius}; it must be 0 or more")
    middle = place_in_space(distance, ra, dec, value)[0]

    def contains(at_ra: Floats, at_dec: Floats, values: Floats | None) -> Mask:
        assert values is not None  # noqa: S101 - the window has a distance
        away = vectors(at_ra, at_dec, distance.lengths(values)) - middle
        return np.asarray(np.sqrt((away * away).sum(axis=1)) <= radius)

    away = float(np.linalg.norm(middle))
    seen = None
    if radius < 0.999 * away:
        half = float(np.degrees(np.arcsin(radius / away))) * ARCSEC_PER_DEG
        seen = cone(ra, dec, half * (1.0 + 1e-9) + 1e-3)
    return Window(contains, seen, distance)


def cube(distance: Distance, lower: Sequence[float], upper: Sequence[float]) -> Window:
    """Return what is between two corners (x, y, z), faces in, in the unit of lengths.

    x is to RA 0 and z to the north.
    """
    low, high = np.asarray(lower, dtype=np.float64), np.asarray(upper, dtype=np.float64)
    if not (low <= high).all():
        raise AlertError(f"no box is from {tuple(lower)} to {tuple(upper)}: smaller ones first")

    def contains(ra: Floats, dec: Floats, value: Floats | None) -> Mask:
        assert value is not None  # noqa: S101 - the window has a distance
        xyz = vectors(ra, dec, distance.lengths(value))
        return np.asarray(((xyz >= low) & (xyz <= high)).all(axis=1))

    return Window(contains, None, distance)


def rows_in_window(
    rows: Rows, windows: Sequence[Window], first: int = 0, end: int | None = None
) -> NDArray[np.int64]:
    """Return which rows `first` <= row < `end` are in all windows, in the order of rows.

    Parameters
    ----------
    rows : Rows
        The catalogue.
    windows : sequence of Window
        One or more.
    first, end : int
        The block; default all rows.
    """
    end = len(rows) if end is None else end
    row = _rows_of_regions(rows, [w.region for w in windows if w.region], first, end)
    if not row.size:
        return row
    low, high = int(row[0]), int(row[-1]) + 1
    for window in windows:
        value = None
        if window.distance is not None:
            value = window.distance.values(rows, low, high)[row - low]
        row = row[window.contains(rows.ra[row], rows.dec[row], value)]
    return row


def _rows_of_regions(
    rows: Rows, regions: Sequence[Region], first: int, end: int
) -> NDArray[np.int64]:
    """Return the rows of a block that are in the pixels of all regions, in order."""
    picked = []
    for layer in rows.layers:
        a, b = max(layer.first, first), min(layer.end, end)
        if b <= a:
            continue
        pixels = rows.pixels[a:b]
        inside = np.arange(a, b)
        for region in regions:
            if not inside.size:
                break
            start, stop = np.searchsorted(pixels, [region.first, region.end])
            kept = [np.arange(x, y) for x, y in zip(start, stop, strict=True) if y > x]
            chosen = np.concatenate(kept) if kept else np.empty(0, np.int64)
            inside, pixels = inside[chosen], pixels[chosen]
        picked.append(inside)
    return np.concatenate(picked) if picked else np.empty(0, np.int64)
