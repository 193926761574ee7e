"""From raw counts to electrons: what the detector wrote into an image is taken out again.

The order is that in which the electronics added things, backwards: overscan, bias, linearity,
gain, dark, flat. One pass over the pixels, amplifier by amplifier, each row in the processor's
first cache; saturation and defects are marked, and the variance is made, on the way.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from broker.errors import AlertError, ConfigError
from broker.imaging.kernels import F32, Bools, compiled, select
from broker.imaging.mask import MaskArray

LEAST_FLAT = 0.2
"""A pixel less sensitive than this, against the mean, is a defect."""

_ROUNDING = 1.0 / 12.0
"""Variance of rounding to whole counts. [ADU²]"""

_OVERSCAN_CLIP = 4.0


@dataclass(frozen=True)
class Box:
    """A rectangle of pixels: rows `y` to `y_end`, columns `x` to `x_end`, ends not included."""

    y: int
    y_end: int
    x: int
    x_end: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.y_end - self.y, self.x_end - self.x

    def of(self, plane: NDArray[Any]) -> NDArray[Any]:
        """Return the view of a plane."""
        return plane[self.y : self.y_end, self.x : self.x_end]


@dataclass(frozen=True)
class Amplifier:
    """A part of a detector that is read out through its own electronics.

    Parameters
    ----------
    data : Box
        Its light-sensitive pixels in the raw plane.
    target : Box
        Where they belong in the assembled image; as large as `data`.
    overscan : Box, optional
        Its pixels that saw no light, with the rows of `data`.
    plane : int
        Which of the raw planes it is in.
    flip_x, flip_y : bool
        Whether it was read from the other side.
    gain : float
        [e-/ADU]
    read_noise : float
        [e-]
    saturation : float
        Counts above the bias at which a pixel is full. [ADU]
    linearity : tuple of float
        c2, c3…: of s counts above the bias, s + c2 s² + c3 s³… would have been read from a linear
        detector. [1/ADU, 1/ADU²…]
    bias_level : float
        Counts without light, taken where there is no overscan. [ADU]
    name : str
    """

    data: Box
    target: Box
    overscan: Box | None = None
    plane: int = 0
    flip_x: bool = False
    flip_y: bool = False
    gain: float = 1.0
    read_noise: float = 0.0
    saturation: float = float("inf")
    linearity: tuple[float, ...] = ()
    bias_level: float = 0.0
    name: str = ""


@dataclass(frozen=True)
class Layout:
    """How a detector is made of amplifiers.

    Parameters
    ----------
    shape : (int, int)
        Of the assembled image: (ny, nx).
    amplifiers : tuple of Amplifier
        Together they cover the image, none another's part.
    by_row : bool
        Whether the overscan is taken row by row; else one level an amplifier.

    Raises
    ------
    ConfigError
        If they do not cover the image exactly once, or a box is not as large as it must be.
    """

    shape: tuple[int, int]
    amplifiers: tuple[Amplifier, ...]
    by_row: bool = True

    def __post_init__(self) -> None:
        covered = np.zeros(self.shape, np.uint8)
        for amplifier in self.amplifiers:
            if amplifier.data.shape != amplifier.target.shape:
                raise ConfigError(
                    f"amplifier {amplifier.name!r} has {amplifier.data.shape} pixels for a place "
                    f"of {amplifier.target.shape}"
                )
            view = amplifier.target.of(covered)
            if view.shape != amplifier.target.shape:
                raise ConfigError(f"amplifier {amplifier.name!r} is outside the detector")
            view += 1
        if not (covered == 1).all():
            raise ConfigError("the amplifiers do not cover the detector exactly once")

    def for_bias(self) -> "Layout":
        """Return this layout without gain and linearity: a master bias is in counts."""
        bare = (replace(a, gain=1.0, linearity=()) for a in self.amplifiers)
        return replace(self, amplifiers=tuple(bare))


def whole(shape: tuple[int, int], **settings: Any) -> Layout:
    """Return the layout of a detector with one amplifier and no overscan."""
    box = Box(0, shape[0], 0, shape[1])
    return Layout(shape, (Amplifier(box, box, **settings),))


@dataclass(frozen=True)
class Masters:
    """Master calibrations of a detector, shape (ny, nx) each, of the assembled image.

    Parameters
    ----------
    bias : NDArray[np.float32], optional
        What is left after the overscan. [ADU]
    dark : NDArray[np.float32], optional
        [e-/s]
    flat : NDArray[np.float32], optional
        Sensitivity, 1 on average.
    defects : NDArray[np.bool_], optional
        Pixels that are always wrong.

    Raises
    ------
    ConfigError
        If bias, dark or flat has pixels that are not finite.
    """

    bias: F32 | None = None
    dark: F32 | None = None
    flat: F32 | None = None
    defects: Bools | None = None

    def __post_init__(self) -> None:
        for name in ("bias", "dark", "flat"):
            master = getattr(self, name)
            if master is not None and not np.isfinite(master).all():
                raise ConfigError(f"the master {name} has pixels that are not finite")


@dataclass(frozen=True)
class Reduced:
    """A detector's image in electrons.

    Parameters
    ----------
    pixels : NDArray[np.float32], shape (ny, nx)
        0 where BAD. [e-]
    variance : NDArray[np.float32], shape (ny, nx)
        Poisson noise of the pixel's own electrons, reading and rounding. [e-²]
    mask : NDArray[np.uint16], shape (ny, nx)
        BAD and SATURATED.
    overscan_levels : tuple of float
        Of each amplifier. [ADU]
    """

    pixels: F32
    variance: F32
    mask: MaskArray
    overscan_levels: tuple[float, ...]


def remove_signature(
    planes: Sequence[NDArray[Any]],
    layout: Layout,
    *,
    masters: Masters | None = None,
    exposure_s: float = 0.0,
) -> Reduced:
    """Return a detector's image without what the detector wrote into it.

    Parameters
    ----------
    planes : sequence of NDArray, shape (n_rows, n_columns) each
        Raw counts, as many planes as the layout's amplifiers name.
    layout : Layout
    masters : Masters, optional
    exposure_s : float
        Needed for the dark. [s]

    Raises
    ------
    AlertError
        If a plane is missing or smaller than the layout says.
    ConfigError
        If a master has another shape than the detector.

    Notes
    -----
    The variance follows the pixel's own counts, as is usual for reduced images. What is to weigh
    pixels by it makes a model of the sky first (`broker.detection.differencing.difference`),
    since positive noise would raise its own variance.
    """
    chosen = masters or Masters()
    _check(planes, layout, chosen)
    pixels = np.empty(layout.shape, np.float32)
    variance = np.empty(layout.shape, np.float32)
    mask = np.empty(layout.shape, np.uint16)  # the amplifiers cover it
    none = np.zeros((1, 1), np.float32)
    bias, dark, flat = (none if m is None else m for m in (chosen.bias, chosen.dark, chosen.flat))
    no_defects = np.zeros((1, 1), np.bool_)
    defects = no_defects if chosen.defects is None else chosen.defects
    levels = []
    for amplifier in layout.amplifiers:
        raw, left, level = _levelled(planes[amplifier.plane], amplifier, layout.by_row)
        levels.append(float(np.mean(level)))
        _correct(
            raw,
            left,
            level,
            bias,
            dark,
            flat,
            defects,
            np.array(amplifier.linearity[::-1], np.float32),
            np.float32(amplifier.gain),
            np.float32(exposure_s),
            np.float32(amplifier.read_noise**2 + _ROUNDING * amplifier.gain**2),
            np.float32(min(amplifier.saturation, 3e38)),
            amplifier.target.y,
            amplifier.target.x,
            amplifier.target.x_end - amplifier.target.x,
            pixels,
            variance,
            mask,
        )
    return Reduced(pixels, variance, mask, tuple(levels))


def _check(planes: Sequence[NDArray[Any]], layout: Layout, masters: Masters) -> None:
    for amplifier in layout.amplifiers:
        if amplifier.plane >= len(planes):
            raise AlertError(f"the file has {len(planes)} images, the layout more")
        shape = planes[amplifier.plane].shape
        for box in (amplifier.data, amplifier.overscan):
            if box is not None and (box.y_end > shape[0] or box.x_end > shape[1]):
                raise AlertError(f"the raw image is {shape}, smaller than the layout's {box}")
    for name in ("bias", "dark", "flat", "defects"):
        master = getattr(masters, name)
        if master is not None and master.shape != layout.shape:
            raise ConfigError(f"the master {name} is {master.shape}, the detector {layout.shape}")


def _levelled(
    plane: NDArray[Any], amplifier: Amplifier, by_row: bool
) -> tuple[NDArray[Any], int, F32]:
    """Return an amplifier's raw rows, as they lie on the detector, its first column, and levels.

    Rows that lie in the plane as they are wanted are not copied.
    """
    raw = amplifier.data.of(plane)
    rows = raw.shape[0]
    if amplifier.overscan is None:
        level = np.full(rows, amplifier.bias_level, np.float32)
    else:
        dark = amplifier.overscan.of(plane).astype(np.float32)
        level = overscan_levels(dark, by_row=by_row)
        if level.size != rows:
            level = np.full(rows, np.mean(level), np.float32)
    if amplifier.flip_y:
        raw, level = raw[::-1], np.ascontiguousarray(level[::-1])
    if amplifier.flip_x:
        raw = raw[:, ::-1]
    if raw.dtype.kind == "f":
        # 0 is what a dead pixel reads; beside a bias nothing else does.
        raw = np.where(np.isfinite(raw), raw, 0.0).astype(np.float32)
    elif raw.dtype != np.uint16:
        raw = raw.astype(np.float32)
    elif plane.flags.c_contiguous and not (amplifier.flip_x or amplifier.flip_y):
        return plane[amplifier.data.y : amplifier.data.y_end], amplifier.data.x, level
    return np.ascontiguousarray(raw), 0, level


def overscan_levels(overscan: F32, *, by_row: bool) -> F32:
    """Return the level of each row of an overscan: its mean without outliers. [ADU]

    Parameters
    ----------
    overscan : NDArray[np.float32], shape (n_rows, n_columns)
    by_row : bool
        If not, all rows get one level.
    """
    flat = np.ascontiguousarray(overscan, np.float32).reshape(-1)
    middle = float(select(flat.copy(), flat.size, flat.size // 2))
    spread = float(1.4826 * select(np.abs(flat - np.float32(middle)), flat.size, flat.size // 2))
    # Whole counts: a quiet detector may have no spread at all.
    good = np.abs(overscan - np.float32(middle)) <= _OVERSCAN_CLIP * max(spread, 1.0) + 1.0
    if not by_row:
        return np.full(overscan.shape[0], np.mean(overscan[good], dtype=np.float64), np.float32)
    count = good.sum(axis=1)
    total = np.sum(overscan, axis=1, where=good, dtype=np.float64)
    return np.where(count > 0, total / np.maximum(count, 1), middle).astype(np.float32)


@compiled
def _correct(
    raw: Any,
    left: int,
    level: F32,
    bias: F32,
    dark: F32,
    flat: F32,
    defects: Bools,
    linearity: F32,
    gain: float,
    exposure_s: float,
    read_variance: float,
    saturation: float,
    y0: int,
    x0: int,
    n: int,
    pixels: F32,
    variance: F32,
    mask: Any,
) -> None:
    # Row by row: counts above the bias, made linear, then all the rest in one loop.
    one, zero = np.float32(1.0), np.float32(0.0)
    charge, none, even = np.empty(n, np.float32), np.zeros(n, np.float32), np.ones(n, np.float32)
    for j in range(raw.shape[0]):
        y, end = y0 + j, x0 + n
        counts, height = raw[j, left : left + n], level[j]
        out, noise, bits = pixels[y, x0:end], variance[y, x0:end], mask[y, x0:end]
        offset = bias[y, x0:end] if bias.size > 1 else none
        current = dark[y, x0:end] if dark.size > 1 else none
        response = flat[y, x0:end] if flat.size > 1 else even
        for i in range(n):
            charge[i] = np.float32(counts[i]) - height - offset[i]
        if linearity.size > 0:
            for i in range(n):
                factor = zero
                for k in range(linearity.size):
                    factor = (factor + linearity[k]) * charge[i]
                charge[i] += factor * charge[i]
        for i in range(n):
            electrons = charge[i] * gain
            inverse = one / max(response[i], np.float32(0.01))
            noise[i] = (max(electrons, zero) + read_variance) * (inverse * inverse)
            is_full = np.float32(counts[i]) - height >= saturation
            is_bad = (counts[i] == 0) | (response[i] < np.float32(LEAST_FLAT))
            bits[i] = (np.uint16(2) if is_full else np.uint16(0)) | np.uint16(is_bad)
            out[i] = zero if is_bad else (electrons - current[i] * exposure_s) * inverse
        if defects.size > 1:
            wrong = defects[y, x0:end]
            for i in range(n):
                bits[i] |= np.uint16(wrong[i])
                out[i] = zero if wrong[i] else out[i]
