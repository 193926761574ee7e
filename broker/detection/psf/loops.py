"""The compiled loops of point-source fits by a PSF in tables."""

import math

import numpy as np
from numpy.typing import NDArray

from broker.detection.psf.tables import SPARE_PX, blend, fill
from broker.imaging.kernels import F32, F64, Bools, compiled

_STILL = 0.03
"""A step this small is no step, in errors of what it changes."""


@compiled
def _add(residual: F32, cx: int, cy: int, half: int, flux: float, value: F64) -> None:
    ny, nx = residual.shape
    for j in range(max(0, cy - half), min(ny, cy + half + 1)):
        for i in range(max(0, cx - half), min(nx, cx + half + 1)):
            residual[j, i] += np.float32(flux * value[j - cy + half, i - cx + half])


@compiled
def restore(
    residual: F32, tables: F32, over: int, half: int, xs: F64, ys: F64, fluxes: F64
) -> None:
    """Add the light of sources to a residual."""
    ny, nx = residual.shape
    psf = np.empty(tables.shape[2:], np.float32)
    side = 2 * half + 1
    whole, none, work = (
        np.empty((side, side)),
        np.empty((1, 1)),
        np.empty((2, side * over + 4, side)),
    )
    for k in range(xs.size):
        cx, cy = round(xs[k]), round(ys[k])
        blend(tables, ny, nx, xs[k], ys[k], psf)
        fill(psf, over, xs[k] - cx, ys[k] - cy, half, False, whole, none, none, work)
        _add(residual, cx, cy, half, fluxes[k], whole)


@compiled
def _equations(
    residual: F32,
    pixels: F32,
    variance: F32,
    unusable: Bools,
    cx: int,
    cy: int,
    half: int,
    flux: float,
    prior: float,
    per_count: float,
    floor: float,
    value: F64,
    slope_x: F64,
    slope_y: F64,
    normal: F64,
    right: F64,
) -> tuple[float, float, float, float]:
    # As in measure.py; `residual` still has this source, and what it lacks of `pixels` is others'.
    ny, nx = pixels.shape
    normal[:] = 0.0
    right[:] = 0.0
    chi2, count, power, full = 0.0, 0.0, 0.0, 0.0
    for j in range(2 * half + 1):
        for i in range(2 * half + 1):
            p = value[j, i]
            full += p * p
            y, x = cy + j - half, cx + i - half
            if y < 0 or x < 0 or y >= ny or x >= nx or unusable[y, x]:
                continue
            light = prior * p + max(pixels[y, x] - residual[y, x], 0.0)
            weight = 1.0 / max(variance[y, x] + light * per_count, floor)
            gx, gy = flux * slope_x[j, i], flux * slope_y[j, i]
            rest = residual[y, x] - flux * p
            normal[0, 0] += weight * p * p
            normal[0, 1] += weight * p * gx
            normal[0, 2] += weight * p * gy
            normal[1, 1] += weight * gx * gx
            normal[1, 2] += weight * gx * gy
            normal[2, 2] += weight * gy * gy
            right[0] += weight * p * rest
            right[1] += weight * gx * rest
            right[2] += weight * gy * rest
            chi2 += weight * rest * rest
            count += 1.0
            power += p * p
    normal[1, 0], normal[2, 0], normal[2, 1] = normal[0, 1], normal[0, 2], normal[1, 2]
    return chi2, count, power, full


@compiled
def _fit_one(
    residual: F32,
    pixels: F32,
    variance: F32,
    unusable: Bools,
    psf: F32,
    over: int,
    half_fit: int,
    per_count: float,
    floor: float,
    cx: int,
    cy: int,
    dx: float,
    dy: float,
    flux: float,
    fresh: bool,
    start_x: float,
    start_y: float,
    failed: float,
    steps: int,
    limit: float,
    sigma: float,
    value: F64,
    slope_x: F64,
    slope_y: F64,
    work: F64,
    normal: F64,
    right: F64,
) -> tuple[int, int, float, float, float, float]:
    """Return the pixel, the place from it, the flux, and whether the fit left its start."""
    for step in range(steps):
        fill(psf, over, dx, dy, half_fit, True, value, slope_x, slope_y, work)
        _equations(
            residual, pixels, variance, unusable, cx, cy, half_fit, flux, flux, per_count,
            floor, value, slope_x, slope_y, normal, right,
        )  # fmt: skip
        if normal[0, 0] <= 0.0:
            flux = 0.0
            break
        if step == 0:
            # The flux first: steps of the place are as good as the flux is.
            gain = right[0] / normal[0, 0]
            right[1] -= normal[0, 1] * gain
            right[2] -= normal[0, 2] * gain
            flux += gain
            if fresh:
                continue
        else:
            flux += right[0] / normal[0, 0]
        a, b, c = normal[1, 1], normal[1, 2], normal[2, 2]
        det = a * c - b * b
        if failed > 0.0 or det <= 0.0 or flux <= 0.0:
            if step > 2:
                break
            continue
        move_x = (c * right[1] - b * right[2]) / det
        move_y = (a * right[2] - b * right[1]) / det
        damp = max(1.0, max(abs(move_x), abs(move_y)) / (0.5 * sigma))
        dx, dy = dx + move_x / damp, dy + move_y / damp
        far = max(abs(cx + dx - start_x), abs(cy + dy - start_y)) > limit
        out = max(abs(dx), abs(dy)) > SPARE_PX
        if far:
            failed, cx, cy = 1.0, round(start_x), round(start_y)
            dx, dy = start_x - cx, start_y - cy
        elif out:
            x, y = cx + dx, cy + dy
            cx, cy = round(x), round(y)
            dx, dy = x - cx, y - cy
        elif abs(move_x) + abs(move_y) < 1e-4:
            break
    return cx, cy, dx, dy, flux, failed


@compiled
def sweep(
    residual: F32,
    pixels: F32,
    variance: F32,
    unusable: Bools,
    tables: F32,
    over: int,
    half: int,
    half_fit: int,
    per_count: float,
    floor: float,
    xs: F64,
    ys: F64,
    fluxes: F64,
    start_x: F64,
    start_y: F64,
    order: NDArray[np.int64],
    active: Bools,
    steps: NDArray[np.int64],
    limit: float,
    sigma: float,
    lost: F64,
) -> Bools:
    """Fit every active source once; return which of them have moved."""
    ny, nx = pixels.shape
    psf = np.empty(tables.shape[2:], np.float32)
    side, side_fit = 2 * half + 1, 2 * half_fit + 1
    whole, none = np.empty((side, side)), np.empty((1, 1))
    work = np.empty((2, 2 * half * over + 4, side))
    value, slope_x = np.empty((side_fit, side_fit)), np.empty((side_fit, side_fit))
    slope_y = np.empty((side_fit, side_fit))
    normal, right = np.empty((3, 3)), np.empty(3)
    moved = np.zeros(xs.size, np.bool_)
    for k in order:
        if not active[k]:
            continue
        cx, cy = round(xs[k]), round(ys[k])
        blend(tables, ny, nx, xs[k], ys[k], psf)
        dx, dy, flux = xs[k] - cx, ys[k] - cy, fluxes[k]
        fresh = flux == 0.0
        if not fresh:
            fill(psf, over, dx, dy, half, False, whole, none, none, work)
            _add(residual, cx, cy, half, flux, whole)
        cx, cy, dx, dy, flux, failed = _fit_one(
            residual, pixels, variance, unusable, psf, over, half_fit, per_count, floor, cx, cy,
            dx, dy, flux, fresh, start_x[k], start_y[k], lost[k], steps[k], limit, sigma,
            value, slope_x, slope_y, work, normal, right,
        )  # fmt: skip
        if cx + dx < 0.0 or cy + dy < 0.0 or cx + dx > nx - 1.0 or cy + dy > ny - 1.0:
            failed, cx, cy = 1.0, round(start_x[k]), round(start_y[k])
            dx, dy = start_x[k] - cx, start_y[k] - cy
        fill(psf, over, dx, dy, half, False, whole, none, none, work)
        _add(residual, cx, cy, half, -flux, whole)
        gone_x, gone_y, gain = cx + dx - xs[k], cy + dy - ys[k], flux - fluxes[k]
        step2 = gain * gain * normal[0, 0]
        step2 += gone_x * gone_x * normal[1, 1] + gone_y * gone_y * normal[2, 2]
        moved[k] = step2 > _STILL * _STILL
        xs[k], ys[k], fluxes[k], lost[k] = cx + dx, cy + dy, flux, failed
    return moved


@compiled
def finish(
    residual: F32,
    pixels: F32,
    variance: F32,
    unusable: Bools,
    tables: F32,
    over: int,
    half_fit: int,
    per_count: float,
    floor: float,
    xs: F64,
    ys: F64,
    fluxes: F64,
    table: F64,
) -> None:
    """Write errors, chi-square and the usable share of each source, at its final place."""
    ny, nx = pixels.shape
    psf = np.empty(tables.shape[2:], np.float32)
    side = 2 * half_fit + 1
    value, slope_x, slope_y = (
        np.empty((side, side)),
        np.empty((side, side)),
        np.empty((side, side)),
    )
    work = np.empty((2, 2 * half_fit * over + 4, side))
    normal, right = np.empty((3, 3)), np.empty(3)
    rest = np.empty((side, side), np.float32)
    mine = np.empty((side, side), np.float32)
    noise = np.empty((side, side), np.float32)
    masked = np.empty((side, side), np.bool_)
    for k in range(xs.size):
        cx, cy = round(xs[k]), round(ys[k])
        blend(tables, ny, nx, xs[k], ys[k], psf)
        fill(psf, over, xs[k] - cx, ys[k] - cy, half_fit, True, value, slope_x, slope_y, work)
        for j in range(side):
            for i in range(side):
                y, x = cy + j - half_fit, cx + i - half_fit
                inside = 0 <= y < ny and 0 <= x < nx
                masked[j, i] = not inside or unusable[y, x]
                own = fluxes[k] * value[j, i]
                rest[j, i] = residual[y, x] + own if inside else 0.0
                mine[j, i] = pixels[y, x] if inside else 0.0
                noise[j, i] = variance[y, x] if inside else 1.0
        chi2, count, power, full = _equations(
            rest, mine, noise, masked, half_fit, half_fit, half_fit, fluxes[k], fluxes[k],
            per_count, floor, value, slope_x, slope_y, normal, right,
        )  # fmt: skip
        a, b, c = normal[0, 0], normal[0, 1], normal[0, 2]
        d, e, f = normal[1, 1], normal[1, 2], normal[2, 2]
        det = a * (d * f - e * e) - b * (b * f - c * e) + c * (b * e - c * d)
        table[k, 1] = table[k, 2] = table[k, 3] = np.inf
        if det > 0.0:
            table[k, 1] = math.sqrt((d * f - e * e) / det)
            table[k, 2] = math.sqrt((a * f - c * c) / det)
            table[k, 3] = math.sqrt((a * d - b * b) / det)
        elif a > 0.0:
            table[k, 1] = math.sqrt(1.0 / a)
        table[k, 4] = chi2 / max(count - 3.0, 1.0)
        table[k, 6] = power / max(full, 1e-30)
