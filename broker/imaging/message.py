"""An exposure as a message: framed Avro, with the 16-bit pixels packed without loss.

The noise of the sky fills the low byte of a pixel and hardly touches the high one: bytes are put
apart, and the sky's level is moved to the middle of the low byte's range, before Zstandard's
fastest level. That gives 2.5 times fewer bytes; coding differences of neighbours gives less,
because it adds two noises.
"""

import functools
from typing import Any

import numpy as np
import zstandard
from isal import isal_zlib
from numpy.typing import NDArray

from broker.avro import Schema, decode, encode, frame, read_schema, schema_id, unframe
from broker.errors import AlertError, ConfigError
from broker.imaging.byte_planes import join_bytes, split_bytes
from broker.imaging.image import (
    MAX_DETECTOR,
    MAX_PIXELS,
    MAX_VISIT,
    Calibration,
    Image,
    RawExposure,
)
from broker.imaging.isr import Amplifier, Box, Layout, Masters
from broker.imaging.mask import EDGE_PX, MaskPlane, empty_mask, set_edge, set_plane
from broker.imaging.psf import GaussianPsf
from broker.imaging.reduce import reduce_exposure
from broker.imaging.wcs import Wcs
from broker.units import BANDS

SCHEMA = "broker/ccd-image/1.1"
"""What is written."""

READABLE = (SCHEMA, "broker/ccd-image/1.0")
CODEC = "offset-shuffle-zstd"
_CHECKSUM_BYTES = 4
_MOST_RAW = 5 * MAX_PIXELS // 4
"""Pixels of a raw plane, overscan and all."""

_POSITIVE = ("exposureS", "gain", "saturation", "psfSigma", "zeroPoint", "width", "height")
_FINITE = ("midpointMjdTai", "readNoise", "biasLevel")


def encode_image(exposure: RawExposure) -> bytes:
    """Return the message of an exposure: the same bytes for the same exposure.

    Parameters
    ----------
    exposure : RawExposure

    Returns
    -------
    bytes
        Framed Avro of `schemas/broker/ccd-image/1.1.avsc`.
    """
    schema = read_schema(SCHEMA)
    offset, packed = _pack(exposure.pixels)
    second = (0, None) if exposure.second is None else _pack(exposure.second)
    record = _metadata(exposure) | {
        "codec": CODEC,
        "pixelOffset": offset,
        "pixels": packed,
        "secondOffset": second[0],
        "secondPixels": second[1],
        "checksum": bytes(_CHECKSUM_BYTES),
    }
    message = frame(schema_id(schema), encode(schema, record))[:-_CHECKSUM_BYTES]
    return message + isal_zlib.crc32(message).to_bytes(_CHECKSUM_BYTES, "big")


def decode_raw(message: bytes) -> RawExposure:
    """Return the exposure of a message, its counts as they were read out.

    Raises
    ------
    AlertError
        If the message is not a whole, unchanged one of a known schema, or what it says cannot be.
    """
    identifier, body = unframe(message)
    schema = _schemas().get(identifier)
    if schema is None:
        raise AlertError(
            f"schema id {identifier} is not that of an image, {', '.join(map(str, _schemas()))}",
            schemaId=identifier,
        )
    said = int.from_bytes(message[-_CHECKSUM_BYTES:], "big")
    found = isal_zlib.crc32(memoryview(message)[:-_CHECKSUM_BYTES])
    if said != found:
        raise AlertError(
            f"the message of {len(message)} bytes is truncated or damaged: its checksum is "
            f"{found:08x}, it says {said:08x}"
        )
    record = decode(schema, body)
    _check(record)
    second = record.get("secondPixels")
    return RawExposure(
        pixels=_unpack(record, record["pixels"], record["pixelOffset"]),
        wcs=_wcs(record["wcs"], (record["height"], record["width"])),
        psf=GaussianPsf(record["psfSigma"]),
        calibration=_calibration(record),
        bias_level=record["biasLevel"],
        layout=_layout(record),
        second=None if second is None else _unpack(record, second, record["secondOffset"]),
        calibration_set=record.get("calibrationSet", ""),
    )


@functools.cache
def _schemas() -> dict[int, Schema]:
    """Return the schemas that are read, by their ids."""
    return {schema_id(schema): schema for schema in map(read_schema, READABLE)}


def decode_image(message: bytes, masters: Masters | None = None) -> Image:
    """Return the image of a message: bias subtracted, defects, saturation and edge masked.

    The variance is a first one, the same everywhere: the median sky's Poisson noise and the read
    noise. It becomes a plane once sources and background are known.

    Raises
    ------
    AlertError
        As `decode_raw`.
    """
    return to_image(decode_raw(message), masters)


def to_image(exposure: RawExposure, masters: Masters | None = None) -> Image:
    """Return the image of an exposure, as `decode_image` does of a message.

    With amplifiers it is in electrons, see `reduce_exposure`; what masters would take out beyond
    overscan, non-linearity and gain stays in it without them.
    """
    if exposure.layout is not None:
        return reduce_exposure(exposure, masters)
    calibration = exposure.calibration
    raw = exposure.pixels
    pixels = raw.astype(np.float32) - np.float32(exposure.bias_level)
    mask = empty_mask((raw.shape[0], raw.shape[1]))
    set_plane(mask, MaskPlane.BAD, raw == 0)
    set_plane(mask, MaskPlane.SATURATED, raw >= exposure.bias_level + calibration.saturation)
    set_edge(mask, EDGE_PX)
    sky = max(float(np.median(pixels[::4, ::4])), 0.0)
    variance = sky / calibration.gain + (calibration.read_noise / calibration.gain) ** 2
    return Image(
        pixels=pixels,
        variance=np.full(raw.shape, variance, dtype=np.float32),
        mask=mask,
        wcs=exposure.wcs,
        psf=exposure.psf,
        calibration=calibration,
    )


def _metadata(exposure: RawExposure) -> dict[str, Any]:
    """Return the record's fields but the pixels."""
    calibration, wcs = exposure.calibration, exposure.wcs
    ny, nx = exposure.pixels.shape
    (cd11, cd12), (cd21, cd22) = wcs.cd
    return {
        "visit": calibration.visit,
        "detector": calibration.detector,
        "band": calibration.band,
        "midpointMjdTai": calibration.midpoint_mjd_tai,
        "exposureS": calibration.exposure_s,
        "zeroPoint": calibration.zero_point,
        "gain": calibration.gain,
        "readNoise": calibration.read_noise,
        "saturation": calibration.saturation,
        "biasLevel": exposure.bias_level,
        "psfSigma": exposure.psf.sigma,
        "wcs": {
            "crvalRa": wcs.crval_ra,
            "crvalDec": wcs.crval_dec,
            "crpixX": wcs.crpix_x,
            "crpixY": wcs.crpix_y,
            "cd11": cd11,
            "cd12": cd12,
            "cd21": cd21,
            "cd22": cd22,
        },
        "width": nx,
        "height": ny,
        "calibrationSet": exposure.calibration_set,
        "amplifiers": [] if exposure.layout is None else _amplifiers(exposure.layout),
    }


def _amplifiers(layout: Layout) -> list[dict[str, Any]]:
    return [
        {
            "name": a.name,
            "data": _corners(a.data),
            "target": _corners(a.target),
            "overscan": None if a.overscan is None else _corners(a.overscan),
            "flipX": a.flip_x,
            "flipY": a.flip_y,
            "gain": a.gain,
            "readNoise": a.read_noise,
            "saturation": a.saturation,
            "linearity": list(a.linearity),
            "biasLevel": a.bias_level,
        }
        for a in layout.amplifiers
    ]


def _corners(box: Box) -> list[int]:
    return [box.y, box.y_end, box.x, box.x_end]


def _layout(record: dict[str, Any]) -> Layout | None:
    """Return the layout of a record; None if the plane is the detector."""
    amplifiers = tuple(_amplifier(one) for one in record.get("amplifiers", ()))
    if not amplifiers:
        return None
    for a in amplifiers:
        for box in (a.data, a.target, *([a.overscan] if a.overscan else [])):
            if not (0 <= box.y < box.y_end and 0 <= box.x < box.x_end):
                raise AlertError(f"amplifier {a.name!r} has an empty box, {box}")
        for box in (a.data, *([a.overscan] if a.overscan else [])):
            if box.y_end > record["height"] or box.x_end > record["width"]:
                raise AlertError(f"amplifier {a.name!r} is outside the raw plane, {box}")
    shape = max(a.target.y_end for a in amplifiers), max(a.target.x_end for a in amplifiers)
    if shape[0] * shape[1] > MAX_PIXELS:
        raise AlertError(f"{shape[1]} × {shape[0]} pixels are more than {MAX_PIXELS}")
    try:
        return Layout(shape, amplifiers)
    except ConfigError as error:
        raise AlertError(error.message) from error


def _amplifier(said: dict[str, Any]) -> Amplifier:
    numbers = [said["gain"], said["readNoise"], said["biasLevel"]]
    if not np.isfinite([*numbers, *said["linearity"]]).all():
        raise AlertError(f"amplifier {said['name']!r} has a number that is not finite")
    if not (said["gain"] > 0.0 and said["saturation"] > 0.0 and said["readNoise"] >= 0.0):
        raise AlertError(
            f"amplifier {said['name']!r} has gain {said['gain']}, saturation "
            f"{said['saturation']} and readNoise {said['readNoise']}"
        )
    return Amplifier(
        _box(said["data"]),
        _box(said["target"]),
        overscan=None if said["overscan"] is None else _box(said["overscan"]),
        flip_x=said["flipX"],
        flip_y=said["flipY"],
        gain=said["gain"],
        read_noise=said["readNoise"],
        saturation=said["saturation"],
        linearity=tuple(said["linearity"]),
        bias_level=said["biasLevel"],
        name=said["name"],
    )


def _box(corners: list[int]) -> Box:
    if len(corners) != 4:
        raise AlertError(f"a box has 4 numbers, not {len(corners)}")
    return Box(*corners)


def _calibration(record: dict[str, Any]) -> Calibration:
    return Calibration(
        visit=record["visit"],
        detector=record["detector"],
        band=record["band"],
        midpoint_mjd_tai=record["midpointMjdTai"],
        exposure_s=record["exposureS"],
        zero_point=record["zeroPoint"],
        gain=record["gain"],
        read_noise=record["readNoise"],
        saturation=record["saturation"],
    )


def _wcs(record: dict[str, float], shape: tuple[int, int]) -> Wcs:
    wcs = Wcs(
        record["crvalRa"],
        record["crvalDec"],
        record["crpixX"],
        record["crpixY"],
        ((record["cd11"], record["cd12"]), (record["cd21"], record["cd22"])),
    )
    wcs.require_image(shape)
    return wcs


def _check(record: dict[str, Any]) -> None:
    """Raise AlertError for what an exposure cannot have."""
    for name in _POSITIVE:
        if not (np.isfinite(record[name]) and record[name] > 0):
            raise AlertError(f"{name} is {record[name]}; it must be positive", field=name)
    for name in _FINITE:
        if not np.isfinite(record[name]):
            raise AlertError(f"{name} is {record[name]}; it must be finite", field=name)
    if record["readNoise"] < 0.0:
        raise AlertError(f"readNoise is {record['readNoise']}; it must not be negative")
    if record["band"] not in BANDS:
        raise AlertError(f"band {record['band']!r} is none of {' '.join(BANDS)}")
    if not 1 <= record["visit"] <= MAX_VISIT:
        raise AlertError(f"visit {record['visit']} is not between 1 and {MAX_VISIT}")
    if not 0 <= record["detector"] <= MAX_DETECTOR:
        raise AlertError(f"detector {record['detector']} is not between 0 and {MAX_DETECTOR}")
    most = _MOST_RAW if record.get("amplifiers") else MAX_PIXELS
    if record["width"] * record["height"] > most:
        raise AlertError(f"{record['width']} × {record['height']} pixels are more than {most}")
    if record["codec"] != CODEC:
        raise AlertError(f"codec {record['codec']!r} is not known; {CODEC!r} is")


def _pack(pixels: NDArray[np.uint16]) -> tuple[int, bytes]:
    """Return the offset and the packed bytes of pixels, shape (ny, nx)."""
    middle = int(np.median(pixels[::8, ::8])) if pixels.size else 0
    offset = max(middle - 128, 0)
    planes = split_bytes(np.ascontiguousarray(pixels, np.uint16), np.uint16(offset))
    return offset, zstandard.ZstdCompressor(level=1).compress(planes.data)


def _unpack(record: dict[str, Any], packed: bytes, offset: int) -> NDArray[np.uint16]:
    """Return the packed pixels of a record, shape (height, width)."""
    ny, nx = record["height"], record["width"]
    wanted = 2 * ny * nx
    try:
        size = zstandard.get_frame_parameters(packed).content_size
        if size != wanted:
            raise AlertError(f"the pixels are {size} bytes; {nx} × {ny} of 2 bytes are {wanted}")
        planes = zstandard.ZstdDecompressor().decompress(packed, max_output_size=wanted)
    except zstandard.ZstdError as error:
        raise AlertError(f"the pixels cannot be unpacked: {error}") from error
    low_high = np.frombuffer(planes, dtype=np.uint8).reshape(2, ny * nx)
    return join_bytes(low_high[0], low_high[1], np.uint16(offset & 0xFFFF)).reshape(ny, nx)
