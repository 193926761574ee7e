"""Density maps of catalogues: counts by HEALPix pixel, as a FITS map and as a picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from broker.catalog.healpix import FINEST_ORDER, Pixels, pixel_side_arcsec, pixels_of
from broker.units import ARCSEC_PER_DEG

LARGEST_ORDER = 10


def pixel_counts(pixels: Pixels, order: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the pixels of an order that hold some of order 29, and how many each."""
    cells = (pixels >> np.uint64(2 * (FINEST_ORDER - order))).astype(np.int64)
    found, counts = np.unique(cells, return_counts=True)
    return found, counts


def write_map(
    path: Path,
    counts: NDArray[np.int64],
    order: int,
    *,
    name: str,
    columns: Mapping[str, tuple[NDArray[Any], str]] | None = None,
) -> None:
    """Write counts of all pixels as a HEALPix map that healpy and Aladin read.

    Parameters
    ----------
    path : Path
        A FITS file, replaced if it is there.
    counts : NDArray[np.int64], shape (12 * 4**order,)
        Entries in each nested pixel.
    order : int
        HEALPix order.
    name : str
        Of the catalogue.
    columns : mapping of str to (array, unit), optional
        More values by pixel, NaN where there is none.
    """
    from astropy.io import fits

    side = pixel_side_arcsec(order) / ARCSEC_PER_DEG
    all_columns = [
        fits.Column("COUNT", "K", array=counts),
        fits.Column("DENSITY", "E", unit="deg-2", array=counts / side**2),
    ]
    for label, (values, unit) in (columns or {}).items():
        kind = "K" if values.dtype.kind in "iu" else "D"
        all_columns.append(fits.Column(label, kind, unit=unit or None, array=values))
    table = fits.BinTableHDU.from_columns(all_columns, name="DENSITY")
    table.header.update(
        {"PIXTYPE": "HEALPIX", "ORDERING": "NESTED", "COORDSYS": "C", "INDXSCHM": "IMPLICIT"}
        | {"NSIDE": 2**order, "FIRSTPIX": 0, "LASTPIX": counts.size - 1, "OBJECT": name}
    )
    table.writeto(path, overwrite=True)


def draw_map(path: Path, counts: NDArray[np.int64], order: int, *, title: str) -> None:
    """Draw a density map of the whole sky in Mollweide's projection, east to the left.

    Pixels without entries stay white. The scale is logarithmic.
    """
    from matplotlib.colors import LogNorm

    side = pixel_side_arcsec(order) / ARCSEC_PER_DEG
    density = np.where(counts > 0, counts / side**2, np.nan)
    low, top = _limits(density, 0.0, 100.0)
    scale = LogNorm(low, top) if top > low > 0.0 else LogNorm(max(low, 0.1), 10.0 * max(low, 0.1))
    _draw(path, density, order, scale, title=title, label="entries per deg²")


def draw_values(path: Path, values: NDArray[Any], order: int, *, title: str, label: str) -> None:
    """Draw values by pixel as `draw_map` does; the scale is linear, from 1 to 99 % of them.

    Pixels that are NaN stay white.
    """
    from matplotlib.colors import Normalize

    low, top = _limits(values, 1.0, 99.0)
    scale = Normalize(low, top if top > low else low + 1.0)
    _draw(path, values, order, scale, title=title, label=label)


def _limits(values: NDArray[Any], low: float, top: float) -> tuple[float, float]:
    """Return two percentiles of what is finite; 0 and 1 if nothing is."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    first, last = np.percentile(finite, [low, top])
    return float(first), float(last)


def _draw(
    path: Path, values: NDArray[Any], order: int, scale: Any, *, title: str, label: str
) -> None:
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    image = mollweide(values, order, width=1200)
    figure = Figure(figsize=(10, 6), layout="constrained")
    axes = figure.add_subplot()
    drawn = axes.imshow(
        np.ma.masked_invalid(image)[:, ::-1],
        norm=scale,
        extent=(-2.0, 2.0, -1.0, 1.0),
        origin="lower",
        interpolation="nearest",
        cmap="viridis",
    )
    angle = np.linspace(0.0, 2.0 * np.pi, 400)
    axes.plot(2.0 * np.cos(angle), np.sin(angle), color="black", linewidth=0.8)
    _draw_grid(axes)
    axes.set_axis_off()
    axes.set_title(title)
    bar = figure.colorbar(drawn, ax=axes, orientation="horizontal", shrink=0.7, label=label)
    if isinstance(scale, LogNorm):
        bar.minorformatter = NullFormatter()
        many = float(scale.vmax or 1.0) > 100.0 * float(scale.vmin or 1.0)
        # Labels of 2 and 5 have room on a narrow scale.
        bar.locator = LogLocator(subs=(1.0,) if many else (1.0, 2.0, 5.0))
        bar.formatter = FuncFormatter(lambda value, _: f"{value:g}")
        bar.update_ticks()
    figure.savefig(path, dpi=120)


def _draw_grid(axes: Any) -> None:
    """Draw circles of Dec every 30° and of RA every 60°, and say which they are."""
    box = {"facecolor": "white", "alpha": 0.7, "linewidth": 0.0, "pad": 1.0}
    lines: dict[str, Any] = {"color": "gray", "linewidth": 0.4}
    theta = np.linspace(-0.5 * np.pi, 0.5 * np.pi, 2001)
    sine = (2.0 * theta + np.sin(2.0 * theta)) / np.pi  # of Dec
    for ra in range(0, 361, 60):
        x = (180.0 - ra) / 90.0
        axes.plot(x * np.cos(theta), np.sin(theta), **lines)
        axes.text(x, 0.0, f"{ra}°", fontsize=8, ha="center", va="center", bbox=box)
    for dec in (-60, -30, 30, 60):
        at = np.interp(np.sin(np.radians(dec)), sine, theta)
        x, y = 2.0 * np.cos(at), np.sin(at)
        axes.plot([-x, x], [y, y], **lines)
        axes.text(x + 0.03, y, f"{dec:+d}°", fontsize=8, ha="left", va="center")


def mollweide(counts: NDArray[Any], order: int, *, width: int) -> NDArray[np.float64]:
    """Return a map in Mollweide's projection, RA 180 in the middle, NaN outside the ellipse.

    Returns
    -------
    NDArray[np.float64], shape (width // 2, width)
        South first. The first column is RA 0, the last one 360; east is to the right, so a
        picture of the sky shows it mirrored.

    Notes
    -----
    Snyder (1987), Map Projections, eqs. 31-6 to 31-8, on an ellipse of half axes 2 and 1.
    """
    x = (np.arange(width) + 0.5) / width * 4.0 - 2.0
    y = (np.arange(width // 2) + 0.5) / (width // 2) * 2.0 - 1.0
    x, y = np.meshgrid(x, y)
    theta = np.arcsin(y)
    dec = np.degrees(np.arcsin(np.clip((2.0 * theta + np.sin(2.0 * theta)) / np.pi, -1.0, 1.0)))
    ra = 180.0 + 90.0 * x / np.cos(theta)
    inside = (ra >= 0.0) & (ra <= 360.0)
    image = np.full(x.shape, np.nan)
    image[inside] = counts[pixels_of(ra[inside], dec[inside], order).astype(np.int64)]
    return image
