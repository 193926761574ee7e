"""Peaks of a matched filter, of both signs, in one pass over the image.

The image is smoothed and searched for 3 x 3 peaks row by row in a ring of three rows, so it goes
through the processor's cache once. The filter runs as if the noise were the least of the image;
the few peaks that pass are then judged exactly, with variance and mask pixel by pixel. So the
answer is that of a full signal-to-noise map, at the price of one convolution.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from broker.imaging.kernels import F32, F64, Bools, compiled, filter_radius, gaussian_taps

THRESHOLD = 5.0
"""Least S/N of a detection: one false peak in some 7 megapixels of pure noise (sigma 2 px)."""

_MIN_USABLE = 0.4
"""Least share of the filter's power that must fall on usable pixels."""


@dataclass(frozen=True)
class Peaks:
    """Detected peaks, in order of rows.

    Parameters
    ----------
    x, y : NDArray[np.int32], shape (n_peaks,)
        Pixels.
    snr : NDArray[np.float32], shape (n_peaks,)
        Signal to noise, with its sign.
    flux : NDArray[np.float32], shape (n_peaks,)
        Flux of a point source centred on the pixel, in the image's unit.
    """

    x: NDArray[np.int32]
    y: NDArray[np.int32]
    snr: F32
    flux: F32

    def __len__(self) -> int:
        return int(self.x.size)


def detect(
    pixels: F32,
    variance: F32,
    *,
    psf_sigma: float,
    unusable: Bools | None = None,
    threshold: float = THRESHOLD,
    negative: bool = True,
    radius: int = 0,
) -> Peaks:
    """Find point sources.

    Parameters
    ----------
    pixels : NDArray[np.float32], shape (ny, nx)
        Background-subtracted; finite everywhere, also where unusable.
    variance : NDArray[np.float32], shape (ny, nx)
        Of each pixel, white at the scale of the PSF.
    psf_sigma : float
        Width of a point source. [pixel]
    unusable : NDArray[np.bool_], shape (ny, nx), optional
        Pixels to leave out.
    threshold : float
        Least absolute S/N.
    negative : bool
        Whether sources of negative flux are looked for as well.
    radius : int
        Half width of the filter; 0 means 2 sigma or more, which has 99 % of the S/N.

    Returns
    -------
    Peaks
        Pixels whose |filtered value| is the largest of their 3 x 3, where the S/N of a point
        source is at least `threshold`.
    """
    if unusable is None:
        clean, least = pixels, float(variance.min())
    else:
        clean, least = _clean(pixels, variance, unusable)
    if not np.isfinite(least):
        return _judged([], threshold)
    least = max(least, 1e-30)
    taps = gaussian_taps(psf_sigma, radius or filter_radius(psf_sigma))
    norm = float(taps[0] ** 2 + 2.0 * sum(t * t for t in taps[1:]))
    level = threshold * np.sqrt(least) * norm
    if unusable is not None:
        # Beside masked pixels both signal and noise are less: the S/N falls with its root.
        level *= np.sqrt(_MIN_USABLE)
    found = find_peaks(np.ascontiguousarray(clean), taps, np.float32(level), negative)
    if unusable is None:
        unusable = np.zeros((1, 1), np.bool_)
    rows = judge_peaks(clean, variance, unusable, np.array(taps, np.float64), *found)
    return _judged([*found, *rows], threshold)


@compiled
def _clean(pixels: F32, variance: F32, unusable: Bools) -> tuple[F32, float]:
    """Return the pixels with 0 where unusable, and the least variance of the others."""
    none = np.float32(3e38)
    out, least = np.empty(pixels.shape, np.float32), none
    for y in range(pixels.shape[0]):
        low = none
        for x in range(pixels.shape[1]):
            out[y, x] = np.float32(0.0) if unusable[y, x] else pixels[y, x]
            low = min(low, none if unusable[y, x] else variance[y, x])
        least = min(least, low)
    return out, np.inf if least >= none else float(least)


def _judged(columns: list[Any], threshold: float) -> Peaks:
    if not columns:
        none = np.zeros(0, np.int32)
        return Peaks(none, none, np.zeros(0, np.float32), np.zeros(0, np.float32))
    x, y, snr, flux, share = columns
    keep = (np.abs(snr) >= threshold) & (share >= _MIN_USABLE)
    return Peaks(x[keep], y[keep], snr[keep], flux[keep])


@compiled
def _smooth_row(image: F32, y: int, taps: tuple[Any, ...], row: F32, out: F32) -> None:
    ny, nx = image.shape
    radius = len(taps) - 1
    if y >= radius and y + radius < ny:
        for x in range(nx):
            total = taps[0] * image[y, x]
            for i in range(1, radius + 1):
                total += taps[i] * (image[y - i, x] + image[y + i, x])
            row[x + radius] = total
    else:
        for x in range(nx):
            row[x + radius] = taps[0] * image[y, x]
        for i in range(1, radius + 1):
            for k in (y - i, y + i):
                if 0 <= k < ny:
                    for x in range(nx):
                        row[x + radius] += taps[i] * image[k, x]
    for x in range(nx):
        total = taps[0] * row[x + radius]
        for i in range(1, radius + 1):
            total += taps[i] * (row[x + radius - i] + row[x + radius + i])
        out[x] = total


_CHUNK = 32


@compiled
def find_peaks(
    image: F32, taps: tuple[Any, ...], level: float, negative: bool
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return x and y of the 3 x 3 peaks of the filtered image above a level, by rows."""
    ny, nx = image.shape
    radius = len(taps) - 1
    row = np.zeros(nx + 2 * radius, np.float32)
    ring = np.zeros((3, nx), np.float32)
    xs, ys = np.empty(256, np.int32), np.empty(256, np.int32)
    n = 0
    for y in range(min(2, ny)):
        _smooth_row(image, y, taps, row, ring[y])
    for y in range(1, ny - 1):
        _smooth_row(image, y + 1, taps, row, ring[(y + 1) % 3])
        above, here, below = ring[(y - 1) % 3], ring[y % 3], ring[(y + 1) % 3]
        for first in range(0, nx, _CHUNK):
            last = min(nx, first + _CHUNK)
            top = np.float32(0.0)
            for x in range(first, last):
                value = abs(here[x]) if negative else here[x]
                top = max(top, value)
            if top < level:
                continue
            for x in range(max(1, first), min(nx - 1, last)):
                value = here[x]
                sign = np.float32(1.0)
                if negative and value < 0.0:
                    sign = np.float32(-1.0)
                value = sign * value
                if value < level or value <= sign * here[x - 1] or value < sign * here[x + 1]:
                    continue
                if (
                    value <= sign * above[x - 1]
                    or value <= sign * above[x]
                    or value <= sign * above[x + 1]
                    or value < sign * below[x - 1]
                    or value < sign * below[x]
                    or value < sign * below[x + 1]
                ):
                    continue
                if n == xs.size:
                    xs, ys = np.append(xs, xs), np.append(ys, ys)
                xs[n], ys[n] = x, y
                n += 1
    return xs[:n].copy(), ys[:n].copy()


@compiled
def judge_peaks(
    image: F32,
    variance: F32,
    unusable: Bools,
    taps: F64,
    xs: NDArray[np.int32],
    ys: NDArray[np.int32],
) -> tuple[F32, F32, F32]:
    """Return S/N, flux and the usable share of the filter's power, exactly, for each peak.

    `unusable` of another shape than the image means that every pixel is usable.
    """
    ny, nx = image.shape
    radius = taps.size - 1
    any_mask = unusable.shape == image.shape
    snr = np.zeros(xs.size, np.float32)
    flux = np.zeros(xs.size, np.float32)
    share = np.zeros(xs.size, np.float32)
    for k in range(xs.size):
        signal, noise, power, full = 0.0, 0.0, 0.0, 0.0
        for j in range(-radius, radius + 1):
            for i in range(-radius, radius + 1):
                weight = taps[abs(j)] * taps[abs(i)]
                full += weight * weight
                y, x = ys[k] + j, xs[k] + i
                if y < 0 or x < 0 or y >= ny or x >= nx or (any_mask and unusable[y, x]):
                    continue
                signal += weight * image[y, x]
                noise += weight * weight * variance[y, x]
                power += weight * weight
        share[k] = power / full
        if noise > 0.0:
            snr[k] = signal / np.sqrt(noise)
            flux[k] = signal / power
    return snr, flux, share
