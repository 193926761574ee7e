"""A scorecard finds what is wrong with an image, and finds nothing where nothing is."""

from dataclasses import replace

import numpy as np
import pytest

from broker.detection.quality.image_flags import CHECKS, ImageFlag, flags_of, names, reasons
from broker.detection.quality.scorecard import assess, judged, usual_of
from broker.detection.quality.sky_structure import default_amplifiers, sky_structure
from broker.detection.quality.star_shapes import star_shapes
from broker.imaging.mask import MaskPlane
from broker.imaging.message import to_image
from broker.imaging.templates import Template
from broker.imaging.warp import image_coefficients
from broker.ops.image_bench.quality import SETTINGS
from broker.simulation.exposure import draw_exposure
from broker.simulation.faults import NO_FAULTS, Faults
from broker.simulation.kernels import add_gaussians
from broker.simulation.observatory import make_template, simulate_night

SEED = 31
SURVEY = replace(SETTINGS, visits_per_band=2)


@pytest.fixture(scope="module")
def template():
    deep = make_template(SEED, SURVEY, 0, 0, "r")
    return Template(deep, "t", image_coefficients(deep))


def exposure(faults=NO_FAULTS, *, visit=0):
    visits = simulate_night(seed=SEED, settings=SURVEY).visits
    return to_image(draw_exposure(SEED, SURVEY, visits[visit], 0, faults=faults).raw)


def test_a_good_image_has_no_flag_and_its_numbers_are_those_drawn(template):
    visit = simulate_night(seed=SEED, settings=SURVEY).visits[0]
    card = assess(exposure(), template)
    assert names(card["flags"]) == []
    # The widest and the narrowest place of the PSF are 6 % apart.
    assert card["seeing"] == pytest.approx(visit.seeing_arcsec, rel=0.04)
    assert abs(card["zeroPointOff"]) < 0.03
    assert card["background"] * exposure().gain == pytest.approx(
        visit.sky_electrons(SURVEY.scale_arcsec), rel=0.02
    )
    assert card["nStars"] > 50
    assert 0.9 < card["differenceChi"] < 1.1


@pytest.mark.parametrize(
    ("faults", "flag"),
    [
        (Faults(bad_amplifier=2, amplifier_factor=0.93, amplifier_noise=0.0), "BAD_AMPLIFIER"),
        (Faults(bad_amplifier=5, amplifier_factor=1.0, amplifier_noise=30.0), "BAD_AMPLIFIER"),
        (Faults(bad_amplifier=0, amplifier_factor=0.0, amplifier_noise=0.0), "BAD_AMPLIFIER"),
        (Faults(clouds_mag=0.3, cloud_slope=0.0), "CLOUDS"),
        (Faults(clouds_mag=1.4, cloud_slope=0.0), "CLOUDS"),
        (Faults(clouds_mag=0.5, cloud_slope=1.8), "PATCHY_CLOUDS"),
        (Faults(guiding_px=4.0, guiding_angle_deg=75.0), "LOST_GUIDING"),
        (Faults(guiding_px=12.0, guiding_angle_deg=160.0), "LOST_GUIDING"),
        (Faults(wrong_flat=0.08), "WRONG_FLAT"),
    ],
)
def test_a_planted_fault_is_named(template, faults, flag):
    card = assess(exposure(faults, visit=1), template)
    assert flag in names(card["flags"]), reasons(card)
    assert any(sentence.startswith(f"{flag}:") for sentence in reasons(card))


def test_clouds_are_measured_in_magnitudes(template):
    clear, dim = (
        assess(exposure(Faults(clouds_mag=mag, cloud_slope=0.0)), template) for mag in (0.0, 0.4)
    )
    assert clear["zeroPointOff"] - dim["zeroPointOff"] == pytest.approx(0.4, abs=0.03)
    assert clear["limitingMag"] - dim["limitingMag"] == pytest.approx(0.4, abs=0.05)


def test_without_a_template_shape_and_sky_are_still_judged():
    assert names(assess(exposure())["flags"]) == []
    assert "LOST_GUIDING" in names(assess(exposure(Faults(guiding_px=6.0)))["flags"])
    assert "WRONG_FLAT" in names(assess(exposure(Faults(wrong_flat=0.1)))["flags"])


def test_an_image_that_is_all_masked_is_failed_with_a_reason():
    image = exposure()
    mask = np.full_like(image.mask, int(MaskPlane.BAD))
    card = assess(image.with_arrays(mask=mask))
    assert names(card["flags"]) == ["MASKED", "FAILED"]
    assert "masked" in card["failure"]


def test_a_wrong_wcs_is_found(template):
    image = exposure()
    moved = replace(image, wcs=image.wcs.shifted(1.5, 0.0))
    card = assess(moved, template)
    assert card["wcsShiftPx"] == pytest.approx(1.5, abs=0.25)  # its own is off by 0.1
    assert "WCS" in names(card["flags"])


def test_what_is_unusual_is_held_against_the_median_of_others():
    cards = [{"seeing": 1.0, "limitingMag": 24.0, "background": 500.0} for _ in range(6)]
    cards.append({"seeing": 9.0, "limitingMag": 20.0, "background": 9e4})
    usual = usual_of(cards)
    assert usual == {"seeing": 1.0, "limitingMag": 24.0, "background": 500.0}
    assert names(judged(cards[0], usual)["flags"]) == []
    assert names(judged(cards[-1], usual)["flags"]) == ["POOR_SEEING", "SHALLOW", "SKY_LEVEL"]
    assert usual_of(cards[:4]) == {}


def test_every_flag_has_a_check_and_the_limits_are_outside_what_is_good():
    assert {check.flag for check in CHECKS} | {ImageFlag.FAILED} == set(ImageFlag)
    assert flags_of({}) == 0
    assert flags_of({check.number: float("nan") for check in CHECKS}) == 0
    for check in CHECKS:
        value = check.most * 2 + 1 if np.isfinite(check.most) else check.least - 1
        assert flags_of({check.number: value}) == int(check.flag)


@pytest.mark.parametrize("angle", [0.0, 0.6, 2.2])
def test_shapes_of_elongated_stars_are_those_drawn(angle):
    # A line of Gaussians is one whose moments along the line are larger: exactly known.
    plane = np.zeros((81, 81), np.float32)
    along = 1.5 * np.linspace(-1.0, 1.0, 41)
    x, y = 40.3 + along * np.cos(angle), 39.8 + along * np.sin(angle)
    weight = np.exp(-0.5 * (along / 1.0) ** 2)
    width = np.full(along.size, 2.0)
    add_gaussians(plane, x, y, 1e5 * weight / weight.sum(), width, width, 1e-3)
    extra = float(np.average(along**2, weights=weight))
    got = star_shapes(
        plane,
        np.array([40.0]),
        np.array([40.0]),
        psf_sigma=2.0,
        unusable=np.zeros(plane.shape, bool),
    )
    e = extra / (2 * 4.0 + extra)
    assert got.x[0] == pytest.approx(40.3, abs=0.01)
    assert got.y[0] == pytest.approx(39.8, abs=0.01)
    assert got.e1[0] == pytest.approx(e * np.cos(2 * angle), abs=0.01)
    assert got.e2[0] == pytest.approx(e * np.sin(2 * angle), abs=0.01)
    assert got.sigma[0] == pytest.approx((4.0 * (4.0 + extra)) ** 0.25, rel=0.01)


def test_a_step_of_one_amplifier_is_measured_and_a_gradient_is_none():
    rng = np.random.default_rng(8)
    v, u = np.mgrid[0:512, 0:512] / 512.0
    sky = (1000.0 * (1.0 + 0.05 * u - 0.03 * v) + rng.normal(0.0, 20.0, u.shape)).astype(np.float32)
    nothing = np.zeros(sky.shape, bool)
    about = {"sigma": 20.0, "sky": 1000.0, "unusable": nothing, "sources": nothing}
    plain = sky_structure(sky, **about)
    assert plain.step_share < 0.004
    assert plain.shape_share < 0.001
    box = default_amplifiers(sky.shape)[11]
    sky[box.y : box.y_end, box.x : box.x_end] += 30.0
    stepped = sky_structure(sky, **about)
    assert stepped.worst == 11
    assert stepped.step_share == pytest.approx(0.03, abs=0.004)
    assert stepped.step_snr > 5.0


def test_noise_alone_has_no_shape():
    boxes = default_amplifiers((256, 256))
    none = np.zeros((256, 256), bool)
    shares = [
        sky_structure(
            np.random.default_rng(k).normal(200.0, 12.0, (256, 256)).astype(np.float32),
            sigma=12.0, sky=200.0, unusable=none, sources=none, amplifiers=boxes,
        ).shape_share
        for k in range(60)
    ]  # fmt: skip
    assert max(shares) == 0.0
