"""Sources of one image as it is, without a template: found, measured, placed on the sky."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from broker.alerts.columns import Column
from broker.detection.detect import THRESHOLD, Peaks, detect
from broker.detection.difference import without_sky
from broker.detection.flags import SourceFlag
from broker.detection.measure import Fits, Noise, fit_sources, moments
from broker.detection.psf_fit import PsfModel, fit_psf
from broker.errors import AlertError
from broker.imaging.image import Image
from broker.imaging.kernels import F64, Bools
from broker.imaging.mask import UNUSABLE, MaskPlane
from broker.units import flux_err_to_mag_err, flux_to_mag

COLUMNS: tuple[Column, ...] = (
    Column("x", "float64", "pixel", "Column, from 0."),
    Column("y", "float64", "pixel", "Row, from 0."),
    Column("xErr", "float32", "pixel", "1-sigma error of x."),
    Column("yErr", "float32", "pixel", "1-sigma error of y."),
    Column("ra", "float64", "deg", "Right ascension, ICRS."),
    Column("dec", "float64", "deg", "Declination, ICRS."),
    Column("raErr", "float32", "deg", "1-sigma error of ra, on the sky (times cos dec)."),
    Column("decErr", "float32", "deg", "1-sigma error of dec."),
    Column("snr", "float32", "", "Signal to noise of the detection."),
    Column("counts", "float64", "adu", "PSF flux in the image's counts."),
    Column("countsErr", "float64", "adu", "1-sigma error of counts."),
    Column("psfFlux", "float32", "nJy", "PSF flux; null without a zero point."),
    Column("psfFluxErr", "float32", "nJy", "1-sigma error of psfFlux."),
    Column("mag", "float32", "mag", "AB magnitude of psfFlux."),
    Column("magErr", "float32", "mag", "1-sigma error of mag."),
    Column("psfChi2", "float32", "", "Chi-square of the PSF fit per degree of freedom."),
    Column("fwhm", "float32", "pixel", "Full width at half maximum of the source."),
    Column("elongation", "float32", "", "Ratio of the major to the minor axis."),
    Column("sizeRatio", "float32", "", "Width over that of the PSF: 1 for a star."),
    Column("flags", "int64", "", "Quality flags, see broker.detection.flags."),
)
"""What is measured of a source of a direct image."""

SOURCES = pa.schema([pa.field(c.name, c.arrow_type, c.nullable) for c in COLUMNS])
UNITS = {c.name: c.unit for c in COLUMNS if c.unit}

_WIDTH_STEP = 0.01
_PIXEL_SIGMA = 12.0**-0.5


@dataclass(frozen=True)
class DirectResult:
    """The sources of an image.

    Parameters
    ----------
    sources : pa.Table
        With the schema `SOURCES`, by rows of the image.
    image : Image
        Without its sky, cosmic rays masked, with the PSF that was used.
    psf : PsfModel or None
        None if the image has too few stars to measure it and its header's was taken.
    scorecard : dict
    """

    sources: pa.Table
    image: Image
    psf: PsfModel | None
    scorecard: dict[str, float | int | str]


def detect_sources(image: Image, *, threshold: float = THRESHOLD) -> DirectResult:
    """Find and measure the point sources of an image.

    Parameters
    ----------
    image : Image
        With or without its sky. Its PSF is only a first guess, or used if there are few stars.
    threshold : float
        Least S/N.

    Raises
    ------
    AlertError
        If the image is all masked, without noise, or has neither stars nor a known PSF.
    """
    clean, model, scorecard = prepare(image)
    peaks = detect(
        clean.pixels,
        clean.variance,
        psf_sigma=clean.psf.sigma,
        unusable=clean.is_masked(UNUSABLE),
        threshold=threshold,
        negative=False,
    )
    fits = fit_places(clean, peaks, model)
    table = _table(clean, peaks, fits, model)
    area = 4.0 * np.pi * clean.psf.sigma**2
    depth = 5.0 * np.sqrt(area * float(np.median(clean.variance[::4, ::4])))
    scorecard |= {
        "nSources": len(peaks),
        "limitingCounts": float(depth),
        "limitingMag": float(flux_to_mag(depth * clean.flux_per_count)),
    }
    return DirectResult(table, clean, model, scorecard)


def prepare(image: Image) -> tuple[Image, PsfModel | None, dict[str, float | int | str]]:
    """Return an image without sky, with its PSF measured, and its scorecard."""
    clean, scorecard = without_sky(image)
    known = bool(image.meta.get("psfKnown", True))
    try:
        model: PsfModel | None = fit_psf(clean, guess=image.psf.sigma if known else 0.0)
    except AlertError:
        if not known:
            raise
        model = None
    if model is not None:
        if abs(model.psf.sigma / image.psf.sigma - 1.0) > 0.1:
            # Cosmic rays and the background's sources were judged by a wrong width.
            clean, scorecard = without_sky(replace(image, psf=model.psf))
        clean = replace(clean, psf=model.psf)
        scorecard |= {"psfStars": model.n_stars, "elongation": model.elongation}
    scorecard["seeing"] = clean.fwhm_arcsec
    if "wcsErrorPx" in image.meta:
        scorecard["wcsErrorPx"] = float(image.meta["wcsErrorPx"])
    return clean, model, scorecard


def fit_places(image: Image, peaks: Peaks, model: PsfModel | None) -> Fits:
    """Fit flux and place of peaks, each with the PSF's width where it is."""
    unusable = image.is_masked(UNUSABLE)
    noise = Noise(image.gain, float(image.variance[~unusable].min()))
    groups = _groups(peaks, image, model)
    parts: list[Fits] = []
    order: list[Any] = []
    for sigma, members in groups:
        order.append(members)
        parts.append(
            fit_sources(
                image.pixels,
                image.variance,
                peaks.x[members],
                peaks.y[members],
                psf_sigma=sigma,
                noise=noise,
                unusable=unusable,
            )
        )
    back = np.argsort(np.concatenate(order))
    names = Fits.__dataclass_fields__
    return Fits(**{n: np.concatenate([getattr(p, n) for p in parts])[back] for n in names})


def _groups(
    peaks: Peaks, image: Image, model: PsfModel | None
) -> list[tuple[float, NDArray[np.intp]]]:
    """Return the sources whose PSF has one width, to a hundredth, and that width."""
    middle = image.psf.sigma
    if model is None:
        return [(middle, np.arange(len(peaks)))]
    widths = model.sigma_at(peaks.x.astype(float), peaks.y.astype(float))
    steps = np.rint(np.log(widths / middle) / _WIDTH_STEP).astype(np.int64)
    found = [
        (float(middle * np.exp(s * _WIDTH_STEP)), np.flatnonzero(steps == s))
        for s in np.unique(steps)
    ]
    return found or [(middle, np.arange(0))]


def _table(image: Image, peaks: Peaks, fits: Fits, model: PsfModel | None) -> pa.Table:
    ra, dec = image.wcs.pixel_to_sky(fits.x, fits.y)
    (a, b), (c, d) = image.wcs.cd
    unit = image.flux_per_count
    flux, flux_err = fits.flux * unit, fits.flux_err * unit
    fwhm, elongation = moments(
        image.pixels,
        fits.x,
        fits.y,
        np.ones(len(peaks)),
        psf_sigma=image.psf.sigma,
        unusable=image.is_masked(UNUSABLE),
    )
    sigma = image.psf.sigma if model is None else model.sigma_at(fits.x, fits.y)
    columns = {
        "x": fits.x,
        "y": fits.y,
        "xErr": fits.x_err,
        "yErr": fits.y_err,
        "ra": ra,
        "dec": dec,
        "raErr": np.hypot(a * fits.x_err, b * fits.y_err),
        "decErr": np.hypot(c * fits.x_err, d * fits.y_err),
        "snr": peaks.snr,
        "counts": fits.flux,
        "countsErr": fits.flux_err,
        "psfFlux": flux,
        "psfFluxErr": flux_err,
        "mag": flux_to_mag(flux),
        "magErr": flux_err_to_mag_err(flux_err, flux),
        "psfChi2": fits.chi2,
        "fwhm": fwhm,
        "elongation": elongation,
        "sizeRatio": fwhm / 2.3548200450309493 / np.hypot(sigma, _PIXEL_SIGMA),
        "flags": source_flags(image, peaks, fits.failed),
    }
    return pa.table(
        {c.name: pa.array(_typed(columns[c.name], c), from_pandas=True) for c in COLUMNS},
        schema=SOURCES,
    )


def _typed(values: Any, column: Column) -> Any:
    array = np.asarray(values)
    if array.dtype.kind == "f":
        array = np.where(np.isfinite(array), array, np.nan)
    return array.astype(column.dtype)


def source_flags(image: Image, peaks: Peaks, failed: Bools) -> Any:
    """Return the flags of sources, shape (n_peaks,)."""
    half = int(np.ceil(2.0 * image.psf.sigma))
    flags = np.where(failed, int(SourceFlag.CENTROID_FAILED), 0).astype(np.int64)
    planes = (
        (MaskPlane.EDGE, SourceFlag.EDGE),
        (MaskPlane.SATURATED, SourceFlag.SATURATED),
        (MaskPlane.BAD | MaskPlane.NO_DATA, SourceFlag.BAD),
        (MaskPlane.COSMIC_RAY, SourceFlag.COSMIC_RAY),
    )
    for k, (x, y) in enumerate(zip(peaks.x.tolist(), peaks.y.tolist(), strict=True)):
        near = image.mask[max(0, y - half) : y + half + 1, max(0, x - half) : x + half + 1]
        bits = int(np.bitwise_or.reduce(near, axis=None))
        for plane, flag in planes:
            if bits & int(plane):
                flags[k] |= int(flag)
    return flags | _near(peaks, 3.0 * 2.3548 * image.psf.sigma)


def _near(peaks: Peaks, reach: float) -> Any:
    from scipy.spatial import cKDTree

    if len(peaks) == 0:
        return np.zeros(0, np.int64)
    places: F64 = np.column_stack([peaks.x, peaks.y]).astype(np.float64)
    count = cKDTree(places).query_ball_point(places, reach, return_length=True)
    return np.where(count > 1, int(SourceFlag.NEIGHBOUR_NEAR), 0)
