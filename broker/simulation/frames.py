"""A camera's night as raw FITS files: science exposures and the calibrations for them."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count, islice
from pathlib import Path

import numpy as np
import pyarrow as pa

from broker.imaging.fits import write_image
from broker.imaging.image import Image
from broker.imaging.mask import empty_mask
from broker.imaging.raw_fits import write_frame, write_snaps
from broker.simulation.cadence import Visit
from broker.simulation.calibrations import SEQUENCES, calibration_planes
from broker.simulation.exposure import Drawn
from broker.simulation.observatory import Night, simulate_night
from broker.simulation.settings import REAL_CAMERA, Settings
from broker.simulation.signature import signature_of
from broker.simulation.truth import truth_of


def raw_settings(settings: Settings) -> Settings:
    """Return settings whose exposures are raw: those given, or with a real camera."""
    return settings if settings.camera.is_raw else replace(settings, camera=REAL_CAMERA)


def count_frames(settings: Settings, exposures: int) -> int:
    """Return how many readings `write_frames` makes."""
    sequences = sum(taken.number for taken in SEQUENCES.values())
    return settings.detectors * sequences + exposures


def write_calibrations(
    out: Path, seed: int, settings: Settings, *, advance: Callable[[int], None] = lambda _: None
) -> dict[str, int]:
    """Write bias, dark and flat sequences into folders of these names; return their numbers.

    Parameters
    ----------
    out : Path
    seed : int
    settings : Settings
        With a camera that is raw.
    advance : callable
        Called with 1 after each frame.
    """
    counts = dict.fromkeys(SEQUENCES, 0)
    for detector in range(settings.detectors):
        layout = signature_of(seed, settings, detector).layout
        for kind, taken in SEQUENCES.items():
            header = {"IMAGETYP": kind, "EXPTIME": taken.exposure_s, "DETECTOR": detector}
            for number, plane in enumerate(calibration_planes(seed, settings, detector, kind)):
                path = out / kind / f"detector{detector}-{number:02d}.fits"
                write_frame(path, plane, layout, header)
                counts[kind] += 1
                advance(1)
    return counts


def write_science(
    out: Path, first: Night, exposures: int, *, advance: Callable[[int], None] = lambda _: None
) -> pa.Table:
    """Write so many exposures and what they should be; return the truth of transients.

    They are those of a night and, if it has too few, of the nights that follow.
    `science/NAME-snap0.fits` and so on are raw; `light/NAME.fits` is the expected light in
    electrons, with its noise as variance.
    """
    truth, settings = [], first.settings
    for night, visit, detector in islice(_places_of_nights(first), exposures):
        drawn = night.draw(visit, detector)
        field = settings.fields[visit.field].name
        name = f"{field}-{detector}-{visit.band}-{visit.visit}"
        write_snaps(out / "science", name, drawn.raw)
        write_image(out / "light" / f"{name}.fits", expected_image(drawn))
        truth.append(truth_of(night.seed, settings, drawn))
        advance(1)
    return pa.concat_tables(truth)


def _places_of_nights(first: Night) -> Iterator[tuple[Night, Visit, int]]:
    """Yield night, visit and detector of every exposure from a night on, without end."""
    for index in count(first.index):
        night = simulate_night(seed=first.seed, night_index=index, settings=first.settings)
        for visit in night.visits:
            for detector in range(first.settings.detectors):
                yield night, visit, detector


def write_frames(
    out: Path,
    *,
    seed: int,
    settings: Settings,
    exposures: int,
    night_index: int = 0,
    advance: Callable[[int], None] = lambda _: None,
) -> tuple[dict[str, int], pa.Table]:
    """Write calibrations and science exposures; return the numbers of files, and the truth."""
    counts = write_calibrations(out, seed, settings, advance=advance)
    night = simulate_night(seed=seed, night_index=night_index, settings=settings)
    return counts, write_science(out, night, exposures, advance=advance)


def expected_image(drawn: Drawn) -> Image:
    """Return the light of an exposure before the detector, in electrons, with its noise."""
    raw, mask = drawn.raw, empty_mask((drawn.light.shape[0], drawn.light.shape[1]))
    return Image(
        pixels=drawn.light,
        variance=drawn.light + np.float32(drawn.read_variance),
        mask=mask,
        wcs=raw.wcs,
        psf=raw.psf,
        calibration=replace(
            raw.calibration,
            gain=1.0,
            read_noise=float(np.sqrt(drawn.read_variance)),
            zero_point=drawn.visit.electron_zero_point,
        ),
        meta={"unit": "electron"},
    )
