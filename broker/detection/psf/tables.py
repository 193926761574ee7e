"""A PSF of any profile that varies over an image: tables finer than its pixels.

A table holds the share of a point source's light in a pixel, at offsets of a fraction of a pixel,
so that the pixel's integral is in it. Tables at a few nodes of the image are blended linearly;
between the offsets a cubic through four points is exact to 1e-4 of the peak.
"""

import math
from dataclasses import dataclass

import numpy as np

from broker.errors import AlertError
from broker.imaging.kernels import F32, F64, compiled

REACH_SIGMAS = 7.0
"""How far a table reaches, in PSF widths: what is subtracted of a source ends there."""

_STEP_SIGMAS = 0.18
_MAX_HALF = 60
SPARE_PX = 2
"""A source may be this far from the middle of the pixels that are filled."""


@dataclass(frozen=True)
class PsfTables:
    """Tables of a PSF at nodes of an image.

    Parameters
    ----------
    values : NDArray[np.float32], shape (n_rows, n_columns, side, side)
        Share of the light in a pixel whose centre lies (column - side // 2) / `oversampling`
        pixels to the right of the source, the same upwards, at each node. Nodes are spread evenly
        from the first to the last pixel; a single one holds everywhere.
    oversampling : int
        Steps of a pixel.
    half : int
        Half width of what can be filled. [pixel]
    shape : (int, int)
        Of the image: (ny, nx).
    sigma : float
        Width of the round Gaussian that is most like it, at the centre. [pixel]
    """

    values: F32
    oversampling: int
    half: int
    shape: tuple[int, int]
    sigma: float

    def stamp(self, x: float, y: float, half: int = 0) -> F64:
        """Return the light of a source of flux 1 in the pixels around the nearest to (x, y).

        Returns
        -------
        NDArray[np.float64], shape (2 half + 1, 2 half + 1)
            About pixel (round(x), round(y)); `half` 0 means all that is known.
        """
        half = half or self.half
        if half > self.half:
            raise ValueError(f"the table reaches {self.half} px, not {half}")
        table = np.empty(self.values.shape[2:], np.float32)
        blend(self.values, self.shape[0], self.shape[1], float(x), float(y), table)
        side = 2 * half + 1
        value, slope_x, slope_y = (np.empty((side, side)) for _ in range(3))
        work = np.empty((2, 2 * half * self.oversampling + 4, side))
        fill(
            table, self.oversampling, x - round(x), y - round(y), half, True,
            value, slope_x, slope_y, work,
        )  # fmt: skip
        return value


def table_size(sigma: float, reach: float = 0.0) -> tuple[int, int, int]:
    """Return oversampling, half width [pixel] and side of the table of a PSF of that width.

    `reach` is the half width that is wanted at least. [pixel]
    """
    if not (math.isfinite(sigma) and sigma > 0.0):
        raise AlertError(f"the PSF's sigma is {sigma} px; it must be positive")
    over = int(np.clip(np.ceil(1.0 / (_STEP_SIGMAS * sigma)), 2, 12))
    half = int(min(np.ceil(max(REACH_SIGMAS * sigma, reach)), _MAX_HALF))
    return over, half, 2 * ((half + SPARE_PX + 1) * over + 2) + 1


def gaussian_tables(sigma: float, shape: tuple[int, int]) -> PsfTables:
    """Return the tables of a round Gaussian that is the same everywhere."""
    from scipy.special import erf

    over, half, side = table_size(sigma)
    offset = (np.arange(side) - side // 2) / over
    scale = 1.0 / (np.sqrt(2.0) * sigma)
    share = 0.5 * (erf((offset + 0.5) * scale) - erf((offset - 0.5) * scale))
    values = np.outer(share, share).astype(np.float32)[None, None]
    return PsfTables(values, over, half, shape, sigma)


@compiled
def blend(values: F32, ny: int, nx: int, x: float, y: float, out: F32) -> None:
    """Fill `out` with the table at a place, linear between the nodes."""
    rows, columns = values.shape[0], values.shape[1]
    v = min(max(y / max(ny - 1.0, 1.0), 0.0), 1.0) * (rows - 1)
    u = min(max(x / max(nx - 1.0, 1.0), 0.0), 1.0) * (columns - 1)
    j, i = min(int(v), max(rows - 2, 0)), min(int(u), max(columns - 2, 0))
    j1, i1 = min(j + 1, rows - 1), min(i + 1, columns - 1)
    v, u = v - j, u - i
    a, b = np.float32((1.0 - v) * (1.0 - u)), np.float32((1.0 - v) * u)
    c, d = np.float32(v * (1.0 - u)), np.float32(v * u)
    first, second, third, fourth = values[j, i], values[j, i1], values[j1, i], values[j1, i1]
    for m in range(out.shape[0]):
        for n in range(out.shape[1]):
            out[m, n] = a * first[m, n] + b * second[m, n] + c * third[m, n] + d * fourth[m, n]


@compiled
def _weights(f: float) -> tuple[float, float, float, float]:
    # Lagrange's cubic through the values at -1, 0, 1 and 2.
    g, h, k = f + 1.0, f - 1.0, f - 2.0
    return -f * h * k / 6.0, 0.5 * g * h * k, -0.5 * g * f * k, g * f * h / 6.0


@compiled
def _slopes(f: float) -> tuple[float, float, float, float]:
    s = 3.0 * f * f
    return (
        -(s - 6.0 * f + 2.0) / 6.0,
        0.5 * (s - 4.0 * f - 1.0),
        -0.5 * (s - 2.0 * f - 2.0),
        (s - 1.0) / 6.0,
    )


@compiled
def fill(
    table: F32,
    over: int,
    dx: float,
    dy: float,
    half: int,
    with_slopes: bool,
    value: F64,
    slope_x: F64,
    slope_y: F64,
    work: F64,
) -> None:
    """Fill a PSF's share in each pixel of a square, and its derivatives with the place.

    Parameters
    ----------
    table : NDArray[np.float32], shape (side, side)
        As `blend` makes it.
    over, half : int
    dx, dy : float
        Place of the source from the middle pixel's centre, within `SPARE_PX`. [pixel]
    with_slopes : bool
        Whether the derivatives are wanted.
    value, slope_x, slope_y : NDArray[np.float64], shape (2 half + 1, 2 half + 1)
    work : NDArray[np.float64], shape (2, 2 half over + 4, 2 half + 1)
    """
    centre = table.shape[0] // 2
    at_x, at_y = centre - dx * over, centre - dy * over
    i0, j0 = math.floor(at_x), math.floor(at_y)
    a0, a1, a2, a3 = _weights(at_x - i0)
    d0, d1, d2, d3 = _slopes(at_x - i0)
    b0, b1, b2, b3 = _weights(at_y - j0)
    e0, e1, e2, e3 = _slopes(at_y - j0)
    first = int(i0) - half * over - 1
    top = int(j0) - half * over - 1
    side = 2 * half + 1
    for row in range(2 * half * over + 4):
        line = table[top + row]
        for i in range(side):
            t = first + i * over
            p, q, r, s = line[t], line[t + 1], line[t + 2], line[t + 3]
            work[0, row, i] = a0 * p + a1 * q + a2 * r + a3 * s
            if with_slopes:
                work[1, row, i] = d0 * p + d1 * q + d2 * r + d3 * s
    for j in range(side):
        m = j * over
        for i in range(side):
            p, q, r, s = work[0, m, i], work[0, m + 1, i], work[0, m + 2, i], work[0, m + 3, i]
            value[j, i] = b0 * p + b1 * q + b2 * r + b3 * s
            if with_slopes:
                slope_y[j, i] = -over * (e0 * p + e1 * q + e2 * r + e3 * s)
                slope_x[j, i] = -over * (
                    b0 * work[1, m, i]
                    + b1 * work[1, m + 1, i]
                    + b2 * work[1, m + 2, i]
                    + b3 * work[1, m + 3, i]
                )
