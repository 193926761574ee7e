"""The drawing of stars and noise."""

from typing import Any

import numpy as np

from broker.ops.image_bench.rows import (
    GAIN,
    MPIX,
    READ,
    SIGMA,
    SKY,
    Row,
    at_least,
    at_most,
    seconds,
)
from broker.simulation.kernels import add_gaussians, add_plane, normal_table, read_out


def rows(side: int, repeats: int) -> list[Row]:
    """Time the drawing of stars and noise."""
    rng = np.random.default_rng(5)
    n = 2000
    x, y = rng.uniform(0, side, (2, n))
    flux, width = 10 ** rng.uniform(2.7, 4.7, n), np.full(n, SIGMA)
    image = np.zeros((side, side), np.float32)
    add_plane(image, SKY, 0.0, 0.0)
    table = normal_table()
    key = np.uint64(1)

    def numpy_noise() -> Any:
        noise = np.random.default_rng(1).standard_normal(image.shape, np.float32)
        return (image + np.sqrt(image) * noise).astype(np.uint16)

    stars, noise, plain = seconds(
        repeats,
        lambda: add_gaussians(image, x, y, flux, width, width, 0.02),
        lambda: read_out(image, key, table, GAIN, READ, 1000.0, 65_000.0),
        numpy_noise,
    )
    mpix = side * side / MPIX
    return [
        at_most("drawing a star [µs]", stars / n * 1e6, 3.0, "GalSim 178"),
        at_least("noise and read-out, Mpix/s", mpix / noise, 150.0, f"NumPy {mpix / plain:.0f}"),
    ]
