"""One exposure of one detector, drawn."""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from broker.imaging.image import Calibration, RawExposure
from broker.imaging.psf import GaussianPsf
from broker.imaging.wcs import Wcs
from broker.simulation.cadence import Visit, detector_wcs
from broker.simulation.contract import FloatArray
from broker.simulation.detector import Detector, cosmic_rays, make_detector
from broker.simulation.kernels import add_gaussians, add_plane, normal_table, read_out
from broker.simulation.scene import Scene, quiescent_flux, scene_of
from broker.simulation.settings import Settings
from broker.simulation.streams import generator, noise_key

FLOOR_ELECTRONS = 0.02
"""An object is drawn out to pixels of this expectation: a thousandth of the sky's noise. [e-]"""


@dataclass(frozen=True)
class Drawn:
    """An exposure and what only the simulation knows of it.

    Parameters
    ----------
    raw : RawExposure
    visit : Visit
    static : NDArray[np.float32], shape (ny, nx)
        Expected electrons with all transients as they are in the templates.
    struck : NDArray[np.int64], shape (m,)
        Pixels with a cosmic ray: row × width + column.
    """

    raw: RawExposure
    visit: Visit
    static: NDArray[np.float32]
    struck: NDArray[np.int64]


@functools.lru_cache(maxsize=256)
def detector_of(seed: int, settings: Settings, number: int) -> Detector:
    """Return a detector of the camera, made once a process."""
    return make_detector(seed, settings, number)


def draw_exposure(
    seed: int, settings: Settings, visit: Visit, detector: int, *, quiescent: bool = False
) -> Drawn:
    """Draw what one detector records in one visit.

    It depends on (seed, settings, visit, detector) alone.

    Parameters
    ----------
    seed : int
    settings : Settings
    visit : Visit
    detector : int
    quiescent : bool
        With all transients as they are in the templates.
    """
    scene = scene_of(seed, settings, visit.field, detector)
    ccd = detector_of(seed, settings, detector)
    wcs = detector_wcs(settings, visit, detector)
    static = expected_static(scene, settings, visit, wcs)
    expected = static
    if not quiescent:
        expected = static.copy()
        _add_changes(expected, scene, settings, visit, wcs)
    key = noise_key(seed, "noise", visit.visit, detector)
    counts, struck = _read(
        expected,
        ccd,
        key,
        generator(seed, "rays", visit.visit, detector),
        (settings.cosmic_rays_per_mpix * expected.size / 1e6 * visit.exposure_s / 30.0),
    )
    raw = RawExposure(
        pixels=counts,
        wcs=wcs,
        psf=GaussianPsf(visit.psf_sigma(settings.scale_arcsec)),
        calibration=_calibration(visit, ccd),
        bias_level=ccd.bias_level,
    )
    return Drawn(raw, visit, static, struck)


def expected_static(
    scene: Scene, settings: Settings, visit: Visit, wcs: Wcs
) -> NDArray[np.float32]:
    """Return the expected electrons of sky, stars, galaxies, and transients at rest."""
    shape = (settings.detector_px, settings.detector_px)
    image = np.zeros(shape, dtype=np.float32)
    add_plane(image, visit.sky_electrons(settings.scale_arcsec), *visit.sky_slope)
    light = scene.static
    x, y = wcs.sky_to_pixel(light.ra, light.dec)
    psf = visit.psf_sigma(settings.scale_arcsec)
    _draw(
        image,
        (x, y),
        light.band_flux(visit.band) / visit.flux_per_electron,
        np.hypot(psf, light.sigma_x / settings.scale_arcsec),
        np.hypot(psf, light.sigma_y / settings.scale_arcsec),
    )
    for population in scene.transients:
        flux = quiescent_flux(population, visit.band) / visit.flux_per_electron
        sigma = np.full(flux.size, psf)
        _draw(image, wcs.sky_to_pixel(population.ra, population.dec), flux, sigma, sigma)
    return image


def _add_changes(
    image: NDArray[np.float32], scene: Scene, settings: Settings, visit: Visit, wcs: Wcs
) -> None:
    """Add the transients' light less that in the templates, in place. [e-]"""
    for population in scene.transients:
        kind = population.kind
        flux = kind.flux(visit.midpoint_mjd_tai, visit.band, population.params)
        change = (flux - quiescent_flux(population, visit.band)) / visit.flux_per_electron
        sigma = np.full(change.size, visit.psf_sigma(settings.scale_arcsec))
        _draw(image, wcs.sky_to_pixel(population.ra, population.dec), change, sigma, sigma)


def _draw(
    image: NDArray[np.float32],
    places: tuple[FloatArray, FloatArray],
    electrons: FloatArray,
    sigma_x: FloatArray,
    sigma_y: FloatArray,
) -> None:
    x, y = places
    add_gaussians(image, x, y, electrons, sigma_x, sigma_y, FLOOR_ELECTRONS)


def _read(
    expected: NDArray[np.float32],
    ccd: Detector,
    key: np.uint64,
    rng: np.random.Generator,
    rays: float,
) -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
    """Return the counts, and which pixels a cosmic ray struck."""
    top = ccd.bias_level + ccd.saturation
    counts: Any = read_out(
        expected, key, normal_table(), ccd.gain, ccd.read_noise, ccd.bias_level, top + 0.5
    )
    pixels, charge = cosmic_rays(rng, int(rng.poisson(rays)), expected.shape[0])
    flat = counts.reshape(-1)
    added = np.bincount(pixels, charge) if pixels.size else np.empty(0)
    struck = np.flatnonzero(added)
    flat[struck] = np.minimum(flat[struck] + added[struck] / ccd.gain, top).astype(np.uint16)
    flat[ccd.dead] = 0
    return counts, struck


def _calibration(visit: Visit, ccd: Detector) -> Calibration:
    return Calibration(
        visit=visit.visit,
        detector=ccd.number,
        band=visit.band,
        midpoint_mjd_tai=visit.midpoint_mjd_tai,
        exposure_s=visit.exposure_s,
        zero_point=float(visit.electron_zero_point - 2.5 * np.log10(ccd.gain)),
        gain=ccd.gain,
        read_noise=ccd.read_noise,
        saturation=ccd.saturation,
    )
