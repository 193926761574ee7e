"""What a detector of the camera writes into every exposure: the same at every visit."""

import functools
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from broker.imaging.isr import Amplifier, Box, Layout
from broker.simulation.detector import amplifier_boxes, detector_of
from broker.simulation.optics import uneven
from broker.simulation.settings import Settings
from broker.simulation.streams import generator

_KNEE = 50_000.0
"""Counts at which `Camera.nonlinearity` is stated. [ADU]"""

_FULL_SHARE = 0.95
"""A pixel with more of the full well than this is stated as saturated."""

_MOST_COUNTS = 64_000.0
"""Counts above the bias that the converter still reaches, for any level. [ADU]"""

_HOT_RANGE = (1e2, 1e4)
"""Dark current of hot pixels over that of others, least and most."""


@dataclass(frozen=True)
class Signature:
    """One detector's.

    Parameters
    ----------
    layout : Layout
        Amplifiers, their gains, noises, saturations and non-linearities, as they really are.
    bias : NDArray[np.float32], shape (ny, nx)
        Beside the level. [ADU]
    dark : NDArray[np.float32], shape (ny, nx)
        [e-/s]
    flat : NDArray[np.float32], shape (ny, nx)
        Sensitivity, about 1.
    broken : NDArray[np.bool_], shape (ny, nx)
        Dead and hot pixels.
    full_well : float
        [e-]
    """

    layout: Layout
    bias: NDArray[np.float32]
    dark: NDArray[np.float32]
    flat: NDArray[np.float32]
    broken: NDArray[np.bool_]
    full_well: float

    @property
    def raw_shape(self) -> tuple[int, int]:
        """Rows and columns of the raw plane."""
        boxes = [box for a in self.layout.amplifiers for box in (a.data, a.overscan) if box]
        return max(b.y_end for b in boxes), max(b.x_end for b in boxes)


@functools.lru_cache(maxsize=8)
def signature_of(seed: int, settings: Settings, number: int) -> Signature:
    """Return the signature of a detector, made once a process."""
    camera, side = settings.camera, settings.detector_px
    rng = generator(seed, "signature", number)
    amplifiers = _amplifiers(rng, seed, settings, number)
    bias = _bias(rng, side, camera.bias_structure)
    dark = (camera.dark_e_s * rng.gamma(20.0, 1.0 / 20.0, (side, side))).astype(np.float32)
    n = int(rng.poisson(camera.hot_pixels_per_mpix * side * side / 1e6))
    hot = rng.integers(0, side * side, n)
    low, high = (camera.dark_e_s * limit for limit in _HOT_RANGE)
    if n and low > 0.0:
        dark.reshape(-1)[hot] = np.exp(rng.uniform(np.log(low), np.log(high), n))
    flat = uneven(rng, side, vignetting=camera.vignetting, dust=camera.dust)
    flat *= rng.normal(1.0, camera.pixel_response, (side, side)).astype(np.float32)
    flat /= np.median(flat)
    broken = dark >= 0.5 * low if low > 0.0 else np.zeros((side, side), bool)
    broken.reshape(-1)[detector_of(seed, settings, number).dead] = True
    full_well = camera.full_well_e or float("inf")
    return Signature(Layout((side, side), amplifiers), bias, dark, flat, broken, full_well)


def calibration_name(seed: int, settings: Settings) -> str:
    """Return the name of the set of master calibrations that is for a survey's camera."""
    made_from = (seed, settings.camera, settings.detector_px, settings.cosmic_rays_per_mpix)
    return f"camera-{zlib.crc32(repr(made_from).encode()):08x}"


def _amplifiers(
    rng: np.random.Generator, seed: int, settings: Settings, number: int
) -> tuple[Amplifier, ...]:
    camera, ccd = settings.camera, detector_of(seed, settings, number)
    rows, columns = camera.amplifiers
    c2 = camera.nonlinearity / (1.0 - camera.nonlinearity) ** 2 / _KNEE
    made = []
    for k, target in enumerate(amplifier_boxes(settings)):
        row, column = divmod(k, columns)
        x = column * (target.shape[1] + camera.overscan_px)
        data = Box(target.y, target.y_end, x, x + target.shape[1])
        gain = ccd.gain * float(rng.normal(1.0, camera.gain_scatter))
        noise = ccd.read_noise * float(rng.normal(1.0, camera.read_noise_scatter))
        full = _FULL_SHARE * camera.full_well_e / gain or ccd.saturation
        made.append(
            Amplifier(
                data,
                target,
                overscan=Box(data.y, data.y_end, data.x_end, data.x_end + camera.overscan_px),
                # Each half is read towards its own corner.
                flip_x=column % 2 == 1,
                flip_y=row == rows - 1 and rows > 1,
                gain=gain,
                read_noise=noise,
                saturation=min(float(bent(np.asarray(full), c2)), _MOST_COUNTS),
                linearity=(c2,) if c2 else (),
                bias_level=ccd.bias_level,
                name=f"C{row}{column}",
            )
        )
    return tuple(made)


def bent(counts: NDArray[np.float64], c2: float) -> NDArray[np.float64]:
    """Return what is read of counts that a linear detector would give: its inverse is exact.

    m + c2 m² of what is read is linear again.
    """
    return counts if c2 == 0.0 else (np.sqrt(1.0 + 4.0 * c2 * counts) - 1.0) / (2.0 * c2)


def _bias(rng: np.random.Generator, side: int, rms: float) -> NDArray[np.float32]:
    """Return columns of their own levels, and a slope that grows towards the far rows."""
    columns = rng.normal(0.0, rms * np.sqrt(0.5), side)
    slope = rms * np.sqrt(6.0) * (np.arange(side) / side - 0.5)
    return (columns + slope[:, None]).astype(np.float32)
