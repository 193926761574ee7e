"""How much of the stars' light comes through: by apertures, against the template's stars."""

import numpy as np

from broker.detection.detect import Peaks
from broker.detection.halved import typical
from broker.imaging.image import Image
from broker.imaging.kernels import F32, F64, Bools, compiled

LEAST_STARS = 5
_NEAR_STARS = 7
_MEDIAN_ERROR = 1.2533
"""Standard error of a median of normal values, over that of their mean."""


def seen(found: Peaks, expected: Peaks, *, reach: float, least_snr: float) -> float:
    """Return which share of the expected stars, those clearly above the limit, is found.

    Parameters
    ----------
    found, expected : Peaks
    reach : float
        How far from its place a star may be. [pixel]
    least_snr : float
        Of the stars that count.
    """
    from scipy.spatial import cKDTree

    sure = expected.snr > least_snr
    if sure.sum() < LEAST_STARS:
        return float("nan")
    if len(found) == 0:
        return 0.0
    gap = cKDTree(np.column_stack([found.x, found.y])).query(
        np.column_stack([expected.x[sure], expected.y[sure]])
    )[0]
    return float(np.mean(np.asarray(gap) < reach))


def transparency(
    clean: Image, deep: Image, x: F64, y: F64, *, reach: float, unusable: Bools
) -> dict[str, float | int | str]:
    """Return the zero point by the template's stars, and how it varies over the image.

    Parameters
    ----------
    clean, deep : Image
        Without sky, in the same counts, on the same pixels.
    x, y : NDArray[np.float64], shape (n_stars,)
        Pixels of isolated stars.
    reach : float
        Radius of the apertures: beyond all of a star's light on both. [pixel]
    unusable : NDArray[np.bool_], shape (ny, nx)

    Returns
    -------
    dict
        zeroPointOff and zeroPointErr [mag], measuredZeroPoint [mag], transparencySpread [mag]:
        what there are enough stars for.
    """
    from scipy.spatial import cKDTree

    light, expected, count = _sums(clean.pixels, deep.pixels, unusable, x, y, reach).T
    noise = typical(clean.variance)
    good = (count > 0.9 * count.max()) & (expected > 0.0)
    error = np.sqrt(noise * count + np.maximum(expected, 0.0) / clean.gain)
    good &= expected > 10.0 * error
    if good.sum() < LEAST_STARS:
        return {}
    share = light[good] / expected[good]
    middle = float(np.median(share))
    if not middle > 0.01:
        return {"zeroPointOff": -5.0}
    scatter = 1.4826 * float(np.median(np.abs(share - middle)))
    off = 2.5 * float(np.log10(middle))
    card: dict[str, float | int | str] = {
        "zeroPointOff": off,
        "zeroPointErr": 1.0857 * 1.25 * scatter / middle / float(np.sqrt(good.sum())),
        "measuredZeroPoint": clean.zero_point + off,
    }
    if good.sum() >= 3 * _NEAR_STARS:
        places = np.column_stack([x[good], y[good]])
        near = np.asarray(cKDTree(places).query(places, k=_NEAR_STARS)[1])
        card["transparencySpread"] = _spread(share[near], error[good][near] / expected[good][near])
    return card


def _spread(shares: F64, errors: F64) -> float:
    """Return by how much places surely differ in transparency. [mag]

    Parameters
    ----------
    shares, errors : NDArray[np.float64], shape (n_places, n_near)
        Of stars near each place; their median bears two that vary.
    """
    local = np.maximum(np.median(shares, axis=1), 0.01)
    scatter = 1.4826 * np.median(np.abs(shares - local[:, None]), axis=1)
    error = np.maximum(np.median(errors, axis=1), scatter)
    error = _MEDIAN_ERROR * error / np.sqrt(shares.shape[1])
    least, most = np.min(local + 3.0 * error), np.max(local - 3.0 * error)
    return 2.5 * float(np.log10(most / least)) if most > least else 0.0


@compiled
def _sums(one: F32, two: F32, unusable: Bools, xs: F64, ys: F64, reach: float) -> F64:
    """Return the sums of two planes within a radius, and the pixels used, shape (n, 3)."""
    ny, nx = one.shape
    out = np.zeros((xs.size, 3))
    half = int(reach) + 1
    for k in range(xs.size):
        cx, cy = int(xs[k]), int(ys[k])
        for y in range(max(0, cy - half), min(ny, cy + half + 1)):
            for x in range(max(0, cx - half), min(nx, cx + half + 1)):
                inside = (x - xs[k]) ** 2 + (y - ys[k]) ** 2 <= reach * reach
                if inside and not unusable[y, x]:
                    out[k, 0] += one[y, x]
                    out[k, 1] += two[y, x]
                    out[k, 2] += 1.0
    return out
