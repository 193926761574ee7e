"""Planted faults change an exposure as they say, and nothing that it states."""

import dataclasses

import numpy as np
import pytest

from broker.errors import ConfigError
from broker.simulation.detector import amplifier_boxes
from broker.simulation.exposure import draw_exposure
from broker.simulation.faults import NO_FAULTS, Faults
from broker.simulation.observatory import simulate_night
from broker.simulation.optics import Optics
from broker.simulation.settings import TEST

SKY = dataclasses.replace(
    TEST, star_density=0.0, galaxy_density=0.0, transient_density=0.0, cosmic_rays_per_mpix=0.0
)
VISIT = simulate_night(seed=3, settings=TEST).visits[0]


def draw(faults=NO_FAULTS, settings=TEST):
    return draw_exposure(3, settings, VISIT, 0, faults=faults)


def counts(faults=NO_FAULTS, settings=TEST):
    raw = draw(faults, settings).raw
    return raw.pixels.astype(float) - raw.bias_level


EVERY = [
    Faults(bad_amplifier=2),
    Faults(clouds_mag=0.5),
    Faults(guiding_px=6.0),
    Faults(wrong_flat=0.1),
    Faults(misregistration_px=(0.1, 0.0)),
]


@pytest.mark.parametrize("faults", EVERY)
def test_a_fault_changes_pixels_but_not_what_the_exposure_states(faults):
    good, bad = draw().raw, draw(faults).raw

    assert not np.array_equal(good.pixels, bad.pixels)
    np.testing.assert_array_equal(draw(faults).raw.pixels, bad.pixels)
    assert dataclasses.replace(bad, pixels=None) == dataclasses.replace(good, pixels=None)


def test_no_fault_is_no_change():
    np.testing.assert_array_equal(draw(Faults()).raw.pixels, draw().raw.pixels)


def test_a_bad_amplifier_is_fainter_and_noisier_and_alone():
    boxes = amplifier_boxes(SKY)
    good, bad = counts(settings=SKY), counts(Faults(bad_amplifier=5), SKY)

    for number, box in enumerate(boxes):
        before, after = box.of(good), box.of(bad)
        if number != 5:
            np.testing.assert_array_equal(before, after)
            continue
        # Dead pixels read 0 in both.
        lit = before > -500.0
        n = lit.sum()
        assert after[lit].mean() == pytest.approx(0.8 * before[lit].mean(), abs=4 * 20 / n**0.5)
        extra = after[lit].var() - 0.8**2 * before[lit].var()
        assert extra == pytest.approx(15.0**2, rel=4 * (2 / n) ** 0.5 * after[lit].var() / 225)


def test_clouds_take_light_from_objects_but_none_from_the_sky():
    objects = draw().static - draw(settings=SKY).static
    clouded = draw(Faults(clouds_mag=1.0)).static - draw(settings=SKY).static
    column = (np.arange(256) + 0.5) / 256 - 0.5

    through = 10 ** (-0.4 * (1.0 + 0.3 * column))
    bright = objects > 100.0
    expected = (objects * through)[bright]
    np.testing.assert_allclose(clouded[bright], expected, rtol=1e-4, atol=1e-3)


def star(faults=NO_FAULTS):
    image = np.zeros((61, 61), dtype=np.float32)
    place = (np.array([30.2]), np.array([29.7]))
    Optics(1.9, 61, faults=faults).draw(image, place, np.array([1e5]))
    return image.astype(float)


def test_lost_guiding_keeps_the_light_and_stretches_it_along_the_drift():
    still, moved = star(), star(Faults(guiding_px=8.0, guiding_angle_deg=0.0))
    pixel = np.arange(61)

    assert moved.sum() == pytest.approx(still.sum(), rel=1e-5)
    for axis, wanted in ((0, 8.0**2 / 12.0), (1, 0.0)):
        spreads = []
        for image in (still, moved):
            profile = image.sum(axis=axis) / image.sum()
            spreads.append(np.sum(profile * pixel**2) - np.sum(profile * pixel) ** 2)
        assert spreads[1] - spreads[0] == pytest.approx(wanted, rel=0.03, abs=0.01)


def test_a_wrong_flat_leaves_the_median_and_errs_by_what_it_says():
    ratio = draw(Faults(wrong_flat=0.2), SKY).static / draw(settings=SKY).static

    assert np.median(ratio) == pytest.approx(1.0, abs=1e-3)
    assert 0.08 < ratio.max() - ratio.min() < 0.5


def test_misregistered_objects_are_off_the_stated_place():
    sky = draw(settings=SKY).static.astype(float)
    still, moved = (
        draw(faults).static - sky for faults in (NO_FAULTS, Faults(misregistration_px=(0.1, -0.2)))
    )
    # To first order the change is the gradient times the way: -0.1 and 0.2 pixels.
    down, across = np.gradient(still)
    inside = np.s_[8:-8, 8:-8]
    slopes = np.stack([across[inside].ravel(), down[inside].ravel()], axis=1)
    way, *_ = np.linalg.lstsq(slopes, (moved - still)[inside].ravel(), rcond=None)

    np.testing.assert_allclose(-way, [-0.1, 0.2], atol=0.02)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"clouds_mag": -1.0}, "clouds_mag is -1.0"),
        ({"wrong_flat": 1.5}, "wrong_flat is 1.5"),
        ({"guiding_px": float("nan")}, "not finite"),
    ],
)
def test_a_fault_that_cannot_be_is_refused(change, reason):
    with pytest.raises(ConfigError, match=reason):
        Faults(**change)


def test_an_amplifier_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match="no amplifier 8: 0 to 7"):
        draw(Faults(bad_amplifier=8))
