"""All fluxes and shapes of sources of a direct image, at given places or at its own sources."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from broker.alerts.columns import Column
from broker.detection.galaxies import (
    Photometry,
    adaptive_shapes,
    aperture_photometry,
    kron_photometry,
    petrosian_photometry,
)
from broker.detection.psf_forced import forced_psf_flux
from broker.detection.psf_tables import PsfTables, gaussian_tables
from broker.imaging.image import Image
from broker.imaging.kernels import F64
from broker.imaging.mask import UNUSABLE

_FLUXES = {
    "psf": "PSF flux at the place, which is not fitted",
    "ap": "flux within two FWHM of the PSF, uncorrected",
    "kron": "flux within 2.5 Kron radii",
    "petro": "flux within two Petrosian radii",
}
COLUMNS: tuple[Column, ...] = (
    Column("x", "float64", "pixel", "Column, from 0."),
    Column("y", "float64", "pixel", "Row, from 0."),
    Column("ra", "float64", "deg", "Right ascension, ICRS."),
    Column("dec", "float64", "deg", "Declination, ICRS."),
    *(
        Column(f"{name}Counts{kind}", "float64", "adu", f"{error}{words}.")
        for name, words in _FLUXES.items()
        for kind, error in (("", "The "), ("Err", "1-sigma error of the "))
    ),
    *(
        Column(f"{name}Flux{kind}", "float32", "nJy", f"{error}{words}; null without zero point.")
        for name, words in _FLUXES.items()
        for kind, error in (("", "The "), ("Err", "1-sigma error of the "))
    ),
    Column("kronRadius", "float32", "", "Kron aperture, in semi-axes."),
    Column("petroRadius", "float32", "pixel", "Petrosian radius."),
    Column("a", "float32", "pixel", "1-sigma semi-major axis of the best Gaussian."),
    Column("b", "float32", "pixel", "1-sigma semi-minor axis."),
    Column("theta", "float32", "rad", "Angle of a from the x axis towards y."),
    Column("maskedShare", "float32", "", "Share of the Kron aperture without usable pixels."),
    Column("starScore", "float32", "", "1 as narrow as the PSF, 0 clearly wider."),
)
MEASURED = pa.schema([pa.field(c.name, c.arrow_type, c.nullable) for c in COLUMNS])
UNITS = {c.name: c.unit for c in COLUMNS if c.unit}

_NARROW, _WIDE = 1.05, 1.25


@dataclass(frozen=True)
class _Flux:
    counts: F64
    error: F64


def measure_places(image: Image, x: F64, y: F64, *, psf: PsfTables | None = None) -> pa.Table:
    """Measure PSF, aperture, Kron and Petrosian fluxes and the shape at places.

    Parameters
    ----------
    image : Image
        Without its sky.
    x, y : NDArray[np.float64], shape (n_places,)
    psf : PsfTables, optional
        Without it the image's Gaussian.

    Returns
    -------
    pa.Table
        With the schema `MEASURED`, a row a place; null where nothing can be measured.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    unusable = image.is_masked(UNUSABLE)
    planes = (image.pixels, image.variance)
    tables = psf or gaussian_tables(image.psf.sigma, image.shape)
    point = _Flux(*forced_psf_flux(*planes, x, y, psf=tables, unusable=unusable))
    sigma = float(np.hypot(image.psf.sigma, 12.0**-0.5))
    shapes = adaptive_shapes(image.pixels, x, y, psf_sigma=sigma, unusable=unusable)
    aperture = aperture_photometry(*planes, x, y, 2.0 * image.psf.fwhm, unusable=unusable)
    kron = kron_photometry(*planes, x, y, shapes, unusable=unusable)
    petrosian = petrosian_photometry(*planes, x, y, unusable=unusable)
    ra, dec = image.wcs.pixel_to_sky(x, y)
    columns: dict[str, Any] = {"x": x, "y": y, "ra": ra, "dec": dec}
    fluxes = {"psf": point, "ap": _own(aperture), "kron": _own(kron), "petro": _own(petrosian)}
    for name, flux in fluxes.items():
        # The variance plane is that of the sky; a source adds its own photons.
        error = np.sqrt(flux.error**2 + np.fmax(flux.counts, 0.0) / image.gain)
        columns |= {f"{name}Counts": flux.counts, f"{name}CountsErr": error}
        unit = image.flux_per_count
        columns |= {f"{name}Flux": flux.counts * unit, f"{name}FluxErr": error * unit}
    ratio = np.sqrt(shapes.a * shapes.b) / sigma
    columns |= {
        "kronRadius": kron.radius,
        "petroRadius": petrosian.radius,
        "a": shapes.a,
        "b": shapes.b,
        "theta": shapes.theta,
        "maskedShare": kron.masked,
        "starScore": np.clip((_WIDE - ratio) / (_WIDE - _NARROW), 0.0, 1.0),
    }
    arrays = {
        c.name: pa.array(np.asarray(columns[c.name]).astype(c.dtype), from_pandas=True)
        for c in COLUMNS
    }
    return pa.table(arrays, schema=MEASURED)


def _own(flux: Photometry) -> _Flux:
    return _Flux(flux.flux, flux.flux_err)
