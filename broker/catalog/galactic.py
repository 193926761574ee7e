"""Maps in galactic coordinates: where a place is in them, and where their pixels are in ours."""

import numpy as np

from broker.catalog.healpix import (
    FINEST_ORDER,
    Floats,
    Pixels,
    centres,
    near_pixels,
    order_for_radius,
    pixel_side_arcsec,
    pixels_of,
)

_FARTHEST_CORNER_IN_SIDES = 1.05
"""From the centre of a pixel: 1.045 for those at |z| = 2/3 of high orders, less elsewhere."""

_ALL_PIXELS = 12 << (2 * FINEST_ORDER)
_FINER = 2
_MOST_DIVIDED = 250_000


def to_galactic(ra: Floats, dec: Floats) -> tuple[Floats, Floats]:
    """Return galactic longitudes and latitudes of places in ICRS. [deg]"""
    import erfa

    longitude, latitude = erfa.icrs2g(np.radians(ra), np.radians(dec))
    return np.degrees(longitude) % 360.0, np.degrees(latitude)


def to_icrs(longitude: Floats, latitude: Floats) -> tuple[Floats, Floats]:
    """Return RA and Dec (ICRS) of places in galactic coordinates. [deg]"""
    import erfa

    ra, dec = erfa.g2icrs(np.radians(longitude), np.radians(latitude))
    return np.degrees(ra) % 360.0, np.degrees(dec)


def equatorial_cover(first: Pixels, end: Pixels) -> tuple[Pixels, Pixels]:
    """Return where galactic pixels are in ICRS, with a rim around them.

    Parameters
    ----------
    first, end : NDArray[np.uint64], shape (n,)
        Ranges of galactic pixels of order 29, each of them one pixel of some order.

    Returns
    -------
    first, end : NDArray[np.uint64]
        Ranges of ICRS pixels of order 29 that hold every place of them, sorted, not overlapping.
        The rim is about two of the pixels wide; eight where there are more than 250 000.
    """
    sizes = end - first
    if int(sizes.sum()) == _ALL_PIXELS:
        return np.zeros(1, np.uint64), np.array([_ALL_PIXELS], np.uint64)
    parts = [_cover(first[sizes == size], int(size)) for size in np.unique(sizes)]
    if not parts:
        return first, end
    starts, ends = (np.concatenate(part) for part in zip(*parts, strict=True))
    return _merged(starts, ends)


def _cover(first: Pixels, size: int) -> tuple[Pixels, Pixels]:
    order = FINEST_ORDER - (size.bit_length() - 1) // 2
    pixels = first >> np.uint64(2 * (FINEST_ORDER - order))
    if pixels.size <= _MOST_DIVIDED and order + _FINER <= FINEST_ORDER:
        parts = np.arange(4**_FINER, dtype=np.uint64)
        pixels = ((pixels[:, None] << np.uint64(2 * _FINER)) + parts).ravel()
        order += _FINER
    coarse = order_for_radius(_FARTHEST_CORNER_IN_SIDES * pixel_side_arcsec(order))
    if coarse < 0:
        return np.zeros(1, np.uint64), np.array([_ALL_PIXELS], np.uint64)
    ra, dec = to_icrs(*centres(pixels, order))
    near = np.unique(near_pixels(np.unique(pixels_of(ra, dec, coarse)), coarse))
    around: Pixels = near[near >= 0].astype(np.uint64)
    shift = np.uint64(2 * (FINEST_ORDER - coarse))
    return around << shift, (around + np.uint64(1)) << shift


def _merged(first: Pixels, end: Pixels) -> tuple[Pixels, Pixels]:
    order = np.argsort(first)
    first, end = first[order], np.maximum.accumulate(end[order])
    begins = np.r_[True, first[1:] > end[:-1]]
    return first[begins], end[np.r_[begins[1:], True]]
