"""Whether planted faults are found in images, and good images are not accused."""

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from typing import Any

import numpy as np

from broker.bench_rows import Row, at_least, at_most
from broker.detection.differencing.difference import subtract_template
from broker.detection.quality.image_flags import ImageFlag
from broker.detection.quality.scorecard import Card, assess, of_difference
from broker.imaging.message import to_image
from broker.imaging.templates import Template
from broker.imaging.warp import image_coefficients
from broker.ops.image_bench.difference_scenes import changed_pair
from broker.ops.image_bench.rows import seconds
from broker.simulation.exposure import draw_exposure
from broker.simulation.faults import NO_FAULTS, Faults
from broker.simulation.observatory import make_template, simulate_night
from broker.simulation.settings import TEST, Camera, Settings

IMAGES = 200
FIRST_SEED = 900
"""Of the surveys that are measured; limits were chosen with smaller ones."""

_PER_SURVEY = 50

SETTINGS: Settings = replace(
    TEST,
    detector_px=512,
    template_visits=6,
    star_density=90_000.0,
    galaxy_density=48_000.0,
    camera=Camera(psf_variation=0.06, psf_ellipticity=0.03, misregistration_px=0.1),
)
"""An eighth of a large detector each way, with as many stars as a sixteenth of it has at 30° from
the galactic plane. Seeing, sky, its gradient, zero point and pointing vary from visit to visit; the
PSF varies over the image and is not round, the WCS is off by 0.1 pixel."""

Plant = Callable[[np.random.Generator], Faults]


def good(rng: np.random.Generator) -> Faults:  # noqa: ARG001  (as the others)
    """Return nothing wrong."""
    return NO_FAULTS


def bad_amplifier(rng: np.random.Generator) -> Faults:
    """Return one of eight amplifiers that is dead, noisy, or has another gain."""
    number, kind = int(rng.integers(8)), int(rng.integers(4))
    if kind == 0:
        return Faults(bad_amplifier=number, amplifier_factor=0.0, amplifier_noise=0.0)
    if kind == 1:
        return Faults(
            bad_amplifier=number, amplifier_factor=1.0, amplifier_noise=float(rng.uniform(20, 80))
        )
    change = float(rng.uniform(0.03, 0.3) * rng.choice([-1.0, 1.0]))
    return Faults(bad_amplifier=number, amplifier_factor=1.0 + change, amplifier_noise=0.0)


def clouds(rng: np.random.Generator) -> Faults:
    """Return clouds of 0.2 to 1.5 mag, in every second image in patches."""
    return patchy_clouds(rng) if rng.random() < 0.5 else even_clouds(rng)


def even_clouds(rng: np.random.Generator) -> Faults:
    """Return clouds of 0.2 to 1.5 mag, the same everywhere but for a fifth."""
    slope = float(rng.uniform(-0.2, 0.2))
    return Faults(clouds_mag=float(rng.uniform(0.2, 1.5)), cloud_slope=slope)


def patchy_clouds(rng: np.random.Generator) -> Faults:
    """Return clouds whose extinction changes from edge to edge by as much as it is, or twice."""
    slope = float(rng.uniform(1.0, 2.0) * rng.choice([-1.0, 1.0]))
    return Faults(clouds_mag=float(rng.uniform(0.2, 0.8)), cloud_slope=slope)


def lost_guiding(rng: np.random.Generator) -> Faults:
    """Return a drift of 3 to 15 pixels: 0.7 to 4 times the width of the PSF."""
    return Faults(
        guiding_px=float(rng.uniform(3.0, 15.0)), guiding_angle_deg=float(rng.uniform(0.0, 180.0))
    )


def wrong_flat(rng: np.random.Generator) -> Faults:
    """Return the flat of another night, wrong by at most 3 to 15 %."""
    return Faults(wrong_flat=float(rng.uniform(0.03, 0.15)))


_CLOUDS = ImageFlag.CLOUDS | ImageFlag.PATCHY_CLOUDS | ImageFlag.FEW_STARS
FAULTS: tuple[tuple[str, Plant, ImageFlag], ...] = (
    ("bad amplifier", bad_amplifier, ImageFlag.BAD_AMPLIFIER),
    ("clouds", clouds, _CLOUDS),
    ("lost guiding", lost_guiding, ImageFlag.LOST_GUIDING),
    ("wrong flat", wrong_flat, ImageFlag.WRONG_FLAT),
)


def scorecards(
    plants: dict[str, Plant], images: int, *, first_seed: int, settings: Settings = SETTINGS
) -> dict[str, list[Card]]:
    """Return scorecards of images with faults, by the fault's name.

    Parameters
    ----------
    plants : dict of str to callable
        Each returns a fault.
    images : int
        Of each.
    first_seed : int
        Of surveys of fifty visits, each with a sky and a template of its own.
    settings : Settings
    """
    surveys = -(-images // _PER_SURVEY)
    each = replace(settings, visits_per_band=-(-images // surveys))
    # A survey a core at a time: which process draws an image changes nothing of it.
    cores = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as pool:
        of_survey = partial(_survey_cards, settings=each, plants=plants)
        parts = list(pool.map(of_survey, range(first_seed, first_seed + surveys)))
    return {name: [card for part in parts for card in part[name]][:images] for name in plants}


def _survey_cards(
    seed: int, *, settings: Settings, plants: dict[str, Plant]
) -> dict[str, list[Card]]:
    """Return the scorecards of one survey's visits, by the fault's name."""
    cards: dict[str, list[Card]] = {name: [] for name in plants}
    deep = make_template(seed, settings, 0, 0, settings.bands[0])
    template = Template(deep, "bench", image_coefficients(deep))
    for visit in simulate_night(seed=seed, settings=settings).visits:
        for number, (name, plant) in enumerate(plants.items()):
            faults = plant(np.random.default_rng([seed, visit.visit, number]))
            raw: Any = draw_exposure(seed, settings, visit, 0, faults=faults).raw
            cards[name].append(assess(to_image(raw), template))
    return cards


def rows(side: int, repeats: int) -> list[Row]:
    """Return how many planted faults are found, how many good images are flagged, and the time."""
    return [*_judged(), *_speed(side, repeats)]


def _judged() -> list[Row]:
    bad = {name: plant for name, plant, _ in FAULTS}
    cards = scorecards(bad, IMAGES, first_seed=FIRST_SEED)
    found: list[Row] = []
    for name, _, own in FAULTS:
        flags = np.array([int(card["flags"]) for card in cards[name]])
        named = float(np.mean((flags & int(own)) != 0))
        what = f"quality: {IMAGES} images with {name}, flagged"
        found.append(at_least(what, float(np.mean(flags != 0)), 0.95, f"by its name {named:.3f}"))
    fine = scorecards({"good": good}, 2 * IMAGES, first_seed=FIRST_SEED + 50)["good"]
    wrong = float(np.mean([int(card["flags"]) != 0 for card in fine]))
    return [*found, at_most(f"quality: {2 * IMAGES} good images, flagged", wrong, 0.01, "")]


def _speed(side: int, repeats: int) -> list[Row]:
    """Time the scorecard of an image whose difference is made, as it is in the stream."""
    image, template = changed_pair(side)
    difference = subtract_template(image, template)
    (own,) = seconds(max(3, repeats), lambda: of_difference(image, difference))
    scaled = 1e3 * own * 2048**2 / side**2
    return [Row("quality: scorecard beside the difference [ms per 2048²]", scaled, "", "", None)]
