"""Fluxes of extended sources: apertures, Kron, Petrosian; shapes by adaptive moments."""

import math
from dataclasses import dataclass

import numpy as np

from broker.detection.galaxies.petrosian import PETROSIAN_FACTOR, petrosian_radii
from broker.imaging.kernels import F32, F64, Bools, compiled

KRON_FACTOR = 2.5
KRON_REACH = 6.0
"""The Kron radius is measured out to this many semi-axes."""

LEAST_KRON = 3.5
"""Least semi-axis of a Kron aperture, over that of the source, as in SExtractor."""

_SUB = 5
_MAX_ROUNDS = 40
_FAR = 1e9


@dataclass(frozen=True)
class Shapes:
    """Ellipses of sources, arrays of shape (n_sources,): those of the Gaussian that fits best.

    Parameters
    ----------
    a, b : NDArray[np.float64]
        1-sigma semi-axes, a the longer one; NaN where no Gaussian fits. [pixel]
    theta : NDArray[np.float64]
        Angle of a from the x axis towards y, within ±pi/2. [rad]
    """

    a: F64
    b: F64
    theta: F64


@dataclass(frozen=True)
class Photometry:
    """Fluxes within apertures, arrays of shape (n_sources,), in the image's unit.

    Parameters
    ----------
    flux, flux_err : NDArray[np.float64]
        NaN where there is no aperture. The error is that of the variance plane.
    radius : NDArray[np.float64]
        Kron's as a multiple of the semi-axes; Petrosian's and apertures' in pixels.
    masked : NDArray[np.float64]
        Share of the aperture that is unusable or outside; it counts as 0 flux.
    """

    flux: F64
    flux_err: F64
    radius: F64
    masked: F64


def adaptive_shapes(pixels: F32, x: F64, y: F64, *, psf_sigma: float, unusable: Bools) -> Shapes:
    """Return the ellipses of sources, by moments whose elliptical weight is fitted along.

    Parameters
    ----------
    pixels : NDArray[np.float32], shape (ny, nx)
        Background-subtracted.
    x, y : NDArray[np.float64], shape (n_sources,)
    psf_sigma : float
        Where the weight starts. [pixel]
    unusable : NDArray[np.bool_], shape (ny, nx)

    Notes
    -----
    Bernstein & Jarvis 2002, AJ 123 583, section 3: the weight is the Gaussian whose weighted
    moments are half its own.
    """
    table = _adaptive(pixels, unusable, _known(x, y), _without_nan(y), float(psf_sigma))
    return Shapes(table[:, 0], table[:, 1], table[:, 2])


def aperture_photometry(
    pixels: F32, variance: F32, x: F64, y: F64, radius: float, *, unusable: Bools
) -> Photometry:
    """Return the fluxes in circles of one radius [pixel]; pixels at the border in part."""
    n = np.asarray(x).size
    return ellipse_photometry(
        pixels,
        variance,
        x,
        y,
        Shapes(np.full(n, 1.0), np.full(n, 1.0), np.zeros(n)),
        np.full(n, float(radius)),
        unusable=unusable,
    )


def ellipse_photometry(
    pixels: F32, variance: F32, x: F64, y: F64, shapes: Shapes, scale: F64, *, unusable: Bools
) -> Photometry:
    """Return the fluxes in ellipses of `scale` times the semi-axes."""
    table = _ellipses(
        pixels,
        variance,
        unusable,
        _known(x, y, shapes.a, shapes.b, shapes.theta, scale),
        *(_without_nan(v) for v in (y, shapes.a, shapes.b, shapes.theta, scale)),
    )
    return Photometry(table[:, 0], table[:, 1], _f64(scale), table[:, 2])


def kron_photometry(
    pixels: F32, variance: F32, x: F64, y: F64, shapes: Shapes, *, unusable: Bools
) -> Photometry:
    """Return the fluxes in 2.5 Kron radii (Kron 1980, ApJS 43 305).

    Where the radius cannot be measured or is small, the ellipse has 3.5 semi-axes.
    """
    radius = kron_radii(pixels, x, y, shapes, unusable=unusable)
    scale = np.fmax(KRON_FACTOR * radius, LEAST_KRON)
    scale = np.where(np.isfinite(shapes.a), scale, np.nan)
    return ellipse_photometry(pixels, variance, x, y, shapes, scale, unusable=unusable)


def kron_radii(pixels: F32, x: F64, y: F64, shapes: Shapes, *, unusable: Bools) -> F64:
    """Return the first moments of light in elliptical radius, in semi-axes; NaN if undefined."""
    return np.asarray(
        _kron(
            pixels,
            unusable,
            _known(x, y, shapes.a, shapes.b, shapes.theta),
            *(_without_nan(v) for v in (y, shapes.a, shapes.b, shapes.theta)),
            KRON_REACH,
        )
    )


def petrosian_photometry(
    pixels: F32,
    variance: F32,
    x: F64,
    y: F64,
    *,
    unusable: Bools,
    max_radius: float = 60.0,
) -> Photometry:
    """Return the fluxes in two Petrosian radii, in circles.

    The radius is where the light of an annulus from 0.8 to 1.25 r is a fifth of the mean within r.
    NaN where it is not reached within half of `max_radius`.

    Parameters
    ----------
    max_radius : float
        Of the largest aperture. [pixel]
    """
    radius = petrosian_radii(pixels, unusable, _known(x, y), _without_nan(y), float(max_radius))
    n = radius.size
    shapes = Shapes(np.ones(n), np.ones(n), np.zeros(n))
    got = ellipse_photometry(
        pixels, variance, x, y, shapes, PETROSIAN_FACTOR * radius, unusable=unusable
    )
    return Photometry(got.flux, got.flux_err, radius, got.masked)


def _f64(values: F64) -> F64:
    return np.ascontiguousarray(values, np.float64)


def _known(x: F64, *others: F64) -> F64:
    """Return x, far outside the image where it or another value is not finite.

    The loops are compiled without NaN.
    """
    good = np.isfinite(_f64(x))
    for values in others:
        good = good & np.isfinite(_f64(values))
    return np.where(good, x, _FAR)


def _without_nan(values: F64) -> F64:
    return np.nan_to_num(_f64(values), nan=_FAR, posinf=_FAR, neginf=_FAR)


@compiled
def _adaptive(pixels: F32, unusable: Bools, xs: F64, ys: F64, sigma: float) -> F64:
    out = np.full((xs.size, 3), np.nan)
    for k in range(xs.size):
        wxx, wxy, wyy, good = sigma * sigma, 0.0, sigma * sigma, False
        for _ in range(_MAX_ROUNDS):
            total, xx, xy, yy = _weighted(pixels, unusable, xs[k], ys[k], wxx, wxy, wyy)
            if total <= 0.0:
                break
            xx, xy, yy = xx / total, xy / total, yy / total
            # The Gaussian of covariance C has moments (C^-1 + W^-1)^-1; solve for C.
            det, wdet = xx * yy - xy * xy, wxx * wyy - wxy * wxy
            if det <= 0.0 or wdet <= 0.0:
                break
            a, b, c = yy / det - wyy / wdet, -xy / det + wxy / wdet, xx / det - wxx / wdet
            inverse = a * c - b * b
            if inverse <= 0.0 or a <= 0.0:
                # Far wider than the weight: widen it and look again.
                wxx, wxy, wyy = 2.0 * xx + wxx, 2.0 * xy + wxy, 2.0 * yy + wyy
            else:
                nxx, nxy, nyy = c / inverse, -b / inverse, a / inverse
                change = abs(nxx - wxx) + abs(nxy - wxy) + abs(nyy - wyy)
                # Half way: noise must not make the weight jump.
                wxx, wxy, wyy = 0.5 * (wxx + nxx), 0.5 * (wxy + nxy), 0.5 * (wyy + nyy)
                if change < 2e-3 * (wxx + wyy):
                    good = True
                    break
            if wxx + wyy > 5000.0:
                break
        if good:
            mean, gap = 0.5 * (wxx + wyy), math.hypot(0.5 * (wxx - wyy), wxy)
            out[k, 0] = math.sqrt(mean + gap)
            out[k, 1] = math.sqrt(max(mean - gap, 1e-6))
            out[k, 2] = 0.5 * math.atan2(2.0 * wxy, wxx - wyy)
    return out


@compiled
def _weighted(
    pixels: F32, unusable: Bools, cx: float, cy: float, wxx: float, wxy: float, wyy: float
) -> tuple[float, float, float, float]:
    ny, nx = pixels.shape
    det = wxx * wyy - wxy * wxy
    reach_x, reach_y = 4.0 * math.sqrt(wxx), 4.0 * math.sqrt(wyy)
    total, xx, xy, yy = 0.0, 0.0, 0.0, 0.0
    if det <= 0.0 or not (abs(cx) < 1e6 and abs(cy) < 1e6):
        return 0.0, 0.0, 0.0, 0.0
    for y in range(max(0, int(cy - reach_y)), min(ny, int(cy + reach_y) + 2)):
        for x in range(max(0, int(cx - reach_x)), min(nx, int(cx + reach_x) + 2)):
            dx, dy = x - cx, y - cy
            square = (wyy * dx * dx - 2.0 * wxy * dx * dy + wxx * dy * dy) / det
            if square > 16.0 or unusable[y, x]:
                continue
            value = pixels[y, x] * math.exp(-0.5 * square)
            total += value
            xx += value * dx * dx
            xy += value * dx * dy
            yy += value * dy * dy
    return total, xx, xy, yy


@compiled
def _coverage(
    dx: float, dy: float, cxx: float, cyy: float, cxy: float, limit: float, margin: float
) -> float:
    # Share of a pixel within an ellipse: 1 or 0 if it is surely in or out, else by subpixels.
    radius = math.sqrt(cxx * dx * dx + cyy * dy * dy + cxy * dx * dy)
    if radius < limit - margin:
        return 1.0
    if radius > limit + margin:
        return 0.0
    inside = 0
    for j in range(_SUB):
        for i in range(_SUB):
            u = dx + (i + 0.5) / _SUB - 0.5
            v = dy + (j + 0.5) / _SUB - 0.5
            if cxx * u * u + cyy * v * v + cxy * u * v < limit * limit:
                inside += 1
    return inside / (_SUB * _SUB)


@compiled
def _ellipses(
    pixels: F32,
    variance: F32,
    unusable: Bools,
    xs: F64,
    ys: F64,
    a: F64,
    b: F64,
    theta: F64,
    scale: F64,
) -> F64:
    ny, nx = pixels.shape
    out = np.full((xs.size, 3), np.nan)
    for k in range(xs.size):
        reach = a[k] * scale[k]
        if not (0.0 < reach < 1e4 and b[k] > 0.0 and abs(xs[k]) < 1e6 and abs(ys[k]) < 1e6):
            continue
        cos, sin = math.cos(theta[k]), math.sin(theta[k])
        cxx = (cos / a[k]) ** 2 + (sin / b[k]) ** 2
        cyy = (sin / a[k]) ** 2 + (cos / b[k]) ** 2
        cxy = 2.0 * cos * sin * (1.0 / a[k] ** 2 - 1.0 / b[k] ** 2)
        margin = 0.7072 / b[k]
        flux, noise, area, lost = 0.0, 0.0, 0.0, 0.0
        for y in range(math.floor(ys[k] - reach), math.ceil(ys[k] + reach) + 1):
            for x in range(math.floor(xs[k] - reach), math.ceil(xs[k] + reach) + 1):
                share = _coverage(x - xs[k], y - ys[k], cxx, cyy, cxy, scale[k], margin)
                if share == 0.0:
                    continue
                area += share
                if y < 0 or x < 0 or y >= ny or x >= nx or unusable[y, x]:
                    lost += share
                    continue
                flux += share * pixels[y, x]
                noise += share * variance[y, x]
        if area > lost:
            out[k, 0], out[k, 1], out[k, 2] = flux, math.sqrt(noise), lost / area
    return out


@compiled
def _kron(
    pixels: F32, unusable: Bools, xs: F64, ys: F64, a: F64, b: F64, theta: F64, reach: float
) -> F64:
    ny, nx = pixels.shape
    out = np.full(xs.size, np.nan)
    for k in range(xs.size):
        limit = a[k] * reach
        if not (0.0 < limit < 1e4 and b[k] > 0.0 and abs(xs[k]) < 1e6 and abs(ys[k]) < 1e6):
            continue
        cos, sin = math.cos(theta[k]), math.sin(theta[k])
        cxx = (cos / a[k]) ** 2 + (sin / b[k]) ** 2
        cyy = (sin / a[k]) ** 2 + (cos / b[k]) ** 2
        cxy = 2.0 * cos * sin * (1.0 / a[k] ** 2 - 1.0 / b[k] ** 2)
        first, total = 0.0, 0.0
        for y in range(max(0, int(ys[k] - limit)), min(ny, int(ys[k] + limit) + 2)):
            for x in range(max(0, int(xs[k] - limit)), min(nx, int(xs[k] + limit) + 2)):
                dx, dy = x - xs[k], y - ys[k]
                square = cxx * dx * dx + cyy * dy * dy + cxy * dx * dy
                if square > reach * reach or unusable[y, x]:
                    continue
                first += math.sqrt(square) * pixels[y, x]
                total += pixels[y, x]
        if total > 0.0 and first > 0.0:
            out[k] = first / total
    return out
