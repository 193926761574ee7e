"""Shape and artefact measures of the difference and science cutouts, in pixels."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from broker.science import Column, Cutouts, science_module

WEIGHT_SIGMA = 3.0
"""Width of the Gaussian weight, about that of a broad PSF. [pixel]"""

HALF_WINDOW = 12
"""Four times the weight's width. [pixel]"""

MIN_SNR = 3.0
"""Below this a shape says nothing."""

MAX_MISSING = 0.2
"""With more of the weighted window missing nothing is measured there."""

_CORE_RADIUS = 6.0
_LOBE_SIGMAS = 3.0
_FWHM_PER_SIGMA = 2.0 * np.sqrt(2.0 * np.log(2.0))
_SIGMA_PER_MAD = 1.4826
_SAMPLE_STEP = 3
_CLEAR_OF_MIDDLE = 0.3
"""Radius, in widths of the cutout, that the level and the noise are taken outside of."""

Array = NDArray[np.floating[Any]]

_MEASURES = (
    ("Snr", "", "Signal to noise of the middle, with a Gaussian weight of 3 pixels."),
    ("Fwhm", "pixel", "Full width at half maximum, geometric mean of both axes."),
    ("Elongation", "", "Ratio of the major to the minor axis."),
    ("Offset", "pixel", "Distance of the centroid from the cutout's middle."),
    ("Sharpness", "", "Brightest pixel over the flux within 6 pixels: 1 for a cosmic ray."),
    ("Dipole", "", "Flux of the weaker sign over that of the stronger, beyond 3 sigma: 0 to 1."),
    ("NegativeFraction", "", "Part of the pixels within 6 pixels that are below -1 sigma."),
    ("NanFraction", "", "Part of the cutout without a value."),
)

OUTPUTS = tuple(
    Column(f"{image}{name}", "float32", unit, f"On the {image} cutout: {doc}")
    for image in ("difference", "science")
    for name, unit, doc in _MEASURES
)


@science_module(version="1.0.0", outputs=OUTPUTS)
def cutout_shape(cutout_difference: Cutouts, cutout_science: Cutouts) -> pd.DataFrame:
    """Measure each cutout with weighted moments, and look for what artefacts leave.

    Parameters
    ----------
    cutout_difference, cutout_science : Cutouts
        Images of any size, the source in the middle.

    Returns
    -------
    pd.DataFrame, n_alerts rows
        NaN (null) where there is no cutout, where a fifth of the middle is missing, and, for
        shapes, where the signal to noise is below 3. The sign of the source is taken out first,
        so that a fading source is measured like a rising one.

    Notes
    -----
    Second moments with a Gaussian weight, freed of the weight as it is exact for a Gaussian
    source: C^-1 = M^-1 - W^-1 (Bernstein & Jarvis 2002, AJ 123 583, section 3; Hirata & Seljak
    2003, MNRAS 343 459). The width includes that of the pixel.
    """
    values = [
        cutouts.measure(measure_stamps, len(_MEASURES))
        for cutouts in (cutout_difference, cutout_science)
    ]
    table = np.hstack(values).astype(np.float32)
    return pd.DataFrame(table, columns=[column.name for column in OUTPUTS])


def measure_stamps(pixels: NDArray[np.float32]) -> Array:
    """Return the measures of images of one size.

    Parameters
    ----------
    pixels : NDArray[np.float32], shape (n, ny, nx)
        NaN where there is no value.

    Returns
    -------
    NDArray[np.float64], shape (n, 8)
    """
    missing = ~np.isfinite(pixels)
    level, noise = level_and_noise(pixels)
    window, x, y = _middle(pixels)
    absent = ~np.isfinite(window)
    window = np.where(absent, 0.0, window - level[:, None])
    weight = np.exp(-0.5 * (x**2 + y**2) / WEIGHT_SIGMA**2)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        signal = (window * weight).sum(axis=1)
        snr = signal / (noise * np.sqrt((weight**2).sum()))
        positive = window * np.where(signal < 0.0, -1.0, 1.0)[:, None]
        shape = _shape(positive * weight, x, y)
        shape[np.abs(snr) < MIN_SNR] = np.nan
        core = np.hypot(x, y) <= _CORE_RADIUS
        measures = np.column_stack(
            [snr, shape, *_artefacts(positive[:, core], noise), missing.mean(axis=(1, 2))]
        )
    is_poor = (absent * weight).sum(axis=1) > MAX_MISSING * weight.sum()
    measures[is_poor | ~(noise > 0.0), :-1] = np.nan
    return measures


def level_and_noise(pixels: NDArray[np.float32]) -> tuple[Array, Array]:
    """Return each image's median and its noise from the median absolute deviation.

    Of every third pixel of every third row, a ninth of the time, and of those outside the
    middle: a bright source in a small cutout would lift the median. NaN where all are missing.
    """
    ny, nx = pixels.shape[1:]
    y, x = np.mgrid[:ny:_SAMPLE_STEP, :nx:_SAMPLE_STEP]
    outside = np.hypot(y - (ny - 1) / 2.0, x - (nx - 1) / 2.0) > _CLEAR_OF_MIDDLE * min(ny, nx)
    sample = pixels[:, ::_SAMPLE_STEP, ::_SAMPLE_STEP][:, outside].astype(np.float64)
    sample[~np.isfinite(sample)] = np.nan
    level = _median(sample)
    return level, _SIGMA_PER_MAD * _median(np.abs(sample - level[:, None]))


def _median(rows: Array) -> Array:
    """Return the median of each row, NaN left out: sorting puts NaN last."""
    in_order = np.sort(rows, axis=1)
    count = np.isfinite(in_order).sum(axis=1)
    row = np.arange(len(rows))
    low = in_order[row, np.maximum(count - 1, 0) // 2]
    return np.asarray(0.5 * (low + in_order[row, np.minimum(count // 2, rows.shape[1] - 1)]))


def _middle(pixels: NDArray[np.float32]) -> tuple[Array, Array, Array]:
    """Return the pixels around the middle, shape (n, k), and their x and y from it."""
    ny, nx = pixels.shape[1:]
    rows, columns = (
        slice(max(0, size // 2 - HALF_WINDOW), size // 2 + HALF_WINDOW + 1) for size in (ny, nx)
    )
    y, x = np.meshgrid(
        np.arange(ny)[rows] - (ny - 1) / 2.0, np.arange(nx)[columns] - (nx - 1) / 2.0, indexing="ij"
    )
    window = pixels[:, rows, columns].reshape(len(pixels), -1).astype(np.float64)
    return window, x.ravel(), y.ravel()


def _shape(weighted: Array, x: Array, y: Array) -> Array:
    """Return fwhm, elongation and offset from weighted pixels, shape (n, 3)."""
    total = weighted.sum(axis=1)
    mean_x, mean_y = ((weighted * c).sum(axis=1) / total for c in (x, y))
    m_xx = (weighted * (x * x)).sum(axis=1) / total - mean_x**2
    m_yy = (weighted * (y * y)).sum(axis=1) / total - mean_y**2
    m_xy = (weighted * (x * y)).sum(axis=1) / total - mean_x * mean_y
    det_m = m_xx * m_yy - m_xy**2
    # Inverse of the source's own covariance: the weight's part is taken off.
    i_xx = m_yy / det_m - WEIGHT_SIGMA**-2
    i_yy = m_xx / det_m - WEIGHT_SIGMA**-2
    i_xy = -m_xy / det_m
    det_i = i_xx * i_yy - i_xy**2
    usable = (total > 0.0) & (det_m > 0.0) & (det_i > 0.0) & (i_xx > 0.0)
    # A source off the middle is drawn back by the weight: d = C M^-1 mean.
    u = (m_yy * mean_x - m_xy * mean_y) / det_m
    v = (m_xx * mean_y - m_xy * mean_x) / det_m
    offset = np.hypot(i_yy * u - i_xy * v, i_xx * v - i_xy * u) / det_i
    half_trace, spread = 0.5 * (i_xx + i_yy), np.hypot(0.5 * (i_xx - i_yy), i_xy)
    elongation = np.sqrt((half_trace + spread) / (half_trace - spread))
    fwhm = _FWHM_PER_SIGMA * det_i**-0.25
    return np.where(usable[:, None], np.column_stack([fwhm, elongation, offset]), np.nan)


def _artefacts(core: Array, noise: Array) -> tuple[Array, Array, Array]:
    """Return sharpness, dipole strength and negative fraction of the pixels of the core."""
    flux = core.sum(axis=1)
    sharpness = np.where(flux > 0.0, core.max(axis=1) / flux, np.nan)
    limit = _LOBE_SIGMAS * noise[:, None]
    above = np.where(core > limit, core, 0.0).sum(axis=1)
    below = np.where(core < -limit, -core, 0.0).sum(axis=1)
    strongest = np.maximum(above, below)
    dipole = np.where(strongest > 0.0, np.minimum(above, below) / strongest, 0.0)
    return sharpness, dipole, (core < -noise[:, None]).mean(axis=1)
