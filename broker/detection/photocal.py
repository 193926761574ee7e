"""Zero point and WCS of an image, fitted to a reference catalogue."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from broker.detection.flags import SourceFlag
from broker.errors import AlertError
from broker.imaging.kernels import F64, Bools
from broker.imaging.wcs import Wcs
from broker.units import separation_arcsec

LEAST_PAIRS = 5
_SHIFT_BINS = 1.0
_CLIP_SIGMAS = 3.0
_ROUNDS = 6
_MAX_SNR_ERROR = 0.1
_FLOOR_PLACE = 0.005
"""What catalogue and optics add to the error of a place, in PSF widths."""

_FLOOR_MAG = 0.003
"""What flat fields and catalogues disagree by even for the brightest stars. [mag]"""


@dataclass(frozen=True)
class Calibrated:
    """What a reference catalogue says of an image.

    Parameters
    ----------
    wcs : Wcs
    wcs_rms_arcsec : float
        1-sigma scatter along an axis, of the pairs that were kept. [arcsec]
    shift_px : float
        How far the centre moved. [pixel]
    zero_point, zero_point_err : float
        AB magnitude of one count, and its 1-sigma error. [mag]
    mag_scatter : float
        1-sigma scatter of one star. [mag]
    n_pairs, n_stars : int
        Pairs that fixed the WCS, stars that fixed the zero point.
    """

    wcs: Wcs
    wcs_rms_arcsec: float
    shift_px: float
    zero_point: float
    zero_point_err: float
    mag_scatter: float
    n_pairs: int
    n_stars: int


def calibrate(
    sources: Any,
    wcs: Wcs,
    shape: tuple[int, int],
    *,
    ra: F64,
    dec: F64,
    mag: F64,
    radius_px: float = 10.0,
) -> Calibrated:
    """Fit WCS and zero point to a catalogue.

    Parameters
    ----------
    sources : pa.Table
        Columns x, y, counts, countsErr, flags and sizeRatio, as `broker.detection.direct` makes.
    wcs : Wcs
        A first one, off by at most `radius_px`.
    shape : (int, int)
        Of the image: (ny, nx).
    ra, dec, mag : NDArray[np.float64], shape (n_catalogued,)
        [deg] and AB magnitudes in the image's band.
    radius_px : float
        How far off the WCS may be. [pixel]

    Returns
    -------
    Calibrated
        With fewer than 3 × 5 pairs the WCS is only shifted.

    Raises
    ------
    AlertError
        If fewer than five sources are in the catalogue.

    Notes
    -----
    The shift is the densest place of all differences between sources and catalogue; then pairs
    are nearest neighbours, one to one, and fit and clip take turns.
    """
    x, y, good = _usable(sources)
    error = _relative_error(sources)[good]
    cat_x, cat_y = wcs.sky_to_pixel(ra, dec)
    margin = radius_px
    inside = (cat_x > -margin) & (cat_x < shape[1] + margin)
    inside &= (cat_y > -margin) & (cat_y < shape[0] + margin)
    rows = np.flatnonzero(inside)
    if rows.size < LEAST_PAIRS or x.size < LEAST_PAIRS:
        raise AlertError(
            f"{x.size} sources and {rows.size} catalogued objects lie on the image; "
            f"{LEAST_PAIRS} of each are needed"
        )
    dx, dy = _shift(x, y, cat_x[rows], cat_y[rows], radius_px)
    fitted = wcs.shifted(-dx, -dy)
    pairs = _pairs(x, y, fitted, ra[rows], dec[rows], 3.0)
    for reach in (3.0, 2.0, 1.5, 1.5):
        pairs = _pairs(x, y, fitted, ra[rows], dec[rows], reach)
        if len(pairs) < LEAST_PAIRS:
            raise AlertError(
                f"{len(pairs)} sources are in the catalogue; {LEAST_PAIRS} are needed: does it "
                "cover the image, is the WCS near the truth?"
            )
        i, j = pairs.T
        fitted = _fit_wcs(x[i], y[i], ra[rows][j], dec[rows][j], error[i], fitted)
    i, j = pairs.T
    found_ra, found_dec = fitted.pixel_to_sky(x[i], y[i])
    apart = separation_arcsec(found_ra, found_dec, ra[rows][j], dec[rows][j])
    middle = ((shape[1] - 1) / 2.0, (shape[0] - 1) / 2.0)
    at = wcs.sky_to_pixel(*fitted.pixel_to_sky(*middle))
    moved = np.hypot(float(at[0]) - middle[0], float(at[1]) - middle[1])
    zero, zero_err, scatter, n = _zero_point(sources, good[i], mag[rows][j])
    rms = float(np.median(apart) / 1.1774)  # of a Rayleigh distribution
    return Calibrated(fitted, rms, float(moved), zero, zero_err, scatter, len(pairs), n)


def _usable(sources: Any) -> tuple[F64, F64, Any]:
    """Return places of good sources and their rows."""
    counts, error = (sources[n].to_numpy() for n in ("counts", "countsErr"))
    flags = sources["flags"].to_numpy() & ~int(SourceFlag.PSF_FROM_HEADER)
    good = np.flatnonzero((flags == 0) & (counts > 7.0 * error))
    return sources["x"].to_numpy()[good], sources["y"].to_numpy()[good], good


def _relative_error(sources: Any) -> F64:
    """Return the relative error of the counts: a place's error is the PSF's width times it."""
    counts, error = (sources[n].to_numpy() for n in ("counts", "countsErr"))
    return np.hypot(error / np.maximum(counts, 1e-30), _FLOOR_PLACE)


def _shift(x: F64, y: F64, cat_x: F64, cat_y: F64, radius: float) -> tuple[float, float]:
    """Return what to add to catalogue pixels: the densest place of the differences."""
    from scipy.spatial import cKDTree

    tree = cKDTree(np.column_stack([cat_x, cat_y]))
    near: Any = tree.query_ball_point(np.column_stack([x, y]), radius)
    gaps = [(x[k] - cat_x[m], y[k] - cat_y[m]) for k, found in enumerate(near) for m in found]
    if not gaps:
        return 0.0, 0.0
    table = np.array(gaps)
    count = cKDTree(table).query_ball_point(table, _SHIFT_BINS, return_length=True)
    best = table[np.argmax(count)]
    close = np.hypot(*(table - best).T) < _SHIFT_BINS
    dx, dy = np.median(table[close], axis=0)
    return float(dx), float(dy)


def _pairs(x: F64, y: F64, wcs: Wcs, ra: F64, dec: F64, reach: float) -> Any:
    """Return pairs (source, catalogue) that are each other's nearest, shape (n, 2)."""
    from scipy.spatial import cKDTree

    cat = np.column_stack(wcs.sky_to_pixel(ra, dec))
    own = np.column_stack([x, y])
    gap, nearest = (np.asarray(v) for v in cKDTree(cat).query(own))
    back = np.asarray(cKDTree(own).query(cat)[1])
    mutual = (gap < reach) & (back[nearest] == np.arange(len(own)))
    return np.column_stack([np.flatnonzero(mutual), nearest[mutual]])


def _fit_wcs(x: F64, y: F64, ra: F64, dec: F64, error: F64, first: Wcs) -> Wcs:
    """Return the WCS with the same tangent point that fits pairs best, outliers clipped."""
    plane = Wcs(first.crval_ra, first.crval_dec, 0.0, 0.0, ((1.0, 0.0), (0.0, 1.0)))
    target = np.column_stack(plane.sky_to_pixel(ra, dec))
    (a, b), (c, d) = first.cd
    matrix = np.array([[a, b], [c, d]])
    rest = target - (np.column_stack([x - first.crpix_x, y - first.crpix_y]) @ matrix.T)
    keep = np.ones(x.size, bool)
    full = x.size >= 3 * LEAST_PAIRS
    middle = np.array([np.mean(x), np.mean(y)])
    design = np.column_stack([np.ones(x.size), x - middle[0], y - middle[1]])
    design = (design if full else design[:, :1]) / error[:, None]
    rest = rest / error[:, None]
    for _ in range(_ROUNDS):
        solution = np.linalg.lstsq(design[keep], rest[keep], rcond=None)[0]
        miss = np.hypot(*(rest - design @ solution).T)
        sigma = float(np.median(miss[keep])) / 1.1774
        new = miss <= 1.5 * _CLIP_SIGMAS * max(sigma, 1e-9)
        if new.sum() < LEAST_PAIRS or np.array_equal(new, keep):
            break
        keep = new
    change = solution[1:].T if full else np.zeros((2, 2))
    cd = matrix + change
    # The offset at the mean place, in pixels of the new matrix.
    offset = matrix @ (middle - [first.crpix_x, first.crpix_y]) + solution[0]
    crpix = middle - np.linalg.solve(cd, offset)
    (a, b), (c, d) = cd.tolist()
    return Wcs(first.crval_ra, first.crval_dec, float(crpix[0]), float(crpix[1]), ((a, b), (c, d)))


def _zero_point(sources: Any, rows: Any, mag: F64) -> tuple[float, float, float, int]:
    """Return zero point, its error, the scatter of a star, and how many stars there are."""
    counts = sources["counts"].to_numpy()[rows]
    error = sources["countsErr"].to_numpy()[rows] / counts * 1.0857
    size = sources["sizeRatio"].to_numpy()[rows]
    zero = mag + 2.5 * np.log10(counts)
    star: Bools = np.isfinite(zero) & (error < _MAX_SNR_ERROR)
    pointlike = star & (np.abs(size - 1.0) < 0.15)
    star = pointlike if pointlike.sum() >= LEAST_PAIRS else star
    if star.sum() < LEAST_PAIRS:
        raise AlertError(f"{star.sum()} stars have a magnitude; {LEAST_PAIRS} are needed")
    zero, weight = zero[star], 1.0 / (error[star] ** 2 + _FLOOR_MAG**2)
    keep = np.ones(zero.size, bool)
    middle = float(np.median(zero))
    for _ in range(_ROUNDS):
        # In units of each star's own error: a bright variable is far off although faint stars
        # scatter as much.
        pull = (zero - middle) * np.sqrt(weight)
        spread = 1.4826 * float(np.median(np.abs(pull[keep])))
        keep = np.abs(pull) <= _CLIP_SIGMAS * max(spread, 1.0)
        middle = float(np.average(zero[keep], weights=weight[keep]))
    n = int(keep.sum())
    scatter = float(np.sqrt(np.average((zero[keep] - middle) ** 2, weights=weight[keep])))
    chi2 = float(np.mean((zero[keep] - middle) ** 2 * weight[keep]))
    formal = float(np.sum(weight[keep]) ** -0.5)
    return middle, formal * float(np.sqrt(max(1.0, chi2))), scatter, n
