"""16-bit floats are those of NumPy, bit for bit."""

import numpy as np

from broker.imaging.halves import LARGEST, as_halves


def test_values_are_rounded_as_numpy_rounds_them():
    rng = np.random.default_rng(1)
    size = 10.0 ** rng.uniform(-4.2, 4.8, (300, 301))
    values = (size * rng.choice([-1.0, 1.0], size.shape)).astype(np.float32)
    values[0, :4] = 0.0, -0.0, 1.0 + 2.0**-11, 1.0 + 3.0 * 2.0**-11  # ties go to the even one
    np.testing.assert_array_equal(
        as_halves(values, scale=1.0).view(np.uint16), values.astype(np.float16).view(np.uint16)
    )


def test_what_is_too_large_is_the_largest_and_what_is_unknown_is_not_a_number():
    values = np.array([[1e30, -1e30, 3.0, np.inf]], np.float32)
    unknown = np.array([[False, False, True, False]])
    found = as_halves(values, scale=2.0, unknown=unknown)
    np.testing.assert_array_equal(
        found, np.array([[LARGEST, -LARGEST, np.nan, LARGEST]], np.float16)
    )


def test_a_scale_is_applied_before_rounding():
    values = np.linspace(-50.0, 50.0, 999, dtype=np.float32).reshape(27, 37)
    expected = (values * np.float32(0.3)).astype(np.float16)
    np.testing.assert_array_equal(as_halves(values, scale=0.3), expected)


def test_the_smallest_are_off_by_one_unit_at_most():
    values = np.random.default_rng(2).uniform(-(2.0**-14), 2.0**-14, (100, 100))
    found = as_halves(values.astype(np.float32), scale=1.0)
    assert np.max(np.abs(found.astype(np.float64) - values)) <= 2.0**-24
