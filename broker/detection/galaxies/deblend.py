"""Close pairs taken apart: fit, subtract, look again, refit all, judge what was added.

A source that is seen only in what the others leave is believed if, after all have been fitted
together, its S/N is enough with their errors in it, it is not on top of another one, and the
point sources explain the pixels. Of two candidates beside one another only the better is added
at a time, for a blend of two seen as one leaves a peak on either side.
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from broker.detection.detect import THRESHOLD, Peaks, detect
from broker.detection.measure import Fits, Noise
from broker.detection.psf.photometry import (
    Sources,
    fit_together,
    joint_errors,
    new_sources,
    put_back,
)
from broker.detection.psf.tables import PsfTables
from broker.imaging.kernels import F32, F64, Bools, compiled

PASSES = 4
_CLOSE_SIGMAS = 4.0
"""Within this of a source a peak is its companion; further out it is a source of its own."""

_COMPANION_SNR = 3.5
"""A companion's least S/N in the residual, where the source seen first has eaten of its light."""

_JOINT_SHARE = 0.7
"""A companion's least S/N after all have been fitted together, over the threshold: the errors of
two close fluxes and places are bound to one another, and much of a S/N goes there."""

_MERGE_SIGMAS = 1.0
"""Two sources nearer than this are one."""

_BLUR_SIGMAS = 1.5
_BLUR_SNR = 25.0
"""Nearer than this, three sources fit two as well as two do, unless all are bright: the faintest
goes, and the others are fitted again."""

_MOST_COMPANIONS = 2
_COMPANION_SIGMAS = 3.5
"""A source with more companions than that, this near, is extended: they are parts of it."""

_PSF_ERROR = 0.01
"""Relative error of the PSF: what is left of a star's own light is no source."""

_REACH = 2.0
_WORST_CHI2 = 1.6
"""Companions that leave a worse fit than this are parts of something that is no point source."""


@dataclass(frozen=True)
class Deblended:
    """Point sources of an image, arrays of shape (n_sources,), by rows of the image.

    Parameters
    ----------
    peaks : Peaks
        Nearest pixels; the S/N is that of the detection, or of the fit of what was added.
    fits : Fits
    added : NDArray[np.bool_]
        Whether it was seen only once its neighbours had been subtracted.
    residual : NDArray[np.float32], shape (ny, nx)
        What all of them leave.
    """

    peaks: Peaks
    fits: Fits
    added: Bools
    residual: F32


def deblend(
    pixels: F32,
    variance: F32,
    peaks: Peaks,
    *,
    psf: PsfTables,
    noise: Noise,
    unusable: Bools,
    threshold: float = THRESHOLD,
    passes: int = PASSES,
) -> Deblended:
    """Fit the point sources of an image together, and those that they hide.

    Parameters
    ----------
    pixels, variance : NDArray[np.float32], shape (ny, nx)
        Without background; the variance without the sources.
    peaks : Peaks
        What was detected, positive.
    psf : PsfTables
    noise : Noise
    unusable : NDArray[np.bool_], shape (ny, nx)
    threshold : float
        Least S/N of a source that is added.
    passes : int
        Most looks at what is left; 0 fits the peaks alone.
    """
    common: dict[str, Any] = {"psf": psf, "noise": noise, "unusable": unusable, "reach": _REACH}
    sources = new_sources(peaks.x, peaks.y, peaks.flux)
    snr = np.array(peaks.snr, np.float64)
    added = np.zeros(len(peaks), bool)
    fits, residual = fit_together(pixels, variance, sources, **common)
    for turn in range(2 * passes):
        looking = turn < passes
        if looking:
            more = _look(pixels, variance, residual, sources, psf, noise, unusable, threshold)
            looking = len(more) > 0
            fresh = new_sources(more.x, more.y, np.zeros(len(more)))
            changed = np.append(np.zeros(added.size, bool), np.ones(len(more), bool))
            sources = sources.join(fresh)
            snr, added = np.append(snr, more.snr), np.append(added, changed[added.size :])
            fits, residual = fit_together(
                pixels, variance, sources, residual=residual, changed=changed, **common
            )
        drop = _doubtful(fits, added, psf.sigma, threshold)
        if not looking:
            drop |= added & ~(fits.chi2 < _WORST_CHI2)
            drop |= _parts(fits, added, psf.sigma)
        if drop.any():
            touched = put_back(residual, sources, drop, psf)[~drop]
            sources, snr, added = sources.keep(~drop), snr[~drop], added[~drop]
            fits, residual = fit_together(
                pixels, variance, sources, residual=residual, changed=touched, **common
            )
        elif not looking:
            break
    with np.errstate(invalid="ignore", divide="ignore"):
        snr = np.where(added, fits.flux / fits.flux_err, snr)
    return ordered(fits, snr, added, residual)


def _look(
    pixels: F32,
    variance: F32,
    residual: F32,
    sources: Sources,
    psf: PsfTables,
    noise: Noise,
    unusable: Bools,
    threshold: float,
) -> Peaks:
    """Return peaks of the residual that may be sources."""
    from scipy.spatial import cKDTree

    wrong = 4.0 * np.pi * psf.sigma**2 * 0.25 * _PSF_ERROR**2
    total = _noise_under_light(
        pixels, residual, variance, np.float32(1.0 / noise.gain), np.float32(wrong)
    )
    found = detect(
        residual, total, psf_sigma=psf.sigma, unusable=unusable,
        threshold=min(_COMPANION_SNR, threshold), negative=False,
    )  # fmt: skip
    if len(found) == 0:
        return found
    places = np.column_stack([found.x, found.y]).astype(np.float64)
    reach = _CLOSE_SIGMAS * psf.sigma
    if sources.x.size:
        own = np.column_stack([sources.x, sources.y])
        gap = np.asarray(cKDTree(own).query(places)[0])
    else:
        gap = np.full(len(found), np.inf)
    usable = (found.snr >= threshold) | (gap < reach)
    usable &= gap > 0.5 * _MERGE_SIGMAS * psf.sigma
    # The best within reach of one another.
    keep: list[int] = []
    tree = cKDTree(places)
    taken = ~usable
    for k in np.argsort(-found.snr, kind="stable").tolist():
        if taken[k]:
            continue
        keep.append(k)
        taken[tree.query_ball_point(places[k], reach)] = True
    rows: NDArray[np.int64] = np.sort(np.array(keep, np.int64))
    return Peaks(found.x[rows], found.y[rows], found.snr[rows], found.flux[rows])


@compiled
def _noise_under_light(
    pixels: F32, residual: F32, variance: F32, per_count: np.float32, wrong: np.float32
) -> F32:
    """Return the variance with that of the light that was subtracted, and of its PSF's error."""
    total = np.empty_like(variance)
    for j in range(pixels.shape[0]):
        for i in range(pixels.shape[1]):
            light = max(pixels[j, i] - residual[j, i], np.float32(0.0))
            total[j, i] = variance[j, i] + light * (per_count + wrong * light)
    return total


def _doubtful(fits: Fits, added: Bools, sigma: float, threshold: float) -> Bools:
    """Return what is to be taken away again: too faint, failed, or on top of another.

    A source that stays in place of one that was seen first is no longer `added`.
    """
    from scipy.spatial import cKDTree

    with np.errstate(invalid="ignore", divide="ignore"):
        snr = fits.flux / fits.flux_err
    alone = snr * joint_errors(fits.x, fits.y, sigma)[:, 0]
    real = (snr >= _JOINT_SHARE * threshold) & (alone >= threshold)
    drop: Bools = added & ~(real & np.isfinite(snr) & ~fits.failed)
    places = np.column_stack([fits.x, fits.y])
    tree = cKDTree(places)
    close = tree.query_pairs(_BLUR_SIGMAS * sigma, output_type="ndarray")
    if len(close):
        gap = np.hypot(*(places[close[:, 0]] - places[close[:, 1]]).T)
        weaker = np.where(snr[close[:, 0]] < snr[close[:, 1]], close[:, 0], close[:, 1])
        blurred = (gap < _MERGE_SIGMAS * sigma) | ~(snr[weaker] > _BLUR_SNR)
        blurred &= added[close].any(axis=1)
        # One at a time of those that touch: what is left may then be told apart.
        for k in np.argsort(snr[weaker], kind="stable").tolist():
            if blurred[k] and not drop[close[k]].any():
                drop[weaker[k]] = True
                # What was seen first is not lost: the one that stays takes its part.
                if not added[weaker[k]]:
                    added[close[k]] = False
    return drop


def _parts(fits: Fits, added: Bools, sigma: float) -> Bools:
    """Return the companions of sources that have so many that they must be extended."""
    from scipy.spatial import cKDTree

    drop = np.zeros(added.size, bool)
    if not added.any():
        return drop
    places = np.column_stack([fits.x, fits.y])
    rows = np.flatnonzero(added)
    seen = np.flatnonzero(~added)
    reach = _COMPANION_SIGMAS * sigma
    near: Any = cKDTree(places[rows]).query_ball_point(places[seen], reach)
    for found in near:
        if len(found) > _MOST_COMPANIONS:
            drop[rows[found]] = True
    return drop


def ordered(fits: Fits, snr: F64, added: Bools, residual: F32) -> Deblended:
    """Return fitted sources by rows of the image."""
    ny, nx = residual.shape
    x = np.clip(np.rint(fits.x), 0, nx - 1).astype(np.int32)
    y = np.clip(np.rint(fits.y), 0, ny - 1).astype(np.int32)
    order = np.lexsort((x, y))
    peaks = Peaks(
        x[order], y[order], snr[order].astype(np.float32), fits.flux[order].astype(np.float32)
    )
    sorted_fits = Fits(**{f.name: getattr(fits, f.name)[order] for f in fields(Fits)})
    return Deblended(peaks, sorted_fits, added[order], residual)
