"""Snap pairs and the combination of calibration frames."""

from broker.imaging.calibration import combine
from broker.imaging.snaps import split_snaps
from broker.ops.image_bench.rows import GAIN, MPIX, READ, Row, field, seconds


def rows(side: int, repeats: int) -> list[Row]:
    """Time snap pairs and the combination of calibration frames."""
    first, *_ = field(side, seed=3)
    second, *_ = field(side, seed=4)
    small = side // 4
    frames = [first[:small, k * 8 : k * 8 + small].copy() for k in range(20)]
    (snaps,) = seconds(repeats, lambda: split_snaps(first, second, gain=GAIN, read_noise=READ))
    (stack,) = seconds(max(1, repeats // 2), lambda: combine(frames))
    mpix = side * side / MPIX
    return [
        Row("snap pair, Mpix/s", mpix / snaps, "", "L.A.Cosmic 0.7", None),
        Row("clipped mean of 20, Mpix/s", 20 * small**2 / MPIX / stack, "", "ccdproc 21", None),
    ]
