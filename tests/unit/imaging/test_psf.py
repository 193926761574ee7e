"""The pixel-integrated PSF, against independent quadrature."""

import numpy as np
import pytest
from scipy.integrate import dblquad

from broker.errors import AlertError
from broker.imaging.psf import GaussianPsf


@pytest.mark.parametrize(("sigma", "dx", "dy"), [(0.7, 0.3, -0.4), (2.0, 0.0, 0.5)])
def test_a_pixel_holds_the_integral_of_the_gaussian_over_it(sigma, dx, dy):
    stamp = GaussianPsf(sigma).stamp(dx, dy, 9)

    for row, column in [(4, 4), (3, 6), (0, 8)]:
        y, x = row - 4, column - 4
        expected, _ = dblquad(
            lambda v, u: (
                np.exp(-((u - dx) ** 2 + (v - dy) ** 2) / (2 * sigma**2)) / (2 * np.pi * sigma**2)
            ),
            x - 0.5,
            x + 0.5,
            y - 0.5,
            y + 0.5,
            epsabs=1e-13,
        )
        assert stamp[row, column] == pytest.approx(expected, abs=1e-12)


def test_all_light_is_in_the_stamp():
    for offset in (0.0, 0.49):
        assert GaussianPsf(1.7).stamp(offset, -offset).sum() == pytest.approx(1.0, abs=2e-6)


def test_the_effective_area_is_near_king_s_for_a_well_sampled_psf():
    # A pixel adds a variance of 1/12 px² to each axis: 4 π (σ² + 1/12).
    assert GaussianPsf(3.0).effective_pixels == pytest.approx(4 * np.pi * (9 + 1 / 12), rel=1e-3)


def test_half_the_peak_is_at_half_the_width():
    psf = GaussianPsf(40.0)
    profile = psf.profile(0.0, 100)

    assert profile[100 + round(psf.fwhm / 2)] / profile[100] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan"), float("inf")])
def test_a_width_that_cannot_be_is_refused(sigma):
    with pytest.raises(AlertError, match="must be positive"):
        GaussianPsf(sigma)


def test_an_even_stamp_is_refused():
    with pytest.raises(ValueError, match="must be odd"):
        GaussianPsf(1.0).stamp(size=8)
