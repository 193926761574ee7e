"""Sources of simulated nights with their truth, for the training of the reliability and its test.

The three roles share nothing: other seeds (other skies), other seeing, and for the test other
classes of transients. What is found goes the whole way, from the raw exposure to the features.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import IntEnum
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from broker.detection.dia import DiaSettings, difference_and_detect
from broker.detection.reliability.model import Model
from broker.detection.reliability.report import Judged
from broker.detection.reliability.score import FEATURES, features
from broker.detection.reliability.training import TrainingSet
from broker.errors import AlertError
from broker.imaging.kernels import F64
from broker.imaging.message import to_image
from broker.imaging.templates import Template
from broker.imaging.warp import image_coefficients
from broker.simulation.cadence import Visit
from broker.simulation.exposure import Drawn
from broker.simulation.kernels import add_gaussians
from broker.simulation.moving import NAME as MOVING
from broker.simulation.observatory import Night, make_template, simulate_night, template_version
from broker.simulation.scores import matched_sources
from broker.simulation.settings import Camera, Field, Settings
from broker.simulation.streams import generator
from broker.simulation.transients import find_classes
from broker.simulation.truth import truth_of

Bools = NDArray[np.bool_]

SEEING_STEP_ARCSEC = 0.04
"""Strips of seeing, this wide, are by turns for the training and for the test."""

ARTEFACT = ""
"""Class of a source that is no transient."""

_UNCLEAR_PX = 10.0
_UNCLEAR_SNR = 5.0
_VISITS_PER_BAND = 40
_MOVING_DENSITY = 1_200.0
"""Some six on an image. [1/deg²]"""

_HIT_ELECTRONS = (300.0, 30_000.0)
_HIT_WIDTHS = (0.05, 0.75)
"""Of the PSF's width."""

_FLOOR_COUNTS = 0.02
_NEGATIVE_SHARE = 0.25
"""Of the hits: those that a template has kept."""


class Role(IntEnum):
    """What a night is for; the survey's seed is three times its number and this."""

    TRAINING = 0
    CALIBRATION = 1
    TEST = 2


@dataclass(frozen=True)
class Conditions:
    """How rough a night is.

    Parameters
    ----------
    cosmic_rays_per_mpix : float
        Hits in 30 s on a million pixels.
    hits_per_mpix : float
        Spots sharper than the optics can make them, which no mask knows of: pixels that glow, hits
        whose charge has spread, and what a template kept of them.
    psf_variation : float
        Change of the PSF's width over the detector, as a share of it.
    psf_ellipticity : float
    misregistration_px : float
        The stated WCS is off by this. [px]
    star_density : float
        [1/deg²]
    """

    cosmic_rays_per_mpix: float
    hits_per_mpix: float
    psf_variation: float
    psf_ellipticity: float
    misregistration_px: float
    star_density: float = 30_000.0


ROUGH = Conditions(20.0, 5.0, 0.12, 0.0, 0.1)
"""The night that the score is calibrated for and tested on."""

HARD = (
    Conditions(60.0, 20.0, 0.12, 0.0, 0.1),
    Conditions(20.0, 20.0, 0.18, 0.05, 0.05, 60_000.0),
    Conditions(60.0, 40.0, 0.06, 0.1, 0.3, 60_000.0),
    Conditions(100.0, 40.0, 0.25, 0.0, 0.15, 90_000.0),
)
"""Nights of the training, by turns: artefacts are rarer in those it is meant for."""


@dataclass(frozen=True)
class Sources:
    """Detected sources and the transients that were there.

    Parameters
    ----------
    features : NDArray[np.float64], shape (n_sources, n_features)
    snr : NDArray[np.float64], shape (n_sources,)
        Measured, absolute.
    kind : NDArray[np.str_], shape (n_sources,)
        Class of its transient, `ARTEFACT` without one.
    is_clear : NDArray[np.bool_], shape (n_sources,)
        False for what is beside a transient and not it: a part of a blend, say.
    true_snr : NDArray[np.float64], shape (n_transients,)
        Of the visible transients, absolute.
    true_kind : NDArray[np.str_], shape (n_transients,)
    true_row : NDArray[np.int64], shape (n_transients,)
        Row of its source; -1 if it was not detected.
    images, failed : int
        How many; failed ones have no difference.
    """

    features: F64
    snr: F64
    kind: NDArray[np.str_]
    is_clear: Bools
    true_snr: F64
    true_kind: NDArray[np.str_]
    true_row: NDArray[np.int64]
    images: int = 1
    failed: int = 0

    def judged(self, model: Model, kinds: tuple[str, ...] = ()) -> Judged:
        """Return the sources with their scores; with `kinds`, of these classes and artefacts."""
        scores = model.score(self.features)
        real = self.kind != ARTEFACT
        kept = ~real | np.isin(self.kind, kinds) if kinds else np.ones(real.size, bool)
        there = np.isin(self.true_kind, kinds) if kinds else np.ones(self.true_kind.size, bool)
        row = self.true_row[there]
        found = np.append(scores, -1.0)[row]
        weight = np.where(real[kept], _stand_for(real, kept), 1.0)
        return Judged(scores[kept], self.snr[kept], real[kept], weight, self.true_snr[there], found)

    def training_set(self, kinds: tuple[str, ...], *, clear_only: bool) -> TrainingSet:
        """Return the artefacts and the sources of these classes, which stand for all classes."""
        real = self.kind != ARTEFACT
        kept = ~real | np.isin(self.kind, kinds)
        if clear_only:
            kept &= self.is_clear
        weight = np.where(real[kept], _stand_for(real, kept), 1.0)
        return TrainingSet(self.features[kept], real[kept], weight)


def _stand_for(real: Bools, kept: Bools) -> float:
    return float(real.sum()) / max(float((real & kept).sum()), 1.0)


def classes_of(role: Role) -> tuple[str, ...]:
    """Return the classes of transients that are for a role: every other one, by name.

    What moves is for the training alone: its short trails look like nothing else that is real.
    """
    names = [kind.name for kind in find_classes()]
    return tuple(names[1::2]) if role is Role.TEST else (*names[::2], MOVING)


def is_seeing_of(role: Role, seeing_arcsec: float) -> bool:
    """Whether exposures of a seeing are for a role."""
    odd = int(seeing_arcsec / SEEING_STEP_ARCSEC) % 2 == 1
    return odd == (role is Role.TEST)


def draw_sources(
    seed: int,
    role: Role,
    *,
    nights: int,
    images_per_night: int = 8,
    side: int = 1024,
    advance: Callable[[int], None] = lambda _: None,
) -> Sources:
    """Draw nights, search them, and tell what was found from what was made up.

    Parameters
    ----------
    seed : int
    role : Role
    nights : int
        Each has a sky and a template of its own.
    images_per_night : int
    side : int
        Of the detectors. [px]
    advance : callable
        Called with 1 after each night.

    Returns
    -------
    Sources
        The same for the same arguments, whatever the number of processors.
    """

    def work(number: int) -> Sources:
        found = _one_night(seed, role, number, images_per_night, side)
        advance(1)
        return found

    # The compiled loops let other threads run.
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        return join(list(pool.map(work, range(nights))))


def join(parts: list[Sources]) -> Sources:
    """Return the sources of several nights as those of one."""
    offsets = np.cumsum([0] + [part.snr.size for part in parts])
    rows = [
        np.where(part.true_row < 0, -1, part.true_row + offset)
        for part, offset in zip(parts, offsets, strict=False)
    ]

    return Sources(
        features=np.concatenate([part.features for part in parts]),
        snr=np.concatenate([part.snr for part in parts]),
        kind=np.concatenate([part.kind for part in parts]),
        is_clear=np.concatenate([part.is_clear for part in parts]),
        true_snr=np.concatenate([part.true_snr for part in parts]),
        true_kind=np.concatenate([part.true_kind for part in parts]),
        true_row=np.concatenate(rows),
        images=sum(part.images for part in parts),
        failed=sum(part.failed for part in parts),
    )


def _one_night(seed: int, role: Role, number: int, images: int, side: int) -> Sources:
    conditions = HARD[number % len(HARD)] if role is Role.TRAINING else ROUGH
    settings = _settings(conditions, "gri"[number % 3], side)
    survey = 3 * (seed * 1_000_003 + number) + role
    template = make_template(survey, settings, 0, 0, settings.bands[0])
    version = template_version(survey, settings)
    ready = Template(template, version, image_coefficients(template))
    night = simulate_night(seed=survey, settings=settings)
    visits = (v for v in night.visits if is_seeing_of(role, v.seeing_arcsec))
    parts = [_one_image(night, v, ready, conditions) for v in islice(visits, images)]
    return join(parts)


def _settings(conditions: Conditions, band: str, side: int) -> Settings:
    return Settings(
        fields=(Field("training", 150.11, 2.23),),
        bands=(band,),
        visits_per_band=_VISITS_PER_BAND,
        detectors=1,
        detector_px=side,
        star_density=conditions.star_density,
        moving_density=_MOVING_DENSITY,
        cosmic_rays_per_mpix=conditions.cosmic_rays_per_mpix,
        camera=Camera(
            psf_variation=conditions.psf_variation,
            psf_ellipticity=conditions.psf_ellipticity,
            misregistration_px=conditions.misregistration_px,
        ),
    )


def _one_image(night: Night, visit: Visit, template: Template, conditions: Conditions) -> Sources:
    drawn = night.draw(visit, 0)
    drawn = _with_hits(night.seed, drawn, conditions.hits_per_mpix)
    truth = truth_of(night.seed, night.settings, drawn)
    true = {
        name: truth[name].to_numpy(zero_copy_only=False)
        for name in ("class", "x", "y", "snr", "isVisible")
    }
    visible = true["isVisible"].astype(bool)
    true_snr, true_kind = np.abs(true["snr"]), true["class"].astype(str)
    try:
        result = difference_and_detect(
            to_image(drawn.raw), template, settings=DiaSettings(cutout_px=3)
        )
    except AlertError:
        none = np.empty(0)
        return Sources(
            np.empty((0, len(FEATURES))),
            none,
            none.astype(str),
            none.astype(bool),
            true_snr[visible],
            true_kind[visible],
            np.full(int(visible.sum()), -1),
            failed=1,
        )
    assert result.evidence is not None  # noqa: S101 - for the type: measured sources have it
    rows = matched_sources(result.sources, truth)
    n = result.sources.num_rows
    kind = np.full(n, ARTEFACT, dtype="<U40")
    kind[rows[rows >= 0]] = true_kind[rows >= 0]
    x, y = (result.sources[name].to_numpy() for name in ("x", "y"))
    return Sources(
        features(result.evidence),
        result.sources["snr"].to_numpy().astype(np.float64),
        kind,
        (kind != ARTEFACT) | ~_beside((x, y), true),
        true_snr[visible],
        true_kind[visible],
        rows[visible],
    )


def _beside(places: tuple[F64, F64], true: dict[str, NDArray[np.generic]]) -> Bools:
    """Return which sources have a transient near that could have been found."""
    strong = np.abs(np.asarray(true["snr"], np.float64)) > _UNCLEAR_SNR
    gap = np.hypot(
        places[0][:, None] - np.asarray(true["x"], np.float64)[strong],
        places[1][:, None] - np.asarray(true["y"], np.float64)[strong],
    )
    return np.asarray(np.any(gap < _UNCLEAR_PX, axis=1))


def _with_hits(seed: int, drawn: Drawn, per_mpix: float) -> Drawn:
    """Return the exposure with spots that are no light of the sky."""
    raw = drawn.raw
    rng = generator(seed, "hits", raw.calibration.visit, raw.calibration.detector)
    ny, nx = raw.pixels.shape
    n = int(rng.poisson(per_mpix * ny * nx / 1e6))
    low, high = np.log(_HIT_ELECTRONS)
    charge = np.exp(rng.uniform(low, high, n)) / raw.calibration.gain
    charge *= np.where(rng.random(n) < _NEGATIVE_SHARE, -1.0, 1.0)
    width = raw.psf.sigma * rng.uniform(*_HIT_WIDTHS, n)
    spots = np.zeros((ny, nx), np.float32)
    x, y = rng.uniform(0.0, (nx, ny), (n, 2)).T
    add_gaussians(spots, x, y, charge, width, width, _FLOOR_COUNTS)
    top = raw.bias_level + raw.calibration.saturation
    pixels = np.rint(raw.pixels + spots).clip(1.0, top).astype(np.uint16)
    # A dead pixel is marked by its zero.
    pixels[raw.pixels == 0] = 0
    return replace(drawn, raw=replace(raw, pixels=pixels))


def strips_of(role: Role) -> Iterator[tuple[float, float]]:
    """Yield the strips of seeing that are for a role, between 0.8 and 1.4 arcsec."""
    for k in range(20, 35):
        low = k * SEEING_STEP_ARCSEC
        if is_seeing_of(role, low + 0.5 * SEEING_STEP_ARCSEC):
            yield low, low + SEEING_STEP_ARCSEC
