"""Files packed by Huffman codes, read back by other programs."""

import gzip
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from isal import isal_zlib

from broker.imaging.deflate import begin, finish

TEXT = b"CRPIX1  =                 17.5" + b" " * 50 + b"END" + b" " * 700


def assert_same(pixels, *, text=TEXT, padding=bytes(703)):
    """Let two programs read a file, and return its size."""
    head = b"SIMPLE  =                    T" * 40
    packed = finish(begin(head), text, pixels, padding)
    whole = head + text + pixels.tobytes() + padding
    assert gzip.decompress(packed) == whole  # its checksum and length too
    assert isal_zlib.decompress(packed, 31) == whole
    return len(packed)


@settings(max_examples=60)
@given(
    pixels=arrays.arrays(
        st.sampled_from([np.uint8, np.uint16, np.uint32, np.float32]),
        st.integers(1, 400),
        elements={},
        fill=st.nothing(),
    ),
    text=st.binary(max_size=600),
    padding=st.integers(0, 2880),
)
def test_whatever_goes_in_comes_out(pixels, text, padding):
    assert_same(pixels, text=text, padding=bytes(padding))


@pytest.mark.parametrize("size", [1, 3, 4, 63 * 63, 20_000])
@pytest.mark.parametrize("kind", [np.uint16, np.uint32])
def test_noise_constants_and_runs_come_out(size, kind):
    rng = np.random.default_rng(3)
    for numbers in (
        np.zeros(size),
        rng.integers(0, 2**16, size),
        rng.integers(0, 2, size),
        rng.geometric(0.01, size) % 65_536,
        np.repeat(rng.integers(0, 9, size), rng.integers(1, 400, size))[:size],
    ):
        assert_same(numbers.astype(kind))


def test_codes_that_would_be_too_long_are_cut():
    """Bytes as frequent as Fibonacci's numbers have codes of one bit more each."""
    often = [1, 1]
    while len(often) < 24:
        often.append(often[-1] + often[-2])
    numbers = np.repeat(np.arange(24), often).astype(np.uint8)
    np.random.default_rng(4).shuffle(numbers)
    assert assert_same(numbers) < 0.5 * numbers.size


def test_noise_takes_no_more_than_with_zlib_and_its_entropy():
    rng = np.random.default_rng(5)
    numbers = np.rint(128.0 + 8.0 * rng.standard_normal(63 * 63)).astype(">i2")
    share = np.bincount(numbers.view(np.uint8), minlength=256) / numbers.nbytes
    bits = -np.sum(share[share > 0.0] * np.log2(share[share > 0.0]))
    packed = assert_same(numbers, text=b"", padding=b"") - assert_same(
        numbers[:1], text=b"", padding=b""
    )
    assert packed < 1.03 * bits * numbers.nbytes / 8.0 + 100.0
    engine = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_HUFFMAN_ONLY)
    assert packed < 1.01 * len(engine.compress(numbers.tobytes()) + engine.flush())


def test_a_blank_half_takes_hardly_a_byte():
    rng = np.random.default_rng(6)
    noise = rng.integers(0, 2**16, 2000).astype(np.uint16)
    half = np.concatenate([noise, np.full(2000, 128, np.uint16)])
    assert assert_same(half) < assert_same(noise) + 120
