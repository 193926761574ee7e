"""Master calibrations from files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from broker.errors import AlertError
from broker.imaging import calibration, fits_header
from broker.imaging.fits import Defaults, read_frames
from broker.imaging.isr import Masters, remove_signature
from broker.imaging.kernels import F32
from broker.imaging.mask import UNUSABLE

LEAST_FRAMES = 3


@dataclass(frozen=True)
class CalibrationFrame:
    """One exposure of a sequence, as far as its kind is reduced.

    Parameters
    ----------
    pixels : NDArray[np.float32], shape (ny, nx)
        Of a bias in ADU, else in electrons.
    exposure_s : float
        0 if unknown. [s]
    level : float
        Median of the pixels.
    """

    pixels: F32
    exposure_s: float
    level: float


def calibration_frame(
    path: Path, kind: str, masters: Masters, defaults: Defaults
) -> CalibrationFrame:
    """Return an exposure of a sequence of biases, darks or flats.

    Raises
    ------
    AlertError
        If the file cannot be used, or a dark has no exposure time.
    """
    frames = read_frames(path, on_sky=False)
    layout = calibration.layout_of(frames, defaults)
    exposure = fits_header.positive(frames[0].header, fits_header.EXPOSURE)
    if exposure is None and np.isfinite(defaults.exposure_s):
        exposure = defaults.exposure_s
    if exposure is None and kind == "dark":
        raise AlertError(f"{path}: a dark needs its exposure time, EXPTIME")
    got = remove_signature(
        [f.pixels for f in frames],
        layout.for_bias() if kind == "bias" else layout,
        masters=Masters(bias=masters.bias, dark=masters.dark if kind == "flat" else None)
        if kind != "bias"
        else None,
        exposure_s=exposure or 0.0,
    )
    if (got.mask & UNUSABLE).all():
        raise AlertError(f"{path}: it has no pixel that can be used")
    return CalibrationFrame(got.pixels, exposure or 0.0, float(np.median(got.pixels[::4, ::4])))


def require_shape(frame: CalibrationFrame, first: Sequence[CalibrationFrame]) -> None:
    """Raise unless an exposure is as large as the first, if there is one.

    Raises
    ------
    AlertError
    """
    if first and frame.pixels.shape != first[0].pixels.shape:
        said, wanted = frame.pixels.shape, first[0].pixels.shape
        raise AlertError(f"it is {said[1]} × {said[0]} pixels, the first {wanted[1]} × {wanted[0]}")


def write(
    path: Path,
    kind: str,
    frames: Sequence[CalibrationFrame],
    *,
    record: Mapping[str, Any] | None = None,
) -> None:
    """Combine exposures into a master and write it, with the record of how it is made.

    Raises
    ------
    AlertError
        If there are fewer than three: an outlier could not be told.
    """
    if len(frames) < LEAST_FRAMES:
        raise AlertError(
            f"a master {kind} needs {LEAST_FRAMES} exposures; {len(frames)} can be used"
        )
    planes = [f.pixels for f in frames]
    defects = None
    if kind == "bias":
        pixels = calibration.master_bias(planes)
    elif kind == "dark":
        pixels, defects = calibration.master_dark(planes, [f.exposure_s for f in frames])
    else:
        pixels, defects = calibration.master_flat(planes)
    calibration.write_master(path, kind, pixels, frames=len(frames), defects=defects, record=record)
