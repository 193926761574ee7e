"""The truth: what was put into the images, for the final comparison only."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from broker.imaging.psf import GaussianPsf
from broker.simulation.cadence import template_visits
from broker.simulation.contract import FloatArray
from broker.simulation.exposure import Drawn
from broker.simulation.moving import NAME, visible_share
from broker.simulation.scene import scene_of
from broker.simulation.settings import Settings

VISIBLE_BORDER_PX = 16
"""Closer to the border than this, a transient is not expected to be found. [px]"""

_LONE_PX = 10.0
"""An isolated transient has no other this near. [px]"""

_CLEAN_PX = 8
"""An isolated transient has no bad pixel this near along either axis. [px]"""

_FAINT = 0.2
"""An isolated transient has no static light above this share of the sky within two pixels."""

_NEIGHBOUR_SNR = 0.5
"""Fainter ones do not count as neighbours."""

_NUMBERS = ("ra", "dec", "x", "y", "psfFlux", "scienceFlux", "templateFlux", "trail")

_SHORT_SIGMAS, _LONG_SIGMAS = 0.5, 2.0
"""Trails that are no point source any more: too long for pulls, and to be expected at all. In
sigma of the PSF."""

TRUTH = pa.schema(
    [
        pa.field("transientId", pa.string(), nullable=False),
        pa.field("class", pa.string(), nullable=False),
        pa.field("visit", pa.int64(), nullable=False),
        pa.field("detector", pa.int32(), nullable=False),
        pa.field("band", pa.string(), nullable=False),
        pa.field("midpointMjdTai", pa.float64(), nullable=False),
        pa.field("ra", pa.float64(), nullable=False),
        pa.field("dec", pa.float64(), nullable=False),
        pa.field("x", pa.float64(), nullable=False),
        pa.field("y", pa.float64(), nullable=False),
        pa.field("psfFlux", pa.float64(), nullable=False),
        pa.field("scienceFlux", pa.float64(), nullable=False),
        pa.field("templateFlux", pa.float64(), nullable=False),
        pa.field("snr", pa.float64(), nullable=False),
        pa.field("isVisible", pa.bool_(), nullable=False),
        pa.field("isIsolated", pa.bool_(), nullable=False),
    ]
)
"""A row for each transient in each image: angles in degrees, pixels from 0, fluxes in nJy.

`psfFlux` is `scienceFlux - templateFlux`, what the difference image shows. `snr` is signed: psfFlux
over the noise of a matched filter (of the sky, the static light there, reading, and the template);
for a moving object, what a filter for points sees of it. A moving object's psfFlux is all its
light, its place that in the middle of the exposure. `isVisible`: not at the border, no bad or full
pixel in its core, no long trail. `isIsolated`: visible, and alone on clean sky."""


def truth_of(seed: int, settings: Settings, drawn: Drawn) -> pa.Table:
    """Return the truth of one exposure, with the schema `TRUTH`; transients off it have no row."""
    calibration, visit = drawn.raw.calibration, drawn.visit
    rows = _transients(seed, settings, drawn)
    n = rows["x"].size
    sigma, trail = drawn.raw.psf.sigma, rows.pop("trail")
    snr = rows["psfFlux"] / _flux_errors(seed, settings, drawn, rows["x"], rows["y"])
    snr *= visible_share(trail, sigma)
    bad = _bad_pixels(drawn)
    visible = np.array(
        [_is_visible(bad[0], x, y) for x, y in zip(rows["x"], rows["y"], strict=True)], dtype=bool
    )
    visible &= trail < _LONG_SIGMAS * sigma
    isolated = visible & (trail < _SHORT_SIGMAS * sigma) & _are_alone(rows["x"], rows["y"], snr)
    for i in np.flatnonzero(isolated):
        isolated[i] = _is_clean(drawn, bad[1], rows["x"][i], rows["y"][i], settings)
    columns = rows | {
        "visit": np.full(n, calibration.visit),
        "detector": np.full(n, calibration.detector),
        "band": [visit.band] * n,
        "midpointMjdTai": np.full(n, visit.midpoint_mjd_tai),
        "snr": snr,
        "isVisible": visible,
        "isIsolated": isolated,
    }
    return pa.table({name: columns[name] for name in TRUTH.names}, schema=TRUTH)


def _transients(seed: int, settings: Settings, drawn: Drawn) -> dict[str, Any]:
    """Return the columns of the transients whose centre is on the image."""
    visit, ny = drawn.visit, settings.detector_px
    parts: dict[str, list[Any]] = {name: [] for name in ("transientId", "class", *_NUMBERS)}
    for everyone in scene_of(
        seed, settings, visit.field, drawn.raw.calibration.detector
    ).transients:
        x, y = drawn.raw.wcs.sky_to_pixel(everyone.ra, everyone.dec)
        on_image = (x >= -0.5) & (x < ny - 0.5) & (y >= -0.5) & (y < ny - 0.5)
        population, kind = everyone.chosen(on_image), everyone.kind
        total = population.flux(visit.midpoint_mjd_tai, visit.band)
        template = population.quiescent_flux(visit.band)
        parts["transientId"] += [f"{kind.name}-{number}" for number in population.number]
        parts["class"] += [kind.name] * total.size
        values = (population.ra, population.dec, x[on_image], y[on_image], total - template)
        rest = (total, template, np.zeros(total.size))
        for name, value in zip(_NUMBERS, (*values, *rest), strict=True):
            parts[name].append(value)
    _add_movers(parts, settings, drawn)
    return {
        name: np.concatenate(value or [np.empty(0)]) if name in _NUMBERS else value
        for name, value in parts.items()
    }


def _add_movers(parts: dict[str, list[Any]], settings: Settings, drawn: Drawn) -> None:
    """Add the moving objects whose middle of the exposure is on the image."""
    seen = drawn.movers
    if seen is None:
        return
    ny = settings.detector_px
    on_image = (seen.x >= -0.5) & (seen.x < ny - 0.5) & (seen.y >= -0.5) & (seen.y < ny - 0.5)
    n = int(on_image.sum())
    parts["transientId"] += [f"{NAME}-{seen.name[i]}" for i in np.flatnonzero(on_image)]
    parts["class"] += [NAME] * n
    flux = seen.flux[on_image]
    places = (seen.ra, seen.dec, seen.x, seen.y)
    values = (*(place[on_image] for place in places), flux, flux, np.zeros(n))
    for name, value in zip(_NUMBERS[:-1], values, strict=True):
        parts[name].append(value)
    parts["trail"].append(np.hypot(seen.dx, seen.dy)[on_image])


def _flux_errors(
    seed: int, settings: Settings, drawn: Drawn, x: FloatArray, y: FloatArray
) -> FloatArray:
    """Return the 1-sigma error of a matched filter's flux at each place. [nJy]

    The filter is the science PSF; the template, sharper, is blurred to it, which leaves less of
    its noise the more it is blurred.
    """
    psf, visit = drawn.raw.psf, drawn.visit
    half = int(np.ceil(3.0 * psf.sigma))
    padded = np.pad(drawn.static, half, mode="edge")
    weights = psf.stamp(size=2 * half + 1) ** 2
    science = np.empty(x.size)
    for k, (column, row) in enumerate(zip(np.rint(x), np.rint(y), strict=True)):
        i, j = int(column), int(row)
        stamp = padded[j : j + 2 * half + 1, i : i + 2 * half + 1]
        science[k] = np.sum(weights * (stamp + drawn.read_variance))
    science *= psf.effective_pixels**2 * visit.flux_per_electron**2
    return np.asarray(np.sqrt(science + _template_variance(seed, settings, drawn)))


def _template_variance(seed: int, settings: Settings, drawn: Drawn) -> float:
    """Return what the template's sky adds to the variance of a flux. [nJy²]"""
    visits = template_visits(seed, settings, drawn.visit.field, drawn.visit.band)
    variances = np.array(
        [
            (v.sky_electrons(settings.scale_arcsec) + drawn.read_variance) * v.flux_per_electron**2
            for v in visits
        ]
    )
    pixel = 1.0 / np.sum(1.0 / variances)
    sigmas = [v.psf_sigma(settings.scale_arcsec) for v in visits]
    sharp2 = float(np.average(np.square(sigmas), weights=1.0 / variances))
    wide2 = drawn.raw.psf.sigma**2
    blur2 = max(wide2 - sharp2, 0.0)
    # Weights p / Σp² on noise blurred by K leave Σ(p * K)² / (Σp²)².
    blurred = GaussianPsf(float(np.sqrt(wide2 + blur2))).effective_pixels
    return float(pixel * drawn.raw.psf.effective_pixels**2 / blurred)


def _bad_pixels(drawn: Drawn) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which pixels are dead or full, and which are that or struck."""
    struck = drawn.bad.copy()
    struck.reshape(-1)[drawn.struck] = True
    return drawn.bad, struck


def _is_visible(bad: NDArray[np.bool_], x: float, y: float) -> bool:
    ny, nx = bad.shape
    inside = min(x, y, nx - 1 - x, ny - 1 - y) >= VISIBLE_BORDER_PX
    return bool(inside and not _near(bad, x, y, 2).any())


def _is_clean(
    drawn: Drawn, struck: NDArray[np.bool_], x: float, y: float, settings: Settings
) -> bool:
    sky = drawn.visit.sky_electrons(settings.scale_arcsec)
    light = _near(drawn.static, x, y, 2).max()
    return bool(light < (1.0 + _FAINT) * sky and not _near(struck, x, y, _CLEAN_PX).any())


def _near(plane: NDArray[Any], x: float, y: float, reach: int) -> NDArray[Any]:
    i, j = round(x), round(y)
    return plane[max(j - reach, 0) : j + reach + 1, max(i - reach, 0) : i + reach + 1]


def _are_alone(x: FloatArray, y: FloatArray, snr: FloatArray) -> NDArray[np.bool_]:
    """Return which have no neighbour that counts."""
    near = np.hypot(x[:, None] - x, y[:, None] - y) < _LONE_PX
    np.fill_diagonal(near, False)
    return np.asarray(~np.any(near & (np.abs(snr) > _NEIGHBOUR_SNR), axis=1))
