"""One exposure of one detector, drawn."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from broker.errors import ConfigError
from broker.imaging.image import Calibration, RawExposure
from broker.imaging.isr import Box
from broker.imaging.psf import GaussianPsf
from broker.imaging.reduce import means
from broker.imaging.wcs import Wcs
from broker.simulation.cadence import Visit, detector_wcs
from broker.simulation.detector import Detector, amplifier_boxes, cosmic_rays, detector_of
from broker.simulation.faults import NO_FAULTS, Faults
from broker.simulation.kernels import add_plane, normal_table, read_out
from broker.simulation.moving import SeenMovers, movers_seen
from broker.simulation.optics import Optics, make_optics, transparency, uneven
from broker.simulation.readout import read_snap
from broker.simulation.scene import Scene, scene_of
from broker.simulation.settings import Settings
from broker.simulation.signature import calibration_name, signature_of
from broker.simulation.streams import generator, noise_key

_FLAT_VIGNETTING, _FLAT_DUST = 0.6, 0.5
"""Parts of a wrong flat's error."""


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
    bad : NDArray[np.bool_], shape (ny, nx)
        Pixels that are dead, hot, or full.
    read_variance : float
        Of the detector as a whole, all snaps together. [e-²]
    light : NDArray[np.float32], shape (ny, nx)
        Expected electrons of this exposure, as a detector of even sensitivity would have them.
    movers : SeenMovers, optional
        Moving objects whose light may reach the detector.
    """

    raw: RawExposure
    visit: Visit
    static: NDArray[np.float32]
    struck: NDArray[np.int64]
    bad: NDArray[np.bool_]
    read_variance: float
    light: NDArray[np.float32]
    movers: SeenMovers | None = None


def draw_exposure(
    seed: int,
    settings: Settings,
    visit: Visit,
    detector: int,
    *,
    quiescent: bool = False,
    faults: Faults = NO_FAULTS,
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
    faults : Faults
        What is wrong with it, besides.
    """
    scene = scene_of(seed, settings, visit.field, detector)
    ccd = detector_of(seed, settings, detector)
    stated = detector_wcs(settings, visit, detector)
    optics, wcs = _light_path(seed, settings, visit, stated, faults)
    light = np.zeros((settings.detector_px, settings.detector_px), dtype=np.float32)
    if faults.clouds_mag == 0.0:
        # Before the objects: then a sum of floats has one order, whatever else there is.
        _add_sky(light, settings, visit)
    add_static(light, scene, settings, visit, wcs, optics)
    static = light
    if not quiescent:
        light = static.copy()
        _add_changes(light, scene, visit, wcs, optics)
    movers = None if quiescent else movers_seen(seed, settings, visit, wcs)
    snaps = settings.camera.snaps if settings.camera.is_raw else 1
    lights = _with_movers(light, movers, visit, optics, snaps)
    static, *expected = (
        _dimmed(plane, seed, settings, visit, detector, faults) for plane in (static, *lights)
    )
    record = RawExposure(
        pixels=np.empty((0, 0), np.uint16),
        wcs=stated,
        psf=GaussianPsf(visit.psf_sigma(settings.scale_arcsec)),
        calibration=_calibration(visit, ccd),
        bias_level=ccd.bias_level,
    )
    read = _read_raw if settings.camera.is_raw else _read_ideal
    whole = expected[0] if movers is None else sum(expected[1:], expected[0]) / np.float32(snaps)
    drawn = Drawn(record, visit, static, _NONE, _NOWHERE, 0.0, whole, movers)
    return read(seed, settings, drawn, expected, faults)


_NONE, _NOWHERE = np.empty(0, np.int64), np.empty((0, 0), np.bool_)


def _with_movers(
    light: NDArray[np.float32],
    movers: SeenMovers | None,
    visit: Visit,
    optics: Optics,
    snaps: int,
) -> list[NDArray[np.float32]]:
    """Return the light as each snap sees it, scaled to the whole exposure.

    What moves is further along in the second snap.
    """
    if movers is None or not movers.x.size:
        return [light] * snaps
    planes = []
    for k in range(snaps):
        later = (k + 0.5) / snaps - 0.5
        plane = light.copy()
        optics.draw(
            plane,
            (movers.x + later * movers.dx, movers.y + later * movers.dy),
            movers.flux / visit.flux_per_electron,
            trail=(movers.dx / snaps, movers.dy / snaps),
        )
        planes.append(plane)
    return planes


def _read_ideal(
    seed: int, settings: Settings, drawn: Drawn, lights: list[NDArray[np.float32]], faults: Faults
) -> Drawn:
    """Read an exposure with a detector of one gain and no signature but a level bias."""
    (expected,) = lights
    place = (drawn.visit.visit, drawn.raw.calibration.detector)
    ccd = detector_of(seed, settings, place[1])
    rays = settings.cosmic_rays_per_mpix * expected.size / 1e6 * drawn.visit.exposure_s / 30.0
    counts, struck = _read(
        expected, ccd, noise_key(seed, "noise", *place), generator(seed, "rays", *place), rays
    )
    if faults.bad_amplifier is not None:
        box = _box_of(amplifier_boxes(settings), faults.bad_amplifier)
        rng = generator(seed, "bad amplifier", *place)
        spoil_amplifier(counts, box, ccd.bias_level, faults, rng)
    bad = (counts == 0) | (counts >= ccd.bias_level + ccd.saturation)
    raw = replace(drawn.raw, pixels=counts)
    return replace(drawn, raw=raw, struck=struck, bad=bad, read_variance=ccd.read_noise**2)


def _read_raw(
    seed: int, settings: Settings, drawn: Drawn, lights: list[NDArray[np.float32]], faults: Faults
) -> Drawn:
    """Read an exposure as it leaves the electronics: amplifiers with overscan, a snap or two."""
    visit, detector = drawn.visit.visit, drawn.raw.calibration.detector
    signature, n = signature_of(seed, settings, detector), len(lights)
    layout = signature.layout
    snap_s = drawn.visit.exposure_s / n
    snaps = [
        read_snap(seed, settings, detector, light / np.float32(n), snap_s, key=("snap", visit, k))
        for k, light in enumerate(lights)
    ]
    if faults.bad_amplifier is not None:
        box = _box_of([a.data for a in layout.amplifiers], faults.bad_amplifier)
        rng = generator(seed, "bad amplifier", visit, detector)
        for snap in snaps:
            spoil_amplifier(snap.counts, box, drawn.raw.bias_level, faults, rng)
    gain, read_noise, _ = means(layout)
    said = drawn.raw.calibration
    raw = replace(
        drawn.raw,
        pixels=snaps[0].counts,
        second=snaps[1].counts if n == 2 else None,
        layout=layout,
        calibration_set=calibration_name(seed, settings),
        calibration=replace(
            said,
            gain=gain,
            read_noise=read_noise,
            saturation=min(a.saturation for a in layout.amplifiers),
            zero_point=float(drawn.visit.electron_zero_point - 2.5 * np.log10(gain)),
        ),
    )
    bad = signature.broken | np.any([snap.full for snap in snaps], axis=0)
    struck = np.unique(np.concatenate([snap.struck for snap in snaps]))
    return replace(
        drawn, raw=raw, struck=struck, bad=np.asarray(bad, bool), read_variance=n * read_noise**2
    )


def _box_of(boxes: Sequence[Box], number: int) -> Box:
    if not 0 <= number < len(boxes):
        raise ConfigError(f"there is no amplifier {number}: 0 to {len(boxes) - 1}")
    return boxes[number]


def add_static(
    image: NDArray[np.float32],
    scene: Scene,
    settings: Settings,
    visit: Visit,
    wcs: Wcs,
    optics: Optics,
) -> None:
    """Add the light of stars, galaxies and transients at rest, in place. [e-]"""
    light, scale2 = scene.static, settings.scale_arcsec**2
    optics.draw(
        image,
        wcs.sky_to_pixel(light.ra, light.dec),
        light.band_flux(visit.band) / visit.flux_per_electron,
        # Columns run west.
        (light.xx / scale2, -light.xy / scale2, light.yy / scale2),
    )
    for population in scene.transients:
        flux = population.quiescent_flux(visit.band) / visit.flux_per_electron
        optics.draw(image, wcs.sky_to_pixel(population.ra, population.dec), flux)


def _add_changes(
    image: NDArray[np.float32], scene: Scene, visit: Visit, wcs: Wcs, optics: Optics
) -> None:
    """Add the transients' light less that in the templates, in place. [e-]"""
    for population in scene.transients:
        change = population.flux(visit.midpoint_mjd_tai, visit.band)
        change -= population.quiescent_flux(visit.band)
        places = wcs.sky_to_pixel(population.ra, population.dec)
        optics.draw(image, places, change / visit.flux_per_electron)


def _add_sky(image: NDArray[np.float32], settings: Settings, visit: Visit) -> None:
    add_plane(image, visit.sky_electrons(settings.scale_arcsec), *visit.sky_slope)


def _light_path(
    seed: int, settings: Settings, visit: Visit, stated: Wcs, faults: Faults
) -> tuple[Optics, Wcs]:
    """Return the optics of an exposure, and the WCS that it really has."""
    angle, turn = generator(seed, "optics", visit.visit).uniform(0.0, 2.0 * np.pi, 2)
    optics = make_optics(
        visit.psf_sigma(settings.scale_arcsec), settings.detector_px, settings.camera, angle, faults
    )
    off = settings.camera.misregistration_px
    dx, dy = faults.misregistration_px
    wcs = stated.shifted(off * np.cos(turn) + dx, off * np.sin(turn) + dy)
    return optics, wcs if off or dx or dy else stated


def _dimmed(
    light: NDArray[np.float32],
    seed: int,
    settings: Settings,
    visit: Visit,
    detector: int,
    faults: Faults,
) -> NDArray[np.float32]:
    """Return the light that arrives: behind clouds, and as a wrong flat makes it look. [e-]"""
    if faults.clouds_mag > 0.0:
        light = light * transparency(faults, settings.detector_px)
        _add_sky(light, settings, visit)
    if faults.wrong_flat > 0.0:
        lit = uneven(
            generator(seed, "wrong flat", visit.visit, detector),
            settings.detector_px,
            vignetting=_FLAT_VIGNETTING * faults.wrong_flat,
            dust=_FLAT_DUST * faults.wrong_flat,
        )
        light = light * lit
    return light


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


def spoil_amplifier(
    counts: NDArray[np.uint16], view: Box, bias: float, faults: Faults, rng: np.random.Generator
) -> None:
    """Make the counts of one amplifier wrong, in place: its gain, and its noise. [ADU]"""
    part = view.of(counts)
    wrong = bias + (part - np.float64(bias)) * faults.amplifier_factor
    wrong += rng.normal(0.0, faults.amplifier_noise, part.shape)
    part[...] = np.where(part == 0, 0.0, np.rint(wrong).clip(1.0, 65_535.0)).astype(np.uint16)


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
