"""What a light curve looks like in numbers, band by band, for classifiers and searches."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import log_ndtr

from broker.science import Column, LightCurves, science_module

BANDS = ("g", "r", "i")
"""Bands that all surveys have."""

MIN_DETECTIONS = 3
"""With fewer in a band its features are null; the kurtosis needs one more."""

Array = NDArray[Any]

FEATURES = (
    ("WeightedMean", "nJy", "Mean flux, weighted by the inverse variance."),
    ("Std", "nJy", "Standard deviation of the flux (n - 1)."),
    ("Amplitude", "nJy", "Half the range of the flux."),
    ("ReducedChi2", "", "Chi square about the weighted mean, over n - 1."),
    ("Stetson", "", "Stetson's K: shape of the distribution, 0.798 for a Gaussian."),
    ("Skew", "", "Skewness, bias-corrected."),
    ("Kurtosis", "", "Excess kurtosis, bias-corrected."),
    ("LinearTrend", "nJy / d", "Slope of the flux, weighted least squares."),
    ("LinearTrendErr", "nJy / d", "1-sigma error of the slope."),
    ("MaxSlope", "nJy / d", "Steepest change between two following detections, unsigned."),
    ("Beyond1Std", "", "Part of the detections farther than Std from their mean."),
    ("Cusum", "", "Range of the cumulative sum of deviations, in n Std."),
    ("Eta", "", "Von Neumann's ratio of successive differences: 2 for white noise."),
    ("AndersonDarling", "", "Anderson-Darling statistic of normality."),
    ("Mean", "nJy", "Mean flux."),
    ("Median", "nJy", "Median flux."),
    ("Mad", "nJy", "Median absolute deviation from the median."),
    ("PercentAmplitude", "nJy", "Largest deviation from the median."),
    ("PercentileRange10", "nJy", "90 % quantile less the 10 % quantile."),
    ("PercentileRatio4005", "", "Range of the middle 20 % over that of the middle 90 %."),
    ("PercentileRatio2010", "", "Range of the middle 60 % over that of the middle 80 %."),
    ("PercentDifference5", "", "Range of the middle 90 % over the median."),
    ("MedianBuffer10", "", "Part nearer to the median than a tenth of the half range."),
    ("MeanVariance", "", "Std over the mean."),
    ("ExcessVariance", "", "Variance less the mean squared error, over the squared mean."),
    ("Roms", "", "Mean of the absolute deviations from the median over their errors."),
    ("EtaUneven", "", "Eta for uneven sampling: squared slopes over the mean squared step."),
    ("LinearFitChi2", "", "Chi square of the weighted straight line over n - 2."),
)
"""Features of one band: end of the name, unit, meaning."""

N_OWN = 14
"""So many of them are computed here; the others by the package light-curve."""

OUTPUTS = (
    *(Column(f"lcCount{band.upper()}", "int32", "", f"Detections in {band}.") for band in BANDS),
    Column("lcTimeSpan", "float32", "d", "Time from the first to the last detection, any band."),
    *(
        Column(f"lc{name}{band.upper()}", "float32", unit, f"In {band}: {doc}")
        for band in BANDS
        for name, unit, doc in FEATURES
    ),
)


def load_extractor() -> Any:
    """Return the features of the package light-curve, in the order of `FEATURES`."""
    import light_curve as lc

    return lc.Extractor(
        lc.Mean(),
        lc.Median(),
        lc.MedianAbsoluteDeviation(),
        lc.PercentAmplitude(),
        lc.InterPercentileRange(0.1),
        lc.MagnitudePercentageRatio(0.4, 0.05),
        lc.MagnitudePercentageRatio(0.2, 0.1),
        lc.PercentDifferenceMagnitudePercentile(0.05),
        lc.MedianBufferRangePercentage(0.1),
        lc.MeanVariance(),
        lc.ExcessVariance(),
        lc.Roms(),
        lc.EtaE(),
        lc.LinearFit(),
    )


@science_module(version="1.1.0", outputs=OUTPUTS, setup=load_extractor)
def light_curve_features(history: LightCurves, *, model: Any) -> pd.DataFrame:
    """Compute features of the detections of each band, the alert's own among them.

    Parameters
    ----------
    history : LightCurves
        Histories; upper limits, forced fluxes and detections without an error are left out.
    model : light_curve.Extractor
        From `load_extractor`.

    Returns
    -------
    pd.DataFrame, n_alerts rows
        NaN (null) where a band has fewer than three detections (four for the kurtosis), or
        where a feature divides by a spread that is zero.

    Notes
    -----
    Definitions, on fluxes: Stetson 1996, PASP 108 851 (K); Joanes & Gill 1998, Statistician 47
    183, G1 and G2 (skew, kurtosis); Press et al. 2007, Numerical Recipes, 3rd ed., 15.2 (trend);
    Richards et al. 2011, ApJ 733 10 (beyond 1 std, maximum slope, amplitude); Kim et al. 2014,
    A&A 566 A43 (cumulative sum); von Neumann 1941, Ann. Math. Stat. 12 367 (eta); Stephens 1974,
    JASA 69 730 with the correction for a fitted mean and variance of Malanchev et al. 2021,
    MNRAS 502 5147 (Anderson-Darling), who list the others too, among them D'Isanto et al. 2016,
    MNRAS 457 3119 (percentiles), Nandra et al. 1997, ApJ 476 70 (excess variance), Enoch, Brown &
    Burgasser 2003, AJ 126 1006 (robust median statistic).
    """
    detections = history.detections().in_time_order()
    span = detections.max(detections.mjd) - detections.min(detections.mjd)
    columns: dict[str, Array] = {}
    for band in BANDS:
        curves = detections.in_band(band)
        columns[f"lcCount{band.upper()}"] = curves.count
        with np.errstate(divide="ignore", invalid="ignore"):
            for name, values in _features(curves, model):
                columns[f"lc{name}{band.upper()}"] = values.astype(np.float32)
    columns["lcTimeSpan"] = span.astype(np.float32)
    return pd.DataFrame(columns)


def _features(curves: LightCurves, extractor: Any) -> Iterator[tuple[str, Array]]:
    """Yield the features of one band, shape (n_alerts,) each, in the order of `FEATURES`."""
    flux = curves.flux.astype(np.float64)
    n = curves.count
    enough = n >= MIN_DETECTIONS
    mean = curves.mean(flux)
    deviation = flux - mean[curves.alert]
    squares = deviation**2
    sum_2 = curves.sum(squares)
    std = np.sqrt(sum_2 / (n - 1))
    values = [
        *_weighted(curves, flux, n)[:1],
        std,
        0.5 * (curves.max(flux) - curves.min(flux)),
        *_weighted(curves, flux, n)[1:],
        *_shape_moments(curves, deviation, n, sum_2),
        *_trend(curves, flux),
        _max_slope(curves, flux),
        curves.sum(np.abs(deviation) > std[curves.alert]) / n,
        *_in_sequence(curves, deviation, n, std, sum_2),
        _anderson_darling(curves, deviation / std[curves.alert], n),
        *_by_library(curves, flux, extractor),
    ]
    for (name, _, _), value in zip(FEATURES, values, strict=True):
        yield name, np.where(enough & np.isfinite(value), value, np.nan)


def _by_library(curves: LightCurves, flux: Array, extractor: Any) -> Array:
    """Return what the package light-curve computes, shape (n_features, n_alerts)."""
    values = np.full((len(FEATURES) - N_OWN, curves.n_alerts), np.nan)
    enough = np.flatnonzero(curves.count >= MIN_DETECTIONS)
    if enough.size == 0:
        return values
    # Days since each curve's first detection: a line through full dates would lose digits.
    days = curves.mjd - curves.first(curves.mjd)[curves.alert]
    error = curves.flux_err.astype(np.float64)
    first, end = curves.starts[enough].tolist(), curves.starts[enough + 1].tolist()
    cut = [(days[a:b], flux[a:b], error[a:b]) for a, b in zip(first, end, strict=True)]
    got = extractor.many(cut, fill_value=np.nan, sorted=True, check=False, n_jobs=1)
    values[:-1, enough] = got[:, :-3].T
    values[-1, enough] = got[:, -1]  # of the linear fit, its chi square
    return values


def _weighted(curves: LightCurves, flux: Array, n: Array) -> tuple[Array, Array, Array]:
    """Return the weighted mean, the reduced chi square about it, and Stetson's K."""
    error = curves.flux_err.astype(np.float64)
    weight = error**-2.0
    mean = curves.sum(weight * flux) / curves.sum(weight)
    pull = (flux - mean[curves.alert]) / error
    chi2 = curves.sum(pull**2)
    # Stetson's factor sqrt(n / (n - 1)) stands in numerator and denominator and drops out.
    stetson_k = curves.sum(np.abs(pull)) / np.sqrt(n * chi2)
    return mean, chi2 / (n - 1), stetson_k


def _shape_moments(
    curves: LightCurves, deviation: Array, n: Array, sum_2: Array
) -> tuple[Array, Array]:
    """Return skewness G1 and excess kurtosis G2."""
    variance = sum_2 / n
    g1 = curves.sum(deviation**3) / n / variance**1.5
    g2 = curves.sum(deviation**4) / n / variance**2 - 3.0
    skew = g1 * np.sqrt(n * (n - 1.0)) / (n - 2)
    kurtosis = ((n + 1) * g2 + 6.0) * (n - 1) / ((n - 2.0) * (n - 3.0))
    return skew, kurtosis


def _trend(curves: LightCurves, flux: Array) -> tuple[Array, Array]:
    """Return the slope of a weighted straight line and its error."""
    weight = curves.flux_err.astype(np.float64) ** -2.0
    mean_mjd = curves.sum(weight * curves.mjd) / curves.sum(weight)
    lever = curves.mjd - mean_mjd[curves.alert]
    spread = curves.sum(weight * lever**2)
    return curves.sum(weight * lever * flux) / spread, spread**-0.5


def _successive(curves: LightCurves, values: Array) -> Array:
    """Return the step to each entry from the one before it; 0 for an alert's first."""
    step = np.diff(values, prepend=values[:1])
    return np.where(curves.rank() == 0, 0.0, step)


def _max_slope(curves: LightCurves, flux: Array) -> Array:
    days = _successive(curves, curves.mjd)
    slope = np.where(days > 0.0, np.abs(_successive(curves, flux)) / days, -np.inf)
    return curves.max(slope)


def _in_sequence(
    curves: LightCurves, deviation: Array, n: Array, std: Array, sum_2: Array
) -> tuple[Array, Array]:
    """Return the range of the cumulative sum, and von Neumann's ratio."""
    cumulative = curves.cumulative_sum(deviation)
    cusum = (curves.max(cumulative) - curves.min(cumulative)) / (n * std)
    return cusum, curves.sum(_successive(curves, deviation) ** 2) / sum_2


def _anderson_darling(curves: LightCurves, pull: Array, n: Array) -> Array:
    order = np.lexsort((pull, curves.alert))
    ascending = pull[order]
    rank = curves.rank()
    # The sum pairs the k-th smallest with the k-th largest; log_ndtr keeps the tails.
    weight_low = 2.0 * rank + 1.0
    weight_high = 2.0 * (n[curves.alert] - rank) - 1.0
    terms = weight_low * log_ndtr(ascending) + weight_high * log_ndtr(-ascending)
    statistic = -n - curves.sum(terms) / n
    return np.asarray((1.0 + 4.0 / n - 25.0 / n**2.0) * statistic)
