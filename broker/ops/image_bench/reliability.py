"""The reliability: purity, completeness and calibration on nights not trained on, and its speed."""

import numpy as np

from broker.bench_rows import Row, at_least, at_most
from broker.detection.reliability.model import default_model
from broker.detection.reliability.report import calibration_error
from broker.detection.reliability.score import FEATURES
from broker.ops.image_bench.rows import MPIX, seconds
from broker.ops.reliability_nights import Role, classes_of, draw_sources

_SEED = 2
"""Another than that of the weights: other skies than those of the training and its test."""

_MPIX_OF_NIGHTS = 48.0
_IMAGES_PER_NIGHT = 8
_THRESHOLD, _SNR = 0.5, 6.0


def rows(side: int, repeats: int) -> list[Row]:
    """Judge the sources of rough nights: cosmic rays, defects, a PSF and a WCS that are off."""
    side = min(side, 1024)
    # Small images are for a look at whether it works: a tenth of the sky is enough.
    area = _MPIX_OF_NIGHTS if side == 1024 else 0.1 * _MPIX_OF_NIGHTS
    nights = max(1, round(area * MPIX / (side * side * _IMAGES_PER_NIGHT)))
    found = draw_sources(
        _SEED, Role.TEST, nights=nights, images_per_night=_IMAGES_PER_NIGHT, side=side
    )
    model = default_model()
    strict = found.judged(model, classes_of(Role.TEST))
    every = found.judged(model)
    table = np.random.default_rng(1).normal(0.0, 1.0, (20_000, len(FEATURES)))
    (own,) = seconds(repeats, lambda: model.score(table))
    name = f"S/N > {_SNR:g}, score >= {_THRESHOLD:g}"
    return [
        at_least("alert purity before the score", every.purity(0.0), 0.60, "DP1 0.1, DES 0.75"),
        at_least(f"alert purity, {name}", strict.purity(_THRESHOLD, _SNR), 0.90, "DES 0.75"),
        at_least(f"completeness, {name}", strict.completeness(_THRESHOLD, _SNR), 0.95, "DP1 0.95"),
        at_most("expected calibration error", calibration_error(strict), 0.03, "0"),
        at_most("score [µs/source]", own / len(table) * 1e6, 10.0, ""),
    ]
