"""Warping beside reproject and SciPy: speed, and what of flux and place is lost."""

from typing import Any

import numpy as np

from broker.bench_rows import Row, at_least, at_most
from broker.detection.measure import Noise, fit_sources
from broker.imaging.kernels import F32, F64
from broker.imaging.warp import coordinate_grid, warp
from broker.imaging.wcs import Wcs
from broker.ops.image_bench.rows import MPIX, SIGMA, make_image, make_wcs, seconds
from broker.simulation.kernels import add_gaussians

_TURN_DEG = 3.0
_FLUX, _PITCH = 1e5, 40


def rows(side: int, repeats: int) -> list[Row]:
    """Measure a turn by three degrees of stars without noise, whose places are known."""
    from astropy.wcs import WCS
    from reproject import reproject_interp
    from scipy.ndimage import map_coordinates

    pixels, x, y = _stars(side)
    image = make_image(pixels, make_wcs(side))
    turned = make_wcs(side, turn=np.radians(_TURN_DEG))
    shape = (side, side)
    from_wcs, to_wcs = WCS(image.wcs.header()), WCS(turned.header())
    grid_y, grid_x = coordinate_grid(image.wcs, turned, shape, step=1)
    places = np.stack([grid_y[:side, :side], grid_x[:side, :side]])

    def theirs() -> Any:
        return reproject_interp(
            (pixels, from_wcs), to_wcs, shape_out=shape, order="bicubic", return_footprint=False
        )

    own, spline = seconds(
        max(2, repeats // 2),
        lambda: warp(image, turned, shape),
        lambda: map_coordinates(pixels, places, order=3, mode="mirror", output=np.float32),
    )
    (other,) = seconds(1, theirs)
    mpix = side * side / MPIX
    bias, place = _errors(warp(image, turned, shape).pixels, image.wcs, turned, x, y)
    known = np.nan_to_num(np.asarray(theirs(), np.float32))
    their_bias, their_place = _errors(known, image.wcs, turned, x, y)
    return [
        at_least("warp / reproject bicubic, speed", other / own, 15.0, "1"),
        at_least("warp / SciPy's spline with its map given, speed", spline / own, 1.9, "1"),
        Row("warp, Mpix/s", mpix / own, "", f"reproject {mpix / other:.1f}", None),
        at_most("warp, |flux bias|", bias, 3e-4, f"reproject {their_bias:.1e}"),
        at_most("warp, place rms [pixel]", place, 1e-3, f"reproject {their_place:.1e}"),
        *_noise(side),
    ]


def _noise(side: int) -> list[Row]:
    """Return what a warp makes of white noise: its own, its neighbours', and a PSF flux's."""
    white = np.random.default_rng(42).standard_normal((side, side), np.float32)
    image = make_image(white, make_wcs(side))
    inner = np.s_[side // 8 : -side // 8, side // 8 : -side // 8]
    moved = warp(image, make_wcs(side, turn=np.radians(_TURN_DEG)), (side, side)).pixels[inner]
    variance = float(np.mean(moved * moved, dtype=np.float64))
    beside, below = (
        float(np.mean(a * b, dtype=np.float64)) / variance
        for a, b in ((moved[:, 1:], moved[:, :-1]), (moved[1:], moved[:-1]))
    )
    # The plane stays that of the pixels that came in: so a PSF flux must be as noisy as there.
    before, after = _flux_noise(white[inner]), _flux_noise(moved)
    return [
        Row("warp, variance of a pixel's noise / before", variance, "", "white noise 1", None),
        Row("warp, correlation of neighbours' noise", 0.5 * (beside + below), "",
            "white noise 0", None),
        Row("warp, variance of a PSF flux's noise / before", after / before, "",
            "the plane says 1", None),
    ]  # fmt: skip


def _flux_noise(pixels: F32) -> float:
    """Return the variance of PSF-weighted sums of noise."""
    from scipy.ndimage import gaussian_filter

    return float(np.var(gaussian_filter(pixels.astype(np.float64), SIGMA)))


def _stars(side: int) -> tuple[F32, F64, F64]:
    rng = np.random.default_rng(41)
    grid = np.arange(_PITCH, side - _PITCH, _PITCH, dtype=np.float64)
    y, x = (plane.ravel() for plane in np.meshgrid(grid, grid, indexing="ij"))
    x, y = x + rng.uniform(-0.5, 0.5, x.size), y + rng.uniform(-0.5, 0.5, y.size)
    pixels = np.zeros((side, side), np.float32)
    width = np.full(x.size, SIGMA)
    add_gaussians(pixels, x, y, np.full(x.size, _FLUX), width, width, 1e-4)
    return pixels, x, y


def _errors(pixels: F32, old: Wcs, new: Wcs, x: F64, y: F64) -> tuple[float, float]:
    """Return the relative bias of fluxes, and the rms error of places along an axis. [pixel]"""
    side = pixels.shape[0]
    x, y = new.sky_to_pixel(*old.pixel_to_sky(x, y))
    inside = (np.minimum(x, y) > 20.0) & (np.maximum(x, y) < side - 21.0)
    x, y = x[inside], y[inside]
    fits = fit_sources(
        pixels,
        np.ones(pixels.shape, np.float32),
        np.rint(x).astype(int),
        np.rint(y).astype(int),
        psf_sigma=SIGMA,
        noise=Noise(1e12, 1.0),
        unusable=np.zeros(pixels.shape, bool),
    )
    bias = abs(float(np.mean(fits.flux)) / _FLUX - 1.0)
    return bias, float(np.sqrt(np.mean(np.concatenate([fits.x - x, fits.y - y]) ** 2)))
