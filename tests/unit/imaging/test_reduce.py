"""A raw exposure with amplifiers, snaps and a signature becomes the image that it was before."""

import dataclasses

import numpy as np
import pytest

from broker.errors import AlertError, ConfigError
from broker.imaging.calibration_store import CalibrationStore
from broker.imaging.image import Calibration, RawExposure
from broker.imaging.isr import Amplifier, Box, Layout, Masters
from broker.imaging.mask import MaskPlane
from broker.imaging.message import decode_image, encode_image
from broker.imaging.psf import GaussianPsf
from broker.imaging.reduce import NoCalibrationError, make_masters, reduce_exposure
from broker.imaging.wcs import Wcs

SIDE, OVER = 64, 8
GAINS = (1.4, 1.8)
RNG = np.random.default_rng(8)
FLAT = RNG.normal(1.0, 0.03, (SIDE, SIDE))
BIAS = RNG.normal(0.0, 3.0, SIDE) * np.ones((SIDE, 1))
WIDTH = SIDE // 2


def layout():
    return Layout(
        (SIDE, SIDE),
        tuple(
            Amplifier(
                Box(0, SIDE, x, x + WIDTH),
                Box(0, SIDE, target, target + WIDTH),
                Box(0, SIDE, x + WIDTH, x + WIDTH + OVER),
                flip_x=bool(target),
                gain=gain,
                read_noise=5.0,
                saturation=40_000.0,
                name=str(target),
            )
            for x, target, gain in ((0, 0, GAINS[0]), (WIDTH + OVER, WIDTH, GAINS[1]))
        ),
    )


def plane(light, rng):
    """Counts of a detector under that light: Poisson and reading noise, levels that drift."""
    electrons = rng.poisson(np.maximum(light, 0.0) * FLAT) + rng.normal(0.0, 5.0, (SIDE, SIDE))
    raw = np.empty((SIDE, 2 * (WIDTH + OVER)))
    for number, gain in enumerate(GAINS):
        level = 1_000.0 + 40.0 * number + np.linspace(0.0, 6.0, SIDE)[:, None]
        part = np.s_[:, number * WIDTH : (number + 1) * WIDTH]
        counts = electrons[part] / gain + BIAS[part] + level
        x = number * (WIDTH + OVER)
        raw[:, x : x + WIDTH] = counts[:, ::-1] if number else counts
        raw[:, x + WIDTH : x + WIDTH + OVER] = level + rng.normal(0.0, 5.0 / gain, (SIDE, OVER))
    return np.rint(raw).clip(0, 65_535).astype(np.uint16)


def exposure(light, rng, *, snaps=1, name="set-1"):
    planes = [plane(light / snaps, rng) for _ in range(snaps)]
    return RawExposure(
        pixels=planes[0],
        wcs=Wcs.from_scale(150.0, 2.0, scale_arcsec=0.25, crpix=(31.5, 31.5)),
        psf=GaussianPsf(1.8),
        calibration=Calibration(7, 3, "r", 60_000.1, 30.0, 28.1, 1.6, 5.0, 40_000.0),
        bias_level=1_000.0,
        layout=layout(),
        second=planes[1] if snaps == 2 else None,
        calibration_set=name,
    )


@pytest.fixture(scope="module")
def masters():
    rng = np.random.default_rng(1)
    dark = np.zeros((SIDE, SIDE))
    return make_masters(
        layout(),
        biases=[plane(dark, rng) for _ in range(25)],
        flats=[plane(dark + 20_000.0, rng) for _ in range(25)],
    )


@pytest.mark.parametrize("snaps", [1, 2])
def test_the_image_is_the_light_within_its_noise(masters, snaps):
    light = np.full((SIDE, SIDE), 2_000.0)

    image = reduce_exposure(exposure(light, np.random.default_rng(2), snaps=snaps), masters)

    variance = light / FLAT + snaps * 25.0 / FLAT**2
    pull = (image.pixels - light) / np.sqrt(variance)
    n = pull.size
    # Masters of 25 exposures and levels of 8 columns add a few percent.
    assert 1.0 - 4.0 * np.sqrt(2.0 / n) < np.mean(pull**2) < 1.08 + 4.0 * np.sqrt(2.0 / n)
    assert abs(pull.mean()) < 0.05
    left, right = pull[:, WIDTH - 4 : WIDTH].mean(), pull[:, WIDTH : WIDTH + 4].mean()
    assert abs(left - right) < 4.0 * np.sqrt(2.0 / (4 * SIDE))
    assert image.gain == 1.0
    assert image.zero_point == pytest.approx(28.1 + 2.5 * np.log10(1.6))
    assert image.read_noise == pytest.approx(5.0 * np.sqrt(snaps))
    assert np.median(image.variance) == pytest.approx(2_000.0 + snaps * 25.0, rel=0.01)


def test_a_seam_and_the_flat_stay_without_masters():
    light = np.full((SIDE, SIDE), 2_000.0)

    image = reduce_exposure(exposure(light, np.random.default_rng(2)))

    assert np.corrcoef(image.pixels.ravel(), FLAT.ravel())[0, 1] > 0.5


def test_a_cosmic_ray_of_one_snap_is_gone(masters):
    light = np.full((SIDE, SIDE), 2_000.0)
    raw = exposure(light, np.random.default_rng(4), snaps=2)
    raw.second[30, 10] += 3_000

    image = reduce_exposure(raw, masters)

    assert image.mask[30, 10] & MaskPlane.INTERPOLATED
    assert abs(image.pixels[30, 10] - 2_000.0) < 6.0 * np.sqrt(2 * 2_050.0)
    assert np.count_nonzero(image.is_masked(MaskPlane.INTERPOLATED)) <= 2


def test_full_pixels_of_either_snap_are_masked_with_the_ends_of_their_columns(masters):
    raw = exposure(np.full((SIDE, SIDE), 2_000.0), np.random.default_rng(4), snaps=2)
    raw.pixels[20, 12] = 60_000
    raw.second[40, 3] = 60_000

    full = reduce_exposure(raw, masters).is_masked(MaskPlane.SATURATED)

    assert np.flatnonzero(full[:, 12]).tolist() == [18, 19, 20, 21, 22]
    assert np.flatnonzero(full[:, 3]).tolist() == [38, 39, 40, 41, 42]
    assert full.sum() == 10


def test_a_store_gives_an_exposure_the_set_that_it_names(tmp_path, masters):
    store = CalibrationStore(tmp_path / "calibrations" / "night")
    raw = exposure(np.full((SIDE, SIDE), 2_000.0), np.random.default_rng(2))
    assert store.names() == []

    store.put("set-1", {3: masters})
    image = store.image(raw)

    assert store.names() == ["set-1"]
    direct = decode_image(encode_image(raw), masters)
    np.testing.assert_array_equal(image.pixels, direct.pixels)
    assert image.meta["calibrationSet"] == "set-1"
    assert CalibrationStore.beside(tmp_path / "templates" / "night").names() == ["set-1"]


@pytest.mark.parametrize(("name", "detector"), [("set-2", 3), ("set-1", 4), ("../set-1", 3)])
def test_calibrations_that_are_not_there_are_named(tmp_path, masters, name, detector):
    store = CalibrationStore(tmp_path)
    store.put("set-1", {3: masters})
    raw = exposure(np.full((SIDE, SIDE), 1_000.0), np.random.default_rng(2), name=name)
    calibration = dataclasses.replace(raw.calibration, detector=detector)

    with pytest.raises(
        NoCalibrationError, match=f"no calibrations '{name}' of detector {detector}"
    ):
        store.image(dataclasses.replace(raw, calibration=calibration))


def test_a_set_never_changes(tmp_path, masters):
    store = CalibrationStore(tmp_path)
    store.put("set-1", {3: masters})

    store.put("set-1", {3: Masters()})

    np.testing.assert_array_equal(store.find("set-1", 3).bias, masters.bias)
    with pytest.raises(ConfigError, match="cannot name a set"):
        store.put("a/b", {})


def test_an_exposure_without_amplifiers_is_not_reduced():
    raw = dataclasses.replace(
        exposure(np.ones((SIDE, SIDE)), np.random.default_rng(1)), layout=None
    )

    with pytest.raises(AlertError, match="no amplifiers"):
        reduce_exposure(raw)
