"""Compare the taking apart of close pairs with SEP and photutils."""

import time
from typing import Any

import numpy as np

from broker.bench_rows import Row, at_least
from broker.detection.direct import detect_sources
from broker.imaging.kernels import F64
from broker.ops.image_bench.rows import MPIX, SKY
from broker.ops.image_bench.scenes import (
    UNIT,
    WIDTH,
    Scene,
    away_from_border,
    gaussian_stars,
    matched,
)

_DENSITIES = ((240.0, 0.98, 0.99), (1200.0, 0.97, 0.985))
"""Sources in a million pixels; least completeness of pairs; least purity."""

_SNR_RANGE = (5.0, 300.0)
_PAIR_PX = (4.0, 10.0)
_LEAST_SNR = 10.0
_LEAST_PAIRS = 150


def rows(side: int, repeats: int) -> list[Row]:
    """Measure pairs 4 to 10 pixels apart, the PSF fitted to the same image."""
    del repeats
    found: list[Row] = []
    for density, completeness, purity in _DENSITIES:
        ours, theirs, other = _fields(side, density)
        words = f"{density:.0f} per Mpix"
        found += [
            at_least(f"close pairs found, {words}", ours[0], completeness,
                     f"SEP {theirs[0]:.2f}, photutils {other[0]:.2f}"),
            at_least(f"purity, {words}", ours[1], purity,
                     f"SEP {theirs[1]:.3f}, photutils {other[1]:.3f}"),
            Row(f"all of the image [s per 2048²], {words}", ours[2], "",
                f"SEP {theirs[2]:.2f}, photutils {other[2]:.2f}", None),
        ]  # fmt: skip
    return found


def _fields(side: int, density: float) -> Any:
    """Return pairs found, purity and time of each program, over enough fields."""
    counts = np.zeros((3, 5))
    for seed in range(1, 9):
        scene = _scene(side, density, seed)
        for k, search in enumerate((_ours, _sep, _photutils)):
            start = time.process_time()
            x, y = search(scene)
            spent = time.process_time() - start
            counts[k] += [*_score(scene, x, y), spent]
        if counts[0, 1] >= _LEAST_PAIRS:
            break
    scale = 2048.0**2 / (side * side * seed)
    return [(c[0] / max(c[1], 1.0), c[2] / max(c[3], 1.0), c[4] * scale) for c in counts]


def _scene(side: int, density: float, seed: int) -> Scene:
    rng = np.random.default_rng(seed)
    n = int(density * side * side / MPIX)
    x, y = rng.uniform(0.0, side, (2, n))
    snr = np.exp(rng.uniform(np.log(_SNR_RANGE[0]), np.log(_SNR_RANGE[1]), n))
    return gaussian_stars(side, x, y, snr * UNIT, 100 + seed)


def _score(scene: Scene, x: F64, y: F64) -> tuple[float, float, float, float]:
    """Return pairs found, pairs, real detections, detections."""
    from scipy.spatial import cKDTree

    side = scene.image.shape[0]
    partner = matched(scene, x, y)
    drawn = np.column_stack([scene.x, scene.y])
    gap = np.asarray(cKDTree(drawn).query(drawn, k=2)[0])[:, 1]
    pair = (gap >= _PAIR_PX[0]) & (gap <= _PAIR_PX[1]) & (scene.flux > _LEAST_SNR * UNIT)
    pair &= away_from_border(scene.x, scene.y, side)
    inside = away_from_border(x, y, side)
    real = np.isin(np.arange(x.size), partner)
    return (
        float(np.sum(partner[pair] >= 0)), float(pair.sum()), float(np.sum(real & inside)),
        float(inside.sum()),
    )  # fmt: skip


def _ours(scene: Scene) -> tuple[F64, F64]:
    table = detect_sources(scene.image).sources
    return table["x"].to_numpy(), table["y"].to_numpy()


def _kernel() -> Any:
    offset = np.arange(-4, 5)
    kernel = np.exp(-0.5 * (offset[:, None] ** 2 + offset**2) / WIDTH**2)
    return kernel / kernel.sum()


def _sep(scene: Scene) -> tuple[F64, F64]:
    import sep

    kernel = _kernel()
    # SEP's threshold is in sigma of the pixels, before its filter.
    threshold = 5.0 * float(np.sqrt(np.sum(kernel**2)))
    pixels = scene.image.pixels - np.float32(SKY)
    got = sep.extract(
        pixels, threshold, err=float(np.sqrt(SKY)), filter_kernel=kernel, filter_type="conv",
        minarea=1, clean=False,
    )  # fmt: skip
    return got["x"], got["y"]


def _photutils(scene: Scene) -> tuple[F64, F64]:
    from astropy.convolution import convolve
    from photutils.segmentation import SourceCatalog, deblend_sources, detect_sources

    pixels = scene.image.pixels.astype(np.float64) - SKY
    kernel = _kernel()
    smooth = convolve(pixels, kernel, boundary="extend")
    level = 5.0 * np.sqrt(SKY * np.sum(kernel**2))
    segments = detect_sources(smooth, level, 3)
    if segments is None:
        return np.zeros(0), np.zeros(0)
    segments = deblend_sources(smooth, segments, 3, progress_bar=False)
    table = SourceCatalog(pixels, segments, convolved_data=smooth)
    return np.asarray(table.x_centroid), np.asarray(table.y_centroid)
