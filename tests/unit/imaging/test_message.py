"""Messages of exposures."""

import dataclasses
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from broker.avro import encode, frame, read_schema, schema_id
from broker.errors import AlertError
from broker.imaging.image import Calibration, RawExposure
from broker.imaging.isr import Amplifier, Box, Layout
from broker.imaging.mask import EDGE_PX, MaskPlane
from broker.imaging.message import (
    SCHEMA,
    _metadata,
    _pack,
    decode_image,
    decode_raw,
    encode_image,
)
from broker.imaging.psf import GaussianPsf
from broker.imaging.wcs import Wcs

CALIBRATION = Calibration(
    visit=7,
    detector=3,
    band="r",
    midpoint_mjd_tai=60_000.1,
    exposure_s=30.0,
    zero_point=28.1,
    gain=1.5,
    read_noise=6.0,
    saturation=60_000.0,
)


def exposure(pixels=None):
    if pixels is None:
        rng = np.random.default_rng(1)
        pixels = np.round(rng.normal(1_500.0, 20.0, (48, 64))).astype(np.uint16)
    return RawExposure(
        pixels=pixels,
        wcs=Wcs.from_scale(150.0, 2.0, scale_arcsec=0.25, crpix=(31.5, 23.5)),
        psf=GaussianPsf(1.8),
        calibration=CALIBRATION,
        bias_level=1_000.0,
    )


def message_with(**changes):
    """A message with a right checksum whose record says something else."""
    schema = read_schema(SCHEMA)
    raw = exposure()
    offset, packed = _pack(raw.pixels)
    record = _metadata(raw) | {
        "codec": "offset-shuffle-zstd",
        "pixelOffset": offset,
        "pixels": packed,
        "secondOffset": 0,
        "secondPixels": None,
        "checksum": bytes(4),
    }
    for name, value in changes.items():
        if name in record["wcs"]:
            record["wcs"][name] = value
        else:
            record[name] = value
    body = frame(schema_id(schema), encode(schema, record))[:-4]
    return body + zlib.crc32(body).to_bytes(4, "big")


def raw_exposure(pixels=None, *, second=True):
    """Two amplifiers side by side with four columns of overscan each, the right one turned."""
    if pixels is None:
        rng = np.random.default_rng(3)
        pixels = np.round(rng.normal(1_500.0, 20.0, (2, 20, 40))).astype(np.uint16)
    left = Amplifier(
        Box(0, 20, 0, 16), Box(0, 20, 0, 16), Box(0, 20, 16, 20), gain=1.5, read_noise=6.0
    )
    right = Amplifier(
        Box(0, 20, 20, 36),
        Box(0, 20, 16, 32),
        Box(0, 20, 36, 40),
        flip_x=True,
        flip_y=True,
        gain=1.6,
        read_noise=5.0,
        saturation=55_000.0,
        linearity=(1e-7, 1e-13),
        bias_level=990.0,
        name="right",
    )
    return dataclasses.replace(
        exposure(pixels[0]),
        layout=Layout((20, 32), (dataclasses.replace(left, saturation=6e4, name="left"), right)),
        second=pixels[1] if second else None,
        calibration_set="camera-1",
    )


def stated(raw):
    """Return all of an exposure but its pixels."""
    return dataclasses.replace(raw, pixels=None, second=None)


@given(npst.arrays(np.uint16, (2, 20, 40)), st.booleans())
def test_a_raw_exposure_comes_back_with_its_amplifiers_and_snaps(pixels, two):
    raw = raw_exposure(pixels, second=two)

    back = decode_raw(encode_image(raw))

    np.testing.assert_array_equal(back.pixels, pixels[0])
    if two:
        np.testing.assert_array_equal(back.second, pixels[1])
    assert (back.second is None) is not two
    assert stated(back) == stated(raw)


def test_a_message_of_version_1_0_is_read_as_it_was():
    message = Path(__file__).with_name("ccd-image-1.0.bin").read_bytes()

    back = decode_raw(message)

    np.testing.assert_array_equal(back.pixels, exposure().pixels)
    assert stated(back) == stated(exposure())
    assert back.layout is None
    assert back.calibration_set == ""


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"gain": 0.0}, "'left' has gain 0.0"),
        ({"gain": float("nan")}, "not finite"),
        ({"linearity": (float("inf"),)}, "not finite"),
        ({"data": Box(0, 20, 30, 46)}, "outside the raw plane"),
        ({"data": Box(0, 20, 5, 5)}, "an empty box"),
        ({"overscan": Box(-3, 20, 16, 20)}, "an empty box"),
    ],
)
def test_amplifiers_that_cannot_be_are_named(change, reason):
    raw = raw_exposure()
    first, second = raw.layout.amplifiers
    layout = Layout((20, 32), (first, second))
    object.__setattr__(layout, "amplifiers", (dataclasses.replace(first, **change), second))

    with pytest.raises(AlertError, match=reason):
        decode_raw(encode_image(dataclasses.replace(raw, layout=layout)))


def test_amplifiers_that_leave_a_gap_are_named():
    raw = raw_exposure()
    first, second = raw.layout.amplifiers
    layout = Layout((20, 32), (first, second))
    moved = dataclasses.replace(second, target=Box(0, 20, 17, 33))
    object.__setattr__(layout, "amplifiers", (first, moved))

    with pytest.raises(AlertError, match="do not cover the detector exactly once"):
        decode_raw(encode_image(dataclasses.replace(raw, layout=layout)))


@given(npst.arrays(np.uint16, npst.array_shapes(min_dims=2, max_dims=2, max_side=20)))
def test_any_pixels_come_back_as_they_were(pixels):
    raw = exposure(pixels)

    back = decode_raw(encode_image(raw))

    np.testing.assert_array_equal(back.pixels, pixels)
    assert stated(back) == stated(raw)


def test_the_same_exposure_gives_the_same_bytes():
    assert encode_image(exposure()) == encode_image(exposure())


def test_sky_noise_is_packed_to_less_than_half():
    rng = np.random.default_rng(2)
    pixels = np.round(rng.normal(1_500.0, 20.0, (256, 256))).astype(np.uint16)

    assert len(encode_image(exposure(pixels))) < 0.45 * pixels.nbytes


def test_the_image_has_no_bias_and_its_defects_are_masked():
    pixels = exposure().pixels.copy()
    pixels[20, 30] = 0
    pixels[21, 31] = 61_000
    pixels[22, 32] = 60_999

    image = decode_image(encode_image(exposure(pixels)))

    assert image.pixels.dtype == np.float32
    assert image.pixels[25, 25] == pixels[25, 25] - 1_000.0
    assert image.mask[20, 30] == MaskPlane.BAD
    assert image.mask[21, 31] == MaskPlane.SATURATED
    assert image.mask[22, 32] == 0
    assert np.all(image.is_masked(MaskPlane.EDGE)[:EDGE_PX])
    assert not np.any(image.is_masked(MaskPlane.EDGE)[EDGE_PX:-EDGE_PX, EDGE_PX:-EDGE_PX])
    sky = np.median(pixels[::4, ::4]) - 1_000.0
    assert image.variance[5, 5] == pytest.approx(sky / 1.5 + 16.0, rel=1e-6)


@settings(max_examples=200)
@given(st.data())
def test_any_flipped_bit_is_an_alert_error(data):
    message = bytearray(encode_image(exposure()))
    place = data.draw(st.integers(0, len(message) - 1))
    message[place] ^= 1 << data.draw(st.integers(0, 7))

    with pytest.raises(AlertError):
        decode_image(bytes(message))


@given(st.data())
def test_any_cut_is_an_alert_error(data):
    message = encode_image(exposure())
    length = data.draw(st.integers(0, len(message) - 1))

    with pytest.raises(AlertError):
        decode_image(message[:length])


@given(st.binary(max_size=200))
def test_random_bytes_are_an_alert_error(message):
    with pytest.raises(AlertError):
        decode_image(message)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"crvalRa": float("nan")}, "WCS has a number that is not finite"),
        ({"crvalDec": 91.0}, "beyond a pole"),
        ({"cd11": 0.0}, "singular"),
        ({"zeroPoint": -1.0}, "zeroPoint is -1.0; it must be positive"),
        ({"zeroPoint": float("nan")}, "zeroPoint is nan"),
        ({"psfSigma": 0.0}, "psfSigma is 0.0"),
        ({"gain": float("inf")}, "gain is inf"),
        ({"midpointMjdTai": float("nan")}, "midpointMjdTai is nan; it must be finite"),
        ({"readNoise": -2.0}, "readNoise is -2.0"),
        ({"band": "K"}, "band 'K' is none of u g r i z y"),
        ({"visit": 0}, "visit 0 is not between 1 and"),
        ({"visit": 2**31}, "visit 2147483648 is not between"),
        ({"detector": 256}, "detector 256 is not between"),
        ({"width": 65}, "the pixels are 6144 bytes; 65 × 48 of 2 bytes are 6240"),
        ({"width": 5000, "height": 5000}, "more than 16777216"),
        ({"pixels": b"nonsense"}, "the pixels cannot be unpacked"),
        ({"pixels": b""}, "the pixels cannot be unpacked"),
        ({"codec": "rice"}, "codec 'rice' is not known"),
    ],
)
def test_what_an_exposure_cannot_have_is_named(changes, reason):
    with pytest.raises(AlertError, match=reason):
        decode_image(message_with(**changes))


def test_a_message_with_no_change_passes_the_same_checks():
    np.testing.assert_array_equal(decode_raw(message_with()).pixels, exposure().pixels)


def test_truncated_packed_pixels_are_named():
    packed = _pack(exposure().pixels)[1]

    with pytest.raises(AlertError, match="the pixels cannot be unpacked"):
        decode_image(message_with(pixels=packed[:-10]))


def test_another_schema_is_named():
    message = frame(700, b"x" * 100)

    with pytest.raises(AlertError, match="schema id 700 is not that of an image"):
        decode_image(message)
