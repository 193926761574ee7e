"""Trails of satellites, aeroplanes and near asteroids on a difference: straight, long, narrow.

The difference is summed in small blocks; those well above their noise vote for the lines through
them (Hough 1962, US patent 3069654; Duda & Hart 1972, CACM 15 11), tile by tile, so that a short
trail is not lost in the noise of a long line. A line is then followed over the whole image, and
the stretch of it where most blocks are bright is the trail.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from broker.imaging.kernels import F32, Bools, compiled

BLOCK_PX = 4
_TILE = 128
"""Side of the squares in which lines are looked for. [block]"""

_BRIGHT_SIGMAS = 2.5
_BIN = 2.0
"""Width of a line that votes are counted in. [block]"""

_LEAST_VOTES = 9
_LEAST_HITS = 12
_LEAST_SHARE = 0.7
_MISS = 0.6
_ASIDE = 6
"""Beside a trail, this far off, it is dark: else it is a blot. [block]"""

_MOST = 12
_LEAST_HALF_WIDTH_SIGMAS = 3.0


@dataclass(frozen=True)
class Streak:
    """A trail.

    Parameters
    ----------
    x0, y0, x1, y1 : float
        Its ends. [pixel]
    half_width : float
        How far from its middle line it is masked. [pixel]
    """

    x0: float
    y0: float
    x1: float
    y1: float
    half_width: float

    @property
    def length(self) -> float:
        """From end to end. [pixel]"""
        return math.hypot(self.x1 - self.x0, self.y1 - self.y0)


def find_streaks(
    pixels: F32, variance: F32, *, psf_sigma: float, unusable: Bools
) -> tuple[list[Streak], Bools]:
    """Find trails of positive light, and the pixels under them.

    Parameters
    ----------
    pixels, variance : NDArray[np.float32], shape (ny, nx)
        A difference, without sky, and its variance.
    psf_sigma : float
        [pixel]
    unusable : NDArray[np.bool_], shape (ny, nx)

    Returns
    -------
    streaks : list of Streak
        The longest dozen, as they were found. Trails shorter than some 50 pixels are not looked
        for: the shape of a source tells of them.
    mask : NDArray[np.bool_], shape (ny, nx)
    """
    bright = _bright_blocks(pixels, variance, unusable)
    mask = np.zeros(pixels.shape, np.bool_)
    streaks: list[Streak] = []
    for _ in range(_MOST):
        rows, columns = np.nonzero(bright)
        best = _best_line(bright, rows, columns)
        if best is None:
            break
        angle, offset, start, end = best
        _clear(bright, angle, offset, start, end)
        streak = _in_pixels(angle, offset, start, end, psf_sigma)
        _mark(mask, streak.x0, streak.y0, streak.x1, streak.y1, streak.half_width)
        streaks.append(streak)
    return streaks, mask


def _in_pixels(angle: float, offset: float, start: float, end: float, sigma: float) -> Streak:
    # A block's own middle; the end blocks are whole.
    middle = 0.5 * (BLOCK_PX - 1)
    cos, sin = math.cos(angle), math.sin(angle)
    ends = []
    for along in (start - 0.5, end + 0.5):
        x, y = offset * cos - along * sin, offset * sin + along * cos
        ends += [BLOCK_PX * x + middle, BLOCK_PX * y + middle]
    half = _LEAST_HALF_WIDTH_SIGMAS * sigma + 0.5 * BLOCK_PX
    return Streak(ends[0], ends[1], ends[2], ends[3], half)


def _best_line(
    bright: Bools, rows: NDArray[np.intp], columns: NDArray[np.intp]
) -> tuple[float, float, float, float] | None:
    """Return angle of the normal, distance from the origin and both ends of the best trail."""
    best: tuple[float, float, float, float] | None = None
    most = 0.0
    for angle, offset in _candidates(rows, columns, bright.shape[0], bright.shape[1]):
        score, start, end, fine_angle, fine_offset = _follow(bright, angle, offset)
        if score > most:
            most, best = score, (fine_angle, fine_offset, start, end)
    return best


@compiled
def _bright_blocks(pixels: F32, variance: F32, unusable: Bools) -> Bools:
    ny, nx = pixels.shape[0] // BLOCK_PX, pixels.shape[1] // BLOCK_PX
    out = np.zeros((ny, nx), np.bool_)
    least = np.float32(_BRIGHT_SIGMAS * _BRIGHT_SIGMAS)
    total, noise = np.zeros(nx, np.float32), np.zeros(nx, np.float32)
    for j in range(ny):
        total[:] = 0.0
        noise[:] = 0.0
        for y in range(j * BLOCK_PX, (j + 1) * BLOCK_PX):
            for i in range(nx):
                for x in range(i * BLOCK_PX, (i + 1) * BLOCK_PX):
                    known = np.float32(0.0) if unusable[y, x] else np.float32(1.0)
                    total[i] += known * pixels[y, x]
                    noise[i] += known * variance[y, x]
        for i in range(nx):
            out[j, i] = total[i] > 0.0 and total[i] * total[i] > least * noise[i]
    return out


@compiled
def _candidates(
    rows: NDArray[np.intp], columns: NDArray[np.intp], ny: int, nx: int
) -> list[tuple[float, float]]:
    """Return angle and offset of the line with the most votes in each tile, if they are enough."""
    reach = int(_TILE * 1.5 / _BIN) + 2
    n_angles = int(math.pi * _TILE * 0.7071 / _BIN)
    cos, sin = np.empty(n_angles), np.empty(n_angles)
    for a in range(n_angles):
        cos[a], sin[a] = math.cos(math.pi * a / n_angles), math.sin(math.pi * a / n_angles)
    tiles_x = (nx + _TILE - 1) // _TILE
    n_tiles = tiles_x * ((ny + _TILE - 1) // _TILE)
    tile = (rows // _TILE) * tiles_x + columns // _TILE
    out = [(0.0, 0.0) for _ in range(0)]
    votes = np.zeros((n_angles, 2 * reach), np.int32)
    for t in range(n_tiles):
        votes[:] = 0
        top, left = (t // tiles_x) * _TILE, (t % tiles_x) * _TILE
        for k in range(rows.size):
            if tile[k] != t:
                continue
            y, x = rows[k] - top, columns[k] - left
            for a in range(n_angles):
                votes[a, int((x * cos[a] + y * sin[a]) / _BIN + reach)] += 1
        best, at_a, at_r = _LEAST_VOTES - 1, 0, 0
        for a in range(n_angles):
            for r in range(2 * reach):
                if votes[a, r] > best:
                    best, at_a, at_r = votes[a, r], a, r
        if best >= _LEAST_VOTES:
            offset = (at_r + 0.5 - reach) * _BIN + left * cos[at_a] + top * sin[at_a]
            out.append((math.pi * at_a / n_angles, offset))
    return out


@compiled
def _follow(bright: Bools, angle: float, offset: float) -> tuple[float, float, float, float, float]:
    """Return score, ends, angle and offset of the best trail near a line; score 0 for none."""
    best = (0.0, 0.0, 0.0, angle, offset)
    # About the middle of the line's part on the image, so that turning does not shift it away.
    ny, nx = bright.shape
    cx, cy = 0.5 * nx, 0.5 * ny
    for turn in range(-6, 7):
        fine = angle + turn * 0.0035
        cos, sin = math.cos(fine), math.sin(fine)
        # The point of the first line nearest the image's centre stays on the line.
        c0, s0 = math.cos(angle), math.sin(angle)
        away = offset - cx * c0 - cy * s0
        px, py = cx + away * c0, cy + away * s0
        for shift in range(-4, 5):
            moved = px * cos + py * sin + 0.5 * shift
            score, start, end = _stretch(bright, cos, sin, moved)
            if score > best[0]:
                best = (score, start, end, fine, moved)
    return best


@compiled
def _is_bright(bright: Bools, cos: float, sin: float, offset: float, along: int) -> bool:
    # The block on the line, or the one beside it that the line is nearer to.
    ny, nx = bright.shape
    for side in (-0.35, 0.35):
        x = round((offset + side) * cos - along * sin)
        y = round((offset + side) * sin + along * cos)
        if 0 <= x < nx and 0 <= y < ny and bright[y, x]:
            return True
    return False


@compiled
def _stretch(bright: Bools, cos: float, sin: float, offset: float) -> tuple[float, float, float]:
    """Return score and ends of the stretch of a line with the most bright blocks less misses."""
    ny, nx = bright.shape
    reach = int(math.hypot(ny, nx)) + 1
    run, first, hits = 0.0, -reach, 0
    best, start, end, best_hits = 0.0, 0, 0, 0
    for along in range(-reach, reach + 1):
        x, y = offset * cos - along * sin, offset * sin + along * cos
        if not (-0.5 <= x < nx - 0.5 and -0.5 <= y < ny - 0.5):
            continue
        if _is_bright(bright, cos, sin, offset, along):
            if run <= 0.0:
                run, first, hits = 0.0, along, 0
            run += 1.0
            hits += 1
        else:
            run -= _MISS
        if run > best:
            best, start, end, best_hits = run, first, along, hits
    length = end - start + 1
    if best_hits < _LEAST_HITS or best_hits < _LEAST_SHARE * length:
        return 0.0, 0.0, 0.0
    aside = 0
    for along in range(start, end + 1):
        if _is_bright(bright, cos, sin, offset - _ASIDE, along):
            aside += 1
        if _is_bright(bright, cos, sin, offset + _ASIDE, along):
            aside += 1
    if aside > 0.5 * best_hits:
        return 0.0, 0.0, 0.0
    return best, float(start), float(end)


@compiled
def _clear(bright: Bools, angle: float, offset: float, start: float, end: float) -> None:
    """Take a trail's blocks away, so that the next one is found."""
    ny, nx = bright.shape
    cos, sin = math.cos(angle), math.sin(angle)
    for y in range(ny):
        for x in range(nx):
            if abs(x * cos + y * sin - offset) < 0.5 * _ASIDE:
                along = y * cos - x * sin
                if start - 3.0 <= along <= end + 3.0:
                    bright[y, x] = False


@compiled
def _mark(mask: Bools, x0: float, y0: float, x1: float, y1: float, half: float) -> None:
    """Set the pixels nearer to a piece of a line than half its width."""
    ny, nx = mask.shape
    length = math.hypot(x1 - x0, y1 - y0)
    ux, uy = (x1 - x0) / length, (y1 - y0) / length
    for y in range(max(0, int(min(y0, y1) - half)), min(ny, int(max(y0, y1) + half) + 2)):
        for x in range(max(0, int(min(x0, x1) - half)), min(nx, int(max(x0, x1) + half) + 2)):
            along = (x - x0) * ux + (y - y0) * uy
            if abs((x - x0) * uy - (y - y0) * ux) <= half and -half <= along <= length + half:
                mask[y, x] = True
