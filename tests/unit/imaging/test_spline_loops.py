"""Warping loops against SciPy's splines, whichever way the image is turned."""

import numpy as np
import pytest
from scipy import ndimage

from broker.imaging.kernels import spline_coefficients
from broker.imaging.spline_loops import warp_planes

STEP, SIDE, NO_DATA = 32, 100, 64


@pytest.mark.parametrize("turn", [0.0, 0.003, 0.05, 0.8, 2.5])
@pytest.mark.parametrize("shift", [0.0, 0.37])
def test_pixels_and_variance_are_scipys_and_the_mask_is_that_of_the_pixels_around(turn, shift):
    rng = np.random.default_rng(7)
    pixels = rng.normal(0.0, 10.0, (SIDE, SIDE)).astype(np.float32)
    variance = rng.uniform(1.0, 2.0, (SIDE, SIDE)).astype(np.float32)
    mask = np.where(rng.random((SIDE, SIDE)) < 0.01, 4, 0).astype(np.uint16)
    rows, columns = 90, 110
    steps = np.meshgrid(np.arange(rows // STEP + 2), np.arange(columns // STEP + 2), indexing="ij")
    grid_y, grid_x = _place(STEP * steps[0], STEP * steps[1], turn, shift)
    out, out_variance = np.empty((2, rows, columns), np.float32)
    out_mask = np.empty((rows, columns), np.uint16)

    warp_planes(
        spline_coefficients(pixels), variance, mask, grid_y, grid_x, STEP, np.uint16(NO_DATA),
        out, out_variance, out_mask,
    )  # fmt: skip

    y, x = _place(*np.mgrid[0:rows, 0:columns], turn, shift)
    inside = (y > 1.01) & (x > 1.01) & (y < SIDE - 2.01) & (x < SIDE - 2.01)
    outside = (y < 0.99) | (x < 0.99) | (y > SIDE - 1.99) | (x > SIDE - 1.99)
    assert inside.sum() > 2000
    assert (out_mask[outside] == NO_DATA).all()
    assert not out[outside].any()
    assert not out_variance[outside].any()
    spline = ndimage.map_coordinates(pixels.astype(float), [y, x], order=3, mode="mirror")
    linear = ndimage.map_coordinates(variance.astype(float), [y, x], order=1)
    np.testing.assert_allclose(out[inside], spline[inside], atol=2e-4)
    np.testing.assert_allclose(out_variance[inside], linear[inside], atol=1e-5)
    j, i = np.floor(y[inside] + 1e-5).astype(int), np.floor(x[inside] + 1e-5).astype(int)
    around = mask[j, i] | mask[j, i + 1] | mask[j + 1, i] | mask[j + 1, i + 1]
    edge = np.minimum(np.abs(y - np.rint(y)), np.abs(x - np.rint(x)))[inside] < 1e-4
    clear = ~edge if turn or shift else np.ones_like(edge)
    np.testing.assert_array_equal(out_mask[inside][clear], around[clear])


def _place(rows, columns, turn, shift):
    """Return where pixels lie in the source: turned about its middle and shifted."""
    cos, sin = np.cos(turn), np.sin(turn)
    y, x = np.asarray(rows) - 50.0, np.asarray(columns) - 50.0
    return 50.0 + shift + cos * y + sin * x, 50.0 - 0.6 * shift - sin * y + cos * x
