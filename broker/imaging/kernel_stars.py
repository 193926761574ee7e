"""Which stars a matching kernel is fitted to."""

import numpy as np
from numpy.typing import NDArray

from broker.imaging.kernels import F32, Bools, compiled
from broker.imaging.subtract import STAMP_HALF


def kernel_stars(
    x: NDArray[np.int32],
    y: NDArray[np.int32],
    snr: F32,
    unusable: Bools,
    *,
    least: float = 20.0,
    most: float = 500.0,
    limit: int = 100,
    margin: int = 24,
) -> NDArray[np.intp]:
    """Choose stars to fit a kernel to: bright, not too bright, isolated, whole.

    Parameters
    ----------
    x, y, snr : NDArray, shape (n_peaks,)
        Detected peaks, all above `least` or fainter too.
    unusable : NDArray[np.bool_], shape (ny, nx)
    least, most : float
        Range of S/N.
    limit : int
        Most stars; the brightest are taken, the same number from each ninth of the image first.
    margin : int
        Distance to the border. [pixel]

    Returns
    -------
    NDArray[np.intp]
        Indices into the peaks, in rising order.
    """
    from scipy.spatial import cKDTree

    ny, nx = unusable.shape
    inside = (x >= margin) & (x < nx - margin) & (y >= margin) & (y < ny - margin)
    candidates = np.flatnonzero(inside & (snr >= least) & (snr <= most))
    if candidates.size == 0:
        return candidates
    bright = np.flatnonzero(snr >= least / 2.0)
    tree = cKDTree(np.column_stack([x[bright], y[bright]]))
    near = tree.query_ball_point(
        np.column_stack([x[candidates], y[candidates]]), STAMP_HALF + 3.0, return_length=True
    )
    candidates = candidates[near == 1]
    chosen = candidates[_whole(unusable, x[candidates], y[candidates], STAMP_HALF)]
    part = 3 * (y[chosen] * 3 // ny) + x[chosen] * 3 // nx
    by_brightness = np.argsort(-snr[chosen], kind="stable")
    rank = np.empty(chosen.size, np.int64)
    for p in range(9):
        mine = by_brightness[part[by_brightness] == p]
        rank[mine] = np.arange(mine.size)
    order = np.lexsort((-snr[chosen], rank))
    return np.sort(chosen[order[:limit]])


@compiled
def _whole(unusable: Bools, xs: NDArray[np.int32], ys: NDArray[np.int32], half: int) -> Bools:
    """Return which places have no unusable pixel in the square around them."""
    out = np.ones(xs.size, np.bool_)
    for k in range(xs.size):
        for y in range(ys[k] - half, ys[k] + half + 1):
            for x in range(xs[k] - half, xs[k] + half + 1):
                if unusable[y, x]:
                    out[k] = False
    return out
