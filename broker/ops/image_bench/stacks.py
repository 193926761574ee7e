"""Calibration frames and exposures combined, beside ccdproc and theory."""

import warnings
from dataclasses import replace
from typing import Any

import numpy as np

from broker.bench_rows import Row, at_least, at_most
from broker.imaging.calibration import combine
from broker.imaging.coadd import coadd
from broker.imaging.psf import GaussianPsf
from broker.ops.image_bench.rows import GAIN, MPIX, READ, SIGMA, SKY, make_image, make_wcs, seconds

_FRAMES, _VISITS = 20, 16
_LEVEL, _NOISE = 1000.0, 5.0
_TRAIL, _TRAIL_ROWS = 3000.0, 5
"""A satellite's trail in one exposure: its height [count] and width [pixel]."""


def rows(side: int, repeats: int) -> list[Row]:
    """Measure the clipped mean of frames, and depth and outliers of a coadd."""
    small = max(256, side // 4)
    rng = np.random.default_rng(51)
    frames = [rng.normal(_LEVEL, _NOISE, (small, small)).astype(np.float32) for _ in range(_FRAMES)]
    own, other = seconds(max(1, repeats // 2), lambda: combine(frames), lambda: _ccdproc(frames))
    mpix = _FRAMES * small**2 / MPIX
    theirs = _scatter(_ccdproc(frames))
    area = max(256, side // 2)
    gain, leak = _coadd(area)
    error = _relative_error(area)
    return [
        Row("clipped mean of 20, Mpix/s", mpix / own, "", f"ccdproc {mpix / other:.0f}", None),
        at_least("clipped mean / ccdproc, speed", other / own, 3.0, "1"),
        at_most(
            "clipped mean, rms / that of the mean",
            _scatter(combine(frames).mean),
            1.02,
            f"ccdproc {theirs:.3f}",
        ),
        at_least("coadd of 16, depth gain / 4", gain, 0.98, f"1, standard error {error:.3f}"),
        at_most("coadd, share of an outlier that gets in", leak, 1e-4, "mean 0.06"),
    ]


def _scatter(mean: Any) -> float:
    """Return the rms error of a mean of frames, over that of the mean of all."""
    return float(np.std(mean - np.float32(_LEVEL)) / _NOISE * np.sqrt(_FRAMES))


def _ccdproc(frames: list[Any]) -> Any:
    import ccdproc
    from astropy.nddata import CCDData

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = ccdproc.combine(
            [CCDData(frame, unit="adu") for frame in frames],
            method="average",
            sigma_clip=True,
            sigma_clip_low_thresh=4.0,
            sigma_clip_high_thresh=4.0,
            dtype=np.float32,
        )
    return np.asarray(made.data, np.float32)


def _coadd(side: int) -> tuple[float, float]:
    """Return the noise of one PSF flux over that of the coadd's, by the root of the number; leak.

    Exposures are dithered by some pixels; one of them has a trail.
    """
    rng = np.random.default_rng(52)
    noise = np.sqrt(SKY / GAIN + (READ / GAIN) ** 2)
    wcs = make_wcs(side)
    images = []
    for _ in range(_VISITS):
        sky = rng.normal(SKY / GAIN, noise, (side, side)).astype(np.float32)
        images.append(make_image(sky, wcs.shifted(*rng.uniform(-4.0, 4.0, 2))))
    clean = coadd(images, wcs, (side, side)).pixels
    single = np.mean([_psf_noise(image.pixels - np.float32(SKY / GAIN)) for image in images])
    depth = single / _psf_noise(clean) / np.sqrt(_VISITS)
    struck = images[3].pixels.copy()
    struck[side // 2 : side // 2 + _TRAIL_ROWS] += np.float32(_TRAIL)
    images[3] = replace(images[3], pixels=struck)
    # The same noise with and without the trail: what differs, got in.
    change = coadd(images, wcs, (side, side)).pixels - clean
    # What interpolation spreads is near; further away the sky is estimated anew.
    near = change[side // 2 - 10 : side // 2 + _TRAIL_ROWS + 10, 8:-8]
    got_in = abs(float(np.sum(np.mean(near, axis=1, dtype=np.float64))))
    return float(depth), got_in / (_TRAIL * _TRAIL_ROWS)


def _relative_error(side: int) -> float:
    """Return the standard error of the noise of one image's PSF-weighted sums, as a share."""
    independent = side**2 / (4.0 * np.pi * SIGMA**2)
    return float(1.0 / np.sqrt(2.0 * independent))


def _psf_noise(pixels: Any) -> float:
    """Return the scatter of PSF-weighted sums on sky, away from the borders."""
    from scipy.signal import fftconvolve

    psf = GaussianPsf(SIGMA).stamp(size=15)
    return float(np.std(fftconvolve(pixels, psf, mode="same")[20:-20, 20:-20]))
