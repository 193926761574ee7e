"""Two snaps of one visit: what is in only one of them is a cosmic ray."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from broker.errors import AlertError
from broker.imaging.kernels import F32, Bools, compiled

SEED_SIGMAS = 5.0
"""Excess of one snap over the other that makes a hit."""

NEXT_SIGMAS = 3.5
"""The same beside a hit; lower, and one neighbour in two hundred would be noise."""

LIGHT_ERROR = 0.08
"""Relative 1-sigma change of a pixel's light between the snaps: the seeing's in a star's core."""

_SPREAD_ROUNDS = 4


@dataclass(frozen=True)
class Split:
    """What two snaps say together.

    Parameters
    ----------
    pixels : NDArray[np.float32], shape (ny, nx)
        Their sum; twice the clean one where the other was hit.
    variance : NDArray[np.float32], shape (ny, nx)
    hits : NDArray[np.int8], shape (ny, nx)
        0 nowhere, 1 where the first snap was hit, 2 where the second.
    """

    pixels: F32
    variance: F32
    hits: NDArray[np.int8]

    @property
    def struck(self) -> Bools:
        """Where either snap was hit."""
        return np.asarray(self.hits != 0, bool)


def split_snaps(
    first: F32, second: F32, *, gain: float, read_noise: float, unusable: Bools | None = None
) -> Split:
    """Return the clean sum of two snaps of equal length and their cosmic rays.

    Parameters
    ----------
    first, second : NDArray[np.float32], shape (ny, nx)
        Counts above the bias, with the sky.
    gain : float
        [e-/count]
    read_noise : float
        Of one snap. [e-]
    unusable : NDArray[np.bool_], shape (ny, nx), optional
        Pixels that are not judged, as saturated ones.

    Raises
    ------
    AlertError
        If their shapes differ.
    """
    if first.shape != second.shape or first.ndim != 2:
        raise AlertError(f"the snaps are {first.shape} and {second.shape}: one shape is needed")
    skip = np.zeros((1, 1), np.bool_) if unusable is None else unusable
    read = np.float32((read_noise / gain) ** 2)
    pixels, variance, hits, seeds = _split(first, second, skip, read, np.float32(1.0 / gain))
    if seeds > 0:
        _spread(first, second, skip, read, np.float32(1.0 / gain), pixels, variance, hits)
    return Split(pixels, variance, hits)


@compiled
def _noise_squared(clean: Any, read: Any, per_count: Any) -> Any:
    # The fainter of the two tells what light there is: a hit only adds.
    light = max(clean, np.float32(0.0))
    change = np.float32(LIGHT_ERROR) * light
    return np.float32(2.0) * (read + light * per_count) + change * change


@compiled
def _split(
    first: Any, second: Any, skip: Bools, read: Any, per_count: Any
) -> tuple[F32, F32, Any, int]:
    ny, nx = first.shape
    pixels = np.empty((ny, nx), np.float32)
    variance = np.empty((ny, nx), np.float32)
    hits = np.zeros((ny, nx), np.int8)
    masked = skip.shape == first.shape
    limit = np.float32(SEED_SIGMAS * SEED_SIGMAS)
    seeds = 0
    zero, two = np.float32(0.0), np.float32(2.0)
    for y in range(ny):
        # Two loops that the compiler can vectorise, then one over the few rows with a hit.
        excess = np.float32(-1.0)
        for x in range(nx):
            a, b = first[y, x], second[y, x]
            gap = a - b
            square = _noise_squared(min(a, b), read, per_count)
            excess = max(excess, gap * gap - limit * square)
        for x in range(nx):
            total = first[y, x] + second[y, x]
            pixels[y, x] = total
            # Not of the fainter one: that is below the mean by half a sigma.
            variance[y, x] = two * read + max(total, zero) * per_count
        if excess <= zero:
            continue
        for x in range(nx):
            a, b = first[y, x], second[y, x]
            clean, gap = min(a, b), a - b
            if gap * gap <= limit * _noise_squared(clean, read, per_count):
                continue
            if masked and skip[y, x]:
                continue
            seeds += 1
            hits[y, x] = 1 if gap > zero else 2
            pixels[y, x] = two * clean
            variance[y, x] = np.float32(4.0) * (read + max(clean, zero) * per_count)
    return pixels, variance, hits, seeds


@compiled
def _spread(
    first: F32,
    second: F32,
    skip: Bools,
    read: float,
    per_count: float,
    pixels: F32,
    variance: F32,
    hits: Any,
) -> None:
    """Add the neighbours of a hit that exceed the other snap too, then theirs, a few times."""
    ny, nx = first.shape
    masked = skip.shape == first.shape
    ys, xs = np.nonzero(hits)
    for _ in range(_SPREAD_ROUNDS):
        new_y, new_x = np.empty(8 * ys.size, np.int64), np.empty(8 * ys.size, np.int64)
        n = 0
        for k in range(ys.size):
            side = hits[ys[k], xs[k]]
            for y in range(max(0, ys[k] - 1), min(ny, ys[k] + 2)):
                for x in range(max(0, xs[k] - 1), min(nx, xs[k] + 2)):
                    if hits[y, x] != 0 or (masked and skip[y, x]):
                        continue
                    gap = first[y, x] - second[y, x]
                    if side == 2:
                        gap = -gap
                    clean = min(first[y, x], second[y, x])
                    square = _noise_squared(clean, read, per_count)
                    if gap <= 0.0 or gap * gap <= NEXT_SIGMAS * NEXT_SIGMAS * square:
                        continue
                    hits[y, x] = side
                    light = max(clean, np.float32(0.0))
                    pixels[y, x] = np.float32(2.0) * clean
                    variance[y, x] = np.float32(4.0) * (read + light * per_count)
                    new_y[n], new_x[n] = y, x
                    n += 1
        if n == 0:
            break
        ys, xs = new_y[:n], new_x[:n]
