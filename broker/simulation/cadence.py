"""Which visits a night has, and under which sky."""

from dataclasses import dataclass

import numpy as np

from broker.imaging.psf import FWHM_PER_SIGMA
from broker.imaging.wcs import Wcs
from broker.simulation.settings import Settings
from broker.simulation.streams import generator
from broker.units import ARCSEC_PER_DEG, SECONDS_PER_DAY, mag_to_flux

_EPOCH_MJD = 58_849
"""1 January 2020: visit numbers count nights from here."""

_VISITS_A_NIGHT = 10_000
_OVERHEAD_S = 10.0
"""Time between exposures: reading out and moving on. [s]"""

_DARK_DAYS = 0.3
"""Part of a day in which visits are made."""

_ZERO_POINT = {"u": 26.52, "g": 28.51, "r": 28.36, "i": 28.17, "z": 27.78, "y": 26.82}
"""AB magnitude that gives one electron a second at LSST (Rubin Observatory, SMTN-002)."""

_SKY_MAG = {"u": 22.96, "g": 22.26, "r": 21.20, "i": 20.48, "z": 19.60, "y": 18.61}
"""Brightness of the dark sky at zenith (SMTN-002). [mag/arcsec²]"""

_TEMPLATE_SEEING = (0.75, 0.85)
_SEEING = (0.88, 1.25)
"""Full width at half maximum of the PSF, least and most; templates are from the best. [arcsec]"""

_GAP_PX = 40
"""Between neighbouring detectors. [px]"""


@dataclass(frozen=True)
class Visit:
    """One exposure of the whole camera.

    Parameters
    ----------
    visit : int
        Night and place in it; ascending with time; below 2^31.
    field : int
        Index of the settings' field.
    band : str
    midpoint_mjd_tai : float
        [d]
    exposure_s : float
        [s]
    ra, dec : float
        Where the camera's axis points. [deg]
    seeing_arcsec : float
        Full width at half maximum of the PSF. [arcsec]
    sky_mag : float
        [mag/arcsec²]
    electron_zero_point : float
        AB magnitude of one electron in the exposure. [mag]
    sky_slope : (float, float)
        Change of the sky's brightness across a detector in x and y, as a share of it.
    """

    visit: int
    field: int
    band: str
    midpoint_mjd_tai: float
    exposure_s: float
    ra: float
    dec: float
    seeing_arcsec: float
    sky_mag: float
    electron_zero_point: float
    sky_slope: tuple[float, float]

    @property
    def flux_per_electron(self) -> float:
        """Flux that gives one electron in the exposure. [nJy]"""
        return float(mag_to_flux(self.electron_zero_point))

    def psf_sigma(self, scale_arcsec: float) -> float:
        """Return the PSF's standard deviation. [px]"""
        return float(self.seeing_arcsec / scale_arcsec / FWHM_PER_SIGMA)

    def sky_electrons(self, scale_arcsec: float) -> float:
        """Return the sky's electrons in a pixel."""
        return float(mag_to_flux(self.sky_mag) / self.flux_per_electron * scale_arcsec**2)


def night_visits(seed: int, settings: Settings, night_index: int) -> tuple[Visit, ...]:
    """Return the visits of a night in time order.

    Rounds through all bands and fields are spread over the night, so that what changes in hours is
    seen to change.
    """
    first = settings.first_night_mjd + night_index
    step = (settings.exposure_s + _OVERHEAD_S) / SECONDS_PER_DAY
    times = []
    for number in range(settings.visits_per_band):
        start = first - _DARK_DAYS / 2 + _DARK_DAYS * number / settings.visits_per_band
        places = [(band, f) for band in settings.bands for f in range(len(settings.fields))]
        times += [(start + step * n, band, f) for n, (band, f) in enumerate(places)]
    times.sort()
    return tuple(
        _visit(seed, settings, (first, number), mjd, band, field, _SEEING)
        for number, (mjd, band, field) in enumerate(times)
    )


def template_visits(seed: int, settings: Settings, field: int, band: str) -> tuple[Visit, ...]:
    """Return the visits that a template is made from: earlier nights of good seeing."""
    nights = [settings.first_night_mjd - 40 + 2 * n for n in range(settings.template_visits)]
    place = settings.bands.index(band) * len(settings.fields) + field
    step = (settings.exposure_s + _OVERHEAD_S) / SECONDS_PER_DAY
    return tuple(
        _visit(seed, settings, (night, place), night + step * place, band, field, _TEMPLATE_SEEING)
        for night in nights
    )


def detector_wcs(settings: Settings, visit: Visit, detector: int) -> Wcs:
    """Return the WCS of one detector: all of a visit share the projection's centre."""
    return _camera_wcs(settings, visit.ra, visit.dec, detector)


def field_wcs(settings: Settings, field: int, detector: int) -> Wcs:
    """Return the WCS that a detector has when the camera points at a field's centre."""
    place = settings.fields[field]
    return _camera_wcs(settings, place.ra, place.dec, detector)


def _camera_wcs(settings: Settings, ra: float, dec: float, detector: int) -> Wcs:
    middle = (settings.detector_px - 1) / 2.0
    column = detector - (settings.detectors - 1) / 2.0
    return Wcs.from_scale(
        ra,
        dec,
        scale_arcsec=settings.scale_arcsec,
        crpix=(middle - column * (settings.detector_px + _GAP_PX), middle),
    )


def _visit(
    seed: int,
    settings: Settings,
    place: tuple[int, int],
    mjd: float,
    band: str,
    field: int,
    seeing: tuple[float, float],
) -> Visit:
    number = (place[0] - _EPOCH_MJD) * _VISITS_A_NIGHT + place[1] + 1
    rng = generator(seed, "visit", number)
    centre = settings.fields[field]
    east, north = (
        rng.uniform(-1.0, 1.0, 2) * settings.dither_px * settings.scale_arcsec / ARCSEC_PER_DEG
    )
    slopes = rng.uniform(-0.02, 0.02, 2)
    zero_point = _ZERO_POINT[band] + 2.5 * np.log10(settings.exposure_s)
    return Visit(
        visit=number,
        field=field,
        band=band,
        midpoint_mjd_tai=float(mjd),
        exposure_s=settings.exposure_s,
        ra=float((centre.ra + east / np.cos(np.radians(centre.dec))) % 360.0),
        dec=float(centre.dec + north),
        seeing_arcsec=float(rng.uniform(*seeing)),
        sky_mag=float(_SKY_MAG[band] + rng.normal(0.0, 0.1)),
        electron_zero_point=float(zero_point + rng.normal(0.0, 0.03)),
        sky_slope=(float(slopes[0]), float(slopes[1])),
    )
