"""The Petrosian radius: where an annulus has a fifth of the mean light within it."""

import math

import numpy as np

from broker.imaging.kernels import F32, F64, Bools, compiled

PETROSIAN_RATIO = 0.2
PETROSIAN_FACTOR = 2.0
"""The aperture is this many Petrosian radii (Blanton et al. 2001, AJ 121 2358, section 3.2)."""

_INNER = 0.8
_OUTER = 1.25
_BIN = 0.25
_FINE_PX = 6.0


@compiled
def petrosian_radii(pixels: F32, unusable: Bools, xs: F64, ys: F64, max_radius: float) -> F64:
    """Return the Petrosian radii of sources; NaN beyond half of `max_radius`. [pixel]"""
    ny, nx = pixels.shape
    n = int(max_radius * _OUTER / _BIN) + 2
    light, area = np.empty(n), np.empty(n)
    out = np.full(xs.size, np.nan)
    for k in range(xs.size):
        if not (0.0 <= xs[k] < nx and 0.0 <= ys[k] < ny):
            continue
        light[:] = 0.0
        area[:] = 0.0
        # The profile grows outwards; most sources end long before the largest radius.
        done, reach = 0.0, 12.0
        while done < max_radius:
            reach = min(reach, max_radius)
            _add_rings(pixels, unusable, xs[k], ys[k], done, reach * _OUTER, light, area)
            found = _petrosian_radius(light, area, reach)
            if found > 0.0:
                if PETROSIAN_FACTOR * found <= max_radius:
                    out[k] = found
                break
            if reach >= max_radius:
                break
            done, reach = reach * _OUTER, reach * 2.0
    return out


@compiled
def _add_rings(
    pixels: F32,
    unusable: Bools,
    cx: float,
    cy: float,
    inner: float,
    outer: float,
    light: F64,
    area: F64,
) -> None:
    # Adds what lies from `inner` to `outer` to bins of radius, by subpixels.
    ny, nx = pixels.shape
    for y in range(max(0, int(cy - outer)), min(ny, int(cy + outer) + 2)):
        for x in range(max(0, int(cx - outer)), min(nx, int(cx + outer) + 2)):
            dx, dy = x - cx, y - cy
            centre = math.sqrt(dx * dx + dy * dy)
            if centre > outer + 0.71 or centre < inner - 0.71 or unusable[y, x]:
                continue
            sub = 8 if centre < _FINE_PX else 3
            part = 1.0 / (sub * sub)
            for j in range(sub):
                for i in range(sub):
                    u, v = dx + (i + 0.5) / sub - 0.5, dy + (j + 0.5) / sub - 0.5
                    radius = math.sqrt(u * u + v * v)
                    if inner <= radius < outer:
                        bin_ = int(radius / _BIN)
                        if bin_ < light.size:
                            light[bin_] += part * pixels[y, x]
                            area[bin_] += part


@compiled
def _petrosian_radius(light: F64, area: F64, reach: float) -> float:
    """Return where the ratio first falls below a fifth; 0 if nowhere within `reach`."""
    n = min(light.size, int(reach * _OUTER / _BIN))
    total, whole = np.zeros(n + 1), np.zeros(n + 1)
    for i in range(n):
        total[i + 1] = total[i] + light[i]
        whole[i + 1] = whole[i] + area[i]
    previous, before = 1.0, 0.0
    step = max(1, int(0.5 / _BIN))
    for i in range(int(1.5 / _BIN), int(reach / _BIN), step):
        radius = i * _BIN
        low, high = radius * _INNER / _BIN, min(radius * _OUTER / _BIN, float(n))
        ring = _between(total, high) - _between(total, low)
        size = _between(whole, high) - _between(whole, low)
        if size <= 0.0 or whole[i] <= 0.0 or total[i] <= 0.0:
            return 0.0
        ratio = (ring / size) / (total[i] / whole[i])
        if ratio < PETROSIAN_RATIO:
            share = (previous - PETROSIAN_RATIO) / max(previous - ratio, 1e-9)
            return before + share * (radius - before)
        previous, before = ratio, radius
    return 0.0


@compiled
def _between(total: F64, place: float) -> float:
    i = min(int(place), total.size - 2)
    return total[i] + (place - i) * (total[i + 1] - total[i])
