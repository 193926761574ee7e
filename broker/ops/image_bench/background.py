"""The background beside SEP, in a sparse and in a crowded field."""

from typing import Any

import numpy as np

from broker.bench_rows import Row, at_least, at_most
from broker.imaging.background import fit_background
from broker.imaging.kernels import F32
from broker.ops.image_bench.rows import GAIN, MPIX, SIGMA, SKY, field, seconds

_DENSITIES = ((240.0, 0.03), (2400.0, 0.04))
"""Sources in a million pixels, and the most rms error in sky sigma."""

_BIAS = 0.01


def rows(side: int, repeats: int) -> list[Row]:
    """Measure speed, and the error of the level under stars that cover up to half the image."""
    import sep

    found = []
    for per_mpix, most_rms in _DENSITIES:
        pixels = field(side, per_mpix=per_mpix)[0] + np.float32(SKY / GAIN)
        unusable = np.zeros(pixels.shape, bool)

        def ours(pixels: F32 = pixels, unusable: Any = unusable) -> Any:
            return fit_background(pixels, unusable=unusable, psf_sigma=SIGMA)

        def theirs(pixels: F32 = pixels) -> Any:
            return sep.Background(pixels, bw=64, bh=64).back()

        own, other = seconds(repeats, ours, theirs)
        level = ours()
        mpix = side * side / MPIX
        name = f"background, {per_mpix:.0f} sources/Mpix"
        bias, rms = _errors(level.level, level.sigma)
        sep_bias, sep_rms = _errors(theirs(), level.sigma)
        found += [
            at_least(f"{name}, Mpix/s", mpix / own, 60.0, f"SEP {mpix / other:.0f}"),
            at_most(f"{name}, |bias| / sky sigma", bias, _BIAS, f"SEP {sep_bias:.3f}"),
            at_most(f"{name}, rms / sky sigma", rms, most_rms, f"SEP {sep_rms:.3f}"),
        ]
    return found


def _errors(level: F32, sigma: float) -> tuple[float, float]:
    """Return size of the mean and scatter of a level's error, in sigmas of a pixel."""
    error = (level - np.float32(SKY / GAIN)) / np.float32(sigma)
    return abs(float(np.mean(error, dtype=np.float64))), float(np.std(error, dtype=np.float64))
