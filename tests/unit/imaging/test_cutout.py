"""Cutouts, read by astropy, and astropy's files read by us."""

import contextlib
import gzip
import io

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.errors import AlertError
from broker.imaging.cutout import cut, decode_cutout, encode_cutout
from broker.imaging.wcs import Wcs

SIGMA = 14.0


def noise(seed=1, size=63):
    return np.random.default_rng(seed).normal(3.0, SIGMA, (size, size)).astype(np.float32)


def test_astropy_reads_what_we_write_and_finds_the_same_sky():
    wcs = Wcs.from_scale(150.123456789, -2.3456789, scale_arcsec=0.25, crpix=(31.3, -812.7))
    pixels = noise()
    pixels[3, 4] = np.nan

    data = encode_cutout(pixels, wcs=wcs, sigma=SIGMA)

    with fits.open(io.BytesIO(gzip.decompress(data))) as file:
        file.verify("exception")
        oracle, header = file[0].data, file[0].header
    np.testing.assert_array_equal(decode_cutout(data), oracle)
    sky = WCS(header).pixel_to_world_values(10.0, 20.0)
    np.testing.assert_allclose(sky, wcs.pixel_to_sky(10.0, 20.0), atol=1e-9)
    assert np.isnan(oracle[3, 4])
    assert np.nanmax(np.abs(oracle - pixels)) <= 0.501 * SIGMA / 8.0


def test_a_cutout_of_63_pixels_takes_at_most_4_2_kilobytes():
    wcs = Wcs(150.123456789, -2.3456789, 31.3, -812.7, ((-7e-5, 1.234e-7), (1.234e-7, 7e-5)))

    sizes = [len(encode_cutout(noise(k), wcs=wcs, sigma=SIGMA)) for k in range(10)]

    assert max(sizes) <= 4200


def test_the_lossless_option_changes_nothing():
    pixels = noise()
    pixels[0, 0] = np.nan

    np.testing.assert_array_equal(decode_cutout(encode_cutout(pixels, lossless=True)), pixels)


@settings(max_examples=30)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([1.0, 1e-6, 1e6]),
    st.sampled_from([0.0, 1e3, 1e7]),
)
def test_every_image_comes_back_within_half_a_step(seed, scale, star):
    pixels = (noise(seed, 21) * np.float32(scale)).astype(np.float32)
    pixels[10, 10] += np.float32(star * scale)

    got = decode_cutout(encode_cutout(pixels, sigma=SIGMA * scale))

    step = max(SIGMA * scale / 8.0, float(np.ptp(pixels)) / 32000.0)
    rounding = 4e-7 * float(np.abs(pixels).max())  # float32
    assert np.abs(got - pixels).max() <= 0.51 * step + rounding


def test_constant_and_empty_images_survive():
    assert (decode_cutout(encode_cutout(np.zeros((5, 5), np.float32))) == 0.0).all()
    assert np.isnan(decode_cutout(encode_cutout(np.full((5, 5), np.nan, np.float32)))).all()


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32, np.float64])
def test_files_with_several_parts_give_their_first_image(dtype, packed):
    pixels = np.arange(12).reshape(3, 4).astype(dtype)
    table = fits.BinTableHDU.from_columns([fits.Column("a", "J", array=np.arange(3))])
    file = fits.HDUList([fits.PrimaryHDU(), table, fits.ImageHDU(pixels), fits.ImageHDU(-pixels)])
    buffer = io.BytesIO()
    file.writeto(buffer)
    data = gzip.compress(buffer.getvalue()) if packed else buffer.getvalue()

    got = decode_cutout(data)

    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, pixels.astype(np.float32))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda b: b"", "no image"),
        (lambda b: b[: len(b) // 2], "truncated"),
        (lambda b: b[:20] + b"\xff" * 40 + b[60:], "unpacked|truncated|FITS|header|number"),
        (lambda b: gzip.compress(gzip.decompress(b)[:3000]), "truncated"),
        (lambda b: b"not a file at all", "not FITS"),
    ],
)
def test_what_is_no_cutout_is_refused_with_a_reason(spoil, reason):
    with pytest.raises(AlertError, match=reason):
        decode_cutout(spoil(encode_cutout(noise())))


@settings(max_examples=200)
@given(st.binary(max_size=300), st.integers(0, 2900))
def test_no_bytes_make_it_raise_anything_else(junk, at):
    body = bytearray(gzip.decompress(encode_cutout(noise(size=9))))
    body[at : at + len(junk)] = junk
    for data in (junk, bytes(body), b"\x1f\x8b" + junk):
        with contextlib.suppress(AlertError):
            decode_cutout(data)


def test_a_cut_beyond_the_border_is_filled():
    pixels = np.arange(100, dtype=np.float32).reshape(10, 10)

    got = cut(pixels, 0, 9, 5)

    assert np.isnan(got[:, :2]).all()
    assert np.isnan(got[3:]).all()
    np.testing.assert_array_equal(got[:3, 2:], pixels[7:10, 0:3])
    assert np.isnan(cut(pixels, 50, 50, 5)).all()
