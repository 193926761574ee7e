"""The compiled loops of warping: a cubic B-spline at positions known on a coarse grid.

Between the grid's points positions are linear, so over a short run of pixels both the source's row
and the distance to the source's column stay the same: there neighbours lie side by side, and vector
instructions do the work. An image that is turned by more than some degrees goes pixel by pixel.
"""

import math
from typing import Any

import numpy as np

from broker.imaging.kernels import F32, F64, Mask, compiled

_NUDGE = 1e-6
"""A position this far below a pixel is on it: rounding must not cut the runs. [pixel]"""

_MOST_BREAKS = 3.0
"""With more runs than this in a step of the grid they are too short to be worth it."""


@compiled
def _weights(u: Any) -> Any:
    # Values of the cubic B-spline at distances 1 + u, u, 1 - u, 2 - u.
    one, two = np.float32(1.0), np.float32(2.0)
    sixth, most, half = np.float32(1.0 / 6.0), np.float32(2.0 / 3.0), np.float32(0.5)
    v = one - u
    inner, outer = most - half * u * u * (two - u), most - half * v * v * (two - v)
    return v * v * v * sixth, inner, outer, u * u * u * sixth


@compiled
def _spline_run(
    r0: F32, r1: F32, r2: F32, r3: F32, u: Any, du: Any, v: Any, dv: Any, out: F32
) -> None:
    for x in range(out.size):
        a0, a1, a2, a3 = _weights(u + np.float32(x) * du)
        b0, b1, b2, b3 = _weights(v + np.float32(x) * dv)
        total = b0 * (a0 * r0[x] + a1 * r0[x + 1] + a2 * r0[x + 2] + a3 * r0[x + 3])
        total += b1 * (a0 * r1[x] + a1 * r1[x + 1] + a2 * r1[x + 2] + a3 * r1[x + 3])
        total += b2 * (a0 * r2[x] + a1 * r2[x + 1] + a2 * r2[x + 2] + a3 * r2[x + 3])
        total += b3 * (a0 * r3[x] + a1 * r3[x + 1] + a2 * r3[x + 2] + a3 * r3[x + 3])
        out[x] = total


@compiled
def _linear_run(r1: F32, r2: F32, u: Any, du: Any, v: Any, dv: Any, out: F32) -> None:
    for x in range(out.size):
        share = u + np.float32(x) * du
        low, high = r1[x] + share * (r1[x + 1] - r1[x]), r2[x] + share * (r2[x + 1] - r2[x])
        out[x] = low + (v + np.float32(x) * dv) * (high - low)


@compiled
def _mask_run(m1: Mask, m2: Mask, out: Mask) -> None:
    for x in range(out.size):
        out[x] = m1[x] | m1[x + 1] | m2[x] | m2[x + 1]


@compiled
def _run_length(y: float, x: float, dy: float, dx: float, most: int) -> int:
    """Return over how many pixels the source's row and its column's distance stay the same."""
    j, i, last = math.floor(y), math.floor(x), most - 1
    if math.floor(y + last * dy) == j and math.floor(x + last * dx) == i + last:
        return most
    n = 1
    while n < most and math.floor(y + n * dy) == j and math.floor(x + n * dx) == i + n:
        n += 1
    return n


@compiled
def warp_planes(
    coefficients: F32,
    variance: F32,
    mask: Mask,
    grid_y: F64,
    grid_x: F64,
    step: int,
    no_data: int,
    out: F32,
    out_variance: F32,
    out_mask: Mask,
) -> None:
    """Evaluate a spline, a variance plane and a mask at the coordinates of a coarse grid.

    Parameters
    ----------
    coefficients, variance : NDArray[np.float32], shape (ny, nx)
        Of the source image; `coefficients` from `broker.imaging.kernels.spline_coefficients`.
    mask : NDArray[np.uint16], shape (ny, nx)
        Its mask; the output has the bits of the four nearest pixels.
    grid_y, grid_x : NDArray[np.float64], shape (n_rows // step + 2, n_columns // step + 2)
        Where the output's pixels (row * step, column * step) lie in the source image; between
        them positions are interpolated linearly.
    step : int
    no_data : int
        Bit that is set, with value and variance 0, where the spline's 4 x 4 pixels are not all
        inside the source image.
    out, out_variance, out_mask : NDArray, shape (n_rows, n_columns)
        Filled.
    """
    ny, nx = coefficients.shape
    rows, columns = out.shape
    for row in range(rows):
        g = row // step
        w = (row - g * step) / step
        for k in range((columns + step - 1) // step):
            y = (1.0 - w) * grid_y[g, k] + w * grid_y[g + 1, k] + _NUDGE
            x = (1.0 - w) * grid_x[g, k] + w * grid_x[g + 1, k] + _NUDGE
            dy = ((1.0 - w) * grid_y[g, k + 1] + w * grid_y[g + 1, k + 1] + _NUDGE - y) / step
            dx = ((1.0 - w) * grid_x[g, k + 1] + w * grid_x[g + 1, k + 1] + _NUDGE - x) / step
            first, most = k * step, min(step, columns - k * step)
            if (abs(dx - 1.0) + abs(dy)) * step > _MOST_BREAKS:
                _scattered(
                    coefficients, variance, mask, y, x, dy, dx, no_data,
                    out[row, first : first + most], out_variance[row, first : first + most],
                    out_mask[row, first : first + most],
                )  # fmt: skip
                continue
            done = 0
            while done < most:
                here_y, here_x = y + done * dy, x + done * dx
                n = _run_length(here_y, here_x, dy, dx, most - done)
                j, i = math.floor(here_y), math.floor(here_x)
                a, done = first + done, done + n
                # The pixels of the run whose neighbours are all inside.
                low, high = max(0, 1 - i), min(n, nx - 2 - i)
                if j < 1 or j > ny - 3 or low >= high:
                    low = high = n
                if low > 0 or high < n:
                    _leave_out(out, out_variance, out_mask, no_data, row, a, a + low)
                    _leave_out(out, out_variance, out_mask, no_data, row, a + high, a + n)
                if low >= high:
                    continue
                u = np.float32(here_x + low * (dx - 1.0) - i - _NUDGE)
                v = np.float32(here_y + low * dy - j - _NUDGE)
                i, a, n = i + low, a + low, high - low
                du, dv, e, b = np.float32(dx - 1.0), np.float32(dy), i + n + 2, a + n
                _spline_run(
                    coefficients[j - 1, i - 1 : e], coefficients[j, i - 1 : e],
                    coefficients[j + 1, i - 1 : e], coefficients[j + 2, i - 1 : e],
                    u, du, v, dv, out[row, a:b],
                )  # fmt: skip
                above, below = variance[j, i:e], variance[j + 1, i:e]
                _linear_run(above, below, u, du, v, dv, out_variance[row, a:b])
                _mask_run(mask[j, i:e], mask[j + 1, i:e], out_mask[row, a:b])


@compiled
def _leave_out(
    out: F32, out_variance: F32, out_mask: Mask, no_data: int, row: int, a: int, b: int
) -> None:
    for x in range(a, b):
        out[row, x] = 0.0
        out_variance[row, x] = 0.0
        out_mask[row, x] = no_data


@compiled
def _scattered(
    coefficients: F32,
    variance: F32,
    mask: Mask,
    y: float,
    x: float,
    dy: float,
    dx: float,
    no_data: int,
    out: F32,
    out_variance: F32,
    out_mask: Mask,
) -> None:
    """Do a run pixel by pixel."""
    ny, nx = coefficients.shape
    one = np.float32(1.0)
    for t in range(out.size):
        here_y, here_x = y + t * dy, x + t * dx
        fy, fx = math.floor(here_y), math.floor(here_x)
        j, i = int(fy), int(fx)
        if j < 1 or i < 1 or j > ny - 3 or i > nx - 3:
            out[t] = 0.0
            out_variance[t] = 0.0
            out_mask[t] = no_data
            continue
        u, v = np.float32(here_x - fx - _NUDGE), np.float32(here_y - fy - _NUDGE)
        a0, a1, a2, a3 = _weights(u)
        b = _weights(v)
        total = np.float32(0.0)
        for k in range(4):
            r = coefficients[j - 1 + k]
            total += b[k] * (a0 * r[i - 1] + a1 * r[i] + a2 * r[i + 1] + a3 * r[i + 2])
        out[t] = total
        below = (one - u) * variance[j, i] + u * variance[j, i + 1]
        above = (one - u) * variance[j + 1, i] + u * variance[j + 1, i + 1]
        out_variance[t] = (one - v) * below + v * above
        out_mask[t] = mask[j, i] | mask[j, i + 1] | mask[j + 1, i] | mask[j + 1, i + 1]
