"""The shared loops, against NumPy and SciPy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from broker.imaging.kernels import (
    RUN_PX,
    convolve_squares,
    convolve_symmetric,
    convolve_varying,
    filter_radius,
    gaussian_taps,
    grow,
    select,
)


@pytest.mark.parametrize("shape", [(40, 50), (5, 60), (60, 3)])
def test_the_separable_convolution_is_scipys_also_in_images_smaller_than_the_filter(shape):
    pixels = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    taps = gaussian_taps(2.0, 4)
    full = np.array([*taps[:0:-1], *taps], float)

    got = convolve_symmetric(pixels, taps)

    oracle = ndimage.convolve(pixels.astype(float), np.outer(full, full), mode="constant")
    np.testing.assert_allclose(got, oracle, atol=1e-6)


@pytest.mark.parametrize("shape", [(70, 90), (64, 64), (3, 40)])
def test_a_kernel_that_varies_is_in_each_square_the_plain_convolution_with_its_own(shape):
    rng = np.random.default_rng(2)
    pixels = rng.normal(size=shape).astype(np.float32)
    along_y = rng.normal(size=(2, 9)).astype(np.float32)
    squares = [-(-n // RUN_PX) for n in shape]
    along_x = rng.normal(size=(2, *squares, 9)).astype(np.float32)

    got = convolve_varying(pixels, along_y, along_x, (0,) * 9)

    for j in range(squares[0]):
        for i in range(squares[1]):
            kernel = np.einsum("fy,fx->yx", along_y, along_x[:, j, i])
            whole = ndimage.convolve(pixels.astype(float), kernel.astype(float), mode="constant")
            here = np.s_[j * RUN_PX : (j + 1) * RUN_PX, i * RUN_PX : (i + 1) * RUN_PX]
            np.testing.assert_allclose(got[here], whole[here], atol=3e-5)


@pytest.mark.parametrize(("shape", "margin"), [((70, 90), 0), ((64, 64), 3), ((40, 33), 8)])
def test_whole_kernels_that_vary_are_in_each_square_the_plain_convolution(shape, margin):
    rng = np.random.default_rng(3)
    wide = rng.normal(size=(shape[0] + 2 * margin, shape[1] + 2 * margin)).astype(np.float32)
    squares = [-(-n // RUN_PX) for n in shape]
    kernels = rng.normal(size=(*squares, 9, 9)).astype(np.float32)
    turned = np.ascontiguousarray(kernels[:, :, ::-1, ::-1])

    got = convolve_squares(wide, turned, (0,) * 9, margin)

    assert got.shape == shape
    for j in range(squares[0]):
        for i in range(squares[1]):
            whole = ndimage.convolve(
                wide.astype(float), kernels[j, i].astype(float), mode="constant"
            )
            whole = whole[margin : margin + shape[0], margin : margin + shape[1]]
            here = np.s_[j * RUN_PX : (j + 1) * RUN_PX, i * RUN_PX : (i + 1) * RUN_PX]
            np.testing.assert_allclose(got[here], whole[here], atol=5e-5)


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(2, 6))
def test_any_order_statistic_is_that_of_a_sorted_array(seed, n, spread):
    values = np.random.default_rng(seed).integers(0, 10**spread, n + 3).astype(np.float32)
    expected = np.sort(values[:n])

    for k in {0, n // 2, n - 1}:
        assert select(values.copy(), n, k) == expected[k]


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(0, 4))
def test_growing_is_a_square_dilation(seed, radius):
    marked = np.random.default_rng(seed).random((25, 31)) < 0.03

    got = grow(marked, radius)

    side = 2 * radius + 1
    oracle = ndimage.binary_dilation(marked, np.ones((side, side), bool))
    np.testing.assert_array_equal(got, oracle)


def test_filters_are_of_few_lengths_and_reach_two_sigma():
    sigmas = np.linspace(0.5, 9.0, 200)

    radii = [filter_radius(s) for s in sigmas]

    assert all(r >= 2.0 * s for r, s in zip(radii, sigmas, strict=True))
    assert len(set(radii)) <= 5
