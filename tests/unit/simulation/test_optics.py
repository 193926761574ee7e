"""Light through telescope and air, beside independent integrals."""

import galsim
import numpy as np
import pytest
from scipy.integrate import dblquad
from scipy.stats import multivariate_normal

from broker.simulation.kernels import add_ellipses, add_gaussians
from broker.simulation.optics import FLOOR_ELECTRONS, Optics, uneven
from broker.simulation.scene import _SPHEROID


def arrays(*values):
    return tuple(np.array([value], dtype=np.float64) for value in values)


@pytest.mark.parametrize("moments", [(3.2, 1.1, 2.5), (1.5, -0.4, 1.44), (30.0, 25.0, 28.0)])
def test_a_turned_gaussian_is_the_integral_over_each_pixel(moments):
    image = np.zeros((41, 41), dtype=np.float32)
    xx, xy, yy = moments

    add_ellipses(image, *arrays(20.3, 19.6, 1e6, *moments), FLOOR_ELECTRONS)

    exact = multivariate_normal((20.3, 19.6), [[xx, xy], [xy, yy]])
    peak = 1e6 * exact.pdf((20.3, 19.6))
    for x, y in ((20, 20), (21, 19), (17, 23), (26, 24), (15, 15)):
        wanted, _ = dblquad(
            lambda v, u: exact.pdf((u, v)), x - 0.5, x + 0.5, y - 0.5, y + 0.5, epsabs=1e-12
        )
        assert image[y, x] == pytest.approx(1e6 * wanted, abs=5e-6 * peak)


def test_a_gaussian_that_is_not_turned_is_the_same_by_either_way():
    turned, straight = (np.zeros((81, 81), dtype=np.float32) for _ in range(2))

    add_ellipses(turned, *arrays(40.2, 39.7, 1e6, 4.0, 0.0, 9.0), FLOOR_ELECTRONS)
    add_gaussians(straight, *arrays(40.2, 39.7, 1e6, 2.0, 3.0), FLOOR_ELECTRONS)

    np.testing.assert_allclose(turned, straight, atol=2e-6 * straight.max())
    assert turned.sum(dtype=np.float64) == pytest.approx(1e6, rel=2e-6)


def test_turned_objects_at_the_border_are_as_in_a_larger_frame():
    rng = np.random.default_rng(3)
    n = 200
    x, y = rng.uniform(-30.0, 130.0, n), rng.uniform(-30.0, 130.0, n)
    flux = 10.0 ** rng.uniform(1.0, 6.0, n)
    xx, yy = rng.uniform(2.0, 50.0, n), rng.uniform(2.0, 50.0, n)
    xy = rng.uniform(-0.8, 0.8, n) * np.sqrt(xx * yy)
    for k in range(n):
        large = np.zeros((300, 300), dtype=np.float32)
        frame = np.zeros((100, 100), dtype=np.float32)
        one = (v[k : k + 1] for v in (flux, xx, xy, yy))
        one = tuple(one)
        add_ellipses(large, x[k : k + 1] + 100, y[k : k + 1] + 100, *one, FLOOR_ELECTRONS)
        add_ellipses(frame, x[k : k + 1], y[k : k + 1], *one, FLOOR_ELECTRONS)
        inside = large[100:200, 100:200].sum(dtype=np.float64)
        # The share of its light in the frame: the criterion is 1e-4 of it.
        assert frame.sum(dtype=np.float64) == pytest.approx(inside, rel=1e-6, abs=1e-9)


def test_the_psf_varies_by_what_is_said_and_is_as_wide_as_said_on_average():
    optics = Optics(2.0, 512, variation=0.12, ellipticity=0.05, angle=0.7)
    x, y = (p.ravel() for p in np.meshgrid(np.linspace(0, 511, 65), np.linspace(0, 511, 65)))

    xx, xy, yy = optics.widths(x, y)

    sigma = np.sqrt(0.5 * (xx + yy))
    assert 0.09 < sigma.max() / sigma.min() - 1.0 < 0.13
    assert sigma.mean() == pytest.approx(2.0, rel=0.02)
    ellipticity = np.hypot(xx - yy, 2.0 * xy) / (xx + yy)
    assert 0.03 < ellipticity.max() < 0.08


def test_a_psf_without_variation_is_the_same_everywhere():
    xx, xy, yy = Optics(2.0, 512).widths(*arrays(3.0, 500.0))

    np.testing.assert_array_equal([xx, xy, yy], [[4.0], [0.0], [4.0]])


def test_a_trail_is_even_along_its_length():
    image = np.zeros((41, 81), dtype=np.float32)

    Optics(1.8, 64).draw(image, arrays(40.0, 20.0), np.array([1e5]), trail=arrays(30.0, 0.0))

    profile = image.sum(axis=0, dtype=np.float64)
    middle = profile[32:49]
    assert image.sum(dtype=np.float64) == pytest.approx(1e5, rel=1e-5)
    assert np.ptp(middle) < 2e-3 * middle.mean()
    assert middle.mean() == pytest.approx(1e5 / 30.0, rel=2e-3)


def test_the_spheroid_has_de_vaucouleurs_profile():
    r = np.geomspace(0.03, 4.0, 200)
    widths, shares = _SPHEROID.T
    profile = np.exp(-(r[:, None] ** 2) / 2 / widths**2) @ (shares / (2 * np.pi * widths**2))
    exact = np.exp(-7.66925 * (r**0.25 - 1.0))

    # Of the whole profile's light: 7.215 π times that within a radius and its surface brightness.
    exact /= 7.21457 * np.pi
    assert shares.sum() == pytest.approx(1.0, abs=1e-4)
    ratio = profile / exact
    # The profile ends at 8 radii: the rest of its light is inside.
    beyond = np.median(ratio)
    assert 1.03 < beyond < 1.10
    assert np.max(np.abs(ratio / beyond - 1.0)) < 0.045
    assert np.sum(shares * (1.0 - np.exp(-0.5 / widths**2))) == pytest.approx(0.53, abs=0.03)


def test_a_flat_has_corners_and_rings():
    lit = uneven(np.random.default_rng(2), 256, vignetting=0.1, dust=0.05)

    assert np.median(lit) == pytest.approx(1.0, abs=1e-6)
    corners = [lit[j, i] for j in (0, -1) for i in (0, -1)]
    assert 0.02 < lit.max() - min(corners) < 0.2
    smooth = uneven(np.random.default_rng(2), 256, vignetting=0.1, dust=0.0)
    shadow = lit / smooth
    assert 0.03 < np.ptp(shadow) < 0.12


@pytest.mark.parametrize("shear", [(0.0, 0.0), (0.1, 0.05)])
def test_a_star_is_as_galsim_draws_it(shear):
    exact = galsim.GSParams(folding_threshold=1e-9, maxk_threshold=1e-9, kvalue_accuracy=1e-10)
    profile = galsim.Gaussian(sigma=1.9, flux=1e5, gsparams=exact)
    profile = profile.shear(g1=shear[0], g2=shear[1])
    reference = profile.shift(0.31, -0.22).drawImage(nx=61, ny=61, scale=1.0, dtype=np.float64)

    image = np.zeros((61, 61), dtype=np.float32)
    stretch = np.array([[1.0 + shear[0], shear[1]], [shear[1], 1.0 - shear[0]]])
    moments = 1.9**2 * stretch @ stretch / (1.0 - shear[0] ** 2 - shear[1] ** 2)
    place = arrays(30.31, 29.78, 1e5)
    if shear == (0.0, 0.0):
        add_gaussians(image, *place, *arrays(1.9, 1.9), 1e-6)
    else:
        add_ellipses(image, *place, *arrays(moments[0, 0], moments[0, 1], moments[1, 1]), 1e-6)

    assert np.max(np.abs(image - reference.array)) < 1e-6 * reference.array.max()
    assert image.sum(dtype=np.float64) == pytest.approx(1e5, rel=1e-6)
