"""The detector's signature comes off exactly, and the noise left is the noise that is said."""

import numpy as np
import pytest
from astropy.io import fits

from broker.errors import AlertError, ConfigError
from broker.imaging.calibration import (
    combine,
    layout_of,
    master_bias,
    master_dark,
    master_flat,
    read_master,
    write_master,
)
from broker.imaging.fits import read_frames
from broker.imaging.isr import Amplifier, Box, Layout, Masters, remove_signature, whole
from broker.imaging.mask import MaskPlane

SIDE, OVER = 128, 24
GAINS, READ, C2 = (1.5, 1.7), 6.0, 2e-6


def two_amplifiers(by_row=True, linearity=(C2,)):
    """Left half read from the left, right half from the right, overscans in the middle."""
    half = SIDE // 2
    return Layout(
        (SIDE, SIDE),
        (
            Amplifier(
                Box(0, SIDE, 0, half), Box(0, SIDE, 0, half), Box(0, SIDE, half, half + OVER),
                gain=GAINS[0], read_noise=READ, saturation=50_000.0, linearity=linearity,
            ),
            Amplifier(
                Box(0, SIDE, half + 2 * OVER, SIDE + 2 * OVER), Box(0, SIDE, half, SIDE),
                Box(0, SIDE, half + OVER, half + 2 * OVER), flip_x=True,
                gain=GAINS[1], read_noise=READ, saturation=50_000.0, linearity=linearity,
            ),
        ),
        by_row=by_row,
    )  # fmt: skip


def raw_counts(rng, electrons, flat, dark_electrons, bias):
    """What the two amplifiers write for an expected light."""
    half = SIDE // 2
    charge = rng.poisson(electrons * flat + dark_electrons).astype(float)
    raw = np.empty((SIDE, SIDE + 2 * OVER))
    for k, gain in enumerate(GAINS):
        mine = charge[:, k * half : (k + 1) * half]
        linear = mine / gain
        # Solve s + c2 s² = linear for what is read.
        read = (np.sqrt(1.0 + 4.0 * C2 * linear) - 1.0) / (2.0 * C2)
        read += bias[:, k * half : (k + 1) * half]
        noise = rng.normal(0.0, READ / gain, (SIDE, half + OVER))
        if k == 0:
            raw[:, :half], raw[:, half : half + OVER] = read + noise[:, :half], noise[:, half:]
        else:
            raw[:, half + 2 * OVER :] = (read + noise[:, :half])[:, ::-1]
            raw[:, half + OVER : half + 2 * OVER] = noise[:, half:]
    return np.rint(raw + 1000.0).astype(np.uint16)


def by_hand(raw, layout, masters, exposure_s):
    """The same in float64, step by step, the plain way."""
    pixels, variance = np.empty(layout.shape), np.empty(layout.shape)
    for a in layout.amplifiers:
        signal = a.data.of(raw).astype(float)
        overscan = a.overscan.of(raw).astype(float)
        centre = np.median(overscan)
        spread = max(1.0, 1.4826 * np.median(np.abs(overscan - centre)))
        good = np.abs(overscan - centre) <= 4.0 * spread + 1.0
        signal -= np.array([row[g].mean() for row, g in zip(overscan, good, strict=True)])[:, None]
        if a.flip_x:
            signal = signal[:, ::-1]
        signal = signal - a.target.of(masters.bias)
        signal = (signal + C2 * signal**2) * a.gain
        noise = np.maximum(signal, 0.0) + a.read_noise**2 + a.gain**2 / 12.0
        flat = a.target.of(masters.flat).astype(float)
        a.target.of(pixels)[:] = (signal - a.target.of(masters.dark) * exposure_s) / flat
        a.target.of(variance)[:] = noise / flat**2
    return pixels, variance


@pytest.fixture(scope="module")
def scene():
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:SIDE, :SIDE]
    flat = 1.0 + 0.05 * np.sin(x / 9.0) * np.cos(y / 7.0) + rng.normal(0.0, 0.01, (SIDE, SIDE))
    bias = 5.0 + 3.0 * np.sin(x / 20.0) + 0.02 * y
    return rng, (flat / flat.mean()).astype(np.float32), bias.astype(np.float32)


def test_it_equals_the_plain_computation(scene):
    rng, flat, bias = scene
    masters = Masters(bias, np.full((SIDE, SIDE), 0.3, np.float32), flat)
    raw = raw_counts(rng, np.full((SIDE, SIDE), 2000.0), flat, 9.0, bias)

    got = remove_signature([raw], two_amplifiers(), masters=masters, exposure_s=30.0)

    pixels, variance = by_hand(raw, two_amplifiers(), masters, 30.0)
    # float32 holds 2000 electrons to 1.2e-4.
    np.testing.assert_allclose(got.pixels, pixels, rtol=0, atol=1e-3)
    np.testing.assert_allclose(got.variance, variance, rtol=1e-6)


def test_the_variance_of_flats_is_what_they_scatter_by(scene):
    rng, flat, bias = scene
    masters = Masters(bias, None, flat)
    level, chi2, n = 20_000.0, 0.0, 0
    for _ in range(6):
        raw = raw_counts(rng, np.full((SIDE, SIDE), level), flat, 0.0, bias)
        got = remove_signature([raw], two_amplifiers(), masters=masters)
        chi2 += np.sum((got.pixels - level) ** 2 / got.variance, dtype=float)
        n += got.pixels.size

    # 1e5 pixels: the mean chi-square is known to 0.0045.
    assert chi2 / n == pytest.approx(1.0, abs=0.01)


def test_masters_from_sequences_recover_what_was_put_in(scene):
    rng, flat, bias = scene
    layout, dark = two_amplifiers(), np.full((SIDE, SIDE), 0.5)
    dark[40, 50] = 30.0

    def taken(electrons, dark_s):
        light = np.full((SIDE, SIDE), electrons)
        return raw_counts(rng, light, flat, dark * dark_s, bias)

    b = master_bias(
        [remove_signature([taken(0.0, 0.0)], layout.for_bias()).pixels for _ in range(20)]
    )
    with_bias = Masters(b)
    d, hot = master_dark(
        [remove_signature([taken(0.0, 100.0)], layout, masters=with_bias).pixels for _ in range(9)],
        [100.0] * 9,
    )
    f, defects = master_flat(
        [
            remove_signature([taken(level, 0.0)], layout, masters=with_bias).pixels
            for level in np.linspace(15_000.0, 25_000.0, 12)
        ]
    )

    # Noise of one frame, in counts, over the root of their number; overscan rows add their own.
    assert np.std(b - bias) < 1.3 * (READ / GAINS[0]) / np.sqrt(20.0)
    assert np.mean(b - bias) == pytest.approx(0.0, abs=0.2)
    assert np.mean(d) == pytest.approx(np.mean(dark), abs=0.01)
    assert np.argwhere(hot).tolist() == [[40, 50]]
    assert np.std(f - flat) < 1.3 / np.sqrt(12 * 20_000.0)
    assert not defects.any()


def test_an_outlier_in_one_exposure_does_not_reach_the_master():
    rng = np.random.default_rng(5)
    stack = [rng.normal(0.0, 1.0, (64, 64)).astype(np.float32) for _ in range(11)]
    for k, frame in enumerate(stack):
        frame[k, :] += 1000.0

    got = combine(stack)

    # Ten values left: no mean is further off than five of its sigma.
    assert np.max(np.abs(got.mean)) < 5.0 / np.sqrt(10.0) + 0.6
    assert (got.count[:11] <= 10).all()


def test_a_clipped_mean_of_clean_values_is_the_mean():
    rng = np.random.default_rng(6)
    stack = [rng.uniform(-1.0, 1.0, (40, 50)).astype(np.float32) for _ in range(8)]

    got = combine(stack, clip_sigmas=1e6)

    np.testing.assert_allclose(got.mean, np.mean(stack, axis=0), atol=1e-6)


def test_full_dead_and_wrong_pixels_are_marked():
    raw = np.full((20, 30), 1500, np.uint16)
    raw[3, 4], raw[5, 6] = 60_000, 0
    flat = np.ones((20, 30), np.float32)
    flat[7, 8] = 0.05
    defects = np.zeros((20, 30), bool)
    defects[9, 10] = True
    layout = whole((20, 30), saturation=50_000.0, bias_level=1000.0, gain=2.0)

    got = remove_signature([raw], layout, masters=Masters(flat=flat, defects=defects))

    assert np.argwhere(got.mask & MaskPlane.SATURATED).tolist() == [[3, 4]]
    assert np.argwhere(got.mask & MaskPlane.BAD).tolist() == [[5, 6], [7, 8], [9, 10]]
    assert got.pixels[0, 0] == 1000.0
    assert np.isfinite(got.pixels).all()
    assert np.isfinite(got.variance).all()


def test_pixels_that_are_no_number_are_marked():
    raw = np.full((20, 30), 10.0, np.float32)
    raw[3, 4] = np.nan

    got = remove_signature([raw], whole((20, 30)))

    assert np.argwhere(got.mask & MaskPlane.BAD).tolist() == [[3, 4]]
    assert np.isfinite(got.pixels).all()


def test_amplifiers_are_found_in_the_headers_of_a_file(tmp_path, scene):
    rng, flat, bias = scene
    electrons = 2000.0 * (1.0 + np.mgrid[:SIDE, :SIDE][0] / SIDE)
    raw = raw_counts(rng, electrons, flat, 0.0, bias)
    half, width = SIDE // 2, SIDE // 2 + OVER
    units = [fits.PrimaryHDU()]
    left, right = raw[:, :width], raw[:, width:]
    for k, plane in enumerate((left, right)):
        keys = {"GAIN": GAINS[k], "RDNOISE": READ, "SATURATE": 50_000.0, "LIN2": C2}
        data, dark = (1, half + 1) if k == 0 else (OVER + 1, 1)
        x = (1, half) if k == 0 else (SIDE, half + 1)
        keys["DATASEC"] = f"[{data}:{data + half - 1},1:{SIDE}]"
        keys["BIASSEC"] = f"[{dark}:{dark + OVER - 1},1:{SIDE}]"
        keys["DETSEC"] = f"[{x[0] + 512}:{x[1] + 512},1:{SIDE}]"
        units.append(fits.ImageHDU(plane, fits.Header(keys), name=f"AMP{k}"))
    fits.HDUList(units).writeto(tmp_path / "raw.fits")

    frames = read_frames(tmp_path / "raw.fits")
    got = remove_signature([f.pixels for f in frames], layout_of(frames))

    expected = remove_signature([raw], two_amplifiers())
    np.testing.assert_array_equal(got.pixels, expected.pixels)
    np.testing.assert_array_equal(got.variance, expected.variance)


def test_a_layout_that_leaves_a_gap_is_refused():
    box = Box(0, 10, 0, 5)
    with pytest.raises(ConfigError, match="exactly once"):
        Layout((10, 10), (Amplifier(box, box),))


def test_a_master_of_another_shape_or_kind_is_refused(tmp_path):
    write_master(tmp_path / "b.fits", "bias", np.zeros((8, 8), np.float32), frames=3)

    with pytest.raises(ConfigError, match="not a flat"):
        read_master(tmp_path / "b.fits", "flat")
    bias, _ = read_master(tmp_path / "b.fits", "bias")
    with pytest.raises(ConfigError, match="master bias is"):
        remove_signature([np.ones((9, 9), np.uint16)], whole((9, 9)), masters=Masters(bias))


def test_a_raw_image_that_is_too_small_is_refused():
    with pytest.raises(AlertError, match="smaller than the layout"):
        remove_signature([np.ones((9, 9), np.uint16)], whole((10, 10)))
