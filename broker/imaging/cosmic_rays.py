"""Cosmic rays of a single exposure: light sharper than the optics can make it."""

import math

import numpy as np

from broker.imaging.kernels import F32, Bools, compiled, grow

PEAK_SIGMAS = 6.0
"""A hit starts from a pixel this far above the sky."""

_SIGMAS = 3.0
"""Both a pixel and the pair beside it are given this much of their noise: at 2, noise on a faint
star looks like a hit once in some twenty images."""

_SPREAD_MARGIN_SIGMAS = 1.0
"""The same for pixels beside a hit."""

_CONTRAST = 1.25
"""How much sharper than a point source at the worst place a hit must be."""

_SPREAD_ROUNDS = 8
_SPREAD_SIGMAS = 3.0


def find_cosmic_rays(pixels: F32, variance: F32, *, psf_sigma: float, unusable: Bools) -> Bools:
    """Mark the pixels that a cosmic ray hit.

    Parameters
    ----------
    pixels, variance : NDArray[np.float32], shape (ny, nx)
        Background-subtracted; the variance of sky and reading alone, the pixel's own light not in
        it.
    psf_sigma : float
        [pixel]
    unusable : NDArray[np.bool_], shape (ny, nx)
        Pixels that are not looked at, and whose neighbours are not judged by them.

    Returns
    -------
    NDArray[np.bool_], shape (ny, nx)
        The hits and the pixels around them that may hold some of their charge.

    Notes
    -----
    The test on pairs of opposite neighbours is that of the Sloan survey's photometric pipeline
    (R. Lupton, condition 3): a pixel belongs to a hit if it exceeds, for one of the four pairs,
    what a point source that peaks there could have. A hit then spreads to neighbours that are
    sharp too, with the margin for noise alone.
    """
    least = [_pair_ratio(psf_sigma, dx, dy) for dx, dy in ((1, 0), (0, 1), (1, 1), (1, -1))]
    ratios = np.array(least, np.float32)
    hits = _seeds(pixels, variance, unusable, ratios)
    if not hits.any():
        return hits
    _spread(pixels, variance, unusable, ratios, hits)
    return grow(hits, 1) & ~unusable


def _pair_ratio(sigma: float, dx: int, dy: int) -> float:
    """Return the mean of a pair of opposite neighbours over the peak, for a centred source."""

    def share(offset: float) -> float:
        scale = 1.0 / (sigma * math.sqrt(2.0))
        return 0.5 * (math.erf((offset + 0.5) * scale) - math.erf((offset - 0.5) * scale))

    return share(dx) * share(dy) / share(0.0) ** 2


@compiled
def _is_sharp(
    pixels: F32, variance: F32, ratios: F32, hits: Bools, y: int, x: int, sigmas: float
) -> bool:
    value = pixels[y, x]
    noise = np.sqrt(variance[y, x])
    bright = value - sigmas * noise
    for k in range(4):
        dy = 0 if k == 0 else 1
        dx = 0 if k == 1 else (1 if k != 3 else -1)
        a, b = pixels[y + dy, x + dx], pixels[y - dy, x - dx]
        # A hit says nothing of the light beside it: a track is judged across, not along.
        if hits[y + dy, x + dx] or hits[y - dy, x - dx]:
            continue
        pair = 0.5 * (a + b) + sigmas * noise * 0.7071
        # Poisson noise of the light itself is within the contrast for all but the faintest.
        if bright * ratios[k] > _CONTRAST * max(pair, np.float32(0.0)):
            return True
    return False


@compiled
def _seeds(pixels: F32, variance: F32, unusable: Bools, ratios: F32) -> Bools:
    ny, nx = pixels.shape
    hits = np.zeros((ny, nx), np.bool_)
    none = np.zeros((ny, nx), np.bool_)
    for y in range(1, ny - 1):
        for x in range(1, nx - 1):
            value = pixels[y, x]
            if value * abs(value) < PEAK_SIGMAS * PEAK_SIGMAS * variance[y, x] or unusable[y, x]:
                continue
            # Only a ridge: no neighbour of a pair may be unknown.
            if unusable[y - 1 : y + 2, x - 1 : x + 2].any():
                continue
            if _is_sharp(pixels, variance, ratios, none, y, x, _SIGMAS):
                hits[y, x] = True
    return hits


@compiled
def _spread(pixels: F32, variance: F32, unusable: Bools, ratios: F32, hits: Bools) -> None:
    """Add to the hits the sharp neighbours of each, then theirs, a few times over."""
    ny, nx = pixels.shape
    ys, xs = np.nonzero(hits)
    for _ in range(_SPREAD_ROUNDS):
        new_y, new_x = np.empty(8 * ys.size, np.int64), np.empty(8 * ys.size, np.int64)
        n = 0
        for k in range(ys.size):
            for y in range(max(1, ys[k] - 1), min(ny - 1, ys[k] + 2)):
                for x in range(max(1, xs[k] - 1), min(nx - 1, xs[k] + 2)):
                    value = pixels[y, x]
                    if hits[y, x] or unusable[y, x] or value <= 0.0:
                        continue
                    if value**2 < _SPREAD_SIGMAS * _SPREAD_SIGMAS * variance[y, x]:
                        continue
                    if _is_sharp(pixels, variance, ratios, hits, y, x, _SPREAD_MARGIN_SIGMAS):
                        hits[y, x] = True
                        new_y[n], new_x[n] = y, x
                        n += 1
        if n == 0:
            break
        ys, xs = new_y[:n], new_x[:n]
