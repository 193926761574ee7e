"""One exposure and its template in, diaSources out."""

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import pyarrow as pa

from broker.detection.columns import DIA_SOURCES_WITH_CUTOUTS, dia_source_ids
from broker.detection.detect import THRESHOLD, Peaks, detect
from broker.detection.differencing.decorrelate import decorrelate
from broker.detection.differencing.difference import Difference, subtract_template
from broker.detection.differencing.dipole import MIN_SHARE, MIN_SNR, opposite_snr
from broker.detection.differencing.flags import dia_flags, star_share
from broker.detection.differencing.noise_planes import typical, variance_around
from broker.detection.differencing.width_map import WidthMap, by_width, constant_width
from broker.detection.flags import SourceFlag
from broker.detection.forced import forced_flux
from broker.detection.measure import FIT_HALF_SIGMAS, Fits, Noise, fit_sources, moments
from broker.detection.reliability.evidence import surroundings
from broker.detection.reliability.score import Evidence, score
from broker.errors import AlertError
from broker.imaging.cutout import cut, encode_cutout
from broker.imaging.image import Image
from broker.imaging.kernels import F64
from broker.imaging.psf import FWHM_PER_SIGMA
from broker.imaging.templates import Template
from broker.units import flux_to_mag

_PIXEL_SIGMA = 12.0**-0.5
"""Width that the pixel's square adds to a profile. [pixel]"""


@dataclass(frozen=True)
class DiaSettings:
    """What can be chosen.

    Parameters
    ----------
    threshold : float
        Least absolute S/N of a detection.
    cutout_px : int
        Side of the cutouts, odd. [pixel]
    cell_px : int
        Cell of the background's mesh. [pixel]
    model_error : float
        Relative 1-sigma error of the matched template, beside its noise.
    max_sources_per_mpix : float
        With more sources than this, and a hundred, the subtraction has failed.
    decorrelate : bool
        Make the noise of the difference white before anything is looked for.
    """

    threshold: float = THRESHOLD
    cutout_px: int = 51
    cell_px: int = 64
    model_error: float = 0.01
    max_sources_per_mpix: float = 2000.0
    decorrelate: bool = False


@dataclass(frozen=True)
class DiaResult:
    """The diaSources of an exposure.

    Parameters
    ----------
    sources : pa.Table
        Columns of `broker.detection.columns.DIA_SOURCES` and the three cutouts, by identifier.
    scorecard : dict
        Numbers and words about the exposure and how well the template fitted.
    evidence : Evidence
        What the reliability of each source was judged by.
    """

    sources: pa.Table
    scorecard: dict[str, float | int | str] = field(default_factory=dict)
    evidence: Evidence | None = None


def difference_and_detect(
    image: Image, template: Template, *, settings: DiaSettings | None = None
) -> DiaResult:
    """Subtract the template from an exposure, find what changed and measure it.

    Parameters
    ----------
    image : Image
        With its sky, as from `broker.imaging.message.decode_image`.
    template : Template
        Of the same band and place.
    settings : DiaSettings, optional

    Returns
    -------
    DiaResult
        The same bytes for the same input.

    Raises
    ------
    AlertError
        If the exposure cannot be used: all masked, without noise or stars that match, or with so
        many differences that the subtraction must have failed.
    """
    chosen = settings or DiaSettings()
    if image.band != template.image.band:
        raise AlertError(
            f"the exposure is of band {image.band}, the template of {template.image.band}"
        )
    difference = subtract_template(
        image, template, cell_px=chosen.cell_px, model_error=chosen.model_error
    )
    if chosen.decorrelate:
        difference = decorrelate(difference)
    return detect_on_difference(difference, template.version, settings=chosen)


def detect_on_difference(
    difference: Difference, version: str, *, settings: DiaSettings | None = None
) -> DiaResult:
    """Find what changed on a difference that is already made, and measure it.

    Parameters
    ----------
    difference : Difference
    version : str
        Of the template; it is written on every source.
    settings : DiaSettings, optional

    Raises
    ------
    AlertError
        If there are so many differences that the subtraction must have failed.
    """
    chosen = settings or DiaSettings()
    peaks = detect(
        difference.pixels,
        difference.detection_variance,
        psf_sigma=difference.filter_sigma,
        unusable=difference.unusable,
        threshold=chosen.threshold,
    )
    most = max(100.0, chosen.max_sources_per_mpix * difference.pixels.size / 1e6)
    if len(peaks) > most:
        raise AlertError(
            f"the difference has {len(peaks)} sources, more than {most:.0f}: the template does not "
            "match",
            nSources=len(peaks),
        )
    sources, evidence = _measure(difference, peaks, version, chosen)
    scorecard = difference.scorecard | {
        "limitingMag": _limiting_mag(difference),
        "nSources": len(peaks),
        "nReliable": int(np.count_nonzero(sources["reliability"].to_numpy() >= 0.5)),
    }
    return DiaResult(sources, scorecard, evidence)


def _measure(
    difference: Difference, peaks: Peaks, version: str, settings: DiaSettings
) -> tuple[pa.Table, Evidence]:
    noise = Noise(difference.science.gain / difference.poisson_share, difference.floor)
    fits = _fits(difference, peaks, noise)
    columns = _identity(difference, peaks, version)
    columns |= _positions(difference, fits)
    columns |= _fluxes(difference, peaks, fits)
    template_flux = columns["templateFlux"].to_numpy(zero_copy_only=False).astype(np.float64)
    template_flux /= difference.science.flux_per_count
    evidence = evidence_of(difference, peaks, fits, template_flux)
    columns |= _judgement(difference, peaks, fits, evidence)
    columns |= _cutouts(difference, peaks, settings.cutout_px)
    schema = DIA_SOURCES_WITH_CUTOUTS
    table = {f.name: pa.array(columns[f.name], f.type) for f in schema}
    return pa.Table.from_pydict(table, schema=schema), evidence


def _fits(difference: Difference, peaks: Peaks, noise: Noise) -> Fits:
    """Fit every peak with the PSF's width where it is."""
    names = [f.name for f in fields(Fits)]

    def fit(sigma: float, members: Any) -> list[Any]:
        found = fit_sources(
            difference.pixels,
            difference.variance,
            peaks.x[members],
            peaks.y[members],
            psf_sigma=sigma,
            noise=noise,
            unusable=difference.unusable,
        )
        return [getattr(found, name) for name in names]

    return Fits(*by_width(difference.width_map, peaks.x, peaks.y, fit))


def _identity(difference: Difference, peaks: Peaks, version: str) -> dict[str, Any]:
    image, n = difference.science, len(peaks)
    pixel = peaks.y.astype(np.int64) * image.shape[1] + peaks.x
    return {
        "diaSourceId": dia_source_ids(image.visit, image.detector, pixel),
        "visit": np.full(n, image.visit),
        "detector": np.full(n, image.detector),
        "band": [image.band] * n,
        "midpointMjdTai": np.full(n, image.midpoint_mjd_tai),
        "zeroPoint": np.full(n, image.zero_point),
        "limitingMag": np.full(n, _limiting_mag(difference)),
        "templateVersion": [version] * n,
    }


def _limiting_mag(difference: Difference) -> float:
    area = 4.0 * np.pi * difference.psf_sigma**2
    counts = 5.0 * np.sqrt(area * typical(difference.variance))
    return float(flux_to_mag(counts * difference.science.flux_per_count))


def _positions(difference: Difference, fits: Fits) -> dict[str, Any]:
    wcs = difference.science.wcs
    ra, dec = wcs.pixel_to_sky(fits.x, fits.y)
    (a, b), (c, d) = wcs.cd
    # A peak's pixel, where the fit failed, is good to half a pixel or so.
    # The Fisher matrix is the first order; the second is 3 / snr² (measured: 6 % at S/N 7).
    snr = np.maximum(np.abs(fits.flux) / fits.flux_err, 3.0)
    scale = difference.position_error_scale * (1.0 + 3.0 / snr**2)
    x_err = np.where(fits.failed, 1.0, np.minimum(fits.x_err * scale, 3.0))
    y_err = np.where(fits.failed, 1.0, np.minimum(fits.y_err * scale, 3.0))
    return {
        "x": fits.x,
        "y": fits.y,
        "ra": ra,
        "dec": dec,
        "raErr": np.hypot(a * x_err, b * y_err),
        "decErr": np.hypot(c * x_err, d * y_err),
    }


def _fluxes(difference: Difference, peaks: Peaks, fits: Fits) -> dict[str, Any]:
    science, template = difference.science, difference.template
    unit = science.flux_per_count
    t_flux, t_err = _forced(
        template, difference, fits, difference.template_widths, template.meta.get("nVisits", 1)
    )
    s_flux, s_err = _forced(science, difference, fits, difference.science_widths, 1)
    finite = np.isfinite(fits.flux_err)
    return {
        "psfFlux": np.where(finite, fits.flux, peaks.flux) * unit,
        "psfFluxErr": np.where(finite, fits.flux_err, np.abs(peaks.flux / peaks.snr)) * unit,
        "snr": np.abs(peaks.snr),
        "psfChi2": fits.chi2,
        "templateFlux": _or_null(t_flux * unit),
        "templateFluxErr": _or_null(t_err * unit),
        "scienceFlux": _or_null(s_flux * unit),
        "scienceFluxErr": _or_null(s_err * unit),
        "isNegative": peaks.snr < 0.0,
    }


def _forced(
    image: Image, difference: Difference, fits: Fits, widths: WidthMap | None, visits: float
) -> tuple[F64, F64]:
    """Return flux and error of an image's own light at the fitted places. [ADU]"""
    known = widths or constant_width(image.psf.sigma, image.shape)
    half = int(np.ceil(FIT_HALF_SIGMAS * known.limits[1])) + 1
    per_count = 1.0 / (difference.science.gain * visits)
    variance = variance_around(
        image.variance, difference.star_light, per_count, fits.x, fits.y, half
    )

    def measure(sigma: float, members: Any) -> tuple[F64, F64]:
        return forced_flux(
            image.pixels,
            variance,
            fits.x[members],
            fits.y[members],
            psf_sigma=sigma,
            unusable=difference.unusable,
        )

    flux, error = by_width(known, fits.x, fits.y, measure)
    return flux, error


def _or_null(values: F64) -> Any:
    return pa.array(values.astype(np.float32), from_pandas=True)


def evidence_of(difference: Difference, peaks: Peaks, fits: Fits, template_flux: F64) -> Evidence:
    """Return what the reliability of detected and fitted sources is judged by.

    Parameters
    ----------
    difference : Difference
    peaks : Peaks
    fits : Fits
        Of these peaks.
    template_flux : NDArray[np.float64], shape (n_sources,)
        PSF flux of the template there, in counts; NaN where it has none.
    """
    sign = np.where(peaks.snr < 0.0, -1.0, 1.0)
    widths = difference.width_at(fits.x, fits.y)

    def shape(sigma: float, members: Any) -> tuple[F64, F64]:
        return moments(
            difference.pixels,
            fits.x[members],
            fits.y[members],
            sign[members],
            psf_sigma=sigma,
            unusable=difference.unusable,
        )

    fwhm, elongation = by_width(difference.width_map, fits.x, fits.y, shape)
    opposite = opposite_snr(
        difference.pixels,
        difference.variance,
        fits,
        psf_sigma=widths,
        unusable=difference.unusable,
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.abs(template_flux / fits.flux)
    return Evidence(
        np.abs(peaks.snr).astype(np.float64),
        fits.chi2,
        _peak_excess(difference, peaks, fits),
        opposite,
        fits.usable,
        star_share(difference, peaks).astype(np.float64),
        ratio,
        fwhm / (FWHM_PER_SIGMA * np.hypot(widths, _PIXEL_SIGMA)),
        elongation,
        fits.failed.astype(np.float64),
        surroundings(difference, peaks, fits),
    )


def _judgement(
    difference: Difference, peaks: Peaks, fits: Fits, evidence: Evidence
) -> dict[str, Any]:
    opposite, snr = evidence.opposite_snr, evidence.snr
    is_dipole = (opposite >= MIN_SNR) & (opposite >= MIN_SHARE * snr)
    fwhm = evidence.width_ratio * difference.science.wcs.scale_arcsec
    fwhm *= FWHM_PER_SIGMA * np.hypot(difference.width_at(fits.x, fits.y), _PIXEL_SIGMA)
    return {
        "reliability": score(evidence),
        "isDipole": is_dipole,
        "flags": dia_flags(difference, peaks, fits)
        | np.where(is_dipole, int(SourceFlag.DIPOLE), 0),
        "fwhm": _or_null(fwhm),
        "elongation": _or_null(evidence.elongation),
    }


def _peak_excess(difference: Difference, peaks: Peaks, fits: Fits) -> F64:
    """Return how far the peak pixel is above the fitted PSF, in sigma, shape (n_sources,)."""
    from scipy.special import erf

    widths = difference.width_at(fits.x, fits.y)

    def share(offset: F64) -> F64:
        edge = np.stack([offset - 0.5, offset + 0.5]) / (np.sqrt(2.0) * widths)
        return 0.5 * np.diff(erf(edge), axis=0)[0]

    expected = fits.flux * share(peaks.x - fits.x) * share(peaks.y - fits.y)
    variance = difference.variance[peaks.y, peaks.x] + np.abs(expected) / difference.science.gain
    excess = (difference.pixels[peaks.y, peaks.x] - expected) / np.sqrt(variance)
    return np.asarray(excess * np.sign(peaks.snr), np.float64)


def _cutouts(difference: Difference, peaks: Peaks, size: int) -> dict[str, Any]:
    science, template = difference.science, difference.template
    noise = float(np.sqrt(typical(science.variance)))
    known = template.variance[::16, ::16]
    known = known if np.any(known > 0.0) else template.variance
    deep = float(np.sqrt(np.median(known[known > 0.0])))
    planes = (
        ("cutoutScience", science.pixels, noise),
        ("cutoutTemplate", template.pixels, deep),
        ("cutoutDifference", difference.pixels, noise),
    )
    made: dict[str, Any] = {name: [] for name, _, _ in planes}
    for x, y in zip(peaks.x.tolist(), peaks.y.tolist(), strict=True):
        wcs = science.wcs.shifted(x - size // 2, y - size // 2)
        for name, pixels, sigma in planes:
            made[name].append(encode_cutout(cut(pixels, x, y, size), wcs=wcs, sigma=sigma))
    return made
