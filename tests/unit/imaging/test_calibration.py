"""A clipped mean is that of NumPy's median and deviations, for any number of exposures."""

import numpy as np
import pytest

from broker.imaging.calibration import combine


@pytest.mark.parametrize("n", [1, 2, 3, 7, 20, 33])
def test_values_far_from_the_median_are_left_out(n):
    rng = np.random.default_rng(n)
    stack = rng.normal(100.0, 3.0, (n, 40, 300)).astype(np.float32)
    if n > 2:
        stack[1, 5:9, 10:290] += 1e4

    got = combine(list(stack))

    middle = np.median(stack, axis=0)
    spread = 1.4826 * np.sort(np.abs(stack - middle), axis=0)[n // 2]
    sample = stack[:, ::16, ::16]
    typical = 1.4826 * np.median(np.abs(sample - np.median(sample, axis=0)))
    kept = np.abs(stack - middle) <= 4.0 * np.maximum(spread, 0.5 * typical)
    expected = np.sum(stack * kept, axis=0, dtype=np.float64) / kept.sum(axis=0)
    np.testing.assert_allclose(got.mean, expected, rtol=1e-5)
    np.testing.assert_allclose(got.sigma, spread, atol=1e-4)
    # A value on the very edge may round to either side.
    assert np.mean(got.count != kept.sum(axis=0)) < 1e-3
    if n > 2:
        assert (got.mean[5:9, 10:290] < 150.0).all()
