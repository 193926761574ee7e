"""Difference images, kept from the pixel pass until the objects on them are known.

A difference is made in a worker, before association knows which objects it covers. So it is
written to a file beside the templates' folder, which workers and driver share as they share the
templates; forced photometry reads the few pixels around each place, and the file goes when its
image's forced fluxes are stored. Pixels and variances are 16-bit floats in units of the sky's
noise: 4 bytes a pixel, rounded to 2^-12 of their value, far below the noise.
"""

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from broker.detection.differencing.difference import Difference
from broker.detection.forced import forced_flux, half_width
from broker.errors import ServiceError
from broker.imaging.halves import as_halves
from broker.imaging.kernels import F64, Bools
from broker.imaging.wcs import Wcs
from broker.types import Coordinate

_SPARE, _MOST_SPARES = ".spare-", 8

_POISSON = 4.0 / 3.0
"""Sum of p³ over the square of the sum of p² for a Gaussian p: how much of a source's own counts
its PSF flux has as variance, on white noise."""


@dataclass(frozen=True)
class _Header:
    shape: tuple[int, int]
    wcs: dict[str, Any]
    psf_sigma: float
    noise: float
    flux_per_count: float
    electrons_per_count: float


class DifferenceFiles:
    """Difference images by the coordinate of their image's message.

    Parameters
    ----------
    path : Path
        A folder that all workers and the driver see.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def put(self, coordinate: Coordinate, difference: Difference) -> None:
        """Keep a difference; one that is there is replaced, whole, by the same."""
        science = difference.science
        noise = float(np.sqrt(difference.floor)) or 1.0
        header = _Header(
            difference.pixels.shape,
            asdict(science.wcs),
            difference.psf_sigma,
            noise,
            science.flux_per_count,
            science.gain / difference.poisson_share,
        )
        pixels = as_halves(difference.pixels, scale=1.0 / noise, unknown=difference.unusable)
        variance = as_halves(difference.variance, scale=1.0 / noise**2)
        self._path.mkdir(parents=True, exist_ok=True)
        file = self._file(coordinate)
        draft = file.with_name(f".{file.name}.{os.getpid()}")
        self._take_spare(draft)
        with draft.open("r+b" if draft.exists() else "wb") as out:
            out.write(json.dumps(asdict(header)).encode() + b"\n")
            out.write(pixels.data)
            out.write(variance.data)
            out.truncate()
        draft.replace(file)

    def _take_spare(self, draft: Path) -> None:
        """Let a file that is not needed any more be written over: its memory is there already."""
        for spare in self._path.glob(f"{_SPARE}*"):
            with suppress(FileNotFoundError):  # another worker was faster
                spare.replace(draft)
                return

    def measure(self, coordinate: Coordinate, ra: F64, dec: F64) -> tuple[F64, F64]:
        """Return PSF fluxes and their 1-sigma errors at places on a difference. [nJy]

        Parameters
        ----------
        coordinate : Coordinate
            Of the image's message.
        ra, dec : NDArray[np.float64], shape (n_places,)
            [deg]

        Returns
        -------
        flux, flux_err : NDArray[np.float64], shape (n_places,)
            NaN where the place is not on the image, or too few of its pixels can be used. The
            error has the noise of the difference and that of the source's own light.

        Raises
        ------
        ServiceError
            If the difference is not there.
        """
        file = self._file(coordinate)
        try:
            with file.open("rb") as opened:
                header = _Header(**json.loads(opened.readline()))
                start = opened.tell()
        except FileNotFoundError as error:
            raise ServiceError(
                f"the difference of image {coordinate} is not in {self._path}: workers and driver "
                "must see the same folder",
                path=str(file),
            ) from error
        ny, nx = header.shape
        planes = np.memmap(file, np.float16, "r", start, (2, ny, nx))
        return _measure(planes, header, ra, dec)

    def drop(self, coordinate: Coordinate) -> None:
        """Remove a difference; one that is not there is no error.

        Some of the files are kept to be written over, which takes a third of the time.
        """
        file = self._file(coordinate)
        if len(list(self._path.glob(f"{_SPARE}*"))) < _MOST_SPARES:
            with suppress(FileNotFoundError):
                file.replace(self._path / f"{_SPARE}{file.name}")
        file.unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove what a run that was killed has left."""
        for file in self._path.glob("*") if self._path.is_dir() else ():
            file.unlink(missing_ok=True)

    def _file(self, at: Coordinate) -> Path:
        return self._path / f"{at.topic}-{at.partition}-{at.offset}"


def _measure(planes: NDArray[np.float16], header: _Header, ra: F64, dec: F64) -> tuple[F64, F64]:
    x, y = Wcs(**header.wcs).sky_to_pixel(ra, dec)
    ny, nx = header.shape
    flux, flux_err = np.full(x.shape, np.nan), np.full(x.shape, np.nan)
    inside = np.flatnonzero((x >= -0.5) & (x < nx - 0.5) & (y >= -0.5) & (y < ny - 0.5))
    if inside.size == 0:
        return flux, flux_err
    half = half_width(header.psf_sigma)
    stamps, unusable, at_x, at_y = _stamps(planes, x[inside], y[inside], half)
    counts, error = forced_flux(
        stamps[0], stamps[1], at_x, at_y, psf_sigma=header.psf_sigma, unusable=unusable
    )
    counts, error = counts * header.noise, error * header.noise
    own = _POISSON * np.maximum(counts, 0.0) / header.electrons_per_count
    flux[inside] = counts * header.flux_per_count
    flux_err[inside] = np.sqrt(error**2 + own) * header.flux_per_count
    return flux, flux_err


def _stamps(
    planes: NDArray[np.float16], x: F64, y: F64, half: int
) -> tuple[NDArray[np.float32], Bools, F64, F64]:
    """Return the pixels around places as one tall image, and where the places are on it."""
    side = 2 * half + 1
    steps = np.arange(side) - half
    columns = np.rint(x).astype(np.int64)[:, None] + steps
    rows = np.rint(y).astype(np.int64)[:, None] + steps
    ny, nx = planes.shape[1:]
    outside = ((rows < 0) | (rows >= ny))[:, :, None] | ((columns < 0) | (columns >= nx))[:, None]
    at = np.clip(rows, 0, ny - 1)[:, :, None], np.clip(columns, 0, nx - 1)[:, None, :]
    stamps = np.stack([planes[k][at] for k in range(2)]).astype(np.float32)
    unusable = outside | ~np.isfinite(stamps[0]) | ~(stamps[1] > 0.0)
    stamps[:, unusable] = 1.0
    tall = stamps.reshape(2, -1, side)
    shift = np.arange(x.size) * side
    return tall, unusable.reshape(-1, side), x - columns[:, 0], y - rows[:, 0] + shift
