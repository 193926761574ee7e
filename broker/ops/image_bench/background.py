"""The background beside SEP."""

import numpy as np

from broker.imaging.background import fit_background
from broker.ops.image_bench.rows import (
    GAIN,
    MPIX,
    SIGMA,
    SKY,
    Row,
    at_least,
    at_most,
    field,
    seconds,
)


def rows(side: int, repeats: int) -> list[Row]:
    """Compare the background with SEP."""
    import sep

    pixels, *_ = field(side)
    pixels = pixels + np.float32(SKY / GAIN)
    unusable = np.zeros(pixels.shape, bool)
    own, other = seconds(
        repeats,
        lambda: fit_background(pixels, unusable=unusable, psf_sigma=SIGMA),
        lambda: sep.Background(pixels, bw=64, bh=64).back(),
    )
    mpix = side * side / MPIX
    level = fit_background(pixels, unusable=unusable, psf_sigma=SIGMA)
    bias = float(np.mean(level.level - np.float32(SKY / GAIN))) / level.sigma
    return [
        at_least("background, Mpix/s", mpix / own, 60.0, f"SEP {mpix / other:.0f}"),
        at_most("background, bias in sky sigma", abs(bias), 0.01, "SEP 0.018"),
    ]
