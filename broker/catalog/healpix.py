"""HEALPix, always nested: pixels of positions, pixels around them, and their ranges at order 29.

Catalogues are sorted by the pixel of order 29, so the rows in any pixel of a lower order are one
run of rows, found by binary search.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from broker.units import ARCSEC_PER_DEG

FINEST_ORDER = 29
"""The order that rows are sorted by: pixels of 0.4 mas."""

_LARGEST_RADIUS_IN_SIDES = 0.5
"""A cone of this radius, in pixel sides, lies in the pixel of its centre and the neighbours.

Misses begin at 0.7 sides: over 6e6 random displacements at poles, corners of base pixels, and the
edges of the polar caps there was none up to 0.6.
"""

_ROUNDING_ARCSEC = 1e-3
"""Cones are covered as if so much larger: at a pixel's corner rounding decides which pixel a place
is in, and a cone of radius 0 there found the wrong one."""

Pixels = NDArray[np.uint64]
Floats = NDArray[np.float64]


def on_sky(ra: ArrayLike, dec: ArrayLike) -> NDArray[np.bool_]:
    """Return which positions exist: 0 <= ra <= 360 and -90 <= dec <= 90, no NaN. [deg]"""
    ra, dec = np.asarray(ra, dtype=np.float64), np.asarray(dec, dtype=np.float64)
    return (ra >= 0.0) & (ra <= 360.0) & (dec >= -90.0) & (dec <= 90.0)


def pixel_side_arcsec(order: int) -> float:
    """Return the side of a square with the area of a pixel. [arcsec]"""
    pixel_area_deg2 = 129_600.0 / np.pi / (12.0 * 4.0**order)
    return float(np.sqrt(pixel_area_deg2) * ARCSEC_PER_DEG)


def order_for_radius(radius_arcsec: float) -> int:
    """Return the finest order at which a pixel and its neighbours hold a cone on the pixel.

    Returns -1 for a radius so large that only the whole sky is sure to hold it.
    """
    return int(orders_for_radii(np.array([radius_arcsec]))[0])


def orders_for_radii(radius_arcsec: Floats) -> NDArray[np.int64]:
    """Return `order_for_radius` of each radius."""
    largest = [_LARGEST_RADIUS_IN_SIDES * pixel_side_arcsec(FINEST_ORDER - k) for k in range(30)]
    return FINEST_ORDER - np.searchsorted(largest, radius_arcsec)


def pixels_of(ra: ArrayLike, dec: ArrayLike, order: int = FINEST_ORDER) -> Pixels:
    """Return the pixels that hold positions.

    Parameters
    ----------
    ra, dec : array_like, shape (n,)
        Positions that are `on_sky`. [deg]
    order : int
        HEALPix order.

    Returns
    -------
    NDArray[np.uint64], shape (n,)
        Nested pixel numbers.
    """
    from cdshealpix import cdshealpix

    longitude = np.radians(np.atleast_1d(np.asarray(ra, dtype=np.float64)) % 360.0)
    latitude = np.radians(np.atleast_1d(np.asarray(dec, dtype=np.float64)))
    pixels = np.empty(longitude.shape, dtype=np.uint64)
    unused = np.empty((2, *longitude.shape), dtype=np.float64)
    orders = np.full(longitude.shape, order, dtype=np.uint8)
    # The compiled function itself: its wrapper makes astropy objects, which costs more than the
    # work for a batch of 500.
    cdshealpix.lonlat_to_healpix(
        orders, longitude, latitude, pixels, unused[0], unused[1], np.uint16(1)
    )
    return pixels


def neighbourhood(pixels: Pixels, order: int) -> NDArray[np.int64]:
    """Return each pixel with its neighbours.

    Returns
    -------
    NDArray[np.int64], shape (n, 9)
        The pixel is in the middle column; -1 where there is no neighbour: at eight places only
        three base pixels meet.
    """
    from cdshealpix import cdshealpix

    around = np.zeros((pixels.size, 9), dtype=np.int64)
    cdshealpix.neighbours(order, np.ascontiguousarray(pixels), around, np.uint16(1))
    return around


def near_pixels(pixels: Pixels, order: int) -> NDArray[np.int64]:
    """Return what `neighbourhood` does, columns in any order, faster for a few hundred pixels."""
    from broker.catalog._search import inner_neighbourhood

    around: NDArray[np.int64] = inner_neighbourhood(pixels, order)
    rim = np.flatnonzero(around[:, 0] == -2)
    if rim.size:
        around[rim] = neighbourhood(pixels[rim], order)
    return around


def pixels_in_cone(ra: float, dec: float, radius_arcsec: float) -> tuple[Pixels, Pixels]:
    """Return ranges of pixels of order 29 that cover a cone, some a little outside it.

    Returns
    -------
    tuple of NDArray[np.uint64], shape (n_ranges,)
        First pixels, and the ones after the last; sorted, not overlapping.
    """
    import astropy.units as u
    from astropy.coordinates import Latitude, Longitude
    from cdshealpix.nested import cone_search

    if radius_arcsec > 90.0 * ARCSEC_PER_DEG:
        # All the sky: the library leaves out parts of cones wider than about 110 deg.
        return np.zeros(1, np.uint64), np.array([12 << (2 * FINEST_ORDER)], np.uint64)
    radius_arcsec += _ROUNDING_ARCSEC
    order = min(max(order_for_radius(radius_arcsec), 0) + 2, FINEST_ORDER - 2)
    pixels, orders, _ = cone_search(
        Longitude(ra, u.deg), Latitude(dec, u.deg), radius_arcsec * u.arcsec, order
    )
    shift = 2 * (FINEST_ORDER - orders.astype(np.uint64))
    first = pixels.astype(np.uint64) << shift
    end = (pixels.astype(np.uint64) + np.uint64(1)) << shift
    in_order = np.argsort(first)
    return first[in_order], end[in_order]


def centres(pixels: Pixels, order: int) -> tuple[Floats, Floats]:
    """Return the right ascensions and declinations of the centres of pixels. [deg]"""
    from cdshealpix.nested import healpix_to_lonlat

    longitude, latitude = healpix_to_lonlat(pixels, order)
    return np.asarray(longitude.deg), np.asarray(latitude.deg)
