"""Real or artefact: the probability that a source is one of the sky, from what was measured.

The features are those in which artefacts differ from point sources: fit, sharpness, shape, opposite
lobes, masked pixels, and how small an error of the match would leave such a peak. Boosted trees
make a number of them, a calibration a probability: see `broker.detection.reliability.training`.
"""

from dataclasses import dataclass

import numpy as np

from broker.detection.reliability.evidence import Surroundings
from broker.detection.reliability.model import Model, default_model
from broker.imaging.kernels import F64

FEATURES = (
    "logSnr",
    "logChi2",
    "sharpness",
    "oppositeShare",
    "oppositePower",
    "maskedShare",
    "struckShare",
    "starShare",
    "logTemplateRatio",
    "widthMismatch",
    "elongation",
    "offset",
    "logShift",
    "logWidthChange",
    "logNeighbours",
    "fitFailed",
)
"""Names of the columns of `features`; weights that were trained on others are refused."""

DIRECTIONS = (0, -1, -1, -1, -1, -1, -1, 0, -1, -1, -1, -1, 1, 1, 0, -1)
"""Whether the score may only rise (1) or fall (-1) with a feature: no artefact of chance in the
training set makes a source more believable for a worse fit."""

_DECIMALS = 5
"""Features are rounded: the last digits of another processor's logarithm change no score."""


@dataclass(frozen=True)
class Evidence:
    """What the score is made of, arrays of shape (n_sources,).

    Parameters
    ----------
    snr : absolute S/N.
    chi2 : of the PSF fit per degree of freedom.
    peak_excess : excess of the peak pixel over the fitted PSF, in sigma.
    opposite_snr : S/N of the strongest opposite-sign source beside it.
    usable : share of the PSF's power on usable pixels.
    star_share : share of the pixel's variance that is a static source's light.
    template_ratio : PSF flux of the template over that of the source, absolute.
    width_ratio : full width at half maximum over the PSF's, NaN if not measured.
    elongation : NaN if not measured.
    failed : the fitted place left the peak.
    around : what lies around it.
    """

    snr: F64
    chi2: F64
    peak_excess: F64
    opposite_snr: F64
    usable: F64
    star_share: F64
    template_ratio: F64
    width_ratio: F64
    elongation: F64
    failed: F64
    around: Surroundings


def features(evidence: Evidence) -> F64:
    """Return the features of sources, shape (n_sources, n_features), finite, of order one."""
    snr = np.clip(np.nan_to_num(evidence.snr, nan=1.0), 1.0, 1e4)
    width = np.where(np.isfinite(evidence.width_ratio), evidence.width_ratio, 3.0)
    stretch = np.where(np.isfinite(evidence.elongation), evidence.elongation, 4.0)
    # The noise of width and shape falls with S/N: measured in its unit, they are comparable.
    clear = np.sqrt(snr / 10.0)
    around = evidence.around
    columns = [
        np.log10(snr / 10.0),
        np.log(_within(evidence.chi2, 0.3, 100.0)),
        _within(evidence.peak_excess, -10.0, 30.0) / 5.0,
        _within((evidence.opposite_snr - 2.0) / np.maximum(snr, 5.0), 0.0, 1.5),
        _within(around.opposite_share, 0.0, 1.0),
        _within(1.0 - evidence.usable, 0.0, 1.0),
        _within(around.struck_share, 0.0, 1.0),
        _within(evidence.star_share, 0.0, 1.0),
        np.log10(_within(np.nan_to_num(evidence.template_ratio), 0.1, 1e3)),
        np.minimum(np.abs(np.log(np.clip(width, 0.1, 10.0))) * clear, 3.0),
        np.clip((stretch - 1.0) * clear, 0.0, 4.0) / 2.0,
        _within(around.offset, 0.0, 3.0),
        np.log10(_within(around.shift, 1e-3, 1e2)),
        np.log10(_within(around.width_change, 1e-3, 1e2)),
        np.log10(1.0 + np.maximum(around.neighbours, 0.0)),
        np.asarray(evidence.failed, np.float64),
    ]
    return np.asarray(np.round(np.column_stack(columns), _DECIMALS), np.float64)


def score(evidence: Evidence, *, model: Model | None = None) -> F64:
    """Return the reliability of sources, between 0 and 1, shape (n_sources,).

    Of sources with 0.9 on a night like those of the training, nine in ten are real.

    Parameters
    ----------
    evidence : Evidence
    model : Model, optional
        That of the package, unless given.

    Raises
    ------
    ConfigError
        If the package's weights were trained on other features.
    """
    return (model or default_model()).score(features(evidence))


def _within(values: F64, low: float, high: float) -> F64:
    """Return values between two limits; one that is not a number is the worse, the upper."""
    return np.asarray(np.clip(np.nan_to_num(values, nan=high), low, high), np.float64)
