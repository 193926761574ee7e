"""Maps of the whole sky as figures of a page: cells of HEALPix in Mollweide's projection."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from broker.catalog.healpix import pixels_of

F64 = NDArray[np.float64]

_ORDERS = (5, 4, 3)
_MOST_CELLS = 2500
_WIDTH, _HEIGHT = 700.0, 350.0
_CLASSES = 5


def mollweide(ra: ArrayLike, dec: ArrayLike) -> tuple[F64, F64]:
    """Return where places stand in Mollweide's projection: x from -2 to 2, y from -1 to 1.

    The right ascension 180 is in the middle and grows to the left, as one looks up at the sky.
    x = -2/180 (ra - 180) cos t, y = sin t, with 2 t + sin 2 t = pi sin dec (Snyder 1987, Map
    Projections, USGS 1395, eq. 31).

    Parameters
    ----------
    ra, dec : array_like
        [deg]
    """
    longitude = np.asarray(ra, np.float64) - 180.0
    latitude = np.radians(np.asarray(dec, np.float64))
    wanted = np.pi * np.sin(latitude)
    theta = latitude.copy()
    for _ in range(60):
        slope = 2.0 + 2.0 * np.cos(2.0 * theta)
        step = (2.0 * theta + np.sin(2.0 * theta) - wanted) / np.maximum(slope, 1e-9)
        theta = np.clip(theta - step, -np.pi / 2.0, np.pi / 2.0)
    theta = np.where(np.abs(latitude) >= np.pi / 2.0 - 1e-9, latitude, theta)
    return -longitude / 90.0 * np.cos(theta), np.sin(theta)


def sky_map(ra: ArrayLike, dec: ArrayLike, what: str) -> dict[str, Any]:
    """Return a map of how many things there are in each cell.

    Parameters
    ----------
    ra, dec : array_like, shape (n,)
        ICRS. [deg]
    what : str
        What is counted, in words.

    Returns
    -------
    dict
        `cells` with `path`, `count` and `shade` (1 to 5), `classes` (the least count of each
        shade), `lines` of the grid, `width`, `height` [px], `total`, `side` of a cell [deg],
        `words`.
    """
    ra, dec = np.asarray(ra, np.float64), np.asarray(dec, np.float64)
    for order in _ORDERS:
        pixels, counts = np.unique(pixels_of(ra, dec, order), return_counts=True)
        if pixels.size <= _MOST_CELLS:
            break
    least = _least_counts(int(counts.max()) if counts.size else 0)
    shades = np.searchsorted(least, counts, side="right")
    paths = _outlines(pixels, order)
    return {
        "cells": [
            {"path": path, "count": int(count), "shade": int(shade)}
            for path, count, shade in zip(paths, counts, shades, strict=True)
        ],
        "classes": least,
        "lines": _grid(),
        "width": _WIDTH,
        "height": _HEIGHT,
        "total": int(ra.size),
        "side": round(58.6 / 2**order, 1),
        "words": f"Map of {ra.size} {what} in {pixels.size} cells of the sky",
    }


def _least_counts(most: int) -> list[int]:
    """Return the least counts of the shades: equal steps of the logarithm, each once."""
    steps = np.geomspace(1.0, max(most, 1), _CLASSES).round().astype(int)
    return [int(n) for n in np.unique(steps)]


def _outlines(pixels: NDArray[Any], order: int) -> list[str]:
    """Return the corners of cells as paths; a cell that the map's edge cuts ends there."""
    from cdshealpix.nested import healpix_to_lonlat, vertices

    if not pixels.size:
        return []
    longitude, latitude = vertices(pixels, order)
    middle = np.asarray(healpix_to_lonlat(pixels, order)[0].deg)[:, None]
    ra = np.asarray(longitude.deg)
    ra = middle + (ra - middle + 180.0) % 360.0 - 180.0
    x, y = _on_page(*mollweide(np.clip(ra, 0.0, 360.0), np.asarray(latitude.deg)))
    return [
        "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(xs, ys, strict=True)) + "z"
        for xs, ys in zip(x.tolist(), y.tolist(), strict=True)
    ]


def _on_page(x: F64, y: F64) -> tuple[F64, F64]:
    return (x + 2.0) / 4.0 * _WIDTH, (1.0 - y) / 2.0 * _HEIGHT


def _grid() -> list[str]:
    lines = []
    for ra in range(0, 361, 60):
        dec = np.linspace(-90.0, 90.0, 37)
        lines.append(_line(np.full(dec.shape, float(ra)), dec))
    around = np.array([0.0, 360.0])
    return lines + [_line(around, np.full(2, float(d))) for d in (-60, -30, 0, 30, 60)]


def _line(ra: F64, dec: F64) -> str:
    x, y = _on_page(*mollweide(ra, dec))
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x.tolist(), y.tolist(), strict=True))


def wedge(ra: Sequence[float], redshift: Sequence[float]) -> dict[str, Any] | None:
    """Return where hosts stand as seen from the pole: angle by RA, radius by redshift.

    Parameters
    ----------
    ra : sequence of float
        [deg]
    redshift : sequence of float

    Returns
    -------
    dict or None
        `points` with `x`, `y`; `rings` with `r` and `redshift`; `size` [px]. None for no host.
    """
    if not len(redshift):
        return None
    size, edge = 360.0, 20.0
    top = max(float(np.max(redshift)), 1e-3)
    step = 10.0 ** np.floor(np.log10(top))
    step = next(s for s in (step / 5.0, step / 2.0, step, 2.0 * step) if top / s <= 6.0)
    most = float(np.ceil(top / step) * step)
    scale = (size / 2.0 - edge) / most
    angle = np.radians(np.asarray(ra, np.float64))
    radius = np.asarray(redshift, np.float64) * scale
    x, y = size / 2.0 - radius * np.sin(angle), size / 2.0 - radius * np.cos(angle)
    rings = [
        {"r": round(float(z * scale), 1), "redshift": float(z)}
        for z in np.arange(step, most + step / 2.0, step)
    ]
    points = [
        {"x": round(a, 1), "y": round(b, 1)} for a, b in zip(x.tolist(), y.tolist(), strict=True)
    ]
    return {"points": points, "rings": rings, "size": size}
