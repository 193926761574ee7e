"""Forced fluxes against the simulation's truth: transients too faint to be found, and empty sky."""

import dataclasses

import numpy as np
import pytest

from broker.detection.differencing.difference import subtract_template
from broker.imaging.message import decode_image
from broker.imaging.templates import TemplateStore
from broker.simulation.observatory import make_templates, simulate_night
from broker.simulation.settings import TEST
from broker.streaming.image_differences import DifferenceFiles
from broker.types import Coordinate

pytestmark = pytest.mark.slow

# One visit a sky: visits of one place share their template's noise, and pulls were not independent.
CROWDED = dataclasses.replace(TEST, detector_px=400, visits_per_band=1, transient_density=60_000.0)
SEEDS = (21, 22, 23, 24)
BELOW_DETECTION = 5.0
_CLEAR_PX = 15.0


@pytest.fixture(scope="module")
def pulls(tmp_path_factory):
    """Pulls at faint transients, and at places with neither a star nor a transient near."""
    at_faint, at_empty = [], []
    for seed in SEEDS:
        folder = tmp_path_factory.mktemp("forced")
        store, files = TemplateStore(folder / "templates"), DifferenceFiles(folder / "differences")
        store.put("v1", make_templates(seed, CROWDED))
        (exposure,) = simulate_night(seed=seed, settings=CROWDED).exposures()
        image = decode_image(exposure.message.value)
        ny, nx = image.shape
        ra, dec = image.wcs.pixel_to_sky(nx / 2, ny / 2)
        difference = subtract_template(image, store.find(float(ra), float(dec), image.band, "v1"))
        at = Coordinate("ccd-images", 0, seed)
        files.put(at, difference)

        truth = exposure.truth
        faint = truth["isIsolated"].to_numpy() & (np.abs(truth["snr"]) < BELOW_DETECTION)
        ra, dec, flux = (truth[n].to_numpy()[faint] for n in ("ra", "dec", "psfFlux"))
        measured, error = files.measure(at, ra, dec)
        at_faint.append((measured - flux) / error)

        x, y = np.random.default_rng(seed).uniform(20.0, nx - 20.0, (2, 400))
        away = np.hypot(x[:, None] - truth["x"].to_numpy(), y[:, None] - truth["y"].to_numpy()).min(
            axis=1
        )
        light = difference.star_light[np.rint(y).astype(int), np.rint(x).astype(int)]
        clear = (away > _CLEAR_PX) & (light < np.sqrt(difference.floor))
        measured, error = files.measure(at, *image.wcs.pixel_to_sky(x[clear], y[clear]))
        at_empty.append(measured / error)
    return tuple(
        values[np.isfinite(values)] for values in map(np.concatenate, (at_faint, at_empty))
    )


def width(pulls):
    """The width that a few places with artefacts do not change."""
    return 1.4826 * np.median(np.abs(pulls - np.median(pulls)))


def test_fluxes_of_transients_too_faint_to_be_found_are_right_with_their_errors(pulls):
    faint, _ = pulls

    assert faint.size >= 30
    # Four sigma of a mean and of a standard deviation of so many normal numbers.
    assert abs(faint.mean()) < 4.0 / np.sqrt(faint.size)
    assert abs(faint.std() - 1.0) < 4.0 / np.sqrt(2.0 * faint.size)


def test_fluxes_of_empty_sky_are_zero_with_their_errors(pulls):
    _, empty = pulls

    assert empty.size >= 500
    # Places less than a PSF apart share pixels: half of them count. A median's scatter is 1.17
    # that of a standard deviation.
    assert abs(np.median(empty)) < 4.0 * 1.25 / np.sqrt(empty.size / 2.0)
    assert abs(width(empty) - 1.0) < 4.0 * 1.17 / np.sqrt(empty.size)
