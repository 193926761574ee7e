"""Values by HEALPix pixel: dust, depth, the probability of where an event came from.

Kept as ranges of nested pixels of order 29 with their values, so that one order, several orders
(as multi-order maps of gravitational waves) and parts of the sky are the same thing.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from broker.catalog.coverage import Coverage, coverage_of_ranges
from broker.catalog.crossmatch import Positions
from broker.catalog.definition import CREDIBLE_LEVEL, Definition
from broker.catalog.galactic import equatorial_cover, to_galactic
from broker.catalog.healpix import FINEST_ORDER, Floats, Pixels, pixels_of
from broker.catalog.partition import Rows
from broker.errors import ConfigError

FIRST, END = "firstPixel", "endPixel"

_UNSEEN = -1.6375e30
_FRAMES = {
    "icrs": ("C", "Q", "EQ", "CELESTIAL", "EQUATORIAL", "ICRS", "FK5"),
    "galactic": ("G", "GAL", "GALACTIC"),
}


def read_map(path: Path, definition: Definition) -> pa.Table:
    """Return the pixels of a HEALPix FITS file that have values.

    Parameters
    ----------
    path : Path
        Ordering NESTED, RING or NUNIQ (several orders); all pixels or some.
    definition : Definition
        Of kind `map`; `positions.frame` is the map's.

    Returns
    -------
    pa.Table
        `FIRST`, `END` (pixels of order 29), the attached columns, and `credibleLevel` if it has a
        probability; in the order of pixels.

    Raises
    ------
    ConfigError
        If the file is no HEALPix map, lacks a column, or says another frame or unit.
    """
    header, columns, units = _read(path)
    _check_frame(header, definition, path)
    first, end = _ranges(header, columns, path)
    values: dict[str, Any] = {}
    known = np.zeros(first.size, bool)
    for column in definition.columns:
        source = definition.sources.get(column.name, column.name)
        data = _column(columns, source, path, first.size)
        stated = units.get(source, "")
        if stated and column.unit and stated != column.unit and not _same_unit(stated, column.unit):
            raise ConfigError(f"{path}: {source} is in {stated}; the definition says {column.unit}")
        seen = np.isfinite(data) & (data > 0.99 * _UNSEEN)
        known |= seen
        values[column.name] = pa.array(data, column.arrow_type, mask=~seen)
    if definition.probability is not None:
        likely = _column(columns, definition.probability, path, first.size)
        known |= np.isfinite(likely) & (likely > 0.0)
        level = _credible_levels(likely, end - first, columns, definition.probability)
        values[CREDIBLE_LEVEL.name] = pa.array(level, pa.float32(), from_pandas=True)
    order = np.argsort(first)
    order = order[known[order]]
    table = pa.table({FIRST: first, END: end, **values}).take(pa.array(order))
    _check_overlap(table, path)
    return table


def map_coverage(table: pa.Table, *, frame: str = "icrs") -> Coverage:
    """Return where a map has values; of a galactic one with a rim of about two pixels."""
    first, end = (table.column(name).to_numpy() for name in (FIRST, END))
    if frame == "galactic":
        first, end = equatorial_cover(first, end)
    return coverage_of_ranges(first, end)


def values_at(rows: Rows, at: Positions, *, frame: str = "icrs") -> np.ndarray[Any, Any]:
    """Return the row of each position's pixel, -1 where the map has none, shape (n,)."""
    found = np.full(at.ra.shape, -1, np.int64)
    pixels = at.pixels
    if frame == "galactic":
        pixels = pixels_of(*to_galactic(at.ra[at.place], at.dec[at.place]))
    first, end = rows.numbers(FIRST), rows.numbers(END)
    row = np.searchsorted(first, pixels, side="right") - 1
    inside = (row >= 0) & (pixels < end[row])
    found[at.place[inside]] = row[inside]
    return found


def _read(path: Path) -> tuple[Any, dict[str, Any], dict[str, str]]:
    from astropy.io import fits

    try:
        with fits.open(path, memmap=False) as file:
            tables = [hdu for hdu in file if isinstance(hdu, fits.BinTableHDU)]
            if not tables:
                raise ConfigError(f"{path} has no table: it is no HEALPix map")
            hdu = tables[0]
            columns = {
                name: np.ascontiguousarray(np.asarray(hdu.data[name])).ravel()
                for name in hdu.columns.names
            }
            units = {column.name: column.unit or "" for column in hdu.columns}
            return hdu.header.copy(), columns, units
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{path} cannot be read as a HEALPix map: {error}") from error


def _column(columns: dict[str, Any], name: str, path: Path, size: int) -> Floats:
    if name not in columns:
        raise ConfigError(f"{path} has no column {name}; it has {', '.join(columns)}")
    if columns[name].size != size:
        raise ConfigError(f"{path}: {name} has {columns[name].size} values for {size} pixels")
    return columns[name].astype(np.float64)


def stated_frame(header: Any) -> str | None:
    """Return the frame that a map's COORDSYS says, None if it says nothing.

    Raises
    ------
    ConfigError
        If it is another than equatorial or galactic.
    """
    said = str(header.get("COORDSYS", "")).strip().upper()
    if not said:
        return None
    for frame, names in _FRAMES.items():
        if said in names:
            return frame
    raise ConfigError(f"COORDSYS is {said}; a map is equatorial (C) or galactic (G)")


def _check_frame(header: Any, definition: Definition, path: Path) -> None:
    try:
        said = stated_frame(header)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.message}") from error
    if said and said != definition.positions.frame:
        raise ConfigError(
            f"{path} is in the frame {said}; positions.frame of the definition says "
            f"{definition.positions.frame}"
        )


def _ranges(header: Any, columns: dict[str, Any], path: Path) -> tuple[Pixels, Pixels]:
    ordering = str(header.get("ORDERING", "")).strip().upper()
    if ordering == "NUNIQ":
        name = "UNIQ" if "UNIQ" in columns else next(iter(columns))
        unique = columns[name].astype(np.uint64)
        order = ((np.frexp(unique.astype(np.float64))[1] - 3) // 2).astype(np.int64)
        order -= unique < (np.uint64(4) << (2 * order).astype(np.uint64))  # float rounding
        pixel = unique - (np.uint64(4) << (2 * order).astype(np.uint64))
    elif ordering in {"NESTED", "NEST", "RING"}:
        side = int(header.get("NSIDE", 0))
        if side < 1 or side & (side - 1):
            raise ConfigError(f"{path}: NSIDE is {side}, no power of 2")
        n = 12 * side * side
        explicit = [name for name in columns if name.upper() == "PIXEL"]
        pixel = columns[explicit[0]] if explicit else np.arange(n)
        sizes = {values.size for values in columns.values()}
        if not explicit and sizes != {n}:
            raise ConfigError(f"{path} has {max(sizes)} pixels; NSIDE {side} makes {n}: cut short?")
        order = np.full(pixel.size, side.bit_length() - 1)
        pixel = pixel.astype(np.uint64)
        if ordering == "RING":
            from cdshealpix.ring import healpix_to_lonlat

            longitude, latitude = healpix_to_lonlat(pixel, side)
            pixel = pixels_of(longitude.deg, latitude.deg, side.bit_length() - 1)
    else:
        raise ConfigError(f"{path}: ORDERING is {ordering!r}; NESTED, RING or NUNIQ makes a map")
    shift = (2 * (FINEST_ORDER - order)).astype(np.uint64)
    return pixel << shift, (pixel + np.uint64(1)) << shift


def _credible_levels(likely: Floats, extent: Pixels, columns: dict[str, Any], name: str) -> Floats:
    """Return the share of the probability in pixels as likely as each or likelier; NaN where 0."""
    area = extent.astype(np.float64)
    is_density = "UNIQ" in columns or name.upper().endswith("DENSITY")
    density = likely if is_density else likely / area
    density = np.nan_to_num(density, nan=0.0)
    order = np.argsort(-density, kind="stable")
    share = np.cumsum((density * area)[order])
    total = share[-1] if share.size else 0.0
    if not total > 0.0:
        raise ConfigError(f"the column {name} has no probability anywhere")
    level = np.empty(density.size)
    level[order] = share / total
    return np.where(density > 0.0, level, np.nan)


def _same_unit(a: str, b: str) -> bool:
    import astropy.units as u

    try:
        return bool(u.Unit(a) == u.Unit(b))
    except ValueError:
        return False


def _check_overlap(table: pa.Table, path: Path) -> None:
    first, end = (table.column(name).to_numpy() for name in (FIRST, END))
    if first.size == 0:
        raise ConfigError(f"{path} has no pixel with a value")
    if np.any(first[1:] < end[:-1]):
        raise ConfigError(f"{path} has a pixel twice")
