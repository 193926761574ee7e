"""What the image commands do with a file and a table: places to measure, stars to calibrate by."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from broker.detection.direct import detect_sources
from broker.detection.galaxies.apertures import UNITS as MEASURED_UNITS
from broker.detection.galaxies.apertures import measure_places
from broker.detection.photocal import calibrate
from broker.errors import AlertError, ConfigError
from broker.imaging.fits import read_frames, to_image, write_image
from broker.imaging.image import Image
from broker.imaging.tables import write_table
from broker.ops.image_files import Choices, named, said_of, stem, with_record


def measure_file(
    path: Path, places: Any, choices: Choices, *, models: bool = True
) -> dict[str, Any]:
    """Measure a file's images at given places, or at their own sources; write a table each.

    Parameters
    ----------
    path : Path
    places : pa.Table or None
        With columns ra and dec [deg]; those outside an image are left out, the number of the row
        is kept in the column `place`.
    choices : Choices
    models : bool
        Whether galaxies are fitted.
    """
    frames = read_frames(path)
    rows = []
    for frame, name in zip(frames, named(path, frames), strict=True):
        image = to_image(frame, choices.defaults)
        got = detect_sources(image, threshold=choices.threshold, deblended=choices.deblended)
        if places is None:
            x, y = (got.sources[n].to_numpy() for n in "xy")
            number = np.arange(x.size)
        else:
            x, y, number = _inside(got.image, places)
        table = measure_places(
            got.image, x, y, psf=got.star_psf, correction=got.correction.factor, models=models
        )
        table = table.add_column(0, "place", pa.array(number, pa.int64()))
        write_table(
            choices.out / f"{name}-measured{choices.table}",
            table,
            units=MEASURED_UNITS,
            record=said_of(choices.record),
        )
        rows.append((len(table), table["psfCounts"].null_count, got.scorecard["seeing"]))
    return {
        "images": len(rows),
        "places": sum(r[0] for r in rows),
        "notMeasured": sum(r[1] for r in rows),
        "seeing": float(np.mean([float(r[2]) for r in rows])),
    }


def _inside(image: Image, places: Any) -> tuple[Any, Any, Any]:
    missing = {"ra", "dec"} - set(places.column_names)
    if missing:
        raise ConfigError(f"the table of places has no column {' and '.join(sorted(missing))}")
    ra, dec = (np.asarray(places[n].to_numpy(), np.float64) for n in ("ra", "dec"))
    x, y = image.wcs.sky_to_pixel(ra, dec)
    ny, nx = image.shape
    with np.errstate(invalid="ignore"):
        number = np.flatnonzero((x > -0.5) & (x < nx - 0.5) & (y > -0.5) & (y < ny - 0.5))
    return x[number], y[number], number


def calibrate_file(path: Path, catalog: Any, mag: str, choices: Choices) -> dict[str, Any]:
    """Fit a file's WCS and zero point to a catalogue and write the image with them.

    Parameters
    ----------
    path : Path
        With one image.
    catalog : pa.Table
        With columns ra, dec [deg] and `mag`, AB, in the image's band.
    mag : str
        Name of that column.
    choices : Choices
    """
    missing = {"ra", "dec", mag} - set(catalog.column_names)
    if missing:
        raise ConfigError(f"the catalogue has no column {' and '.join(sorted(missing))}")
    frames = read_frames(path)
    if len(frames) > 1:
        raise AlertError(f"{path}: it has {len(frames)} images; one is calibrated at a time")
    image = to_image(frames[0], choices.defaults)
    found = detect_sources(image, threshold=choices.threshold)
    ra, dec, values = (np.asarray(catalog[n].to_numpy(), np.float64) for n in ("ra", "dec", mag))
    got = calibrate(found.sources, image.wcs, image.shape, ra=ra, dec=dec, mag=values)
    numbers = {
        "zeroPointErr": got.zero_point_err,
        "wcsRmsArcsec": got.wcs_rms_arcsec,
        "calibrationStars": got.n_stars,
    }
    meta = image.meta | {"psfKnown": True} | numbers
    meta.pop("wcsErrorPx", None)
    done = replace(
        image,
        wcs=got.wcs,
        psf=found.image.psf,
        calibration=replace(image.calibration, zero_point=got.zero_point),
        meta=meta,
    )
    write_image(choices.out / f"{stem(path)}-calibrated{choices.image}", with_record(done, choices))
    return {
        "zeroPoint": got.zero_point,
        "shiftPx": got.shift_px,
        "magScatter": got.mag_scatter,
        "pairs": got.n_pairs,
    } | numbers
