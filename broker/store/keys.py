"""Row keys, as pure functions: what is read together stands together.

Keys are printable ASCII, so that they can be read in any tool. Parts are separated by `|`, which
inside a part is written `%7C`. Numbers that must sort are fixed-width hexadecimal.

Keys of alerts begin with a salt, two hexadecimal digits from a hash, which spreads a night over
all regions. Keys of places on the sky begin with a HEALPix pixel and need none.
"""

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from broker.catalog.healpix import FINEST_ORDER, pixels_in_cone, pixels_of
from broker.types import Coordinate
from broker.units import SECONDS_PER_DAY

SKY_ORDER = 13
"""HEALPix order of the table `sky`: pixels of 26 arcsec."""

OBJECT_ORDER = 10
"""HEALPix order of the table `association`: pixels of 3.4 arcmin."""

_SALTS = 256
_US_PER_DAY = SECONDS_PER_DAY * 1e6
_NEWEST = (1 << 63) - 1
_PIXEL_DIGITS = 8


def time_us(mjd: ArrayLike) -> NDArray[np.int64]:
    """Return microseconds since MJD 0 (TAI), by which keys sort; 0 for times before that."""
    days = np.asarray(mjd, dtype=np.float64)
    return np.rint(np.clip(days, 0.0, None) * _US_PER_DAY).astype(np.int64)


def time_ms(mjd: float) -> int:
    """Return milliseconds since MJD 0 (TAI): timestamps of cells of which the later counts."""
    return round(mjd * _US_PER_DAY / 1e3)


def object_part(object_id: str | None, ss_object_id: str | None, dia_source_id: str) -> str:
    """Return the part of a key that names an object.

    A solar-system alert has no diaObject: it is kept under its solar-system object, or, when
    that is not known either, by itself.
    """
    if object_id is not None:
        return object_id
    return f"-{dia_source_id}" if ss_object_id is None else f"ss:{ss_object_id}"


def alert_key(survey: str, object_name: str, at_us: int, dia_source_id: str) -> bytes:
    """Return the key of an alert: the alerts of one object stand together, oldest first."""
    name = f"{_part(survey)}|{_part(object_name)}"
    salt = zlib.crc32(name.encode()) % _SALTS
    return f"{salt:02x}{name}|{at_us:016x}|{_part(dia_source_id)}".encode()


def object_range(survey: str, object_name: str) -> tuple[bytes, bytes]:
    """Return the range of keys with the alerts of one object."""
    name = f"{_part(survey)}|{_part(object_name)}".encode()
    salt = b"%02x" % (zlib.crc32(name) % _SALTS)
    return salt + name + b"|", salt + name + b"}"


def split_alert_key(key: bytes) -> tuple[str, str, int, str]:
    """Return survey, object name, time in microseconds and diaSourceId of an alert's key."""
    survey, name, at_us, dia_source_id = key[2:].decode().split("|")
    return _whole(survey), _whole(name), int(at_us, 16), _whole(dia_source_id)


def alert_id_key(survey: str, dia_source_id: str) -> bytes:
    """Return the key by which an alert is found by its id."""
    name = f"{_part(survey)}|{_part(dia_source_id)}".encode()
    return b"%02x" % (zlib.crc32(name) % _SALTS) + name


def salt_splits(regions: int) -> tuple[bytes, ...]:
    """Return the keys at which a salted table is split into regions."""
    regions = min(regions, _SALTS)
    return tuple(b"%02x" % (_SALTS * i // regions) for i in range(1, regions))


def sky_key(pixel: int, survey: str, object_name: str) -> bytes:
    """Return the key of an object at a place on the sky."""
    return f"{pixel:0{_PIXEL_DIGITS}x}|{_part(survey)}|{_part(object_name)}".encode()


def split_sky_key(key: bytes) -> tuple[int, str, str]:
    """Return pixel, survey and object name of a sky key."""
    pixel, survey, name = key.decode().split("|")
    return int(pixel, 16), _whole(survey), _whole(name)


def newest_first(at_us: int) -> bytes:
    """Return a time as a qualifier of which the newest sorts first."""
    return b"%016x" % (_NEWEST - at_us)


def source_key(pixel: int, object_id: str, at_us: int, dia_source_id: str) -> bytes:
    """Return the key of a diaSource below the pixel of its object's first diaSource."""
    return (
        f"{pixel:0{_PIXEL_DIGITS}x}|{_part(object_id)}|{at_us:016x}|{_part(dia_source_id)}".encode()
    )


def forced_key(pixel: int, object_id: str, chapter: int) -> bytes:
    """Return the key of an object's forced fluxes in one chapter of time, below its pixel."""
    return f"{pixel:0{_PIXEL_DIGITS}x}|{_part(object_id)}|{chapter:08x}".encode()


def pixels(ra: ArrayLike, dec: ArrayLike, order: int) -> NDArray[np.int64]:
    """Return the nested pixels of positions. [deg]"""
    return pixels_of(ra, dec, order).astype(np.int64)


def cone_ranges(ra: float, dec: float, radius_arcsec: float, order: int) -> list[tuple[int, int]]:
    """Return ranges of pixels that cover a cone: first, and the one after the last; merged."""
    return merged_ranges(*pixels_in_cone(ra, dec, radius_arcsec), order)


def merged_ranges(
    first: NDArray[np.uint64], end: NDArray[np.uint64], order: int
) -> list[tuple[int, int]]:
    """Return ranges of pixels of an order that hold sorted ranges of pixels of order 29."""
    shift = 2 * (FINEST_ORDER - order)
    low = [int(p) >> shift for p in first]
    high = [((int(p) - 1) >> shift) + 1 for p in end]
    merged: list[tuple[int, int]] = []
    for a, b in zip(low, high, strict=True):
        if merged and a <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(b, merged[-1][1]))
        else:
            merged.append((a, b))
    return merged


def pixel_range(first: int, end: int) -> tuple[bytes, bytes]:
    """Return the range of keys of pixels first <= pixel < end."""
    return b"%08x" % first, b"%08x" % end


def pixel_splits(regions: int, order: int) -> tuple[bytes, ...]:
    """Return the keys at which a table by pixels is split into regions."""
    n_pixels = 12 << (2 * order)
    return tuple(b"%08x" % (n_pixels * i // regions) for i in range(1, regions))


def joined(parts: Sequence[str]) -> bytes:
    """Return a key of parts, each kept apart from the next."""
    return "|".join(map(_part, parts)).encode()


def split_joined(key: bytes) -> list[str]:
    """Return the parts of a key made by `joined`."""
    return [_whole(part) for part in key.decode().split("|")]


def parse_coordinate(text: bytes) -> Coordinate:
    """Return the coordinate of a qualifier: topic, partition and offset, with slashes."""
    topic, partition, offset = text.decode().rsplit("/", 2)
    return Coordinate(topic, int(partition), int(offset))


def _part(text: str) -> str:
    if "|" in text or "%" in text:
        return text.replace("%", "%25").replace("|", "%7C")
    return text


def _whole(part: str) -> str:
    return part.replace("%7C", "|").replace("%25", "%") if "%" in part else part
