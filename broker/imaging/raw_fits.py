"""Raw frames as FITS: an extension an amplifier, with overscan, as a camera writes them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from broker.imaging.fits import header_of
from broker.imaging.fits_write import write_units
from broker.imaging.image import RawExposure
from broker.imaging.isr import Amplifier, Box, Layout
from broker.imaging.wcs import Wcs


def write_snaps(folder: Path, name: str, exposure: RawExposure) -> list[Path]:
    """Write an exposure with amplifiers, a file a snap; return the files, `NAME-snap0.fits` first.

    Each snap states its own exposure time, middle and zero point.
    """
    if exposure.layout is None:
        raise ValueError("the exposure has no amplifiers")
    n, said = len(exposure.snaps), exposure.calibration
    files = []
    for k, plane in enumerate(exposure.snaps):
        header = header_of(said, exposure.wcs, exposure.psf)
        later_s = ((k + 0.5) / n - 0.5) * said.exposure_s
        header |= {
            "EXPTIME": said.exposure_s / n,
            "MAGZP": said.zero_point - 2.5 * float(np.log10(n)),
            "MJDTAI": said.midpoint_mjd_tai + later_s / 86_400.0,
            "SNAP": k,
        }
        path = folder / (f"{name}-snap{k}.fits" if n > 1 else f"{name}.fits")
        write_frame(path, plane, exposure.layout, header, wcs=exposure.wcs)
        files.append(path)
    return files


def write_frame(
    path: Path,
    plane: NDArray[np.uint16],
    layout: Layout,
    header: Mapping[str, Any],
    *,
    wcs: Wcs | None = None,
) -> None:
    """Write a raw plane, each amplifier as an extension with DATASEC, BIASSEC and DETSEC.

    Parameters
    ----------
    path : Path
        Replaced by a whole file if it is there.
    plane : NDArray[np.uint16], shape (n_rows, n_columns)
    layout : Layout
    header : mapping
        Keywords of every extension, before those of its amplifier.
    wcs : Wcs, optional
        Of the assembled detector.
    """
    from astropy.io import fits

    units: list[Any] = [fits.PrimaryHDU()]
    for amplifier in layout.amplifiers:
        block = _block(amplifier)
        keys = dict(header) | _amplifier_keys(amplifier, block)
        if wcs is not None:
            keys |= _raw_wcs(wcs, amplifier, block).header()
        pixels = np.ascontiguousarray(block.of(plane))
        units.append(fits.ImageHDU(pixels, fits.Header(keys), amplifier.name or None))
    write_units(path, units)


def _block(amplifier: Amplifier) -> Box:
    """Return the rectangle of the raw plane with an amplifier's pixels and overscan."""
    boxes = [amplifier.data, *([amplifier.overscan] if amplifier.overscan else [])]
    return Box(
        min(b.y for b in boxes),
        max(b.y_end for b in boxes),
        min(b.x for b in boxes),
        max(b.x_end for b in boxes),
    )


def _amplifier_keys(amplifier: Amplifier, block: Box) -> dict[str, Any]:
    target = amplifier.target
    columns, rows = [target.x + 1, target.x_end], [target.y + 1, target.y_end]
    if amplifier.flip_x:
        columns.reverse()
    if amplifier.flip_y:
        rows.reverse()
    keys: dict[str, Any] = {
        "BUNIT": "adu",
        "DATASEC": _section(amplifier.data, block),
        "DETSEC": f"[{columns[0]}:{columns[1]},{rows[0]}:{rows[1]}]",
        "GAIN": amplifier.gain,
        "RDNOISE": amplifier.read_noise,
        "BIASLVL": amplifier.bias_level,
    }
    if amplifier.overscan is not None:
        keys["BIASSEC"] = _section(amplifier.overscan, block)
    if np.isfinite(amplifier.saturation):
        keys["SATURATE"] = amplifier.saturation
    return keys | {f"LIN{k + 2}": value for k, value in enumerate(amplifier.linearity)}


def _section(box: Box, block: Box) -> str:
    return (
        f"[{box.x - block.x + 1}:{box.x_end - block.x},{box.y - block.y + 1}:{box.y_end - block.y}]"
    )


def _raw_wcs(wcs: Wcs, amplifier: Amplifier, block: Box) -> Wcs:
    """Return the WCS of an amplifier's extension from that of the detector."""
    data, target = amplifier.data, amplifier.target
    crpix_x, crpix_y = wcs.crpix_x - target.x, wcs.crpix_y - target.y
    (a, b), (c, d) = wcs.cd
    if amplifier.flip_x:
        crpix_x, a, c = data.shape[1] - 1 - crpix_x, -a, -c
    if amplifier.flip_y:
        crpix_y, b, d = data.shape[0] - 1 - crpix_y, -b, -d
    place = (crpix_x + data.x - block.x, crpix_y + data.y - block.y)
    return Wcs(wcs.crval_ra, wcs.crval_dec, *place, ((a, b), (c, d)))
