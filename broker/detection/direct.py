"""Sources of one image as it is, without a template: found, measured, placed on the sky."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from broker.alerts.columns import Column
from broker.detection.detect import THRESHOLD, Peaks, detect
from broker.detection.differencing.difference import without_sky
from broker.detection.flags import SourceFlag
from broker.detection.galaxies.deblend import PASSES, Deblended, deblend
from broker.detection.galaxies.split import join_galaxies
from broker.detection.measure import Fits, Noise, moments
from broker.detection.psf.aperture_correction import ApertureCorrection, measure_correction
from broker.detection.psf.stars import StarPsf, measure_psf, round_psf
from broker.detection.psf.tables import PsfTables, gaussian_tables
from broker.detection.psf.width import PsfModel, fit_psf
from broker.errors import AlertError
from broker.imaging.image import Image
from broker.imaging.kernels import F64, Bools
from broker.imaging.mask import UNUSABLE, MaskPlane
from broker.imaging.psf import FWHM_PER_SIGMA
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

_PIXEL_SIGMA = 12.0**-0.5
_STAR_WIDTH = 0.1
"""A source this much wider or narrower than the PSF is no star that shows it."""


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
    star_psf : StarPsf or None
        The profile, shape and variation of the PSF; None with `psf`.
    tables : PsfTables
        What fluxes were fitted with.
    correction : ApertureCorrection
        What they were multiplied by.
    """

    sources: pa.Table
    image: Image
    psf: PsfModel | None
    scorecard: dict[str, float | int | str]
    star_psf: StarPsf | None
    tables: PsfTables
    correction: ApertureCorrection


def detect_sources(
    image: Image, *, threshold: float = THRESHOLD, deblended: bool = True
) -> DirectResult:
    """Find and measure the point sources of an image.

    Parameters
    ----------
    image : Image
        With or without its sky. Its PSF is only a first guess, or used if there are few stars.
    threshold : float
        Least S/N.
    deblended : bool
        Whether sources are also looked for where their neighbours have been subtracted.

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
    profile = star_profile(clean, model)
    tables = gaussian_tables(clean.psf.sigma, clean.shape) if profile is None else profile.tables()
    found = fit_places(clean, peaks, tables, threshold=threshold, deblended=deblended)
    if profile is not None:
        noise = _noise(clean)
        found = join_galaxies(clean, found, psf=profile, tables=tables, noise=noise)
    size = _sizes(clean, found.fits, model)
    correction = _correction(clean, found, size[2])
    table = _table(clean, found, size, correction.factor, known=model is None)
    area = 4.0 * np.pi * clean.psf.sigma**2
    depth = 5.0 * np.sqrt(area * float(np.median(clean.variance[::4, ::4])))
    scorecard |= {
        "nSources": len(found.peaks),
        "nDeblended": int(found.added.sum()),
        "limitingCounts": float(depth),
        "limitingMag": float(flux_to_mag(depth * clean.flux_per_count)),
        "apertureCorrection": correction.factor,
        "apertureCorrectionErr": correction.error,
    }
    if profile is not None:
        scorecard |= {"psfChi2": profile.chi2, "elongation": profile.elongation}
    return DirectResult(table, clean, model, scorecard, profile, tables, correction)


def star_profile(image: Image, model: PsfModel | None) -> StarPsf | None:
    """Return the PSF with its profile, a Gaussian if there are few stars, None without a model."""
    if model is None:
        return None
    try:
        return measure_psf(image, model)
    except AlertError:
        return round_psf(model)


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


def fit_places(
    image: Image,
    peaks: Peaks,
    psf: PsfTables,
    *,
    threshold: float = THRESHOLD,
    deblended: bool = True,
) -> Deblended:
    """Fit flux and place of peaks, together, and of what they hide if it is wanted."""
    unusable = image.is_masked(UNUSABLE)
    return deblend(
        image.pixels,
        image.variance,
        peaks,
        psf=psf,
        noise=_noise(image),
        unusable=unusable,
        threshold=threshold,
        passes=PASSES if deblended else 0,
    )


def _noise(image: Image) -> Noise:
    return Noise(image.gain, float(image.variance[~image.is_masked(UNUSABLE)].min()))


def _sizes(image: Image, fits: Fits, model: PsfModel | None) -> tuple[F64, F64, F64]:
    """Return width [pixel], elongation, and the width over that of the PSF."""
    fwhm, elongation = moments(
        image.pixels,
        fits.x,
        fits.y,
        np.ones(fits.x.size),
        psf_sigma=image.psf.sigma,
        unusable=image.is_masked(UNUSABLE),
    )
    sigma = image.psf.sigma if model is None else model.sigma_at(fits.x, fits.y)
    return fwhm, elongation, fwhm / FWHM_PER_SIGMA / np.hypot(sigma, _PIXEL_SIGMA)


def _correction(image: Image, found: Deblended, size: F64) -> ApertureCorrection:
    fits = found.fits
    stars = (np.abs(size - 1.0) < _STAR_WIDTH) & (fits.usable > 0.99) & ~fits.failed
    return measure_correction(
        found.residual,
        image.variance,
        fits.x,
        fits.y,
        fits.flux,
        fits.flux_err,
        stars=stars & ~found.added,
        psf_sigma=image.psf.sigma,
        gain=image.gain,
        unusable=image.is_masked(UNUSABLE),
    )


def _table(
    image: Image, found: Deblended, size: tuple[F64, F64, F64], factor: float, *, known: bool
) -> pa.Table:
    peaks, fits = found.peaks, found.fits
    ra, dec = image.wcs.pixel_to_sky(fits.x, fits.y)
    (a, b), (c, d) = image.wcs.cd
    counts, counts_err = fits.flux * factor, fits.flux_err * factor
    unit = image.flux_per_count
    flux, flux_err = counts * unit, counts_err * unit
    fwhm, elongation, ratio = size
    flags = source_flags(image, peaks, fits.failed)
    flags |= np.where(found.added, int(SourceFlag.DEBLENDED), 0)
    flags |= int(SourceFlag.PSF_FROM_HEADER) if known else 0
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
        "counts": counts,
        "countsErr": counts_err,
        "psfFlux": flux,
        "psfFluxErr": flux_err,
        "mag": flux_to_mag(flux),
        "magErr": flux_err_to_mag_err(flux_err, flux),
        "psfChi2": fits.chi2,
        "fwhm": fwhm,
        "elongation": elongation,
        "sizeRatio": ratio,
        "flags": flags,
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
