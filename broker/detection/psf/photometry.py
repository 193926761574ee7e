"""Flux and place of point sources by any PSF, each with its neighbours' light taken away.

Sources are fitted in turn on what the others leave (Gauss-Seidel), until none moves: the answer
is that of a fit of all at once. As in `measure.py` the noise is from the model, never from the
pixel's own value.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from broker.detection.measure import FIT_HALF_SIGMAS, Fits, Noise
from broker.detection.psf.loops import finish, restore, sweep
from broker.detection.psf.tables import PsfTables
from broker.imaging.kernels import F32, F64, Bools

SWEEPS = 25
_TOUCH_SIGMAS = 5.5
"""Sources within this disturb each other enough to be fitted again when one has changed."""

_ALONE_STEPS, _GROUP_STEPS = 20, 2
_MOST_NEAR = 4
"""Neighbours that are counted in a source's error, the nearest ones."""

_PART = 9


@dataclass(frozen=True)
class Sources:
    """Point sources of an image while they are fitted, arrays of shape (n_sources,).

    Parameters
    ----------
    x, y, flux : NDArray[np.float64]
        Changed in place by `fit_together`.
    start_x, start_y : NDArray[np.float64]
        Where each was seen first. [pixel]
    lost : NDArray[np.float64]
        1 where the fit has left it; changed in place.
    """

    x: F64
    y: F64
    flux: F64
    start_x: F64
    start_y: F64
    lost: F64

    def keep(self, rows: Any) -> "Sources":
        """Return some of them, or all in another order."""
        return Sources(*(np.ascontiguousarray(v[rows]) for v in vars(self).values()))

    def join(self, other: "Sources") -> "Sources":
        """Return these and others."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Sources(*(np.concatenate(pair) for pair in pairs))


def new_sources(x: NDArray[Any], y: NDArray[Any], flux: NDArray[Any]) -> Sources:
    """Return sources that start at pixels with a first flux."""
    x, y, flux = (np.array(v, np.float64) for v in (x, y, flux))
    return Sources(x, y, flux, x.copy(), y.copy(), np.zeros(x.size))


def fit_together(
    pixels: F32,
    variance: F32,
    sources: Sources,
    *,
    psf: PsfTables,
    noise: Noise,
    unusable: Bools,
    reach: float = 1.25,
    sweeps: int = SWEEPS,
    residual: F32 | None = None,
    changed: Bools | None = None,
) -> tuple[Fits, F32]:
    """Fit all sources of an image, each on what the others leave.

    Parameters
    ----------
    pixels, variance : NDArray[np.float32], shape (ny, nx)
        Without background; the variance without the sources.
    sources : Sources
        Changed in place.
    psf : PsfTables
    noise : Noise
    unusable : NDArray[np.bool_], shape (ny, nx)
    reach : float
        A source that goes further than this from its start, in PSF widths, has failed: its place
        is the start. At least 1.5 pixels.
    sweeps : int
        Most turns.
    residual : NDArray[np.float32], shape (ny, nx), optional
        Of an earlier fit, which is changed in place.
    changed : NDArray[np.bool_], shape (n_sources,), optional
        With `residual`: the sources that are not in it yet, or whose neighbours have changed. A
        source whose flux is 0 is not in it.

    Returns
    -------
    Fits
        Errors take the correlation with the four nearest neighbours into account.
    residual : NDArray[np.float32], shape (ny, nx)
        What the sources leave of the pixels.
    """
    n = sources.x.size
    active = np.ones(n, np.bool_)
    if residual is None or changed is None:
        residual = np.array(pixels, np.float32)
        sources.flux[:] = 0.0
        sources.lost[:] = 0.0
    else:
        active = changed.copy()
    table = np.zeros((n, _PART))
    if n == 0:
        return _fits(sources, table), residual
    ny, nx = residual.shape
    if (
        not ((sources.x > -0.5) & (sources.x < nx - 0.5)).all()
        or not ((sources.y > -0.5) & (sources.y < ny - 0.5)).all()
    ):
        raise ValueError("a source lies outside the image")
    half = min(int(np.ceil(FIT_HALF_SIGMAS * psf.sigma)), psf.half)
    frame = (psf.values, psf.oversampling, psf.half, half, 1.0 / noise.gain, noise.floor)
    count, one, two = _neighbours(sources, _TOUCH_SIGMAS * psf.sigma)
    steps = np.where(count > 0, _GROUP_STEPS, _ALONE_STEPS)
    limit = max(1.5, reach * psf.sigma)
    for _ in range(sweeps):
        order = np.argsort(-sources.flux, kind="stable")
        restless = sweep(
            residual, pixels, variance, unusable, *frame, sources.x, sources.y, sources.flux,
            sources.start_x, sources.start_y, order, active, steps, limit, psf.sigma,
            sources.lost,
        )  # fmt: skip
        # A source that stands still, with neighbours that do, is done.
        active = restless & (count > 0)
        active[two[restless[one]]] = True
        if not active.any():
            break
    finish(
        residual,
        pixels,
        variance,
        unusable,
        *frame[:2],
        *frame[3:],
        sources.x,
        sources.y,
        sources.flux,
        table,
    )
    table[:, 7] = sources.lost
    table[:, 1:4] *= joint_errors(sources.x, sources.y, psf.sigma)
    return _fits(sources, table), residual


def put_back(residual: F32, sources: Sources, drop: Bools, psf: PsfTables) -> Bools:
    """Put the light of some sources back into a residual; return which others that touches.

    Parameters
    ----------
    residual : NDArray[np.float32], shape (ny, nx)
        Changed in place.
    sources : Sources
    drop : NDArray[np.bool_], shape (n_sources,)
    psf : PsfTables

    Returns
    -------
    NDArray[np.bool_], shape (n_sources,)
    """
    rows = np.flatnonzero(drop)
    restore(residual, psf.values, psf.oversampling, psf.half, sources.x[rows], sources.y[rows],
             sources.flux[rows])  # fmt: skip
    _, one, two = _neighbours(sources, _TOUCH_SIGMAS * psf.sigma)
    touched = np.zeros(drop.size, np.bool_)
    touched[two[drop[one]]] = True
    return touched & ~drop


def _neighbours(sources: Sources, distance: float) -> tuple[Any, Any, Any]:
    """Return how many each source has within a distance, and all pairs both ways."""
    from scipy.spatial import cKDTree

    places = np.column_stack([sources.x, sources.y])
    pairs: Any = cKDTree(places).query_pairs(distance, output_type="ndarray")
    one, two = np.concatenate([pairs, pairs[:, ::-1]]).T
    return np.bincount(one, minlength=len(places)), one, two


def joint_errors(x: F64, y: F64, sigma: float) -> F64:
    """Return by how much neighbours raise the errors of flux, x and y, shape (n_sources, 3).

    The root of the diagonal of the inverse of the joint normal matrix of fluxes and places, for
    Gaussians in even noise: the overlap of two at distance d is exp(-d² / 4 sigma²), and those of
    their derivatives are its derivatives.
    """
    from scipy.spatial import cKDTree

    places = np.column_stack([x, y])
    n = len(places)
    k = min(_MOST_NEAR + 1, n)
    out = np.ones((n, 3))
    if k <= 1:
        return out
    gap, row = (
        np.asarray(v)
        for v in cKDTree(places).query(places, k=k, distance_upper_bound=_TOUCH_SIGMAS * sigma)
    )
    some = np.flatnonzero(np.isfinite(gap[:, 1]))
    if some.size == 0:
        return out
    mates = np.where(np.isfinite(gap[some]), row[some], -1)
    real = mates >= 0
    at = places[np.maximum(mates, 0)]
    # In units of sqrt(2) sigma, in which all functions have norm 1.
    d = (at[:, None, :, :] - at[:, :, None, :]) / (np.sqrt(2.0) * sigma)
    overlap = np.exp(-0.5 * np.sum(d**2, axis=-1)) * (real[:, :, None] & real[:, None, :])
    blocks = np.empty((some.size, k, k, 3, 3))
    blocks[..., 0, 0] = overlap
    for i in (0, 1):
        blocks[..., 0, 1 + i] = -d[..., i] * overlap
        blocks[..., 1 + i, 0] = d[..., i] * overlap
        for j in (0, 1):
            blocks[..., 1 + i, 1 + j] = ((i == j) - d[..., i] * d[..., j]) * overlap
    matrix = blocks.transpose(0, 1, 3, 2, 4).reshape(some.size, 3 * k, 3 * k)
    same = np.eye(3 * k) > 0.0
    matrix = np.where(same, 1.0 + 1e-3, matrix)
    found = np.diagonal(np.linalg.inv(matrix), axis1=1, axis2=2)[:, :3]
    out[some] = np.sqrt(np.maximum(found, 1.0))
    return out


def _fits(sources: Sources, table: F64) -> Fits:
    _, flux_err, x_err, y_err, chi2, _, usable, failed, _ = table.T
    return Fits(
        sources.flux.copy(), flux_err, sources.x.copy(), sources.y.copy(), x_err, y_err, chi2,
        usable, failed > 0.0,
    )  # fmt: skip
