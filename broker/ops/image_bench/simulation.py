"""The drawing of stars and noise, beside GalSim and NumPy."""

from typing import Any

import numpy as np

from broker.bench_rows import Row, at_least, at_most
from broker.ops.image_bench.rows import GAIN, MPIX, READ, SIGMA, SKY, seconds
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
    gap, loss, galsim = _against_galsim()
    return [
        at_most("drawing a star [µs]", stars / n * 1e6, 3.0, f"GalSim {galsim:.0f}"),
        at_least("noise and read-out, Mpix/s", mpix / noise, 150.0, f"NumPy {mpix / plain:.0f}"),
        at_most("star, largest difference to GalSim / peak", gap, 1e-6, "0"),
        at_most("star, |flux on the image / flux - 1|", loss, 1e-6, "0"),
        at_most("noise, worst of mean, variance, skewness [s.e.]", _moments(side), 3.0, "0"),
    ]


def _against_galsim() -> tuple[float, float, float]:
    """Return the largest difference by peak, the flux that is lost, and GalSim's µs a star."""
    import galsim

    rng = np.random.default_rng(6)
    exact = galsim.GSParams(
        folding_threshold=1e-10, maxk_threshold=1e-10, kvalue_accuracy=1e-12, xvalue_accuracy=1e-12
    )
    gap, loss, flux, size = 0.0, 0.0, 1e5, 64
    places = rng.uniform(-0.5, 0.5, (20, 2))
    for dx, dy in places:
        star = galsim.Gaussian(sigma=SIGMA, flux=flux, gsparams=exact).shift(dx, dy)
        theirs = star.drawImage(nx=size + 1, ny=size + 1, scale=1.0, dtype=np.float64).array
        ours = _star(flux, size // 2 + dx, size // 2 + dy, size + 1)
        gap = max(gap, float(np.max(np.abs(ours - theirs)) / theirs.max()))
        loss = max(loss, abs(float(np.sum(ours, dtype=np.float64)) / flux - 1.0))

    def draw() -> None:
        for dx, dy in places:
            galsim.Gaussian(sigma=SIGMA, flux=flux).shift(dx, dy).drawImage(nx=65, ny=65, scale=1)

    (theirs_s,) = seconds(1, draw)
    return gap, loss, theirs_s / len(places) * 1e6


def _star(flux: float, x: float, y: float, size: int) -> Any:
    image = np.zeros((size, size), np.float32)
    width = np.array([SIGMA])
    add_gaussians(image, np.array([x]), np.array([y]), np.array([flux]), width, width, 1e-3)
    return image


def _moments(side: int) -> float:
    """Return how far mean, variance and skewness of the noise are from what they must be."""
    expected = np.full((side, side), SKY, np.float32)
    counts = read_out(expected, np.uint64(8), normal_table(), GAIN, READ, 1000.0, 65_000.0)
    n = counts.size
    variance = (SKY + READ**2) / GAIN**2 + 1.0 / 12.0
    off = counts.astype(np.float64) - (1000.0 + SKY / GAIN)
    # Poisson's third moment is its mean; reading and rounding have none.
    third = SKY / GAIN**3
    off_by = (
        abs(float(off.mean())) / np.sqrt(variance / n),
        abs(float(np.mean(off**2)) / variance - 1.0) / np.sqrt(2.0 / n),
        abs(float(np.mean(off**3)) - third) / variance**1.5 / np.sqrt(15.0 / n),
    )
    return float(max(off_by))
