"""All fluxes and shapes of sources of a direct image, at given places or at its own sources."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from broker.alerts.columns import Column
from broker.detection.galaxies.model import fit_galaxies
from broker.detection.galaxies.photometry import (
    Shapes,
    adaptive_shapes,
    aperture_photometry,
    kron_photometry,
    petrosian_photometry,
)
from broker.detection.measure import Noise
from broker.detection.psf.forced import forced_psf_flux
from broker.detection.psf.stars import StarPsf
from broker.imaging.image import Image
from broker.imaging.kernels import F64
from broker.imaging.mask import UNUSABLE

_FLUXES = {
    "psf": "PSF flux at the place, which is not fitted",
    "ap": "flux within two FWHM of the PSF, uncorrected",
    "kron": "flux within 2.5 Kron radii",
    "petro": "flux within two Petrosian radii",
    "gauss": "flux of the elliptical Gaussian that fits best, seen through the PSF",
    "model": "flux of the exponential or de Vaucouleurs galaxy that fits better",
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
    Column("modelRadius", "float32", "pixel", "Half-light radius of the galaxy, before the PSF."),
    Column("modelAxisRatio", "float32", "", "Its shorter over its longer axis."),
    Column("modelTheta", "float32", "rad", "Angle of its longer axis from x towards y."),
    Column("bulgeShare", "float32", "", "Share of the bulge in the best sum of both galaxies."),
    Column("modelChi2", "float32", "", "Chi-square of the galaxy per degree of freedom."),
    Column("extendedness", "float32", "mag", "Model flux over PSF flux: 0 for a star."),
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


def measure_places(
    image: Image,
    x: F64,
    y: F64,
    *,
    psf: StarPsf | None = None,
    correction: float = 1.0,
    models: bool = True,
) -> pa.Table:
    """Measure PSF, aperture, Kron, Petrosian and model fluxes and the shape at places.

    Parameters
    ----------
    image : Image
        Without its sky.
    x, y : NDArray[np.float64], shape (n_places,)
    psf : StarPsf, optional
        Without it the image's Gaussian.
    correction : float
        What PSF and model fluxes are multiplied by: the aperture correction.
    models : bool
        Whether galaxies are fitted, some 5 ms a place; their columns are null without.

    Returns
    -------
    pa.Table
        With the schema `MEASURED`, a row a place; null where nothing can be measured.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    unusable = image.is_masked(UNUSABLE)
    psf = psf or _gaussian(image)
    sigma = float(np.hypot(image.psf.sigma, 12.0**-0.5))
    shapes = adaptive_shapes(image.pixels, x, y, psf_sigma=sigma, unusable=unusable)
    ra, dec = image.wcs.pixel_to_sky(x, y)
    columns: dict[str, Any] = {"x": x, "y": y, "ra": ra, "dec": dec}
    fluxes = _aperture_fluxes(image, x, y, shapes, psf, correction, columns)
    fluxes |= _model_fluxes(image, x, y, shapes, psf, correction, columns, models)
    unit = image.flux_per_count
    for name, flux in fluxes.items():
        columns |= {f"{name}Counts": flux.counts, f"{name}CountsErr": flux.error}
        columns |= {f"{name}Flux": flux.counts * unit, f"{name}FluxErr": flux.error * unit}
    with np.errstate(invalid="ignore", divide="ignore"):
        columns["extendedness"] = 2.5 * np.log10(fluxes["model"].counts / fluxes["psf"].counts)
    ratio = np.sqrt(shapes.a * shapes.b) / sigma
    columns |= {
        "a": shapes.a,
        "b": shapes.b,
        "theta": shapes.theta,
        "starScore": np.clip((_WIDE - ratio) / (_WIDE - _NARROW), 0.0, 1.0),
    }
    return pa.table({c.name: _array(columns[c.name], c) for c in COLUMNS}, schema=MEASURED)


def _array(values: Any, column: Column) -> pa.Array:
    array = np.asarray(values)
    return pa.array(np.where(np.isfinite(array), array, np.nan).astype(column.dtype),
                    from_pandas=True)  # fmt: skip


def _aperture_fluxes(
    image: Image,
    x: F64,
    y: F64,
    shapes: Shapes,
    psf: StarPsf,
    correction: float,
    columns: dict[str, Any],
) -> dict[str, _Flux]:
    unusable = image.is_masked(UNUSABLE)
    planes = (image.pixels, image.variance)
    point, error = forced_psf_flux(*planes, x, y, psf=psf.tables(), unusable=unusable)
    kron = kron_photometry(*planes, x, y, shapes, unusable=unusable)
    petrosian = petrosian_photometry(*planes, x, y, unusable=unusable)
    circle = aperture_photometry(*planes, x, y, 2.0 * image.psf.fwhm, unusable=unusable)
    columns |= {
        "kronRadius": kron.radius,
        "petroRadius": petrosian.radius,
        "maskedShare": kron.masked,
    }
    fluxes = {
        "psf": (point * correction, error * correction),
        "ap": (circle.flux, circle.flux_err),
        "kron": (kron.flux, kron.flux_err),
        "petro": (petrosian.flux, petrosian.flux_err),
    }
    # The variance plane is that of the sky; a source adds its own photons.
    return {
        name: _Flux(counts, np.sqrt(error**2 + np.fmax(counts, 0.0) / image.gain))
        for name, (counts, error) in fluxes.items()
    }


def _model_fluxes(
    image: Image,
    x: F64,
    y: F64,
    shapes: Shapes,
    psf: StarPsf,
    correction: float,
    columns: dict[str, Any],
    models: bool,
) -> dict[str, _Flux]:
    names = ("modelRadius", "modelAxisRatio", "modelTheta", "bulgeShare", "modelChi2")
    if not models or x.size == 0:
        nothing = np.full(x.size, np.nan)
        columns |= dict.fromkeys(names, nothing)
        return {"gauss": _Flux(nothing, nothing), "model": _Flux(nothing, nothing)}
    unusable = image.is_masked(UNUSABLE)
    floor = float(image.variance.min(where=~unusable, initial=np.inf))
    got = fit_galaxies(
        image.pixels, image.variance, x, y, shapes, psf=psf, noise=Noise(image.gain, floor),
        unusable=unusable,
    )  # fmt: skip
    best = got.best
    chi2 = best.chi2 / np.maximum(best.n_pixels - 6.0, 1.0)
    values = (best.radius, best.axis_ratio, best.theta, got.bulge_share, chi2)
    columns |= dict(zip(names, values, strict=True))
    return {
        "gauss": _Flux(got.gaussian.flux * correction, got.gaussian.flux_err * correction),
        "model": _Flux(best.flux * correction, best.flux_err * correction),
    }


def _gaussian(image: Image) -> StarPsf:
    square = image.psf.sigma**2
    return StarPsf(
        (1.0,), (1.0,), np.array([[square, 0.0, square]]), image.shape, image.psf.sigma, 0, 1.0
    )
