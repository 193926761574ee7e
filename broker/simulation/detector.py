"""A detector: how it counts electrons, where it is dead, what strikes it."""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from broker.imaging.isr import Box
from broker.simulation.settings import Settings
from broker.simulation.streams import generator

_DEAD_PIXELS_PER_MPIX = 30.0
_DEAD_COLUMNS_PER_MPIX = 2.0
_TRACK_STEP_PX = 0.5


@dataclass(frozen=True)
class Detector:
    """One CCD.

    Parameters
    ----------
    number : int
    gain : float
        Electrons of one count. [e-]
    read_noise : float
        [e-]
    bias_level : float
        Counts without light. [ADU]
    saturation : float
        Counts above the bias at which a pixel is full; it fills no further. [ADU]
    dead : NDArray[np.int64], shape (n,)
        Pixels that measure nothing: row × width + column.
    """

    number: int
    gain: float
    read_noise: float
    bias_level: float
    saturation: float
    dead: NDArray[np.int64]


def make_detector(seed: int, settings: Settings, number: int) -> Detector:
    """Return a detector of the camera: the same at every visit."""
    rng = generator(seed, "detector", number)
    side = settings.detector_px
    mpix = side * side / 1e6
    dead = rng.integers(0, side * side, rng.poisson(_DEAD_PIXELS_PER_MPIX * mpix))
    n = int(rng.poisson(_DEAD_COLUMNS_PER_MPIX * mpix))
    columns = [
        column + side * np.arange(first, first + length).clip(0, side - 1)
        for column, first, length in zip(
            rng.integers(0, side, n),
            rng.integers(0, side, n),
            rng.integers(side // 16, side // 4, n),
            strict=True,
        )
    ]
    return Detector(
        number=number,
        gain=float(1.6 * rng.normal(1.0, 0.02)),
        read_noise=float(rng.uniform(6.0, 9.0)),
        bias_level=1_000.0,
        saturation=62_000.0,
        dead=np.unique(np.concatenate([dead, *columns])).astype(np.int64),
    )


@functools.lru_cache(maxsize=256)
def detector_of(seed: int, settings: Settings, number: int) -> Detector:
    """Return a detector of the camera, made once a process."""
    return make_detector(seed, settings, number)


def amplifier_boxes(settings: Settings) -> tuple[Box, ...]:
    """Return where the amplifiers are on a detector, row by row."""
    rows, columns = settings.camera.amplifiers
    height, width = settings.detector_px // rows, settings.detector_px // columns
    return tuple(
        Box(j * height, (j + 1) * height, i * width, (i + 1) * width)
        for j in range(rows)
        for i in range(columns)
    )


def cosmic_rays(
    rng: np.random.Generator, n: int, side: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Draw the tracks of charged particles: straight, thin, of an exponential length.

    Parameters
    ----------
    rng : Generator
    n : int
        Number of particles.
    side : int
        Of the detector. [px]

    Returns
    -------
    pixels : NDArray[np.int64], shape (m,)
        Row × width + column; a pixel may be there more than once.
    charge : NDArray[np.float64], shape (m,)
        [e-]
    """
    pixels: list[Any] = []
    charges: list[Any] = []
    for _ in range(n):
        length = rng.exponential(8.0) + 1.0
        along = np.arange(0.0, length, _TRACK_STEP_PX)
        angle = rng.uniform(0.0, 2.0 * np.pi)
        x = np.rint(rng.uniform(0.0, side) + along * np.cos(angle)).astype(np.int64)
        y = np.rint(rng.uniform(0.0, side) + along * np.sin(angle)).astype(np.int64)
        inside = (x >= 0) & (x < side) & (y >= 0) & (y < side)
        # Electrons per pixel of silicon 100 µm thick: Landau's distribution, by its bulk.
        charge = rng.lognormal(np.log(2_000.0), 0.5) * _TRACK_STEP_PX
        pixels.append((y * side + x)[inside])
        charges.append(np.full(int(inside.sum()), charge))
    if not pixels:
        return np.empty(0, dtype=np.int64), np.empty(0)
    return np.concatenate(pixels), np.concatenate(charges)
