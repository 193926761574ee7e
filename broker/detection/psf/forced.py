"""PSF flux at given places by a PSF in tables, source or not."""

import numpy as np

from broker.detection.measure import FIT_HALF_SIGMAS
from broker.detection.psf.tables import PsfTables, blend, fill
from broker.imaging.kernels import F32, F64, Bools, compiled

_LEAST_SHARE = 0.25


def forced_psf_flux(
    pixels: F32, variance: F32, x: F64, y: F64, *, psf: PsfTables, unusable: Bools
) -> tuple[F64, F64]:
    """Return the PSF flux at places and its 1-sigma error, in the image's unit.

    Parameters
    ----------
    pixels, variance : NDArray[np.float32], shape (ny, nx)
        Background-subtracted, and the variance from a model.
    x, y : NDArray[np.float64], shape (n_places,)
        A place may lie outside the image.
    psf : PsfTables
    unusable : NDArray[np.bool_], shape (ny, nx)

    Returns
    -------
    flux, flux_err : NDArray[np.float64], shape (n_places,)
        NaN where less than a quarter of the PSF's power falls on usable pixels.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    known = np.isfinite(x) & np.isfinite(y)
    far = 1e9
    half = min(int(np.ceil(FIT_HALF_SIGMAS * psf.sigma)), psf.half)
    table = _forced(
        pixels, variance, unusable, np.where(known, x, far), np.where(known, y, far), psf.values,
        psf.oversampling, half,
    )  # fmt: skip
    return table[:, 0], table[:, 1]


@compiled
def _forced(
    pixels: F32,
    variance: F32,
    unusable: Bools,
    xs: F64,
    ys: F64,
    tables: F32,
    over: int,
    half: int,
) -> F64:
    ny, nx = pixels.shape
    side = 2 * half + 1
    psf = np.empty(tables.shape[2:], np.float32)
    value, none = np.empty((side, side)), np.empty((1, 1))
    work = np.empty((2, 2 * half * over + 4, side))
    out = np.full((xs.size, 2), np.nan)
    for k in range(xs.size):
        if not (abs(xs[k]) < 1e6 and abs(ys[k]) < 1e6):
            continue
        cx, cy = round(xs[k]), round(ys[k])
        blend(tables, ny, nx, xs[k], ys[k], psf)
        fill(psf, over, xs[k] - cx, ys[k] - cy, half, False, value, none, none, work)
        signal, norm, power, full = 0.0, 0.0, 0.0, 0.0
        for j in range(side):
            for i in range(side):
                p = value[j, i]
                full += p * p
                y, x = cy + j - half, cx + i - half
                if y < 0 or x < 0 or y >= ny or x >= nx or unusable[y, x]:
                    continue
                weight = 1.0 / variance[y, x]
                signal += weight * p * pixels[y, x]
                norm += weight * p * p
                power += p * p
        if power > _LEAST_SHARE * full and norm > 0.0:
            out[k, 0] = signal / norm
            out[k, 1] = 1.0 / np.sqrt(norm)
    return out
