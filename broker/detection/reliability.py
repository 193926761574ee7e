"""Real or artefact: a logistic score of what was measured.

The features are those in which artefacts differ from point sources: fit, sharpness, shape,
opposite lobes, masked pixels, light of the template. Weights: see `PROVENANCE`.
"""

from dataclasses import dataclass

import numpy as np

from broker.imaging.kernels import F64

PROVENANCE = (
    "logistic regression by broker.detection.training: 6163 detections of 24 simulated difference "
    "images, seed 20250101, 44 % real; of 6 others 100 % of the real and 2 % of the artefacts "
    "score 0.5 or more"
)
"""How the weights were made; `tests/unit/detection/test_reliability.py` makes them again."""

FEATURES = (
    "logSnr",
    "logChi2",
    "sharpness",
    "oppositeShare",
    "maskedShare",
    "starShare",
    "logTemplateRatio",
    "widthMismatch",
    "elongation",
    "fitFailed",
)

WEIGHTS = np.array([0.425, -1.149, -0.652, -0.695, -0.124, -0.101, -0.765, -0.928, -1.355, -0.016])
BIAS = 2.467


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


def features(evidence: Evidence) -> F64:
    """Return the features of sources, shape (n_sources, n_features), finite, of order one."""
    snr = np.maximum(evidence.snr, 1.0)
    width = np.where(np.isfinite(evidence.width_ratio), evidence.width_ratio, 3.0)
    stretch = np.where(np.isfinite(evidence.elongation), evidence.elongation, 4.0)
    ratio = np.nan_to_num(evidence.template_ratio, nan=0.0, posinf=1e6)
    # The noise of width and shape falls with S/N: measured in its unit, they are comparable.
    return np.column_stack(
        [
            np.log10(snr / 10.0),
            np.log(np.clip(evidence.chi2, 0.3, 100.0)),
            np.clip(evidence.peak_excess, -10.0, 30.0) / 5.0,
            np.clip((evidence.opposite_snr - 2.0) / np.maximum(snr, 5.0), 0.0, 1.5),
            np.clip(1.0 - evidence.usable, 0.0, 1.0),
            np.clip(evidence.star_share, 0.0, 1.0),
            np.clip(np.log10(np.maximum(ratio, 0.1)), -1.0, 3.0),
            np.clip(np.abs(np.log(np.clip(width, 0.1, 10.0))) * np.sqrt(snr / 10.0), 0.0, 3.0),
            np.clip((stretch - 1.0) * np.sqrt(snr / 10.0), 0.0, 4.0) / 2.0,
            np.asarray(evidence.failed, np.float64),
        ]
    )


def score(evidence: Evidence) -> F64:
    """Return the reliability of sources, between 0 and 1, shape (n_sources,)."""
    logit = features(evidence) @ WEIGHTS + BIAS
    return 1.0 / (1.0 + np.exp(-np.clip(logit, -30.0, 30.0)))
