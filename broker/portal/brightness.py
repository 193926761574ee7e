"""Light curves as numbers and as small pictures that stand in a row of a table."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]

BANDS = "ugrizy"
_WIDTH, _HEIGHT, _EDGE = 120.0, 32.0, 4.0
_MOST_POINTS = 60


def flux_rows(epochs: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, tuple[F64, F64, F64]]]:
    """Yield each band with MJD (TAI), flux [nJy] and error [nJy] of its epochs, oldest first.

    Epochs without a flux or an error that is a positive number are left out.
    """
    bands: dict[str, list[tuple[float, float, float]]] = {}
    for epoch in epochs:
        numbers = (epoch["midpointMjdTai"], epoch["psfFlux"], epoch["psfFluxErr"])
        if None in numbers or not np.isfinite(numbers).all() or not numbers[2] > 0.0:
            continue
        bands.setdefault(epoch["band"] or "none", []).append(numbers)
    for band in sorted(bands, key=lambda name: (BANDS.find(name) % 99, name)):
        mjd, flux, err = np.array(sorted(bands[band]), np.float64).T
        yield band, (mjd, flux, err)


def small_curve(epochs: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return points and words of a small light curve; None if no epoch has a flux.

    Parameters
    ----------
    epochs : sequence of mapping
        Alerts of an object, or rows of its history; of many, the newest are drawn.

    Returns
    -------
    dict or None
        `width`, `height`; `zero`, the height of no flux; `points` with `x`, `y`, `top`, `bottom`
        (of the error) and `band`; `words` that say the same to those who hear the page. [px]
    """
    newest = sorted(epochs, key=lambda epoch: epoch["midpointMjdTai"])[-_MOST_POINTS:]
    bands = list(flux_rows(newest))
    if not bands:
        return None
    mjd = np.concatenate([rows[0] for _, rows in bands])
    low, high = _range(np.concatenate([rows[1] for _, rows in bands]))
    first, span = float(mjd.min()), float(np.ptp(mjd))

    def x(at: float) -> float:
        part = (at - first) / span if span > 0.0 else 0.5
        return round(_EDGE + part * (_WIDTH - 2.0 * _EDGE), 1)

    def y(flux: float) -> float:
        part = (min(max(flux, low), high) - low) / (high - low)
        return round(_HEIGHT - _EDGE - part * (_HEIGHT - 2.0 * _EDGE), 1)

    points = [
        {"x": x(t), "y": y(f), "top": y(f + e), "bottom": y(f - e), "band": band}
        for band, rows in bands
        for t, f, e in zip(*(column.tolist() for column in rows), strict=True)
    ]
    words = f"{mjd.size} epochs in {span:.2g} days, {', '.join(band for band, _ in bands)}"
    return {
        "width": _WIDTH,
        "height": _HEIGHT,
        "zero": y(0.0),
        "points": points,
        "words": words,
    }


def _range(flux: F64) -> tuple[float, float]:
    low, high = min(0.0, float(flux.min())), max(0.0, float(flux.max()))
    return (low, high) if high > low else (low - 1.0, high + 1.0)
