"""Structure of an image's sky: steps and noise that change from amplifier to amplifier, and shapes.

The image is cut into blocks, each with the median of its sky. An amplifier that has gone
wrong differs from its neighbours across a line; a flat that is not the detector's leaves a shape
in the sky that no gradient of the sky has.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from broker.imaging.background import median_cells
from broker.imaging.isr import Box
from broker.imaging.kernels import F32, F64, Bools

_SAMPLED = 0.25
"""Share of a block's pixels that its median is made of."""

_MEDIAN_ERROR = 1.2533
"""Standard error of a median of normal noise, over that of a mean."""

_LEAST_PIXELS = 0.25
"""Least share of a block's pixels that say something about the sky."""

_ROUNDS = 4
_SHAPE_PARAMETERS = 9
"""Of a surface of third degree, beside its mean."""


@dataclass(frozen=True)
class Structure:
    """What the sky of an image looks like.

    Parameters
    ----------
    shape_share : float
        1-sigma variation about a plane of the smooth part of the sky, as a share of it, without the
        noise; 0 if noise alone may have made it.
    step_share : float
        Largest step of the sky from an amplifier to its neighbours, as a share of it.
    step_snr : float
        The same in its standard errors.
    noise_jump : float
        Noise of the amplifier that is furthest from the others, over theirs.
    lost_share : float
        Largest share of an amplifier's pixels that are masked.
    worst : int
        Which amplifier has the largest step; -1 if none was measured.
    """

    shape_share: float
    step_share: float
    step_snr: float
    noise_jump: float
    lost_share: float
    worst: int


def default_amplifiers(shape: tuple[int, int]) -> tuple[Box, ...]:
    """Return sixteen amplifiers in two rows of eight, as many mosaic cameras have them."""
    ny, nx = shape
    rows, columns = np.linspace(0, ny, 3).astype(int), np.linspace(0, nx, 9).astype(int)
    return tuple(
        Box(int(rows[j]), int(rows[j + 1]), int(columns[i]), int(columns[i + 1]))
        for j in range(2)
        for i in range(8)
    )


def sky_structure(
    pixels: F32,
    *,
    sigma: float,
    sky: float,
    unusable: Bools,
    sources: Bools,
    amplifiers: Sequence[Box] = (),
) -> Structure:
    """Measure the structure of the sky.

    Parameters
    ----------
    pixels : NDArray[np.float32], shape (ny, nx)
        With the sky. [ADU]
    sigma : float
        Noise of a pixel. [ADU]
    sky : float
        What the shares are of, the sky's brightness. [ADU]
    unusable, sources : NDArray[np.bool_], shape (ny, nx)
        Pixels that say nothing of the sky; blocks that would lose half to sources keep them.
    amplifiers : sequence of Box
        Empty: `default_amplifiers`.
    """
    boxes = tuple(amplifiers) or default_amplifiers((pixels.shape[0], pixels.shape[1]))
    block = _block(boxes)
    mean, noise, count = _medians(pixels, unusable, sources, block)
    good = count >= _LEAST_PIXELS * _SAMPLED * block * block
    rows, columns = (_centres(n, block) for n in mean.shape)
    owner = _owners(boxes, rows, columns)
    plane = _surface(mean.astype(float), good, rows, columns, degree=1)
    rest = np.where(good, mean - plane, np.nan)
    error = _MEDIAN_ERROR * sigma / np.sqrt(np.maximum(count, 1))
    step, snr, worst = _steps(rest, error, owner, len(boxes))
    flat = rest - _amplifier_offsets(rest, owner, len(boxes), step, sky)
    shape = _surface(np.nan_to_num(flat), np.isfinite(flat), rows, columns, degree=3)
    return Structure(
        shape_share=_beyond_noise(float(np.std(shape)), error[np.isfinite(flat)]) / sky,
        step_share=step / sky,
        step_snr=snr,
        noise_jump=_noise_jump(np.where(good, noise, np.nan), owner, len(boxes)),
        lost_share=max(_share(box.of(unusable)) for box in boxes),
        worst=worst,
    )


def _beyond_noise(scatter: float, error: F64) -> float:
    """Return what a fitted shape has beside the noise of its blocks; 0 if noise alone may make it.

    Nine parameters beside the mean take up their part of the noise; twice that is by chance once in
    some 25,000 images.
    """
    if error.size == 0:
        return 0.0
    noise = float(np.sqrt(np.mean(error**2) * _SHAPE_PARAMETERS / error.size))
    return float(np.sqrt(scatter**2 - noise**2)) if scatter > 2.0 * noise else 0.0


def _share(flags: Bools) -> float:
    return np.count_nonzero(flags) / max(flags.size, 1)


def _centres(n: int, block: int) -> F64:
    return np.asarray(np.arange(n) * block + block / 2.0, np.float64)


def _medians(
    pixels: F32, unusable: Bools, sources: Bools, block: int
) -> tuple[F32, F32, NDArray[np.int64]]:
    """Return median, noise and number of pixels of each block."""
    mean, noise, count = median_cells(pixels, unusable | sources, block)
    # An amplifier that is far too bright looks like one large source.
    few = count < 0.5 * _SAMPLED * block * block
    if few.any():
        for part, other in zip(
            (mean, noise, count), median_cells(pixels, unusable, block), strict=True
        ):
            part[few] = other[few]
    return mean, noise, count


def _block(boxes: Sequence[Box]) -> int:
    """Return the side of blocks: at least two across the narrowest amplifier."""
    narrow = min(min(box.shape) for box in boxes)
    return int(np.clip(narrow // 4, 8, 64))


def _owners(boxes: Sequence[Box], rows: F64, columns: F64) -> NDArray[np.int64]:
    owner = np.full((rows.size, columns.size), -1, np.int64)
    for number, box in enumerate(boxes):
        inside = (rows >= box.y) & (rows < box.y_end)
        across = (columns >= box.x) & (columns < box.x_end)
        owner[np.ix_(inside, across)] = number
    return owner


def _surface(values: F64, good: Bools, rows: F64, columns: F64, *, degree: int) -> F64:
    """Return the polynomial surface through blocks, outliers left out."""
    v, u = np.meshgrid(2.0 * rows / rows.max() - 1.0, 2.0 * columns / columns.max() - 1.0,
                       indexing="ij")  # fmt: skip
    powers = [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i)]
    design = np.stack([u.ravel() ** i * v.ravel() ** j for i, j in powers], axis=1)
    flat, known = values.ravel(), good.ravel()
    keep = known.copy()
    model = np.full(flat.size, float(np.median(flat[keep])) if keep.any() else 0.0)
    for _ in range(_ROUNDS):
        if keep.sum() < 3 * len(powers):
            break
        kept = design[keep]
        model = design @ np.linalg.solve(kept.T @ kept, kept.T @ flat[keep])
        rest = np.abs(flat - model)
        keep = known & (rest <= 3.0 * 1.4826 * float(np.median(rest[keep])) + 1e-6)
    return np.asarray(model.reshape(values.shape))


def _steps(rest: F64, error: F64, owner: NDArray[np.int64], n: int) -> tuple[float, float, int]:
    """Return the largest step between an amplifier and all its neighbours, its S/N, and whose.

    A step is that of the blocks on both sides of the line between two amplifiers. A wrong
    amplifier steps against every neighbour alike, so the median over them is taken.
    """
    found: dict[int, list[tuple[float, float]]] = {k: [] for k in range(n)}
    for axis in (0, 1):
        one, two = _sides(owner, axis), _sides(owner, axis, after=True)
        gap = _sides(rest, axis) - _sides(rest, axis, after=True)
        var = _sides(error, axis) ** 2 + _sides(error, axis, after=True) ** 2
        border = (one != two) & (one >= 0) & (two >= 0) & np.isfinite(gap)
        for a, b in {(int(p), int(q)) for p, q in zip(one[border], two[border], strict=True)}:
            here = border & (one == a) & (two == b)
            count = int(here.sum())
            middle = _median(gap[here])
            seen = 1.4826 * _median(np.abs(gap[here] - middle))
            wrong = max(float(np.sqrt(np.mean(var[here]))), seen) / np.sqrt(count)
            wrong *= _MEDIAN_ERROR if count > 2 else 1.0
            found[a].append((middle, wrong))
            found[b].append((-middle, wrong))
    best = (0.0, 0.0, -1)
    for number, steps in found.items():
        if not steps:
            continue
        values = np.array([s for s, _ in steps])
        size = abs(_median(values))
        wrong = float(np.sqrt(np.mean([e * e for _, e in steps]) / len(steps)))
        if size > best[0]:
            best = (size, size / wrong if wrong > 0.0 else 0.0, number)
    return best


def _median(values: F64) -> float:
    """Return the median of a few values: NumPy's takes ten times as long to begin."""
    ordered = np.sort(values)
    return float(0.5 * (ordered[(ordered.size - 1) // 2] + ordered[ordered.size // 2]))


def _sides(plane: NDArray[Any], axis: int, *, after: bool = False) -> NDArray[Any]:
    cut = slice(1, None) if after else slice(None, -1)
    return plane[cut] if axis == 0 else plane[:, cut]


def _amplifier_offsets(rest: F64, owner: NDArray[np.int64], n: int, step: float, sky: float) -> F64:
    """Return each block's amplifier's own median where amplifiers differ; else nothing."""
    offsets = np.zeros_like(rest)
    if not step > 0.01 * sky:
        return offsets
    for number in range(n):
        mine = owner == number
        values = rest[mine][np.isfinite(rest[mine])]
        if values.size:
            offsets[mine] = np.median(values)
    return offsets


def _noise_jump(noise: F64, owner: NDArray[np.int64], n: int) -> float:
    levels = []
    for number in range(n):
        values = noise[owner == number]
        values = values[np.isfinite(values)]
        if values.size:
            levels.append(float(np.median(values)))
    middle = float(np.median(levels)) if levels else 0.0
    if middle <= 0.0:
        return 1.0
    ratios = np.array(levels) / middle
    return float(ratios[np.argmax(np.abs(np.log(np.maximum(ratios, 1e-3))))])
