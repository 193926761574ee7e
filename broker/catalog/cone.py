"""The catalogue entries around a place."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from broker.catalog.healpix import Pixels, on_sky, pixels_in_cone
from broker.catalog.partition import Rows
from broker.errors import AlertError
from broker.units import separation_arcsec


def cone_search(rows: Rows, ra: float, dec: float, radius_arcsec: float) -> pa.Table:
    """Return all entries within a radius of a place, whatever their own radius of a match is.

    Parameters
    ----------
    rows : Rows
        The catalogue.
    ra, dec : float
        The place. [deg]
    radius_arcsec : float
        Entries at exactly this distance are in. [arcsec]

    Returns
    -------
    pa.Table
        `id`, `ra`, `dec`, the attached columns, and `separation` [arcsec]; nearest first, of two
        at the same distance the smaller id first.

    Raises
    ------
    AlertError
        If the place is not on the sky or the radius is negative or NaN.
    """
    if not on_sky(ra, dec):
        raise AlertError(f"({ra}, {dec}) is no place on the sky", ra=ra, dec=dec)
    if not radius_arcsec >= 0.0:
        raise AlertError(f"the radius is {radius_arcsec}; it must be 0 or more arcsec")
    row = rows_in_pixels(rows, *pixels_in_cone(ra, dec, radius_arcsec))
    separation = separation_arcsec(ra, dec, rows.ra[row], rows.dec[row])
    inside = separation <= radius_arcsec
    row, separation = row[inside], separation[inside]
    order = np.lexsort((rows.rank[row], separation))
    table = rows.entries.take(pa.array(row[order]))
    return table.append_column("separation", pa.array(separation[order]))


def rows_in_pixels(rows: Rows, first: Pixels, end: Pixels) -> NDArray[np.int64]:
    """Return the rows in ranges of pixels of order 29 that do not overlap."""
    picked = []
    for layer in rows.layers:
        pixels = rows.pixels[layer.first : layer.end]
        starts = np.searchsorted(pixels, first) + layer.first
        ends = np.searchsorted(pixels, end) + layer.first
        picked += [np.arange(a, b) for a, b in zip(starts, ends, strict=True) if b > a]
    return np.concatenate(picked) if picked else np.empty(0, np.int64)
