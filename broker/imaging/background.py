"""The sky's level and noise: a mesh of clipped means, made twice, the second without sources.

One pass is biased by the light of sources, by an amount that depends on how crowded the field is.
So a first mesh, from medians, is only used to find the sources; the second is made of what is
left, and unbiased.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from broker.errors import AlertError
from broker.imaging.kernels import (
    F32,
    Bools,
    compiled,
    filter_radius,
    gaussian_taps,
    grow,
)

Cells = NDArray[np.int64]

SOURCE_SNR = 4.0
"""Pixels of a PSF-smoothed image above this many sigma belong to a source. Lower, and cutting out
the noise's own peaks would bias the mean: at 4 by 3e-4 sigma, at 3 by 6e-3."""

_SOURCE_MARGIN_SIGMAS = 2.0
LEAST_SIDE_PX = 24
"""A smaller image has no sky around a source, and no room for a kernel's stamp. [pixel]"""

_MIN_CELL_FRACTION = 0.1
_HALVINGS = 24
"""After these the range is the size of a float32's rounding of the first."""

_CLIPPED_SIGMA = 0.98658
"""Standard deviation of a unit normal cut at plus and minus 3."""


@dataclass(frozen=True)
class Background:
    """The sky under an image.

    Parameters
    ----------
    level : NDArray[np.float32], shape (ny, nx)
        The sky's level, in the image's unit.
    sigma : float
        Noise of a pixel without sources, the median over the mesh, in the image's unit.
    sources : NDArray[np.bool_], shape (ny, nx)
        Pixels that were left out since they belong to a source.
    """

    level: F32
    sigma: float
    sources: Bools


def fit_background(
    pixels: F32, *, unusable: Bools, psf_sigma: float, cell_px: int = 64
) -> Background:
    """Estimate the sky's level.

    Parameters
    ----------
    pixels : NDArray[np.float32], shape (ny, nx)
    unusable : NDArray[np.bool_], shape (ny, nx)
        Pixels that say nothing about the sky.
    psf_sigma : float
        Width of a star. [pixel]
    cell_px : int
        Side of a cell of the mesh: larger than any source, smaller than the sky's structure.

    Returns
    -------
    Background

    Raises
    ------
    AlertError
        If hardly any pixel is usable, or the image is smaller than 24 pixels either way.
    """
    if min(pixels.shape) < LEAST_SIDE_PX:
        ny, nx = pixels.shape
        raise AlertError(
            f"an image of {nx} × {ny} pixels is too small: {LEAST_SIDE_PX} × {LEAST_SIDE_PX} are "
            "needed"
        )
    usable = unusable.size - np.count_nonzero(unusable)
    if usable < _MIN_CELL_FRACTION * pixels.size:
        raise AlertError(
            f"{np.mean(unusable):.0%} of the image is masked: there is no sky to measure"
        )
    shape = (pixels.shape[0], pixels.shape[1])
    median, sigma = _mesh(median_cells(pixels, unusable, cell_px), shape, cell_px)
    sky_sigma = float(np.median(sigma))
    if not sky_sigma > 0.0:
        raise AlertError("the image has no noise: all usable pixels have one value")
    first = _Mesh.of(median, cell_px, shape)
    sources = _find_sources(pixels, first, unusable, psf_sigma, sky_sigma)
    clip = np.float32(3.0 * sky_sigma)
    cells = clipped_mean_cells(pixels, unusable, sources, *first, clip, cell_px)
    level, sigma = _mesh(cells, shape, cell_px)
    return Background(expand_mesh(level, cell_px, shape), float(np.median(sigma)), sources)


class _Mesh(NamedTuple):
    """A mesh, and how it becomes a plane.

    Parameters
    ----------
    values : NDArray[np.float32], shape (n_rows, n_columns)
    low_y : NDArray[np.int64], shape (ny,)
        The cell before each row of pixels.
    share_y : NDArray[np.float32], shape (ny,)
        The next cell's share.
    starts_x : NDArray[np.int64], shape (n_columns,)
        The columns of pixels at which the cell before is the next one, and where the last ends.
    share_x : NDArray[np.float32], shape (nx,)
    """

    values: F32
    low_y: Cells
    share_y: F32
    starts_x: Cells
    share_x: F32

    @classmethod
    def of(cls, values: F32, cell_px: int, shape: tuple[int, int]) -> "_Mesh":
        low_y, share_y = _axis(values.shape[0], cell_px, shape[0])
        low_x, share_x = _axis(values.shape[1], cell_px, shape[1])
        starts = np.searchsorted(low_x, np.arange(max(2, values.shape[1])))
        return cls(values, low_y, share_y, starts.astype(np.int64), share_x)


def _find_sources(
    pixels: F32, level: _Mesh, unusable: Bools, psf_sigma: float, sky_sigma: float
) -> Bools:
    taps = gaussian_taps(psf_sigma, filter_radius(psf_sigma))
    noise = sky_sigma / np.sqrt(4.0 * np.pi) / psf_sigma
    bright = _smoothed_above(pixels, unusable, *level, taps, np.float32(SOURCE_SNR * noise))
    return np.asarray(grow(bright, int(np.ceil(_SOURCE_MARGIN_SIGMAS * psf_sigma))), bool)


def _mesh(cells: tuple[F32, F32, Cells], shape: tuple[int, int], cell_px: int) -> tuple[F32, F32]:
    """Return level and noise of each cell; cells without enough pixels take their neighbours'."""
    values, sigmas, counts = cells
    ny, nx = shape
    enough = counts >= (_MIN_CELL_FRACTION * min(cell_px, ny) * min(cell_px, nx) / 8.0)
    if not enough.any():
        enough = counts >= max(1, int(counts.max()))
    return _fill(values, enough), _fill(sigmas, enough)


def _fill(values: F32, known: Bools) -> F32:
    """Return a mesh whose unknown cells have the value of the nearest known one."""
    if known.all():
        return values
    from scipy.ndimage import distance_transform_edt

    nearest = distance_transform_edt(~known, return_distances=False, return_indices=True)
    filled: F32 = values[tuple(nearest)]
    return filled


@compiled
def median_cells(pixels: F32, unusable: Bools, cell: int) -> tuple[F32, F32, Cells]:
    """Return the median, the robust sigma and the pixels used of every cell.

    Every second row and second column is used: the first mesh only has to find sources.
    """
    ny, nx = pixels.shape
    rows, columns = (ny + cell - 1) // cell, (nx + cell - 1) // cell
    median = np.zeros((rows, columns), np.float32)
    sigma = np.zeros((rows, columns), np.float32)
    count = np.zeros((rows, columns), np.int64)
    values = np.empty((cell // 2 + 1) ** 2, np.float32)
    for j in range(rows):
        for i in range(columns):
            n = 0
            for y in range(j * cell, min(ny, (j + 1) * cell), 2):
                for x in range(i * cell, min(nx, (i + 1) * cell), 2):
                    values[n] = pixels[y, x]
                    n += 0 if unusable[y, x] else 1
            count[j, i] = n
            if n > 0:
                low, high = values[0], values[0]
                for k in range(n):
                    low, high = min(low, values[k]), max(high, values[k])
                middle = _quantile(values, n, n // 2, low, high)
                median[j, i] = middle
                # From the faint side, where there are no sources: 16 % lie below minus one sigma.
                faint = int(0.158655 * (n - 1) + 0.5)
                sigma[j, i] = middle - _quantile(values, n, faint, low, middle)
    return median, sigma, count


@compiled
def _count_to(values: F32, n: int, limit: Any) -> Any:
    """Return how many of n values are not above a limit."""
    count = np.float32(0.0)
    for i in range(n):
        count += np.float32(1.0) if values[i] <= limit else np.float32(0.0)
    return count


@compiled
def _quantile(values: F32, n: int, k: int, low: Any, high: Any) -> Any:
    """Return the k-th smallest of n values that lie between low and high, halving the range.

    Counting is what vector instructions do best: some 20 counts take a tenth of a selection.
    """
    if _count_to(values, n, low) > k:
        return low
    # From here on the value sought is above `low` and not above `high`.
    for _ in range(_HALVINGS):
        middle = np.float32(0.5) * (low + high)
        if middle <= low or middle >= high:
            break
        if _count_to(values, n, middle) > k:
            high = middle
        else:
            low = middle
    largest = low
    for i in range(n):
        largest = max(largest, values[i] if values[i] <= high else low)
    return largest


@compiled
def _level_row(
    values: F32, low_y: Cells, share_y: F32, starts_x: Cells, share_x: F32, y: int, out: F32
) -> None:
    """Fill one row of a mesh's plane: straight lines from centre to centre of the cells."""
    n = values.shape[1]
    first, second = values[low_y[y]], values[min(low_y[y] + 1, values.shape[0] - 1)]
    up = share_y[y]
    for k in range(starts_x.size - 1):
        left = first[k] + up * (second[k] - first[k])
        other = min(k + 1, n - 1)
        rise = first[other] + up * (second[other] - first[other]) - left
        start, end = starts_x[k], starts_x[k + 1]
        _line(left, rise, share_x[start:end], out[start:end])


@compiled
def _line(left: Any, rise: Any, share: F32, out: F32) -> None:
    # A function of its own on a row of its own: that is made of vector instructions.
    for x in range(out.size):
        out[x] = left + share[x] * rise


@compiled
def _smoothed_above(
    pixels: F32,
    unusable: Bools,
    values: F32,
    low_y: Cells,
    share_y: F32,
    starts_x: Cells,
    share_x: F32,
    taps: tuple[Any, ...],
    least: float,
) -> Bools:
    """Return where the image minus a mesh's plane, smoothed, is above a level.

    The rows that the filter spans are kept in a ring, so no plane but the answer is written.
    """
    ny, nx = pixels.shape
    radius = len(taps) - 1
    depth = 2 * radius + 1
    ring = np.zeros((depth, nx), np.float32)
    row = np.zeros(nx + 2 * radius, np.float32)
    out = np.empty((ny, nx), np.bool_)
    zero = np.float32(0.0)
    for newest in range(ny + radius):
        clean = ring[newest % depth]
        if newest < ny:
            _level_row(values, low_y, share_y, starts_x, share_x, newest, clean)
            for x in range(nx):
                clean[x] = zero if unusable[newest, x] else pixels[newest, x] - clean[x]
        else:
            clean[:] = zero
        y = newest - radius
        if y < 0:
            continue
        middle = ring[y % depth]
        for x in range(nx):
            row[x + radius] = taps[0] * middle[x]
        for i in range(1, radius + 1):
            above, below = ring[(y + depth - i) % depth], ring[(y + i) % depth]
            for x in range(nx):
                row[x + radius] += taps[i] * (above[x] + below[x])
        for x in range(nx):
            total = taps[0] * row[x + radius]
            for i in range(1, radius + 1):
                total += taps[i] * (row[x + radius - i] + row[x + radius + i])
            out[y, x] = total > least
    return out


@compiled
def clipped_mean_cells(
    pixels: F32,
    unusable: Bools,
    sources: Bools,
    values: F32,
    low_y: Cells,
    share_y: F32,
    starts_x: Cells,
    share_x: F32,
    clip: float,
    cell: int,
) -> tuple[F32, F32, Cells]:
    """Return mean and sigma within a mesh's plane plus or minus `clip`, and the pixels used.

    By cell; the sigma is corrected for a clip at three sigma of normal noise.
    """
    ny, nx = pixels.shape
    rows, columns = (ny + cell - 1) // cell, (nx + cell - 1) // cell
    mean = np.zeros((rows, columns), np.float32)
    sigma = np.zeros((rows, columns), np.float32)
    count = np.zeros((rows, columns), np.int64)
    level = np.empty(nx, np.float32)
    # Single precision is enough for the few rows of a cell.
    sums = np.empty((4, nx), np.float32)
    zero = np.float32(0.0)
    for j in range(rows):
        sums[:] = zero
        for y in range(j * cell, min(ny, (j + 1) * cell)):
            _level_row(values, low_y, share_y, starts_x, share_x, y, level)
            _add_clipped(pixels[y], unusable[y], sources[y], level, np.float32(clip), sums)
        for i in range(columns):
            total, square, base, n = 0.0, 0.0, 0.0, 0.0
            for x in range(i * cell, min(nx, (i + 1) * cell)):
                total += sums[0, x]
                square += sums[1, x]
                base += sums[2, x]
                n += sums[3, x]
            count[j, i] = int(n)
            if n > 0.0:
                shift = total / n
                mean[j, i] = shift + base / n
                sigma[j, i] = np.sqrt(max(square / n - shift**2, 0.0)) / _CLIPPED_SIGMA
    return mean, sigma, count


@compiled
def _add_clipped(
    pixels: F32, unusable: Bools, sources: Bools, level: F32, clip: Any, sums: F32
) -> None:
    """Add a row's offsets, their squares, its level and number, where it is sky, to each column."""
    zero, one = np.float32(0.0), np.float32(1.0)
    total, square, base, n = sums[0], sums[1], sums[2], sums[3]
    for x in range(pixels.size):
        offset = pixels[x] - level[x]
        good = (not (unusable[x] | sources[x])) & (abs(offset) < clip)
        offset = offset if good else zero
        total[x] += offset
        square[x] += offset * offset
        base[x] += level[x] if good else zero
        n[x] += one if good else zero


def expand_mesh(mesh: F32, cell_px: int, shape: tuple[int, int]) -> F32:
    """Return a full plane from the values at the cells' centres: linear, continued at the borders.

    Parameters
    ----------
    mesh : NDArray[np.float32], shape (n_rows, n_columns)
    cell_px : int
    shape : (int, int)
        Of the plane: (ny, nx).
    """
    plane = np.empty(shape, np.float32)
    _fill_plane(*_Mesh.of(np.asarray(mesh, np.float32), cell_px, shape), plane)
    return plane


@compiled
def _fill_plane(
    values: F32, low_y: Cells, share_y: F32, starts_x: Cells, share_x: F32, out: F32
) -> None:
    for y in range(low_y.size):
        _level_row(values, low_y, share_y, starts_x, share_x, y, out[y])


def _axis(n_cells: int, cell_px: int, n_pixels: int) -> tuple[Cells, F32]:
    """Return the cell before each pixel, and the next cell's share, shape (n_pixels,) each."""
    first = np.arange(n_cells) * cell_px
    centre = (first + np.minimum(first + cell_px, n_pixels) - 1) / 2.0
    if n_cells == 1:
        return np.zeros(n_pixels, np.int64), np.zeros(n_pixels, np.float32)
    pixel = np.arange(n_pixels)
    low = np.clip(np.searchsorted(centre, pixel) - 1, 0, n_cells - 2)
    share = (pixel - centre[low]) / (centre[low + 1] - centre[low])
    return low.astype(np.int64), np.clip(share, -0.5, 1.5).astype(np.float32)
