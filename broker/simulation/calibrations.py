"""Sequences of calibration exposures, and the master calibrations that are made from them."""

import functools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from broker.imaging.calibration_store import CalibrationStore
from broker.imaging.isr import Masters
from broker.imaging.reduce import make_masters
from broker.simulation.readout import read_snap
from broker.simulation.settings import Settings
from broker.simulation.signature import calibration_name, signature_of

_THREADS = 2


@dataclass(frozen=True)
class Sequence:
    """How a kind of calibration exposure is taken.

    Parameters
    ----------
    number : int
        Exposures of a sequence.
    exposure_s : float
        [s]
    electrons : float
        Light in a pixel. [e-]
    """

    number: int
    exposure_s: float
    electrons: float


SEQUENCES = {
    "bias": Sequence(31, 0.0, 0.0),
    "dark": Sequence(11, 60.0, 0.0),
    "flat": Sequence(15, 3.0, 40_000.0),
}


def calibration_planes(
    seed: int, settings: Settings, detector: int, kind: str
) -> Iterator[NDArray[np.uint16]]:
    """Yield the raw planes of a sequence: `bias`, `dark` or `flat`.

    The lamp of the flats is even; its brightness changes by a few percent from one to the next.
    """
    taken = SEQUENCES[kind]
    shape = (settings.detector_px, settings.detector_px)
    for number in range(taken.number):
        level = taken.electrons * (1.0 + 0.03 * np.cos(number))
        light = np.full(shape, level, np.float32)
        yield read_snap(
            seed, settings, detector, light, taken.exposure_s, key=(kind, number, 0)
        ).counts


@functools.lru_cache(maxsize=4)
def masters_of(seed: int, settings: Settings, detector: int) -> Masters:
    """Return a detector's master calibrations, made from its sequences once a process."""
    biases, darks, flats = (
        list(calibration_planes(seed, settings, detector, kind)) for kind in SEQUENCES
    )
    return make_masters(
        signature_of(seed, settings, detector).layout,
        biases=biases,
        darks=darks,
        dark_s=SEQUENCES["dark"].exposure_s,
        flats=flats,
        flat_s=SEQUENCES["flat"].exposure_s,
    )


def build_calibrations(seed: int, settings: Settings, store: CalibrationStore) -> str:
    """Put the camera's master calibrations into a store; return the set's name.

    Empty if the camera is an ideal one and needs none.
    """
    if not settings.camera.is_raw:
        return ""
    name = calibration_name(seed, settings)
    if name not in store.names():
        detectors = range(settings.detectors)
        with ThreadPoolExecutor(_THREADS) as pool:
            made = pool.map(lambda d: masters_of(seed, settings, d), detectors)
            store.put(name, dict(zip(detectors, made, strict=True)))
    return name
