"""A detector's effects, each by itself, against what its settings say."""

import dataclasses
import hashlib

import numpy as np
import pytest

from broker.errors import ConfigError
from broker.imaging.calibration_store import CalibrationStore
from broker.imaging.message import decode_raw, to_image
from broker.simulation.calibrations import build_calibrations, calibration_planes, masters_of
from broker.simulation.detector import detector_of
from broker.simulation.exposure import draw_exposure
from broker.simulation.faults import Faults
from broker.simulation.kernels import bleed
from broker.simulation.observatory import simulate_night
from broker.simulation.readout import read_snap
from broker.simulation.settings import IDEAL_CAMERA, REAL_CAMERA, TEST, Camera, Settings
from broker.simulation.signature import bent, signature_of

SIDE = TEST.detector_px
BARE = Camera(overscan_px=32)
RAW = dataclasses.replace(TEST, camera=REAL_CAMERA)


def survey(**effects) -> Settings:
    camera = dataclasses.replace(BARE, **effects)
    return dataclasses.replace(TEST, camera=camera, cosmic_rays_per_mpix=0.0)


def snap(settings, light=1_000.0, exposure_s=15.0, key=("test", 1, 2)):
    plane = np.full((SIDE, SIDE), light, np.float32)
    return read_snap(3, settings, 0, plane, exposure_s, key=key)


def parts(settings, counts):
    """Pixels and overscan of each amplifier, as they lie on the detector; dead pixels are NaN."""
    for amplifier in signature_of(3, settings, 0).layout.amplifiers:
        data = amplifier.data.of(counts).astype(float)
        data[data == 0] = np.nan
        data = data[::-1] if amplifier.flip_y else data
        data = data[:, ::-1] if amplifier.flip_x else data
        over = amplifier.overscan.of(counts).astype(float)
        yield amplifier, data, over[::-1] if amplifier.flip_y else over


def test_without_effects_a_raw_frame_is_light_over_gain_and_a_level():
    settings = survey()
    counts = snap(settings).counts

    assert counts.shape == (SIDE, SIDE + 4 * 32)
    ccd = detector_of(3, settings, 0)
    for amplifier, data, over in parts(settings, counts):
        n = np.isfinite(data).sum()
        variance = (1_000.0 + ccd.read_noise**2) / ccd.gain**2 + 1.0 / 12.0
        assert amplifier.gain == ccd.gain
        level = 1_000.0 + 1_000.0 / ccd.gain
        assert abs(np.nanmean(data) - level) < 4.0 * np.sqrt(variance / n)
        assert np.nanvar(data) == pytest.approx(variance, rel=5.0 * np.sqrt(2.0 / n))
        noise = (ccd.read_noise / ccd.gain) ** 2 + 1.0 / 12.0
        assert abs(over.mean() - 1_000.0) < 4.0 * np.sqrt(noise / over.size)
        assert over.var() == pytest.approx(noise, rel=5.0 * np.sqrt(2.0 / over.size))


def test_amplifiers_differ_in_gain_and_noise():
    settings = survey(gain_scatter=0.05, read_noise_scatter=0.1)

    gains, noises = [], []
    for amplifier, data, over in parts(settings, snap(settings).counts):
        gains.append(1_000.0 / (np.nanmean(data) - over.mean()) / amplifier.gain)
        noises.append(over.std() * amplifier.gain / amplifier.read_noise)

    layout = signature_of(3, settings, 0).layout
    assert 0.01 < np.std([a.gain for a in layout.amplifiers]) / 1.6 < 0.12
    np.testing.assert_allclose(gains, 1.0, atol=0.004)
    np.testing.assert_allclose(noises, 1.0, atol=0.06)


def test_the_overscan_drifts_with_the_pixels():
    settings = survey(overscan_drift=20.0)

    for _, data, over in parts(settings, snap(settings, light=0.0).counts):
        rows, levels = np.nanmean(data, axis=1), over.mean(axis=1)
        assert np.ptp(levels) > 10.0
        assert np.std(rows - levels) < 3.0
        assert np.corrcoef(rows, levels)[0, 1] > 0.9


def test_a_bias_has_structure_that_the_overscan_has_not():
    settings = survey(bias_structure=5.0)
    frames = [snap(settings, 0.0, 0.0, ("bias", k, 0)).counts for k in range(20)]
    mean = np.mean(frames, axis=0)

    wanted = signature_of(3, settings, 0).bias
    for amplifier, data, over in parts(settings, mean):
        known = amplifier.target.of(wanted)
        assert np.nanstd(data - over.mean() - known) < 2.0
        assert known.std() > 2.5


def test_dark_current_and_hot_pixels_grow_with_time():
    settings = survey(dark_e_s=2.0, hot_pixels_per_mpix=300.0)
    signature = signature_of(3, settings, 0)
    hot = signature.dark > 50.0
    assert 5 <= hot.sum() <= 45
    assert np.all(signature.broken[hot])

    levels = []
    for seconds in (0.0, 100.0):
        counts = snap(settings, 0.0, seconds).counts
        levels.append([np.nanmedian(d) - o.mean() for _, d, o in parts(settings, counts)])
    grown = np.diff(levels, axis=0)[0] * signature.layout.amplifiers[0].gain
    np.testing.assert_allclose(grown, 200.0, atol=6.0)


def test_a_flat_shows_vignetting_dust_and_pixels():
    settings = survey(vignetting=0.2, dust=0.05, pixel_response=0.01)
    flat = signature_of(3, settings, 0).flat

    shown = np.empty((SIDE, SIDE))
    for amplifier, data, over in parts(settings, snap(settings, 40_000.0).counts):
        amplifier.target.of(shown)[...] = (data - over.mean()) * amplifier.gain / 40_000.0
    good = np.isfinite(shown)

    assert np.std((shown / flat)[good]) < 0.006
    assert 0.02 < flat.std() < 0.2
    assert np.std(flat[:, 1:] / flat[:, :-1]) == pytest.approx(0.01 * np.sqrt(2.0), rel=0.1)


def test_counts_fall_short_at_the_top_as_stated_and_come_back():
    settings = survey(nonlinearity=0.02)

    linear = bent(np.array([50_000.0]), 0.02 / 0.98**2 / 50_000.0)[0]
    assert linear == pytest.approx(49_000.0)
    for amplifier, data, over in parts(settings, snap(settings, 80_000.0).counts):
        read = np.nanmean(data) - over.mean()
        (c2,) = amplifier.linearity
        assert read < 0.985 * 80_000.0 / amplifier.gain
        assert read + c2 * read**2 == pytest.approx(80_000.0 / amplifier.gain, rel=3e-4)


def test_bleeding_keeps_the_charge_and_fills_columns_both_ways():
    rng = np.random.default_rng(1)
    image = rng.uniform(0.0, 500.0, (101, 31)).astype(np.float32)
    image[50, 15] = 10_500.0
    image[47, 15] = 1_200.0
    before = image.copy()

    bleed(image, np.float32(1_000.0))

    assert image.max() <= 1_000.0
    assert image.sum(dtype=np.float64) == pytest.approx(before.sum(dtype=np.float64), rel=1e-6)
    assert np.array_equal(np.delete(image, 15, axis=1), np.delete(before, 15, axis=1))
    full = np.flatnonzero(image[:, 15] == 1_000.0)
    assert full.size > 9
    assert np.array_equal(full, np.arange(full[0], full[-1] + 1))
    assert abs((50 - full[0]) - (full[-1] - 50)) <= 4


def test_charge_that_reaches_the_end_of_a_column_is_lost():
    image = np.zeros((20, 3), np.float32)
    image[2, 1] = 100_000.0

    bleed(image, np.float32(1_000.0))

    assert np.all(image[:, 1] == 1_000.0)
    assert np.all(image[:, [0, 2]] == 0.0)


def test_full_pixels_are_stated_as_saturated():
    settings = survey(full_well_e=50_000.0, nonlinearity=0.02, gain_scatter=0.05)
    taken = snap(settings, 60_000.0)

    assert taken.full.all()
    for amplifier, data, over in parts(settings, taken.counts):
        assert np.nanmin(data) - over.mean() > amplifier.saturation


def test_snaps_have_cosmic_rays_of_their_own():
    settings = dataclasses.replace(RAW, cosmic_rays_per_mpix=400.0)
    one, other = (snap(settings, key=("snap", 7, k)) for k in (0, 1))

    assert one.struck.size > 50
    assert other.struck.size > 50
    assert np.intersect1d(one.struck, other.struck).size < 0.1 * one.struck.size
    assert not np.array_equal(one.counts, other.counts)


def test_the_reduced_exposure_is_the_light_that_arrived():
    night = simulate_night(seed=3, settings=RAW)
    drawn = night.draw(night.visits[0], 0)

    image = to_image(drawn.raw, masters_of(3, RAW, 0))

    flat = signature_of(3, RAW, 0).flat
    variance = drawn.light / flat + drawn.read_variance / flat**2
    pull = (image.pixels - drawn.light) / np.sqrt(variance)
    good = ~drawn.bad & (image.mask & ~np.uint16(8) == 0)
    n = good.sum()
    assert n > 0.98 * good.size
    assert 1.0 - 4.0 * np.sqrt(2.0 / n) < np.mean(pull[good] ** 2) < 1.05 + 4.0 * np.sqrt(2.0 / n)
    assert abs(pull[good].mean()) < 0.03
    assert np.all(image.mask[drawn.bad] != 0)


def digests(settings, order):
    night = simulate_night(seed=4, settings=settings)
    found = {}
    for visit in order:
        signature_of.cache_clear()
        value = night.exposure(night.visits[visit], 0).message.value
        found[visit] = hashlib.sha256(value).hexdigest()
    return found


def test_raw_bytes_are_the_same_in_any_order():
    settings = dataclasses.replace(RAW, moving_density=2_000.0)

    assert digests(settings, (0, 1)) == digests(settings, (1, 0)) == digests(settings, (0, 1))


def test_every_effect_changes_the_frame_and_none_another_ones_noise():
    still = snap(survey()).counts
    for effect in (
        {"overscan_drift": 3.0},
        {"bias_structure": 2.0},
        {"dark_e_s": 5.0},
        {"vignetting": 0.1},
        {"dust": 0.05},
        {"pixel_response": 0.01},
        {"gain_scatter": 0.03},
        {"nonlinearity": 0.02},
    ):
        changed = snap(survey(**effect)).counts
        assert not np.array_equal(changed, still), effect
        # The noise is counted by pixel: it is the same, so the two are alike but for the effect.
        a, b = changed[:, :64].ravel(), still[:, :64].ravel()
        assert np.corrcoef(a, b)[0, 1] > 0.5, effect


def test_calibrations_are_built_once_and_named_after_the_camera(tmp_path):
    store = CalibrationStore(tmp_path)

    name = build_calibrations(3, RAW, store)

    assert build_calibrations(3, RAW, store) == name
    assert store.names() == [name]
    raw = decode_raw(next(simulate_night(seed=3, settings=RAW).exposures()).message.value)
    assert raw.calibration_set == name
    store.image(raw)
    assert build_calibrations(3, TEST, store) == ""


def test_masters_are_close_to_what_they_measure():
    masters, known = masters_of(3, RAW, 0), signature_of(3, RAW, 0)
    good = ~(known.broken | masters.defects)

    assert np.std((masters.bias - known.bias)[good]) < 8.0 / 1.5 / np.sqrt(31) * 1.15
    assert np.std((masters.flat / known.flat)[good]) < 1.1 * np.sqrt(1.0 / 40_000.0 / 15) + 2e-4
    assert abs(np.mean((masters.dark - known.dark)[good])) < 0.01
    assert not np.any(known.broken & ~masters.defects & (known.dark > 20.0))


def test_flats_differ_in_brightness_and_biases_in_noise():
    flats = [np.median(p) for p in calibration_planes(3, RAW, 0, "flat")]
    first, second, *_ = calibration_planes(3, RAW, 0, "bias")

    assert 0.02 < np.std(flats) / np.mean(flats) < 0.05
    assert not np.array_equal(first, second)


def test_a_bad_amplifier_spoils_the_raw_frame_in_one_place():
    visit = simulate_night(seed=3, settings=RAW).visits[0]
    good, bad = (
        draw_exposure(3, RAW, visit, 0, faults=faults).raw
        for faults in (Faults(), Faults(bad_amplifier=2))
    )

    for number, amplifier in enumerate(good.layout.amplifiers):
        same = np.array_equal(amplifier.data.of(good.pixels), amplifier.data.of(bad.pixels))
        assert same is (number != 2)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"snaps": 3}, "1 or 2 snaps"),
        ({"dark_e_s": -1.0}, "can be negative"),
        ({"amplifiers": (0, 4)}, "at least 1 × 1"),
        ({"vignetting": 0.6}, "below 0.5"),
    ],
)
def test_a_camera_that_cannot_be_is_refused(change, reason):
    with pytest.raises(ConfigError, match=reason):
        Camera(**change)


def test_amplifiers_must_divide_the_detector():
    with pytest.raises(ConfigError, match="cannot be 3 × 4 equal amplifiers"):
        dataclasses.replace(TEST, camera=dataclasses.replace(IDEAL_CAMERA, amplifiers=(3, 4)))
