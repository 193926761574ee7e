"""Where a catalogue has looked: elsewhere a match reads -1, not searched, rather than 0.

A coverage is a set of ranges of HEALPix pixels of order 29, nested: what the Virtual Observatory
calls a MOC.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from broker.catalog.healpix import FINEST_ORDER, Pixels, on_sky, pixels_of
from broker.errors import ConfigError

_ALL_PIXELS = 12 << (2 * FINEST_ORDER)

_QUARTERS: Pixels = np.arange(4, dtype=np.uint64)

_FEWEST_ROWS, _ENOUGH_ROWS, _MANY_ROWS = 10, 48, 120
"""A cell with fewer rows than the first is not known to be covered: at the 30 rows that a cell
holds at least on average, chance leaves so few in 7 of 1e6. From the second on an empty quarter
means a border: chance empties one in 4 of 1e6; below it takes two. Cells with as many as the
third are divided."""

_FINEST_CELL = 11
"""Order of the smallest cells that are told from rows: 1.7 arcmin."""


@dataclass(frozen=True)
class Coverage:
    """A part of the sky.

    Parameters
    ----------
    first, end : NDArray[np.uint64], shape (n_ranges,)
        First pixels of order 29 and the ones after the last; sorted, apart from each other.
    """

    first: Pixels
    end: Pixels

    def contains(self, ra: ArrayLike, dec: ArrayLike) -> NDArray[np.bool_]:
        """Return which positions [deg] are in it; one that is not on the sky is not."""
        ra, dec = np.asarray(ra, dtype=np.float64), np.asarray(dec, dtype=np.float64)
        inside = on_sky(ra, dec)
        if not self.is_all_sky and inside.any():
            inside[inside] = self.contains_pixels(pixels_of(ra[inside], dec[inside]))
        return inside

    def contains_pixels(self, pixels: Pixels) -> NDArray[np.bool_]:
        """Return which pixels of order 29 are in it."""
        if not self.first.size:
            return np.zeros(pixels.shape, dtype=bool)
        at = np.searchsorted(self.first, pixels, side="right") - 1
        return (at >= 0) & (pixels < self.end[at])

    @property
    def is_all_sky(self) -> bool:
        """Whether it is the whole sphere."""
        return self.first.size == 1 and self.first[0] == 0 and int(self.end[0]) == _ALL_PIXELS

    @property
    def fraction(self) -> float:
        """Its share of the sky."""
        return float((self.end - self.first).sum() / _ALL_PIXELS)


def all_sky() -> Coverage:
    """Return the whole sphere."""
    return Coverage(np.zeros(1, np.uint64), np.full(1, _ALL_PIXELS, np.uint64))


def coverage_of_cells(cells: ArrayLike, order: ArrayLike) -> Coverage:
    """Return the union of HEALPix pixels.

    Parameters
    ----------
    cells : array_like of int, shape (n,)
        Nested pixel numbers, in any order, also within each other.
    order : array_like of int, shape (n,) or one for all
        Their HEALPix orders.
    """
    numbers = np.asarray(cells, dtype=np.uint64)
    shift = (2 * (FINEST_ORDER - np.asarray(order, dtype=np.int64))).astype(np.uint64)
    return coverage_of_ranges(numbers << shift, (numbers + np.uint64(1)) << shift)


def coverage_of_ranges(first: Pixels, end: Pixels) -> Coverage:
    """Return the union of ranges of pixels of order 29, in any order, also overlapping."""
    if not first.size:
        return Coverage(np.empty(0, np.uint64), np.empty(0, np.uint64))
    in_order = np.argsort(first, kind="stable")
    first, reach = first[in_order], np.maximum.accumulate(end[in_order])
    begins = np.append(True, first[1:] > reach[:-1])
    return Coverage(first[begins], reach[np.append(begins[1:], True)])


def coverage_of_rows(pixels: Pixels) -> Coverage:
    """Tell from rows where a catalogue has looked.

    Cells are divided in four as long as they have many rows, or enough rows and an empty quarter;
    so cells are small where rows are dense, and borders and holes are followed to about ten rows.
    A place where a few rows stand alone is not covered: nobody knows how far they reach.

    Parameters
    ----------
    pixels : NDArray[np.uint64], shape (n_rows,)
        Pixels of order 29, sorted.
    """
    found, orders = [], []
    cells: Pixels = np.arange(12, dtype=np.uint64)
    counts = _counts(pixels, cells, 0)
    cells, counts = cells[counts >= _ENOUGH_ROWS], counts[counts >= _ENOUGH_ROWS]
    for order in range(_FINEST_CELL + 1):
        children = (cells[:, None] << np.uint64(2)) + _QUARTERS
        inside = _counts(pixels, children.ravel(), order + 1).reshape(-1, 4)
        n_empty = (inside == 0).sum(axis=1)
        divided = (counts >= _MANY_ROWS) | (n_empty >= np.where(counts >= _ENOUGH_ROWS, 1, 2))
        if order == _FINEST_CELL:
            divided[:] = False
        found.append(cells[~divided])
        orders.append(np.full(found[-1].size, order))
        cells, counts = children[divided].ravel(), inside[divided].ravel()
        cells, counts = cells[counts >= _FEWEST_ROWS], counts[counts >= _FEWEST_ROWS]
    return coverage_of_cells(np.concatenate(found), np.concatenate(orders))


def _counts(pixels: Pixels, cells: Pixels, order: int) -> NDArray[np.int64]:
    shift = np.uint64(2 * (FINEST_ORDER - order))
    starts = np.searchsorted(pixels, cells << shift)
    return np.searchsorted(pixels, (cells + np.uint64(1)) << shift) - starts


def write_coverage(path: Path, coverage: Coverage) -> None:
    """Write a coverage as a FITS file that tools for MOCs read (MOC 2.0, ranges of order 29)."""
    from astropy.io import fits

    ranges = np.stack([coverage.first, coverage.end], axis=1).astype(np.int64).ravel()
    table = fits.BinTableHDU.from_columns([fits.Column("RANGE", "K", array=ranges)])
    table.header.update(
        {"MOCVERS": "2.0", "MOCDIM": "SPACE", "ORDERING": "RANGE", "COORDSYS": "C"}
        | {"MOCORD_S": FINEST_ORDER, "MOCORDER": FINEST_ORDER, "MOCTOOL": "nightjar-broker"}
    )
    table.writeto(path, overwrite=True)


def read_coverage(path: Path) -> Coverage:
    """Read a MOC from a FITS file (ranges or NUNIQ) or from JSON (`{"9": [1, 2, …], …}`).

    Raises
    ------
    ConfigError
        If it is neither, or not a MOC of places on the sky.
    """
    try:
        with path.open("rb") as file:
            is_json = file.read(1) == b"{"
        coverage = _from_json(path) if is_json else _from_fits(path)
    except (OSError, ValueError, KeyError, TypeError, IndexError, OverflowError) as error:
        raise ConfigError(f"{path} cannot be read as a MOC: {error}", path=str(path)) from error
    if coverage.first.size and int(coverage.end[-1]) > _ALL_PIXELS:
        raise ConfigError(f"{path} names pixels that do not exist", path=str(path))
    return coverage


def _from_json(path: Path) -> Coverage:
    import json

    by_order: dict[str, list[int]] = json.loads(path.read_text(encoding="utf-8"))
    cells = [np.asarray(numbers, dtype=np.uint64) for numbers in by_order.values()]
    orders = [np.full(len(n), int(o)) for o, n in zip(by_order, cells, strict=True)]
    return coverage_of_cells(np.concatenate(cells), np.concatenate(orders))


def _from_fits(path: Path) -> Coverage:
    from astropy.io import fits

    with fits.open(path) as file:
        header, data = file[1].header, file[1].data
        values: NDArray[Any] = np.asarray(data.field(0)).ravel().astype(np.uint64)
    if header.get("MOCDIM", "SPACE") != "SPACE" or header.get("COORDSYS", "C") != "C":
        raise ValueError("it must be of places, in equatorial coordinates")
    if header.get("ORDERING", "NUNIQ") == "RANGE":
        return coverage_of_ranges(values[::2], values[1::2])
    # NUNIQ: 4 * 4^order + pixel
    order = ((np.floor(np.log2(values.astype(np.float64))) - 2) // 2).astype(np.int64)
    return coverage_of_cells(values - (np.uint64(4) << (2 * order).astype(np.uint64)), order)
