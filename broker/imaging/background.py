"""The sky's level and noise: a mesh of clipped means, made twice, the second without sources.

One pass is biased by the light of sources, by an amount that depends on how crowded the field is.
So a first mesh, from medians, is only used to find the sources; the second is made of what is
left, and unbiased.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from broker.errors import AlertError
from broker.imaging.kernels import (
    F32,
    Bools,
    compiled,
    convolve_symmetric,
    filter_radius,
    gaussian_taps,
    grow,
    select,
)

Cells = NDArray[np.int64]

SOURCE_SNR = 4.0
"""Pixels of a PSF-smoothed image above this many sigma belong to a source. Lower, and cutting out
the noise's own peaks would bias the mean: at 4 by 3e-4 sigma, at 3 by 6e-3."""

_SOURCE_MARGIN_SIGMAS = 2.0
_MIN_CELL_FRACTION = 0.1
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
        If hardly any pixel is usable.
    """
    if np.count_nonzero(~unusable) < _MIN_CELL_FRACTION * pixels.size:
        raise AlertError(
            f"{np.mean(unusable):.0%} of the image is masked: there is no sky to measure"
        )
    median, sigma = _mesh(pixels, unusable, None, cell_px)
    sky_sigma = float(np.median(sigma))
    if not sky_sigma > 0.0:
        raise AlertError("the image has no noise: all usable pixels have one value")
    first = expand_mesh(median, cell_px, (pixels.shape[0], pixels.shape[1]))
    sources = _find_sources(pixels, first, unusable, psf_sigma, sky_sigma)
    level, sigma = _mesh(pixels, unusable | sources, first, cell_px, sky_sigma)
    sky_sigma = float(np.median(sigma))
    return Background(
        expand_mesh(level, cell_px, (pixels.shape[0], pixels.shape[1])), sky_sigma, sources
    )


def _find_sources(
    pixels: F32, level: F32, unusable: Bools, psf_sigma: float, sky_sigma: float
) -> Bools:
    clean = np.where(unusable, np.float32(0.0), pixels - level)
    smooth = convolve_symmetric(clean, gaussian_taps(psf_sigma, filter_radius(psf_sigma)))
    noise = sky_sigma / np.sqrt(4.0 * np.pi) / psf_sigma
    return grow(smooth > SOURCE_SNR * noise, int(np.ceil(_SOURCE_MARGIN_SIGMAS * psf_sigma)))


def _mesh(
    pixels: F32, unusable: Bools, level: F32 | None, cell_px: int, sigma: float = 0.0
) -> tuple[F32, F32]:
    """Return level and noise of each cell; cells without enough pixels take their neighbours'."""
    if level is None:
        values, sigmas, counts = median_cells(pixels, unusable, cell_px)
    else:
        values, sigmas, counts = clipped_mean_cells(
            pixels, unusable, level, np.float32(3.0 * sigma), cell_px
        )
    ny, nx = pixels.shape
    enough = counts >= (_MIN_CELL_FRACTION * min(cell_px, ny) * min(cell_px, nx) / 8.0)
    if not enough.any():
        enough = counts >= max(1, counts.max())
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
def median_cells(pixels: F32, unusable: Bools, cell: int) -> tuple[F32, F32, NDArray[np.int64]]:
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
                    if not unusable[y, x]:
                        values[n] = pixels[y, x]
                        n += 1
            count[j, i] = n
            if n > 0:
                middle = select(values, n, n // 2)
                median[j, i] = middle
                # From the faint side, where there are no sources: 16 % lie below minus one sigma.
                sigma[j, i] = middle - select(values, n, int(0.158655 * (n - 1) + 0.5))
    return median, sigma, count


@compiled
def clipped_mean_cells(
    pixels: F32, unusable: Bools, level: F32, clip: float, cell: int
) -> tuple[F32, F32, NDArray[np.int64]]:
    """Return mean and sigma within `level` plus or minus `clip`, and the pixels used, by cell.

    The sigma is corrected for a clip at three sigma of normal noise.
    """
    ny, nx = pixels.shape
    rows, columns = (ny + cell - 1) // cell, (nx + cell - 1) // cell
    mean = np.zeros((rows, columns), np.float32)
    sigma = np.zeros((rows, columns), np.float32)
    count = np.zeros((rows, columns), np.int64)
    for j in range(rows):
        for i in range(columns):
            total, square, n, base = 0.0, 0.0, 0, 0.0
            for y in range(j * cell, min(ny, (j + 1) * cell)):
                for x in range(i * cell, min(nx, (i + 1) * cell)):
                    offset = pixels[y, x] - level[y, x]
                    good = (not unusable[y, x]) and abs(offset) < clip
                    total += offset if good else 0.0
                    square += offset * offset if good else 0.0
                    base += level[y, x] if good else 0.0
                    n += 1 if good else 0
            count[j, i] = n
            if n > 0:
                mean[j, i] = (total + base) / n
                sigma[j, i] = np.sqrt(max(square / n - (total / n) ** 2, 0.0)) / _CLIPPED_SIGMA
    return mean, sigma, count


def expand_mesh(mesh: F32, cell_px: int, shape: tuple[int, int]) -> F32:
    """Return a full plane from the values at the cells' centres: linear, continued at the borders.

    Parameters
    ----------
    mesh : NDArray[np.float32], shape (n_rows, n_columns)
    cell_px : int
    shape : (int, int)
        Of the plane: (ny, nx).
    """
    ny, nx = shape
    rows = _axis(mesh.shape[0], cell_px, ny)
    columns = _axis(mesh.shape[1], cell_px, nx)
    return np.asarray(_bilinear(mesh, *rows, *columns), np.float32)


@compiled
def _bilinear(mesh: F32, low_y: Cells, share_y: F32, low_x: Cells, share_x: F32) -> F32:
    out = np.empty((low_y.size, low_x.size), np.float32)
    line = np.empty(mesh.shape[1], np.float32)
    for y in range(low_y.size):
        a, b = mesh[low_y[y]], mesh[min(low_y[y] + 1, mesh.shape[0] - 1)]
        for k in range(line.size):
            line[k] = a[k] + share_y[y] * (b[k] - a[k])
        for x in range(low_x.size):
            left = line[low_x[x]]
            out[y, x] = left + share_x[x] * (line[min(low_x[x] + 1, line.size - 1)] - left)
    return out


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
