"""The compiled loops that several image modules share.

All work on float32 arrays of shape (ny, nx), row by row, so that the compiler can use vector
instructions along x. They know nothing of units. `fastmath` is on: NaN must not come in, bad
pixels are marked in a mask and zeroed by the caller. Compiled code is cached on disk.
"""

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Mask = NDArray[np.uint16]
Bools = NDArray[np.bool_]

SPLINE_POLE = math.sqrt(3.0) - 2.0
"""Pole of the cubic B-spline prefilter (Unser, Aldroubi & Eden 1993, part II, table I)."""

compiled: Any = njit(cache=True, fastmath=True, nogil=True)


def filter_radius(sigma: float) -> int:
    """Return a half width of at least two sigma, one of few.

    Filters are tuples, and each length of a tuple is compiled for itself.
    """
    for radius in (4, 6, 9, 14, 20, 30):
        if radius >= 2.0 * sigma:
            return radius
    return math.ceil(2.0 * sigma)


def gaussian_taps(sigma: float, radius: int) -> tuple[Any, ...]:
    """Return half of a symmetric Gaussian filter, the centre first.

    Parameters
    ----------
    sigma : float
        Width of the Gaussian, integrated over each pixel. [pixel]
    radius : int
        The filter has 2 radius + 1 taps; it is not normalised after cutting.

    Returns
    -------
    tuple of np.float32, length radius + 1
        A tuple, since its length is then known to the compiler.
    """
    scale = 1.0 / (sigma * math.sqrt(2.0))
    edges = [0.5 * math.erf((i - 0.5) * scale) for i in range(radius + 2)]
    return tuple(np.float32(edges[i + 1] - edges[i]) for i in range(radius + 1))


@compiled
def convolve_symmetric(image: F32, taps: tuple[Any, ...]) -> F32:
    """Convolve with a separable symmetric filter; outside the image is zero.

    Parameters
    ----------
    image : NDArray[np.float32], shape (ny, nx)
    taps : tuple of np.float32
        Half of the filter, the same along both axes, as from `gaussian_taps`.
    """
    ny, nx = image.shape
    radius = len(taps) - 1
    out = np.empty((ny, nx), np.float32)
    row = np.zeros(nx + 2 * radius, np.float32)
    for y in range(ny):
        for x in range(nx):
            row[x + radius] = taps[0] * image[y, x]
        for i in range(1, radius + 1):
            if y >= i:
                for x in range(nx):
                    row[x + radius] += taps[i] * image[y - i, x]
            if y + i < ny:
                for x in range(nx):
                    row[x + radius] += taps[i] * image[y + i, x]
        for x in range(nx):
            total = taps[0] * row[x + radius]
            for i in range(1, radius + 1):
                total += taps[i] * (row[x + radius - i] + row[x + radius + i])
            out[y, x] = total
    return out


RUN_PX = 32
"""A kernel that varies over an image is constant over squares of this side. [pixel]"""


@compiled
def convolve_varying(image: F32, along_y: F32, along_x: F32, width: tuple[Any, ...]) -> F32:
    """Convolve with a sum of separable filters that change over the image; outside it is zero.

    Parameters
    ----------
    image : NDArray[np.float32], shape (ny, nx)
    along_y : NDArray[np.float32], shape (n_filters, n_taps)
        The same everywhere; n_taps is odd.
    along_x : NDArray[np.float32], shape (n_filters, n_bands, n_runs, n_taps)
        What goes with each of them in each square of `RUN_PX` by `RUN_PX` pixels.
    width : tuple, length n_taps
        Only its length counts: in a tuple the compiler knows it.

    Notes
    -----
    The rows that are needed stand in a ring, each twice, so that any n_taps of them follow one
    another; its rows are longer than the image's, or those of a power of two would all fall on the
    same lines of the cache. Loops of fixed length stay in the processor's vector registers.
    """
    ny, nx = image.shape
    n_taps = len(width)
    radius, runs = n_taps // 2, along_x.shape[2]
    ring = np.zeros((2 * n_taps, runs * RUN_PX + 48), np.float32)
    line = np.zeros(runs * RUN_PX + 2 * radius, np.float32)
    total = np.zeros(runs * RUN_PX, np.float32)
    out = np.empty((ny, nx), np.float32)
    for new in range(ny + radius):
        slot, y = new % n_taps, new - radius
        for copy in (slot, slot + n_taps):
            if new < ny:
                ring[copy, :nx] = image[new]
            else:
                ring[copy] = 0.0
        if y < 0:
            continue
        first = (slot + 1) % n_taps
        total[:] = 0.0
        for f in range(along_y.shape[0]):
            for k in range(runs):
                _column_run(ring[first : first + n_taps, k * RUN_PX : (k + 1) * RUN_PX],
                            along_y[f], width, line[radius + k * RUN_PX :])  # fmt: skip
            for k in range(runs):
                _row_run(line[k * RUN_PX :], along_x[f, y // RUN_PX, k], width,
                         total[k * RUN_PX :])  # fmt: skip
        out[y] = total[:nx]
    return out


@compiled
def _column_run(rows: F32, taps: F32, width: tuple[Any, ...], out: F32) -> None:
    for x in range(RUN_PX):
        value = np.float32(0.0)
        for j in range(len(width)):
            value += taps[len(width) - 1 - j] * rows[j, x]
        out[x] = value


@compiled
def _row_run(line: F32, taps: F32, width: tuple[Any, ...], out: F32) -> None:
    for x in range(RUN_PX):
        value = out[x]
        for j in range(len(width)):
            value += taps[len(width) - 1 - j] * line[x + j]
        out[x] = value


@compiled
def convolve_squares(image: F32, kernels: F32, width: tuple[Any, ...], margin: int) -> F32:
    """Correlate with a small kernel that changes over the image; outside the image is zero.

    Parameters
    ----------
    image : NDArray[np.float32], shape (ny + 2 margin, nx + 2 margin)
    kernels : NDArray[np.float32], shape (n_bands, n_runs, n_taps, n_taps)
        Of each square of `RUN_PX` by `RUN_PX` pixels of the result; n_taps is odd. Those of a
        convolution are turned by half a circle.
    width : tuple, length n_taps
        Only its length counts, as in `convolve_varying`.
    margin : int
        How far the image reaches beyond the result on all sides. [pixel]

    Returns
    -------
    NDArray[np.float32], shape (ny, nx)
    """
    n_taps, runs = len(width), kernels.shape[1]
    radius = n_taps // 2
    ny, nx = image.shape[0] - 2 * margin, image.shape[1] - 2 * margin
    ring = np.zeros((2 * n_taps, runs * RUN_PX + 2 * radius + 48), np.float32)
    total = np.zeros(RUN_PX, np.float32)
    out = np.empty((ny, nx), np.float32)
    start, end = max(0, margin - radius), min(image.shape[1], margin + nx + radius)
    left = start - (margin - radius)
    for new in range(-radius, ny + radius):
        slot, y, row = (new + radius) % n_taps, new - radius, new + margin
        for copy in (slot, slot + n_taps):
            if 0 <= row < image.shape[0]:
                ring[copy, left : left + end - start] = image[row, start:end]
            else:
                ring[copy] = 0.0
        if y < 0:
            continue
        first = (slot + 1) % n_taps
        # Two calls keep the loops a function of their own: inlined, they are not made of vector
        # instructions.
        for k in range(runs):
            a, n, taps = k * RUN_PX, min(RUN_PX, nx - k * RUN_PX), kernels[y // RUN_PX, k]
            if n == RUN_PX:
                _square_run(ring, first, a, taps, width, out[y, a : a + n])
            else:
                _square_run(ring, first, a, taps, width, total)
                for x in range(n):
                    out[y, a + x] = total[x]
    return out


@compiled
def _square_run(
    ring: F32, first: int, left: int, taps: F32, width: tuple[Any, ...], out: F32
) -> None:
    for x in range(RUN_PX):
        out[x] = np.float32(0.0)
    for j in range(len(width)):
        row, weights = ring[first + j, left : left + RUN_PX + len(width) - 1], taps[j]
        for x in range(RUN_PX):
            value = out[x]
            for i in range(len(width)):
                value += weights[i] * row[x + i]
            out[x] = value


@compiled
def _prefilter_columns(data: F32) -> None:
    # Causal, then anticausal recursion along y, all columns at once; mirror boundaries, cut where
    # the pole's power falls below float32's precision.
    ny, nx = data.shape
    pole = np.float32(SPLINE_POLE)
    horizon = min(12, ny - 1)
    first = data[0].copy()
    power = pole
    for y in range(1, horizon + 1):
        for x in range(nx):
            first[x] += power * data[y, x]
        power *= pole
    for x in range(nx):
        data[0, x] = np.float32(6.0) * first[x]
    for y in range(1, ny):
        for x in range(nx):
            data[y, x] = np.float32(6.0) * data[y, x] + pole * data[y - 1, x]
    scale = pole / (pole * pole - np.float32(1.0))
    for x in range(nx):
        data[ny - 1, x] = scale * (data[ny - 1, x] + pole * data[ny - 2, x])
    for y in range(ny - 2, -1, -1):
        for x in range(nx):
            data[y, x] = pole * (data[y + 1, x] - data[y, x])


def spline_coefficients(image: F32) -> F32:
    """Return the cubic B-spline coefficients of an image, mirrored at its borders.

    Parameters
    ----------
    image : NDArray[np.float32], shape (ny, nx), both at least 2

    Notes
    -----
    Unser, Aldroubi & Eden 1993, IEEE Trans. Signal Proc. 41, 834, equation 2.5.
    """
    data = np.array(image, dtype=np.float32, order="C")
    _prefilter_columns(data)
    turned = np.ascontiguousarray(data.T)
    _prefilter_columns(turned)
    return np.ascontiguousarray(turned.T)


def grow(marked: Bools, radius: int) -> Bools:
    """Return the pixels within a square of 2 radius + 1 around any marked pixel."""
    grown: Bools = _grow(marked.view(np.uint8), radius).view(np.bool_)
    return grown


@compiled
def _grow(marked: Any, radius: int) -> Any:
    # Whole rows are combined at once, along x as along y: bytes, many to a vector instruction.
    ny, nx = marked.shape
    wide = np.zeros((ny, nx), np.uint8)
    out = np.zeros((ny, nx), np.uint8)
    row = np.zeros(nx + 2 * radius, np.uint8)
    for y in range(ny):
        marks = np.uint8(0)
        for x in range(nx):
            row[x + radius] = marked[y, x]
            marks |= marked[y, x]
        if marks != 0:
            for shift in range(2 * radius + 1):
                for x in range(nx):
                    wide[y, x] |= row[x + shift]
    for y in range(ny):
        for k in range(max(0, y - radius), min(ny, y + radius + 1)):
            for x in range(nx):
                out[y, x] |= wide[k, x]
    return out


@compiled
def select(values: F32, n: int, k: int) -> float:
    """Return the k-th smallest of the first n values, which are put in another order.

    Quickselect (Hoare 1961, CACM 4 321). NumPy's partition takes seconds to compile.
    """
    low, high = 0, n - 1
    while low < high:
        pivot = values[(low + high) // 2]
        i, j = low, high
        while i <= j:
            while values[i] < pivot:
                i += 1
            while pivot < values[j]:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if k <= j:
            high = j
        elif k >= i:
            low = i
        else:
            break
    return values[k]
