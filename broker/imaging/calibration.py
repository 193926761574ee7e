"""Master calibrations: bias, dark and flat from sequences of exposures, by a clipped mean.

And which amplifiers a file's headers speak of.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from broker.errors import AlertError, ConfigError
from broker.imaging import fits_header as words
from broker.imaging.fits import Defaults, Frame, read_frames
from broker.imaging.fits_write import write_units
from broker.imaging.isr import Amplifier, Box, Layout, whole
from broker.imaging.kernels import F32, Bools, compiled

CLIP_SIGMAS = 4.0
_BLOCK = 256
"""Columns that are sorted at once: a stack of them stays in the nearest cache."""

_HOT_SIGMAS = 12.0
_FLAT_RANGE = (0.5, 1.5)
_BIAS_NAMES = ("BIASLVL", "BIASLEV", "PEDESTAL")


@dataclass(frozen=True)
class Combined:
    """A clipped mean of a stack.

    Parameters
    ----------
    mean : NDArray[np.float32], shape (ny, nx)
    sigma : NDArray[np.float32], shape (ny, nx)
        Robust 1-sigma scatter of one exposure.
    count : NDArray[np.int32], shape (ny, nx)
        Exposures that were kept.
    """

    mean: F32
    sigma: F32
    count: NDArray[np.int32]


def combine(stack: Sequence[F32], *, clip_sigmas: float = CLIP_SIGMAS) -> Combined:
    """Return the mean of each pixel over a stack, without outliers.

    Parameters
    ----------
    stack : sequence of NDArray[np.float32], shape (ny, nx) each
    clip_sigmas : float
        A value further than this from the pixel's median is left out. One sigma is the stack's
        own robust scatter: the larger of the pixel's and half the image's typical one, since few
        values can lie close together by chance.

    Raises
    ------
    AlertError
        If there is nothing, or shapes differ.
    """
    if not stack:
        raise AlertError("there is no exposure to combine")
    shapes = {plane.shape for plane in stack}
    if len(shapes) > 1:
        raise AlertError(f"the exposures have several shapes: {sorted(shapes)}")
    cube = np.stack([np.asarray(plane, np.float32) for plane in stack])
    typical = _typical_scatter(cube)
    return Combined(
        *_combine(cube, _network(len(stack)), np.float32(clip_sigmas), np.float32(0.5 * typical))
    )


def _typical_scatter(cube: F32) -> float:
    sample = cube[:, ::16, ::16]
    middle = np.median(sample, axis=0)
    return float(1.4826 * np.median(np.abs(sample - middle)))


@compiled
def _combine(cube: Any, pairs: Any, clip: Any, least: Any) -> tuple[F32, F32, Any]:
    n, ny, nx = cube.shape
    mean = np.empty((ny, nx), np.float32)
    sigma = np.empty((ny, nx), np.float32)
    count = np.empty((ny, nx), np.int32)
    ordered, far = np.empty((n, _BLOCK), np.float32), np.empty((n, _BLOCK), np.float32)
    middle, half = np.empty(_BLOCK, np.float32), np.float32(0.5)
    total, kept = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.float32)
    for y in range(ny):
        for first in range(0, nx, _BLOCK):
            width = min(_BLOCK, nx - first)
            for k in range(n):
                for x in range(width):
                    ordered[k, x] = cube[k, y, first + x]
            _sort(ordered, pairs, width)
            for x in range(width):
                middle[x] = half * (ordered[n // 2, x] + ordered[(n - 1) // 2, x])
                total[x] = kept[x] = np.float32(0.0)
            for k in range(n):
                for x in range(width):
                    far[k, x] = abs(ordered[k, x] - middle[x])
            _sort(far, pairs, width)
            for x in range(width):
                spread = np.float32(1.4826) * far[n // 2, x]
                sigma[y, first + x] = spread
                far[0, x] = clip * max(spread, least)
            for k in range(n):
                for x in range(width):
                    offset = ordered[k, x] - middle[x]
                    is_inside = abs(offset) <= far[0, x]
                    total[x] += offset if is_inside else np.float32(0.0)
                    kept[x] += np.float32(1.0) if is_inside else np.float32(0.0)
            for x in range(width):
                mean[y, first + x] = middle[x] + total[x] / max(kept[x], np.float32(1.0))
                count[y, first + x] = np.int32(kept[x])
    return mean, sigma, count


@compiled
def _sort(values: F32, pairs: Any, width: int) -> None:
    """Sort each of the first columns, all at once: a network has no branches."""
    for p in range(pairs.shape[0]):
        low, high = pairs[p, 0], pairs[p, 1]
        for x in range(width):
            a, b = values[low, x], values[high, x]
            values[low, x], values[high, x] = min(a, b), max(a, b)


def _network(n: int) -> NDArray[np.int64]:
    """Return the pairs to compare, in order, that sort n values: Batcher's merge exchange.

    Knuth 1998, The Art of Computer Programming 3, section 5.2.2, algorithm M.
    """
    pairs = []
    top = 1 << max(0, (n - 1).bit_length() - 1)
    p = top
    while p > 0:
        q, r, d = top, 0, p
        while d > 0:
            pairs += [(i, i + d) for i in range(n - d) if i & p == r]
            d, q, r = q - p, q >> 1, p
        p >>= 1
    return np.array(pairs, np.int64).reshape(-1, 2)


def master_bias(frames: Sequence[F32]) -> F32:
    """Return a master bias from exposures of no length, their overscan subtracted. [ADU]"""
    return combine(frames).mean


def master_dark(frames: Sequence[F32], exposures_s: Sequence[float]) -> tuple[F32, Bools]:
    """Return a master dark and its hot pixels.

    Parameters
    ----------
    frames : sequence of NDArray[np.float32], shape (ny, nx) each
        Exposures with the shutter closed, without bias. [e-]
    exposures_s : sequence of float
        [s]

    Returns
    -------
    dark : NDArray[np.float32], shape (ny, nx)
        [e-/s]
    hot : NDArray[np.bool_], shape (ny, nx)
        Pixels far above the others.

    Raises
    ------
    AlertError
        If a length is not positive.
    """
    if not exposures_s or min(exposures_s) <= 0.0:
        raise AlertError(f"darks must have a positive exposure time; these have {exposures_s}")
    dark = combine([f / np.float32(t) for f, t in zip(frames, exposures_s, strict=True)]).mean
    sample = dark[::4, ::4]
    middle = np.median(sample)
    spread = 1.4826 * float(np.median(np.abs(sample - middle)))
    return dark, np.asarray(dark > middle + _HOT_SIGMAS * max(spread, 1e-6), bool)


def master_flat(frames: Sequence[F32]) -> tuple[F32, Bools]:
    """Return a master flat, 1 in the median, and its defects.

    Parameters
    ----------
    frames : sequence of NDArray[np.float32], shape (ny, nx) each
        Evenly lit exposures, without bias and dark; of any brightness each. [e-]

    Returns
    -------
    flat : NDArray[np.float32], shape (ny, nx)
    defects : NDArray[np.bool_], shape (ny, nx)
        Pixels with less than half or more than 1.5 of the light; `flat` is 1 there.

    Raises
    ------
    AlertError
        If a frame has no light.
    """
    scaled = []
    for frame in frames:
        level = float(np.median(frame[::4, ::4]))
        if level <= 0.0:
            raise AlertError(f"a flat's median is {level:.3g} e-: it has no light")
        scaled.append(frame / np.float32(level))
    flat = combine(scaled).mean
    flat /= np.float32(np.median(flat))
    defects = np.asarray((flat < _FLAT_RANGE[0]) | (flat > _FLAT_RANGE[1]), bool)
    flat[defects] = 1.0
    return flat, defects


def layout_of(frames: Sequence[Frame], defaults: Defaults | None = None) -> Layout:
    """Return the layout that a file's headers describe.

    One image without sections is one amplifier. Else each image is an amplifier with DATASEC,
    BIASSEC (optional) and DETSEC (where it belongs, reversed if it was read from the other side),
    in the units of FITS: counted from 1, ends included.

    Raises
    ------
    AlertError
        If a section cannot be read, or several images have no DETSEC.
    ConfigError
        If the sections do not cover the detector exactly once.
    """
    chosen = defaults or Defaults()
    sections = [_text(f.header, "DETSEC") for f in frames]
    if len(frames) > 1 and not all(sections):
        raise AlertError(
            f"{frames[0].source}: of {len(frames)} images not all have a DETSEC; it says where an "
            "amplifier belongs"
        )
    places = [words.section(s) if s else None for s in sections]
    first_x = min((min(p[0], p[1]) for p in places if p), default=1)
    first_y = min((min(p[2], p[3]) for p in places if p), default=1)
    amplifiers = tuple(
        _amplifier(k, frame, place, (first_x, first_y), chosen)
        for k, (frame, place) in enumerate(zip(frames, places, strict=True))
    )
    shape = (
        max(a.target.y_end for a in amplifiers),
        max(a.target.x_end for a in amplifiers),
    )
    return Layout(shape, amplifiers)


def _amplifier(
    plane: int,
    frame: Frame,
    place: tuple[int, int, int, int] | None,
    first: tuple[int, int],
    defaults: Defaults,
) -> Amplifier:
    header = frame.header
    settings: dict[str, Any] = {
        "gain": words.positive(header, words.GAIN) or defaults.gain,
        "read_noise": words.number(header, words.READ_NOISE) or defaults.read_noise,
        "saturation": words.positive(header, words.SATURATION) or defaults.saturation,
        "bias_level": words.number(header, _BIAS_NAMES) or 0.0,
        "name": frame.name or str(plane),
        "linearity": tuple(v for n in ("LIN2", "LIN3") if (v := words.number(header, (n,)))),
    }
    if words.number(header, ("LIN3",)) and not words.number(header, ("LIN2",)):
        settings["linearity"] = (0.0, words.number(header, ("LIN3",)))
    data = _box(_text(header, "DATASEC"), frame.shape)
    overscan = _text(header, "BIASSEC")
    if place is None:
        target, flip_x, flip_y = Box(0, data.shape[0], 0, data.shape[1]), False, False
    else:
        x1, x2, y1, y2 = place
        target = Box(
            min(y1, y2) - first[1],
            max(y1, y2) - first[1] + 1,
            min(x1, x2) - first[0],
            max(x1, x2) - first[0] + 1,
        )
        flip_x, flip_y = x2 < x1, y2 < y1
    return Amplifier(
        data,
        target,
        _box(overscan, frame.shape) if overscan else None,
        plane,
        flip_x,
        flip_y,
        **settings,
    )


def _text(header: Mapping[str, Any], name: str) -> str:
    value = header.get(name)
    return value if isinstance(value, str) and re.search(r"\d", value) else ""


def _box(text: str, shape: tuple[int, int]) -> Box:
    if not text:
        return Box(0, shape[0], 0, shape[1])
    x1, x2, y1, y2 = words.section(text)
    if not (1 <= x1 <= x2 <= shape[1] and 1 <= y1 <= y2 <= shape[0]):
        raise AlertError(f"section {text} is not inside an image of {shape[1]} × {shape[0]} pixels")
    return Box(y1 - 1, y2, x1 - 1, x2)


def write_master(
    path: Path,
    kind: str,
    pixels: F32,
    *,
    frames: int,
    defects: Bools | None = None,
    record: Mapping[str, Any] | None = None,
) -> None:
    """Write a master calibration, the same bytes each time; `kind` is bias, dark or flat."""
    from astropy.io import fits

    units = {"bias": "adu", "dark": "electron/s", "flat": ""}
    header = fits.Header({"MASTER": kind, "NFRAMES": frames, "BUNIT": units[kind]})
    if record:
        header["PROVID"] = record["id"]
        header["BRKMETA"] = json.dumps({"provenance": record}, sort_keys=True)
    parts: list[Any] = [fits.PrimaryHDU(pixels, header)]
    if defects is not None:
        parts.append(fits.ImageHDU(defects.astype(np.uint8), name="MASK"))
    write_units(path, parts)


def read_master(path: Path, kind: str) -> tuple[F32, Bools | None]:
    """Return a master calibration and its defects, if the file has them.

    Raises
    ------
    ConfigError
        If it cannot be read, or is a master of another kind.
    """
    try:
        frame = read_frames(path, on_sky=False)[0]
    except AlertError as error:
        raise ConfigError(f"the master {kind}: {error.message}") from error
    said = frame.header.get("MASTER", kind)
    if said != kind:
        raise ConfigError(f"{path} is a master {said}, not a {kind}")
    defects = None if frame.mask is None else np.asarray(frame.mask != 0, bool)
    return frame.pixels.astype(np.float32), defects


__all__ = [
    "CLIP_SIGMAS",
    "Combined",
    "combine",
    "layout_of",
    "master_bias",
    "master_dark",
    "master_flat",
    "read_master",
    "whole",
    "write_master",
]
