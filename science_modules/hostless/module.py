"""Is there anything on the template under the source? From the cutout, without a catalogue."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from broker.science import Column, Cutouts, science_module

SEARCH_RADIUS = 10.0
"""Farther from the middle nothing is looked for. [pixel]"""

MIN_SNR = 4.5
"""Peaks of less are noise: of some 60 independent places one in 5000 cutouts has a higher one."""

MAX_MISSING = 0.2
"""With more of the search area missing nothing is said."""

_SIGMA_PER_MAD = 1.4826
_STEP = 3
_KERNEL = 3
_OUTSIDE = 0.3

Array = NDArray[np.floating[Any]]

_NAMES = ("templatePeakSnr", "templatePeakOffset")


@science_module(
    version="1.0.0",
    outputs=(
        Column(
            "templatePeakSnr", "float32", "", "Brightest place near the middle of the template."
        ),
        Column("templatePeakOffset", "float32", "pixel", "Its distance from the middle."),
        Column("isHostless", "bool", "", "Whether nothing stands out there at 4.5 sigma."),
    ),
)
def hostless(cutout_template: Cutouts) -> pd.DataFrame:
    """Search the middle of each template for anything that stands out of the noise.

    Parameters
    ----------
    cutout_template : Cutouts
        Images of any size, the place of the source in the middle.

    Returns
    -------
    pd.DataFrame, n_alerts rows
        Null where there is no cutout, where a fifth of the search area is missing, or where the
        image has no noise to compare with.

    Notes
    -----
    The brightest mean of 3 x 3 pixels within 10 pixels, over the noise of such means from the
    outer pixels' median absolute deviation. A host larger than the cutout lifts the level it is
    compared with, and is missed.
    """
    values = cutout_template.measure(measure_templates, len(_NAMES))
    known = ~np.isnan(values[:, 0])
    is_hostless = np.full(len(values), None, dtype=object)
    is_hostless[known] = values[known, 0] < MIN_SNR
    return pd.DataFrame(
        {
            "templatePeakSnr": values[:, 0].astype(np.float32),
            "templatePeakOffset": values[:, 1].astype(np.float32),
            "isHostless": pd.array(is_hostless, dtype="boolean"),
        }
    )


def measure_templates(pixels: NDArray[np.float32]) -> Array:
    """Return peak signal to noise and its offset, shape (n, 2), of images of one size."""
    ny, nx = pixels.shape[1:]
    half = min(int(SEARCH_RADIUS), (min(ny, nx) - 1) // 2 - 1)
    if half < _KERNEL:
        return np.full((len(pixels), 2), np.nan)
    level, noise = _level_and_noise(pixels)
    edge = half + _KERNEL // 2
    rows, columns = (slice(size // 2 - edge, size // 2 + edge + 1) for size in (ny, nx))
    window = pixels[:, rows, columns] - level[:, None, None].astype(np.float32)
    absent = ~np.isfinite(window)
    window[absent] = 0.0
    smooth = _box(window)
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    offset = np.hypot(y, x)
    inside = offset <= SEARCH_RADIUS
    flat = np.where(inside, smooth, -np.inf).reshape(len(pixels), -1)
    peak = flat.argmax(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        snr = flat[np.arange(len(pixels)), peak] * _KERNEL / noise
    missing = absent.mean(axis=(1, 2))
    result = np.column_stack([snr, offset.ravel()[peak]])
    result[(missing > MAX_MISSING) | ~(noise > 0.0)] = np.nan
    return result


def _box(window: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return means of 3 x 3 pixels; the outermost rows and columns fall away."""
    rows = window[:, :-2] + window[:, 1:-1] + window[:, 2:]
    total = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    return np.asarray(total * np.float32(1.0 / _KERNEL**2))


def _level_and_noise(pixels: NDArray[np.float32]) -> tuple[Array, Array]:
    """Return median and noise of every third pixel outside the middle, shape (n,) each."""
    ny, nx = pixels.shape[1:]
    y, x = np.mgrid[:ny:_STEP, :nx:_STEP]
    outside = np.hypot(y - (ny - 1) / 2.0, x - (nx - 1) / 2.0) > _OUTSIDE * min(ny, nx)
    sample = pixels[:, ::_STEP, ::_STEP][:, outside]
    level = _median(sample)
    return level, _SIGMA_PER_MAD * _median(np.abs(sample - level[:, None].astype(np.float32)))


def _median(rows: NDArray[np.float32]) -> Array:
    """Return the median of each row, what is not finite left out: sorting puts NaN last."""
    in_order = np.sort(np.where(np.isfinite(rows), rows, np.nan), axis=1)
    count = np.isfinite(in_order).sum(axis=1)
    row = np.arange(len(rows))
    low = in_order[row, np.maximum(count - 1, 0) // 2]
    high = in_order[row, np.minimum(count // 2, rows.shape[1] - 1)]
    return np.asarray(0.5 * (low.astype(np.float64) + high))
