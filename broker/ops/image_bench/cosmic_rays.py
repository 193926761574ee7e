"""Cosmic rays in snap pairs and in single exposures, beside astroscrappy."""

from typing import Any

import numpy as np

from broker.bench_rows import Row, at_least, at_most
from broker.imaging.cosmic_rays import find_cosmic_rays
from broker.imaging.kernels import F32, Bools, grow
from broker.imaging.snaps import split_snaps
from broker.ops.image_bench.rows import GAIN, MPIX, READ, SIGMA, SKY, seconds
from broker.simulation.detector import cosmic_rays
from broker.simulation.kernels import add_gaussians

_STARS_PER_MPIX, _TRACKS_PER_MPIX = 240.0, 95.0
_CORE_PX = 2
"""A pixel this near to a star's middle is of its core."""


def rows(side: int, repeats: int) -> list[Row]:
    """Measure completeness, purity and mistaken star cores, by pixel."""
    rng = np.random.default_rng(21)
    first, second = (_snap(rng, side, sigma) for sigma in (SIGMA, 1.02 * SIGMA))
    none = np.zeros((side, side), bool)
    level = np.float32(SKY / GAIN)
    variance = np.full((side, side), SKY / GAIN + (READ / GAIN) ** 2, np.float32)
    alone = first[0] - level

    def pair() -> Any:
        return split_snaps(first[0], second[0], gain=GAIN, read_noise=READ)

    def single() -> Any:
        return find_cosmic_rays(alone, variance, psf_sigma=SIGMA, unusable=none)

    small = slice(0, min(side, 512))
    piece = np.ascontiguousarray(first[0][small, small])
    two, one = seconds(repeats, pair, single)
    (theirs,) = seconds(1, lambda: _astroscrappy(piece))
    mpix = side * side / MPIX
    cores = _cores(side)
    lacosmic = _Judged.of(_astroscrappy(piece), first[1][small, small], cores[small, small], 0)
    split = _Judged.of(pair().struck, first[1] | second[1], cores, 0)
    # A margin of one pixel is marked around each hit, and is no mistake.
    sharp = _Judged.of(single(), first[1], cores, 1)
    rate = f"L.A.Cosmic {piece.size / MPIX / theirs:.2g}"
    found = [
        Row("snaps, Mpix/s", mpix / two, "", rate, None),
        Row("cosmic rays of one exposure, Mpix/s", mpix / one, "", rate, None),
    ]
    for name, judged, complete, pure, most in (
        ("snaps", split, 0.98, 0.99, 0.0),
        ("cosmic rays of one exposure", sharp, 0.97, 0.95, 5.0),
    ):
        found += [
            at_least(
                f"{name}, pixels found", judged.complete, complete, f"{lacosmic.complete:.3f}"
            ),
            at_least(f"{name}, purity", judged.pure, pure, f"{lacosmic.pure:.3f}"),
            at_most(
                f"{name}, core pixels per 1000 stars", judged.cores, most, f"{lacosmic.cores:.1f}"
            ),
        ]
    return found


class _Judged:
    """How well marked pixels are those that were struck."""

    def __init__(self, complete: float, pure: float, cores: float) -> None:
        self.complete, self.pure, self.cores = complete, pure, cores

    @classmethod
    def of(cls, marked: Bools, struck: Bools, cores: Bools, margin: int) -> "_Judged":
        """Judge; marked pixels within the margin of a struck one are right."""
        near = grow(np.ascontiguousarray(struck), margin)
        stars = _STARS_PER_MPIX * marked.size / MPIX
        mistaken = np.count_nonzero(marked & cores & ~near)
        return cls(
            float(np.mean(marked[struck])),
            float(np.mean(near[marked])),
            float(1000.0 * mistaken / stars),
        )


def _stars(side: int) -> Any:
    rng = np.random.default_rng(22)
    n = int(_STARS_PER_MPIX * side * side / MPIX)
    return np.stack([*rng.uniform(0.0, side, (2, n)), 10.0 ** rng.uniform(2.7, 5.0, n)])


def _snap(rng: Any, side: int, sigma: float) -> tuple[F32, Bools]:
    """Return counts above the bias, and where they were struck."""
    light = np.full((side, side), SKY, np.float32)
    stars = _stars(side)
    width = np.full(stars.shape[1], sigma)
    add_gaussians(light, *stars, width, width, 0.02)
    pixels, charge = cosmic_rays(rng, int(_TRACKS_PER_MPIX * side * side / MPIX), side)
    hit = np.bincount(pixels, charge, side * side).reshape(side, side)
    electrons = rng.poisson(light) + hit + rng.normal(0.0, READ, light.shape)
    return (electrons / GAIN).astype(np.float32), np.asarray(hit > 0.0, bool)


def _cores(side: int) -> Bools:
    cores = np.zeros((side, side), bool)
    stars = _stars(side)
    places = np.minimum(np.rint(stars[:2]).astype(int), side - 1)
    cores[places[1], places[0]] = True
    return grow(cores, _CORE_PX)


def _astroscrappy(counts: F32) -> Any:
    import astroscrappy

    marked, _ = astroscrappy.detect_cosmics(
        counts, gain=GAIN, readnoise=READ, sigclip=4.5, sepmed=True, cleantype="medmask"
    )
    return np.asarray(marked, bool)
