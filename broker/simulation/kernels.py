"""The compiled loops of the simulation.

No `fastmath`: the same input is to give the same bytes on every machine of a kind.
"""

import functools
import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

_compiled: Any = njit(cache=True, nogil=True)

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31 = np.uint64(30), np.uint64(27), np.uint64(31)
_S16, _S32 = np.uint64(16), np.uint64(32)
_LOW = np.uint64(0xFFFF)

MAX_REACH_PX = 160
"""No object is drawn further out than this. [px]"""


@_compiled
def add_gaussians(
    image: Any, x: Any, y: Any, flux: Any, sigma_x: Any, sigma_y: Any, floor: float
) -> None:
    """Add pixel-integrated Gaussians to an image, in place.

    A Gaussian is drawn out to where a pixel of it falls below `floor`, at least to five sigma;
    this depends on itself alone, so an image cut from a larger one is the same.

    Parameters
    ----------
    image : NDArray[np.float32], shape (ny, nx)
    x, y : NDArray[np.float64], shape (n,)
        Centres, which may be outside. [px]
    flux : NDArray[np.float64], shape (n,)
        Total of each; may be negative.
    sigma_x, sigma_y : NDArray[np.float64], shape (n,)
        [px]
    floor : float
        In units of the image.
    """
    ny, nx = image.shape
    column = np.empty(2 * MAX_REACH_PX + 2, np.float64)
    row = np.empty(2 * MAX_REACH_PX + 2, np.float64)
    for k in range(x.size):
        peak = abs(flux[k]) / (2.0 * math.pi * sigma_x[k] * sigma_y[k])
        sigmas = 5.0
        if peak > floor:
            sigmas = max(sigmas, math.sqrt(2.0 * math.log(peak / floor)))
        x_first, x_end = _profile(row, x[k], sigma_x[k], sigmas, nx)
        y_first, y_end = _profile(column, y[k], sigma_y[k], sigmas, ny)
        if x_first >= x_end:
            continue
        for j in range(y_first, y_end):
            share = flux[k] * column[j - y_first]
            for i in range(x_first, x_end):
                image[j, i] += np.float32(share * row[i - x_first])


@_compiled
def add_ellipses(
    image: Any, x: Any, y: Any, flux: Any, xx: Any, xy: Any, yy: Any, floor: float
) -> None:
    """Add pixel-integrated Gaussians that may lie at any angle to an image, in place.

    A pixel is integrated by Gauss's rule with three points along each axis: off by 2e-6 of the
    peak at most for an axis of 1.2 pixels, 1e-7 from 2 on. The reach is that of `add_gaussians`.

    Parameters
    ----------
    image : NDArray[np.float32], shape (ny, nx)
    x, y : NDArray[np.float64], shape (n,)
        Centres, which may be outside. [px]
    flux : NDArray[np.float64], shape (n,)
        Total of each; may be negative.
    xx, xy, yy : NDArray[np.float64], shape (n,)
        Second moments. [px²]
    floor : float
        In units of the image.
    """
    ny, nx = image.shape
    line = np.empty(nx, np.float64)
    for k in range(x.size):
        det = xx[k] * yy[k] - xy[k] * xy[k]
        peak = abs(flux[k]) / (2.0 * math.pi * math.sqrt(det))
        sigmas = 5.0
        if peak > floor:
            sigmas = max(sigmas, math.sqrt(2.0 * math.log(peak / floor)))
        x_first, x_end = _reach(x[k], math.sqrt(xx[k]), sigmas, nx)
        y_first, y_end = _reach(y[k], math.sqrt(yy[k]), sigmas, ny)
        if x_first >= x_end:
            continue
        a, b, c = yy[k] / det, -xy[k] / det, xx[k] / det
        scale = flux[k] / (2.0 * math.pi * math.sqrt(det)) / 1296.0
        for j in range(y_first, y_end):
            for i in range(x_first, x_end):
                line[i] = 0.0
            for p in range(3):
                dy = j - y[k] + (p - 1) * _NODE
                for q in range(3):
                    weight = scale * (10.0 + 6.0 * (p == 1)) * (10.0 + 6.0 * (q == 1))
                    dx = (q - 1) * _NODE - x[k]
                    _add_row(line, x_first, x_end, dx, dy, a, b, c, weight)
            for i in range(x_first, x_end):
                image[j, i] += np.float32(line[i])


_NODE = math.sqrt(0.15)
"""Gauss's points in a pixel: the middle, and this far to both sides."""


@_compiled
def _add_row(
    line: Any, first: int, end: int, dx: float, dy: float, a: float, b: float, c: float, weight: Any
) -> None:
    """Add weight · exp(-(a u² + 2 b u dy + c dy²) / 2) at u = i + dx: outwards from the largest.

    From one pixel to the next the exponential is multiplied by a factor, and that by a constant.
    """
    middle = int(min(max(math.floor(-b / a * dy - dx + 0.5), float(first)), float(end - 1)))
    u = middle + dx
    square = a * u * u + 2.0 * b * u * dy + c * dy * dy
    if square > 1_400.0:
        return
    value = weight * math.exp(-0.5 * square)
    slope, bend = a * u + b * dy, math.exp(-a)
    up, down = math.exp(-slope - 0.5 * a), math.exp(slope - 0.5 * a)
    here = value
    for i in range(middle, end):
        line[i] += here
        here *= up
        up *= bend
    here = value
    for i in range(middle - 1, first - 1, -1):
        here *= down
        down *= bend
        line[i] += here


@_compiled
def _reach(centre: float, sigma: float, sigmas: float, n: int) -> tuple[int, int]:
    """Return the first pixel of one axis that is drawn, and the end."""
    reach = min(math.ceil(sigmas * sigma), float(MAX_REACH_PX))
    nearest = math.floor(centre + 0.5)
    first = int(max(nearest - reach, 0.0))
    end = int(min(nearest + reach + 1.0, float(n)))
    return (first, end) if first < end else (0, 0)


@_compiled
def _profile(out: Any, centre: float, sigma: float, sigmas: float, n: int) -> tuple[int, int]:
    """Write the share of light in each pixel of one axis; return the first and the end."""
    first, end = _reach(centre, sigma, sigmas, n)
    if first >= end:
        return 0, 0
    scale = 1.0 / (math.sqrt(2.0) * sigma)
    below = math.erf((first - 0.5 - centre) * scale)
    for i in range(first, end):
        above = math.erf((i + 0.5 - centre) * scale)
        out[i - first] = 0.5 * (above - below)
        below = above
    return first, end


@_compiled
def add_plane(image: Any, level: float, slope_x: float, slope_y: float) -> None:
    """Add a sky of that level at the centre, with its relative change across the image."""
    ny, nx = image.shape
    for j in range(ny):
        left = level * (1.0 + slope_y * ((j + 0.5) / ny - 0.5) - 0.5 * slope_x)
        for i in range(nx):
            image[j, i] += np.float32(left + level * slope_x * ((i + 0.5) / nx))


@_compiled
def read_out(
    expected: Any, key: Any, normals: Any, gain: float, read_noise: float, bias: float, top: float
) -> Any:
    """Return counts of 16 bits: expected electrons with the noise of counting and reading.

    The noise of a pixel is a hash of the key and the pixel's number. One normal number a pixel
    gives the variance of Poisson and read noise together and, by the first term of Cornish and
    Fisher's expansion, Poisson's skewness. It ends at 5.9 sigma.

    Parameters
    ----------
    expected : NDArray[np.float32], shape (ny, nx)
        Electrons; what is below 0 counts as 0.
    key : np.uint64
        Of this image.
    normals : NDArray[np.float32], shape (65536,)
        Quantiles: see `normal_table`.
    gain, read_noise, bias, top : float
        Electrons of a count; electrons; counts without light; the largest count.
    """
    ny, nx = expected.shape
    flat = expected.reshape(-1)
    out = np.empty(ny * nx, np.uint16)
    per_electron = np.float32(1.0 / gain)
    read_variance = np.float32(read_noise * read_noise)
    # The half is for rounding; 0 is left to dead pixels.
    offset, least, most = np.float32(bias + 0.5), np.float32(1.0), np.float32(top)
    zero, one = np.float32(0.0), np.float32(1.0)
    sixth, half_root = np.float32(1.0 / 6.0), np.float32(math.sqrt(0.5))
    for pair in range((flat.size + 1) // 2):
        z = key + np.uint64(pair + 1) * _GOLDEN
        z = (z ^ (z >> _S30)) * _MIX_1
        z = (z ^ (z >> _S27)) * _MIX_2
        z = z ^ (z >> _S31)
        for half in range(2):
            i = 2 * pair + half
            if i < flat.size:
                bits = z >> _S32 if half else z
                normal = (normals[bits & _LOW] + normals[(bits >> _S16) & _LOW]) * half_root
                mean = max(flat[i], zero)
                variance = mean + read_variance
                electrons = (
                    mean
                    + math.sqrt(variance) * normal
                    + mean / variance * sixth * (normal * normal - one)
                )
                count = electrons * per_electron + offset
                out[i] = np.uint16(min(max(count, least), most))
    return out.reshape((ny, nx))


@_compiled
def read_amplifier(
    electrons: Any,
    bias: Any,
    level: Any,
    key: Any,
    normals: Any,
    gain: float,
    read_noise: float,
    c2: float,
    data: Any,
    overscan: Any,
) -> None:
    """Write the counts of one amplifier and its overscan, in place; noise as in `read_out`.

    Parameters
    ----------
    electrons, bias : NDArray[np.float32], shape (ny, nx)
        Expected charge; counts beside the level.
    level : NDArray[np.float32], shape (ny,)
        Counts without light.
    key : np.uint64
        Of this amplifier in this reading.
    normals : NDArray[np.float32], shape (65536,)
    gain, read_noise, c2 : float
        Electrons of a count; electrons; of m counts that are read, m + c2 m² are linear. [1/ADU]
    data, overscan : NDArray[np.uint16], shapes (ny, nx) and (ny, n_overscan)
        Views of the raw plane, turned as the detector lies.
    """
    ny, nx = electrons.shape
    n_over = overscan.shape[1]
    per_electron = np.float32(1.0 / gain)
    read_variance = np.float32(read_noise * read_noise)
    least, most, half = np.float32(1.0), np.float32(65_535.0), np.float32(0.5)
    zero, one, two = np.float32(0.0), np.float32(1.0), np.float32(2.0)
    sixth, half_root = np.float32(1.0 / 6.0), np.float32(math.sqrt(0.5))
    bend = np.float32(2.0 * c2)
    for j in range(ny):
        shift = level[j] + half
        for i in range(nx + n_over):
            z = key + np.uint64(j * (nx + n_over) + i + 1) * _GOLDEN
            z = (z ^ (z >> _S30)) * _MIX_1
            z = (z ^ (z >> _S27)) * _MIX_2
            z = z ^ (z >> _S31)
            normal = (normals[z & _LOW] + normals[(z >> _S16) & _LOW]) * half_root
            if i >= nx:
                count = np.float32(read_noise) * normal * per_electron + shift
                overscan[j, i - nx] = np.uint16(min(max(count, least), most))
                continue
            mean = max(electrons[j, i], zero)
            variance = mean + read_variance
            count = per_electron * (
                mean
                + math.sqrt(variance) * normal
                + mean / variance * sixth * (normal * normal - one)
            )
            if bend > zero:
                # What is read of m + c2 m²: written so that no digits are lost for small counts.
                root = math.sqrt(max(one + two * bend * count, zero))
                count = two * count / (one + root)
            data[j, i] = np.uint16(min(max(count + bias[j, i] + shift, least), most))


@_compiled
def bleed(electrons: Any, full_well: Any) -> None:
    """Spread the charge that pixels cannot hold along their columns, half each way, in place.

    Charge that reaches an end of the column is lost.
    """
    ny, nx = electrons.shape
    for i in range(nx):
        j = 0
        while j < ny:
            if electrons[j, i] <= full_well:
                j += 1
                continue
            first = j
            excess = 0.0
            while j < ny and electrons[j, i] > full_well:
                excess += electrons[j, i] - full_well
                electrons[j, i] = full_well
                j += 1
            _pour(electrons, i, first - 1, -1, 0.5 * excess, full_well)
            _pour(electrons, i, j, 1, 0.5 * excess, full_well)


@_compiled
def _pour(electrons: Any, i: int, j: int, step: int, charge: float, full_well: Any) -> None:
    """Fill pixels of a column one after the other."""
    while charge > 0.0 and 0 <= j < electrons.shape[0]:
        room = full_well - electrons[j, i]
        if room < 0.0:
            # Over-full itself: its turn comes, and it passes this on.
            electrons[j, i] += np.float32(charge)
            return
        taken = min(room, charge)
        electrons[j, i] += np.float32(taken)
        charge -= taken
        j += step


@functools.cache
def normal_table() -> NDArray[np.float32]:
    """Return 65536 equally likely values of the normal distribution, scaled to variance 1."""
    from scipy.special import ndtri

    values = ndtri((np.arange(65_536) + 0.5) / 65_536)
    return (values / np.sqrt(np.mean(values**2))).astype(np.float32)
