"""Density maps of catalogues: counts by HEALPix pixel, as a FITS map and as a picture."""

from pathlib import Path

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


def write_map(path: Path, counts: NDArray[np.int64], order: int, *, name: str) -> None:
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
    """
    from astropy.io import fits

    side = pixel_side_arcsec(order) / ARCSEC_PER_DEG
    columns = [
        fits.Column("COUNT", "K", array=counts),
        fits.Column("DENSITY", "E", unit="deg-2", array=counts / side**2),
    ]
    table = fits.BinTableHDU.from_columns(columns, name="DENSITY")
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
    from matplotlib.figure import Figure

    side = pixel_side_arcsec(order) / ARCSEC_PER_DEG
    image = mollweide(counts, order, width=1200) / side**2
    figure = Figure(figsize=(10, 6), layout="constrained")
    axes = figure.add_subplot()
    seen = image[image > 0.0]
    top = float(seen.max()) if seen.size else 1.0
    low = float(seen.min()) if seen.size else 0.1
    drawn = axes.imshow(
        np.ma.masked_where(~(image > 0.0), image)[:, ::-1],
        norm=LogNorm(low, top if top > low else 10.0 * low),
        extent=(-2.0, 2.0, -1.0, 1.0),
        origin="lower",
        interpolation="nearest",
        cmap="viridis",
    )
    angle = np.linspace(0.0, 2.0 * np.pi, 400)
    axes.plot(2.0 * np.cos(angle), np.sin(angle), color="black", linewidth=0.8)
    for ra in range(0, 361, 60):
        x = (180.0 - ra) / 90.0
        box = {"facecolor": "white", "alpha": 0.7, "linewidth": 0.0, "pad": 1.0}
        axes.text(x, 0.0, f"{ra}°", fontsize=8, ha="center", va="center", bbox=box)
    axes.set_axis_off()
    axes.set_title(title)
    figure.colorbar(drawn, ax=axes, orientation="horizontal", shrink=0.7, label="entries per deg²")
    figure.savefig(path, dpi=120)


def mollweide(counts: NDArray[np.int64], order: int, *, width: int) -> NDArray[np.float64]:
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
