"""How fast detection is, as a ratio to a known program on the same image in the same process."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from broker.detection.detect import detect
from broker.errors import ConfigError
from broker.imaging.kernels import F32
from broker.imaging.psf import GaussianPsf

_SIGMA = 2.0
_NOISE = 14.14
_RADIUS = 4
_REPEATS = 5


def bench_detection(*, side: int = 2048, n_sources: int = 1000) -> dict[str, Any]:
    """Compare the detection kernel with SEP's extraction at the same completeness.

    SEP gets a scalar noise and a 9 x 9 matched kernel, its threshold corrected by the kernel's
    norm, and no clean-up or deblending; ours a variance plane, both signs and the same 9 taps.

    Parameters
    ----------
    side : int
        Of the square image. [pixel]
    n_sources : int
        Sources of S/N 4 to 50, about that many, on a lattice.

    Returns
    -------
    dict
        `megapixelsPerSecond` and `sepMegapixelsPerSecond` (medians of interleaved repeats),
        `ratio`, and the completeness of both above S/N 5.

    Raises
    ------
    ConfigError
        If SEP is not installed: it is only needed here and in tests.
    """
    try:
        import sep
    except ImportError as error:
        raise ConfigError("this measurement needs SEP; install nightjar-broker[test]") from error
    pixels, places = _scene(side, n_sources)
    variance = np.full(pixels.shape, _NOISE**2, np.float32)
    offsets = np.arange(-_RADIUS, _RADIUS + 1)
    kernel = np.exp(-0.5 * (offsets[:, None] ** 2 + offsets**2) / _SIGMA**2)
    kernel /= kernel.sum()
    threshold = 5.0 * float(np.sqrt(np.sum(kernel**2)))

    def ours() -> Any:
        return detect(pixels, variance, psf_sigma=_SIGMA, radius=_RADIUS)

    def theirs() -> Any:
        return sep.extract(
            pixels,
            threshold,
            err=_NOISE,
            filter_kernel=kernel,
            filter_type="conv",
            minarea=1,
            clean=False,
            deblend_cont=1.0,
        )

    peaks, objects = ours(), theirs()
    times = np.array([[_seconds(ours), _seconds(theirs)] for _ in range(_REPEATS)])
    own, other = np.median(times, axis=0)
    return {
        "megapixelsPerSecond": pixels.size / 1e6 / own,
        "sepMegapixelsPerSecond": pixels.size / 1e6 / other,
        "ratio": float(other / own),
        "completeness": _found(places, peaks.x, peaks.y),
        "sepCompleteness": _found(places, objects["x"], objects["y"]),
    }


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _scene(side: int, n_sources: int) -> tuple[F32, F32]:
    rng = np.random.default_rng(1)
    pixels = rng.normal(0.0, _NOISE, (side, side)).astype(np.float32)
    psf = GaussianPsf(_SIGMA)
    unit = _NOISE * np.sqrt(psf.effective_pixels)
    # Far enough apart that deblending has no part in it.
    rows = int(np.sqrt(n_sources))
    pitch = (side - 24) / rows
    grid = 12.0 + pitch * (np.arange(rows) + 0.5)
    places = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
    places += rng.uniform(-pitch / 6.0, pitch / 6.0, places.shape)
    snr = rng.uniform(4.0, 50.0, len(places))
    for (x, y), s in zip(places, snr, strict=True):
        i, j = round(x), round(y)
        stamp = psf.stamp(x - i, y - j, 17) * s * unit
        pixels[j - 8 : j + 9, i - 8 : i + 9] += stamp.astype(np.float32)
    return pixels, places[snr > 5.0].astype(np.float32)


def _found(places: F32, x: Any, y: Any) -> float:
    from scipy.spatial import cKDTree

    distance, _ = cKDTree(np.column_stack([x, y])).query(places)
    return float(np.mean(distance < 3.0))
