"""Pictures of an object: its light curve and cutouts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from broker.alerts.columns import CUTOUTS

_COLOURS = {
    "u": "#56b4e9",
    "g": "#008f5d",
    "r": "#d55e00",
    "i": "#8c564b",
    "z": "#7a5195",
    "y": "#444444",
}
_MARKERS = {"u": "v", "g": "o", "r": "s", "i": "D", "z": "^", "y": "P"}
_TITLES = ("Science", "Template", "Difference")


def draw_object(
    alerts: Sequence[Mapping[str, Any]],
    cutouts: Mapping[str, NDArray[np.float32]],
    path: Path,
    *,
    title: str = "",
) -> None:
    """Draw a light curve above the three cutouts, as a PNG file.

    Parameters
    ----------
    alerts : sequence of mappings
        The object's alerts: `midpointMjdTai`, `band`, `psfFlux`, `psfFluxErr`.
    cutouts : mapping
        Images by canonical name; one that is missing is left blank.
    path : Path
        The file to write.
    title : str
        Above the light curve.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 7.5), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 3, height_ratios=(1.35, 1.0))
    _light_curve(figure.add_subplot(grid[0, :]), alerts, title)
    for place, (name, words) in enumerate(zip(CUTOUTS, _TITLES, strict=True)):
        _image(figure.add_subplot(grid[1, place]), cutouts.get(name), words)
    figure.savefig(path, dpi=110)


def _light_curve(axes: Any, alerts: Sequence[Mapping[str, Any]], title: str) -> None:
    start = min(alert["midpointMjdTai"] for alert in alerts)
    for band in sorted({alert["band"] for alert in alerts if alert["band"]}, key="ugrizy".find):
        chosen = [alert for alert in alerts if alert["band"] == band]
        axes.errorbar(
            [alert["midpointMjdTai"] - start for alert in chosen],
            [alert["psfFlux"] / 1000.0 for alert in chosen],
            yerr=[alert["psfFluxErr"] / 1000.0 for alert in chosen],
            fmt=_MARKERS.get(band, "o"),
            color=_COLOURS.get(band),
            label=band,
            capsize=2,
            markersize=5,
        )
    axes.axhline(0.0, color="0.7", linewidth=0.8, zorder=0)
    axes.set_xlabel(f"days since MJD {start:.5f} (TAI)")
    axes.set_ylabel("PSF flux on the difference image [µJy]")
    axes.set_title(title)
    axes.legend(title="band")


def _image(axes: Any, pixels: NDArray[np.float32] | None, words: str) -> None:
    axes.set_title(words)
    axes.set_xticks([])
    axes.set_yticks([])
    if pixels is None:
        axes.text(0.5, 0.5, "not in the packet", ha="center", va="center")
        return
    finite = pixels[np.isfinite(pixels)]
    low, high = np.percentile(finite, (1.0, 99.5)) if finite.size else (0.0, 1.0)
    axes.imshow(pixels, origin="lower", cmap="gray", vmin=low, vmax=high, interpolation="nearest")
