"""The table of PSF profiles gives what the exact integral gives."""

import numpy as np
import pytest

from broker.detection.psf_table import profile_from, psf_profile, psf_table
from broker.imaging.psf import GaussianPsf


@pytest.mark.parametrize("sigma", [0.8, 2.0, 4.5])
def test_profiles_from_the_table_are_the_exact_ones(sigma):
    half = int(np.ceil(3.5 * sigma))
    table = psf_table(half + 4, sigma)
    share, slope, exact, exact_slope = (np.zeros(2 * half + 1) for _ in range(4))

    for offset in [*np.linspace(-2.9, 2.9, 301), 0.0, 1.0, -1.0]:
        profile_from(table, offset, half, share, slope)
        psf_profile(offset, half, sigma, exact, exact_slope)

        np.testing.assert_allclose(share, exact, atol=1e-7)
        np.testing.assert_allclose(slope, exact_slope, atol=1e-6)
        np.testing.assert_allclose(exact, GaussianPsf(sigma).profile(offset, half), atol=1e-12)
