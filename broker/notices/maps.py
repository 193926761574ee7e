"""Probability maps of notices: FITS, gzipped or not, in one order or several."""

import base64
import binascii
import tempfile
import warnings
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa

from broker.catalog.definition import CREDIBLE_LEVEL, MAP, Definition, PositionColumns
from broker.catalog.sky_map import END, FIRST, read_map, stated_frame
from broker.errors import AlertError, ConfigError
from broker.notices.place import MAX_LEVEL, ProbabilityMap

MAX_BYTES = 512 << 20
"""A map that is larger, unpacked, is refused."""

_MOST_STORED = 8 << 20  # HBase takes cells of 10 MB
_BLOCK = 2880
_GZIP = b"\x1f\x8b"
_COLUMNS = ("PROBDENSITY", "PROB", "PROBABILITY")


def map_of_base64(text: str) -> ProbabilityMap:
    """Return the map that stands in a notice as base64.

    Raises
    ------
    AlertError
        If it is no base64 or no map.
    """
    try:
        data = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise AlertError(f"the map is no base64: {error}") from error
    return map_of_bytes(data)


def map_of_path(name: str, folder: Path | None) -> ProbabilityMap:
    """Return a map that a notice names by its path.

    Parameters
    ----------
    name : str
        A path below the folder, or a `file:` address of one.
    folder : Path or None
        The only place that is read; None if there is none.

    Raises
    ------
    AlertError
        If the file is not there, lies elsewhere, or is no map.
    """
    if folder is None:
        raise AlertError("maps by path are not read here")
    path = name.removeprefix("file://")
    if "://" in path:
        raise AlertError(f"the map is at {name}; only files below {folder.name} are read")
    found, root = (folder / path).resolve(), folder.resolve()
    if not found.is_relative_to(root):
        raise AlertError(f"the map {name} is not in the folder of maps")
    if not found.is_file():
        raise AlertError(f"there is no map {name} in the folder of maps")
    if found.stat().st_size > MAX_BYTES:
        raise AlertError(f"the map {name} is larger than {MAX_BYTES >> 20} MB")
    return map_of_bytes(found.read_bytes())


def map_of_bytes(data: bytes) -> ProbabilityMap:
    """Return a map from the bytes of a FITS file.

    Raises
    ------
    AlertError
        If it is no HEALPix map with a probability, is cut short, or too large.
    """
    data = _unpacked(data)
    if data[:6] != b"SIMPLE" or len(data) % _BLOCK:
        raise AlertError(f"the map is no FITS file, or cut short: {len(data)} bytes")
    with tempfile.NamedTemporaryFile(suffix=".fits") as file:
        file.write(data)
        file.flush()
        table, frame = _read(Path(file.name))
    levels = table.column(CREDIBLE_LEVEL.name).to_numpy().astype(np.float32)
    # A level within rounding of 0.99 belongs to it, as does the likeliest pixel in any case.
    kept = (levels <= MAX_LEVEL + 1e-6) | (levels == np.nanmin(levels))
    first, end = (table.column(name).to_numpy()[kept] for name in (FIRST, END))
    found = ProbabilityMap(first, end, levels[kept], frame)
    size = sum(map(len, found.to_cells().values()))
    if size > _MOST_STORED:
        raise AlertError(f"the map takes {size >> 20} MB to keep; at most {_MOST_STORED >> 20}")
    return found


def _read(path: Path) -> tuple[pa.Table, str]:
    """Return the pixels of a map, and its frame."""
    from astropy.utils.exceptions import AstropyWarning

    with warnings.catch_warnings():
        # What astropy only warns of, as a file that ends too early, is refused here.
        warnings.simplefilter("error", AstropyWarning)
        try:
            definition = _definition(path)
            return read_map(path, definition), definition.positions.frame
        except ConfigError as error:
            raise AlertError(error.message.replace(str(path), "the map")) from error
        except AstropyWarning as error:
            raise AlertError(f"the map cannot be read: {error}") from error


def _unpacked(data: bytes) -> bytes:
    if data[:2] != _GZIP:
        return data
    unpacker = zlib.decompressobj(31)
    try:
        whole = unpacker.decompress(data, MAX_BYTES + 1)
    except zlib.error as error:
        raise AlertError(f"the map is gzipped and damaged: {error}") from error
    if len(whole) > MAX_BYTES:
        raise AlertError(f"the map is larger than {MAX_BYTES >> 20} MB unpacked")
    if not unpacker.eof:
        raise AlertError("the map is gzipped and cut short")
    return whole


def _definition(path: Path) -> Definition:
    """Return what tells `read_map` which column is the probability, and in which frame."""
    from astropy.io import fits

    try:
        with fits.open(path, memmap=False) as file:
            tables = [hdu for hdu in file if isinstance(hdu, fits.BinTableHDU)]
            names = list(tables[0].columns.names) if tables else []
            frame = stated_frame(tables[0].header) if tables else None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise AlertError(f"the map cannot be read: {error}") from error
    column = next((name for name in names if name.upper() in _COLUMNS), None)
    if column is None:
        raise AlertError(f"the map has no column {' or '.join(_COLUMNS)}, but {', '.join(names)}")
    at = PositionColumns(frame=frame or "icrs")
    return Definition("map", "", 1.0, (), kind=MAP, probability=column, positions=at)
