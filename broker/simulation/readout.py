"""Raw exposures: light and dark current through wells, amplifiers and overscan into counts."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from broker.imaging.isr import Box
from broker.simulation.detector import cosmic_rays, detector_of
from broker.simulation.kernels import bleed, normal_table, read_amplifier
from broker.simulation.settings import Settings
from broker.simulation.signature import Signature, signature_of
from broker.simulation.streams import generator, noise_key

_DRIFT_PERIODS = 3


@dataclass(frozen=True)
class Snap:
    """One reading of a detector.

    Parameters
    ----------
    counts : NDArray[np.uint16], shape (n_rows, n_columns)
        The raw plane, with overscan. [ADU]
    struck : NDArray[np.int64], shape (m,)
        Pixels of the detector with a cosmic ray: row × width + column.
    full : NDArray[np.bool_], shape (ny, nx)
        Where the well is full.
    """

    counts: NDArray[np.uint16]
    struck: NDArray[np.int64]
    full: NDArray[np.bool_]


def read_snap(
    seed: int,
    settings: Settings,
    detector: int,
    light: NDArray[np.float32],
    exposure_s: float,
    *,
    key: tuple[str, int, int],
) -> Snap:
    """Read a detector once.

    Parameters
    ----------
    seed : int
    settings : Settings
    detector : int
    light : NDArray[np.float32], shape (ny, nx)
        Electrons that a detector of even sensitivity would have.
    exposure_s : float
        For dark current and cosmic rays. [s]
    key : (str, int, int)
        What is read: its kind and two numbers. With detector and seed it makes the noise.
    """
    signature, ccd = signature_of(seed, settings, detector), detector_of(seed, settings, detector)
    kind, *numbers = key
    electrons = light * signature.flat
    electrons += signature.dark * np.float32(exposure_s)
    rng = generator(seed, f"{kind} rays", *numbers, detector)
    rate = settings.cosmic_rays_per_mpix * light.size / 1e6 * exposure_s / 30.0
    pixels, charge = cosmic_rays(rng, int(rng.poisson(rate)), light.shape[0])
    np.add.at(electrons.reshape(-1), pixels, charge.astype(np.float32))
    if np.isfinite(signature.full_well):
        bleed(electrons, np.float32(signature.full_well))
    counts = _read(seed, settings, detector, signature, electrons, key)
    _kill(counts, signature, ccd.dead)
    full = electrons >= 0.95 * signature.full_well
    return Snap(counts, np.unique(pixels), np.asarray(full, bool))


def _read(
    seed: int,
    settings: Settings,
    detector: int,
    signature: Signature,
    electrons: NDArray[np.float32],
    key: tuple[str, int, int],
) -> NDArray[np.uint16]:
    kind, *numbers = key
    counts = np.zeros(signature.raw_shape, np.uint16)
    for number, amplifier in enumerate(signature.layout.amplifiers):
        rng = generator(seed, f"{kind} level", *numbers, detector, number)
        noise = noise_key(seed, f"{kind} noise", *numbers, detector, number)
        data = amplifier.data.of(counts)
        if amplifier.flip_x:
            data = data[:, ::-1]
        overscan = (amplifier.overscan or Box(0, 0, 0, 0)).of(counts)
        rows = data.shape[0]
        level = amplifier.bias_level + _drift(rng, rows, settings.camera.overscan_drift)
        if amplifier.flip_y:
            data, overscan = data[::-1], overscan[::-1]
        read_amplifier(
            amplifier.target.of(electrons),
            amplifier.target.of(signature.bias),
            level.astype(np.float32),
            noise,
            normal_table(),
            amplifier.gain,
            amplifier.read_noise,
            amplifier.linearity[0] if amplifier.linearity else 0.0,
            data,
            overscan,
        )
    return counts


def _drift(rng: np.random.Generator, rows: int, size: float) -> NDArray[np.float64]:
    """Return how a level wanders from row to row: slow waves of random phases, a jump at first."""
    row = np.arange(rows) / rows
    phases = rng.uniform(0.0, 2.0 * np.pi, _DRIFT_PERIODS)
    waves = [np.cos(2 * np.pi * (k + 1) * row + p) / (k + 1) for k, p in enumerate(phases)]
    settling = np.exp(-row * 20.0)
    return np.asarray(size * (0.5 * np.sum(waves, axis=0) + settling + rng.normal()))


def _kill(counts: NDArray[np.uint16], signature: Signature, dead: NDArray[np.int64]) -> None:
    """Let dead pixels read nothing at all, in place."""
    width = signature.layout.shape[1]
    plane = np.zeros(signature.layout.shape, bool)
    plane[dead // width, dead % width] = True
    for amplifier in signature.layout.amplifiers:
        part = amplifier.target.of(plane)
        part = part[::-1] if amplifier.flip_y else part
        part = part[:, ::-1] if amplifier.flip_x else part
        amplifier.data.of(counts)[part] = 0
