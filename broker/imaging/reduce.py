"""A raw exposure becomes an image: signature out, snaps together; and the masters for that."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from broker.errors import AlertError, BrokerError
from broker.imaging import calibration as sequences
from broker.imaging.image import Image, RawExposure
from broker.imaging.isr import Layout, Masters, Reduced, remove_signature
from broker.imaging.kernels import F32, Bools
from broker.imaging.mask import EDGE_PX, MaskArray, MaskPlane, is_set, set_edge, set_plane
from broker.imaging.snaps import split_snaps

_BLEED_END_PX = 2
"""A full pixel's charge may have reached this many further along the column."""


class NoCalibrationError(BrokerError):
    """The master calibrations that an exposure names are not there, yet."""


def reduce_exposure(exposure: RawExposure, masters: Masters | None = None) -> Image:
    """Return the image of a raw exposure with amplifiers, in electrons.

    Overscan, bias, non-linearity, gain, dark and flat are taken out of each snap; two snaps are
    added, cosmic rays that only one of them saw taken out (`INTERPOLATED`). The variance is a first
    one, the same everywhere: the median sky's Poisson noise and reading.

    Parameters
    ----------
    exposure : RawExposure
        With a layout.
    masters : Masters, optional

    Raises
    ------
    AlertError
        If the planes are smaller than the layout says, or there is no layout.
    """
    layout, said = exposure.layout, exposure.calibration
    if layout is None:
        raise AlertError("the exposure has no amplifiers")
    n = len(exposure.snaps)
    parts = [
        remove_signature([plane], layout, masters=masters, exposure_s=said.exposure_s / n)
        for plane in exposure.snaps
    ]
    gain, read_noise, full = means(layout)
    pixels, mask = _joined(parts, read_noise)
    variance = parts[0].variance  # each pixel's own, which is not what is wanted: only its memory
    set_edge(mask, EDGE_PX)
    total_noise = read_noise * float(np.sqrt(n))
    sky = max(float(np.median(pixels[::4, ::4])), 0.0)
    variance.fill(sky + total_noise**2)
    return Image(
        pixels=pixels,
        variance=variance,
        mask=mask,
        wcs=exposure.wcs,
        psf=exposure.psf,
        calibration=replace(
            said,
            gain=1.0,
            read_noise=total_noise,
            saturation=full * n,
            zero_point=said.zero_point + 2.5 * float(np.log10(gain)),
        ),
        meta={"calibrationSet": exposure.calibration_set, "snaps": n},
    )


def means(layout: Layout) -> tuple[float, float, float]:
    """Return mean gain [e-/ADU], rms read noise and least saturation, in electrons."""
    amplifiers = layout.amplifiers
    return (
        float(np.mean([a.gain for a in amplifiers])),
        float(np.sqrt(np.mean([a.read_noise**2 for a in amplifiers]))),
        float(min(a.saturation * a.gain for a in amplifiers)),
    )


def _joined(parts: Sequence[Reduced], read_noise: float) -> tuple[F32, MaskArray]:
    """Return the sum of the snaps and its mask."""
    mask = parts[0].mask
    for part in parts[1:]:
        mask |= part.mask
    full = is_set(mask, MaskPlane.SATURATED)
    if full.any():
        set_plane(mask, MaskPlane.SATURATED, _along_columns(full, _BLEED_END_PX))
    if len(parts) == 1:
        return parts[0].pixels, mask
    planes = MaskPlane.BAD | MaskPlane.SATURATED
    split = split_snaps(
        parts[0].pixels,
        parts[1].pixels,
        gain=1.0,
        read_noise=read_noise,
        unusable=is_set(mask, planes),
    )
    set_plane(mask, MaskPlane.INTERPOLATED, split.struck)
    return split.pixels, mask


def _along_columns(full: Bools, reach: int) -> Bools:
    grown = full.copy()
    for step in range(1, reach + 1):
        grown[step:] |= full[:-step]
        grown[:-step] |= full[step:]
    return grown


def make_masters(
    layout: Layout,
    *,
    biases: Sequence[NDArray[Any]],
    darks: Sequence[NDArray[Any]] = (),
    dark_s: float = 0.0,
    flats: Sequence[NDArray[Any]] = (),
    flat_s: float = 0.0,
) -> Masters:
    """Return a detector's master calibrations from sequences of raw planes.

    Parameters
    ----------
    layout : Layout
    biases, darks, flats : sequence of NDArray, shape (n_rows, n_columns) each
        Raw planes; without darks or flats there is no such master.
    dark_s, flat_s : float
        Exposure times. [s]

    Raises
    ------
    AlertError
        If a sequence cannot be used.
    """
    bare = layout.for_bias()
    bias = sequences.master_bias([remove_signature([b], bare).pixels for b in biases])
    masters = Masters(bias=bias)
    if darks:
        frames = [remove_signature([d], layout, masters=masters).pixels for d in darks]
        dark, hot = sequences.master_dark(frames, [dark_s] * len(frames))
        masters = replace(masters, dark=dark, defects=hot)
    if flats:
        frames = [
            remove_signature([f], layout, masters=masters, exposure_s=flat_s).pixels for f in flats
        ]
        flat, weak = sequences.master_flat(frames)
        defects = weak if masters.defects is None else masters.defects | weak
        masters = replace(masters, flat=flat, defects=defects)
    return masters
