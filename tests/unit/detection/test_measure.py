"""Measurement, against the Cramér-Rao bound, least squares by SciPy, and photutils."""

import numpy as np
import pytest
from scipy.optimize import least_squares

from broker.detection.forced import forced_flux
from broker.detection.measure import Noise, fit_sources, moments
from broker.imaging.psf import FWHM_PER_SIGMA, GaussianPsf

SKY = 200.0
SIGMA = 2.0


def lattice(snr, *, side=1000, pitch=40, seed=1, sigma=SIGMA):
    """Sources with Poisson noise: image, places, fluxes."""
    rng = np.random.default_rng(seed)
    psf = GaussianPsf(sigma)
    flux = snr * np.sqrt(SKY * psf.effective_pixels)
    expected = np.full((side, side), SKY)
    places = []
    for j in range(pitch // 2, side - 12, pitch):
        for i in range(pitch // 2, side - 12, pitch):
            dx, dy = rng.uniform(-0.5, 0.5, 2)
            expected[j - 10 : j + 11, i - 10 : i + 11] += flux * psf.stamp(dx, dy, 21)
            places.append((i + dx, j + dy))
    return (rng.poisson(expected) - SKY).astype(np.float32), np.array(places), flux


def fit(pixels, places, *, sigma=SIGMA, unusable=None):
    variance = np.full(pixels.shape, SKY, np.float32)
    mask = np.zeros(pixels.shape, bool) if unusable is None else unusable
    x, y = np.rint(places).astype(int).T
    return fit_sources(
        pixels, variance, x, y, psf_sigma=sigma, noise=Noise(1.0, SKY), unusable=mask
    )


def bound(flux, sigma=SIGMA):
    """Cramér-Rao bound of flux and place for a centred source, by numerical derivatives."""
    psf = GaussianPsf(sigma)
    step = 1e-4
    slope = (psf.stamp(step, 0.0, 41) - psf.stamp(-step, 0.0, 41)) / (2 * step)
    weight = 1.0 / (SKY + flux * psf.stamp(0.0, 0.0, 41))
    of_flux = 1.0 / np.sqrt(np.sum(weight * psf.stamp(0.0, 0.0, 41) ** 2))
    return of_flux, 1.0 / np.sqrt(np.sum(weight * (flux * slope) ** 2))


@pytest.mark.parametrize("snr", [10.0, 50.0, 300.0])
def test_flux_and_place_are_at_the_cramer_rao_bound_with_honest_errors(snr):
    pixels, places, flux = lattice(snr)

    got = fit(pixels, places)

    n = len(places)
    flux_bound, place_bound = bound(flux)
    margin = 4.0 / np.sqrt(2 * n)  # 4 sigma of a standard deviation's error
    assert (got.flux - flux).std() < (1.05 + margin) * flux_bound
    assert (got.x - places[:, 0]).std() < (1.05 + margin) * place_bound
    for pull in (
        (got.flux - flux) / got.flux_err,
        (got.x - places[:, 0]) / got.x_err,
        (got.y - places[:, 1]) / got.y_err,
    ):
        assert pull.std() == pytest.approx(1.0, abs=0.04 + margin)
        assert abs(pull.mean()) < 4.0 / np.sqrt(n) + 1.0 / snr
    assert got.chi2.mean() == pytest.approx(1.0, abs=0.02)
    assert not got.failed.any()


def test_the_fit_is_that_of_a_general_least_squares_solver():
    pixels, places, flux = lattice(30.0, side=200)

    got = fit(pixels, places)

    half = 7
    for k in range(0, len(places), 5):
        i, j = np.rint(places[k]).astype(int)
        stamp = pixels[j - half : j + half + 1, i - half : i + half + 1].astype(float)
        model = got.flux[k] * GaussianPsf(SIGMA).stamp(got.x[k] - i, got.y[k] - j, 15)
        root = np.sqrt(SKY + model)

        def residual(p, stamp=stamp, root=root):
            return ((stamp - p[0] * GaussianPsf(SIGMA).stamp(p[1], p[2], 15)) / root).ravel()

        oracle = least_squares(residual, (flux, 0.0, 0.0), x_scale=(flux, 1.0, 1.0), xtol=1e-12).x
        assert got.flux[k] == pytest.approx(oracle[0], rel=1e-4)
        assert got.x[k] - i == pytest.approx(oracle[1], abs=1e-3)
        assert got.y[k] - j == pytest.approx(oracle[2], abs=1e-3)


def test_negative_sources_are_measured_like_positive_ones():
    rng = np.random.default_rng(3)
    pixels, places, _ = lattice(40.0, side=300)
    pixels = pixels + rng.normal(0, 1e-3, pixels.shape).astype(np.float32)

    up, down = fit(pixels, places), fit(-pixels, places)

    # The weights differ (light is missing, not added), so the answers agree to a part of an error.
    assert np.abs(up.flux + down.flux).max() < 1.0 * up.flux_err.max()
    assert np.abs(up.x - down.x).max() < 0.7 * up.x_err.max()


def test_masked_pixels_are_left_out():
    pixels, places, flux = lattice(100.0, side=300)
    unusable = np.zeros(pixels.shape, bool)
    columns = np.rint(places[:, 0]).astype(int) + 2
    rows = np.rint(places[:, 1]).astype(int)
    unusable[rows, columns] = True
    pixels[unusable] = 1e6

    got = fit(pixels, places, unusable=unusable)

    assert np.abs((got.flux - flux) / got.flux_err).max() < 5.0
    assert (got.usable < 1.0).all()


def test_moments_give_back_the_width_and_the_elongation_of_a_gaussian():
    yy, xx = np.mgrid[:61, :61]
    wide, narrow, angle = 2.6, 1.8, 0.5
    u = (xx - 30.2) * np.cos(angle) + (yy - 29.7) * np.sin(angle)
    v = -(xx - 30.2) * np.sin(angle) + (yy - 29.7) * np.cos(angle)
    pixels = np.exp(-0.5 * ((u / wide) ** 2 + (v / narrow) ** 2)).astype(np.float32)
    where = np.array([30.2]), np.array([29.7])

    for sign in (1.0, -1.0):
        fwhm, elongation = moments(
            np.float32(sign) * pixels,
            *where,
            np.array([sign]),
            psf_sigma=2.0,
            unusable=np.zeros(pixels.shape, bool),
        )
        # Cut at three sigma of the weight.
        assert fwhm[0] == pytest.approx(FWHM_PER_SIGMA * np.sqrt(wide * narrow), rel=0.01)
        assert elongation[0] == pytest.approx(wide / narrow, rel=0.02)


def test_forced_fluxes_have_a_pull_of_one_and_no_flux_where_there_is_no_image():
    rng = np.random.default_rng(5)
    pixels = rng.normal(0.0, np.sqrt(SKY), (800, 800)).astype(np.float32)
    x, y = rng.uniform(10, 790, (2, 3000))
    x[0], y[0] = -50.0, 3.0
    x[1] = np.nan

    flux, error = forced_flux(
        pixels,
        np.full(pixels.shape, SKY, np.float32),
        x,
        y,
        psf_sigma=SIGMA,
        unusable=np.zeros(pixels.shape, bool),
    )

    assert np.isnan(flux[:2]).all()
    pull = flux[2:] / error[2:]
    assert pull.std() == pytest.approx(1.0, abs=0.06)  # neighbours overlap
    assert error[2:].min() == pytest.approx(
        np.sqrt(SKY * GaussianPsf(SIGMA).effective_pixels), rel=0.02
    )


def test_a_masked_pixel_without_variance_is_as_one_that_is_not_there():
    pixels, places, _ = lattice(60.0, side=120)
    variance = np.full(pixels.shape, SKY, np.float32)
    unusable = np.zeros(pixels.shape, bool)
    x, y = places[0].round().astype(int)
    unusable[y - 1, x + 2] = True
    holes = variance.copy()
    holes[unusable] = 0.0
    struck = np.where(unusable, np.float32(1e6), pixels)

    whole, without = (
        forced_flux(p, v, places[:, 0], places[:, 1], psf_sigma=SIGMA, unusable=unusable)
        for p, v in ((pixels, variance), (struck, holes))
    )

    np.testing.assert_array_equal(whole, without)
    assert np.isfinite(without).all()


def test_forced_fluxes_are_those_of_photutils():
    from astropy.table import Table
    from photutils.psf import CircularGaussianPRF, PSFPhotometry

    pixels, places, flux = lattice(60.0, side=160)
    model = CircularGaussianPRF(fwhm=SIGMA * FWHM_PER_SIGMA)
    model.x_0.fixed = model.y_0.fixed = True
    error = np.full(pixels.shape, np.sqrt(SKY))
    init = Table({"x": places[:, 0], "y": places[:, 1], "flux": np.full(len(places), flux)})

    oracle = PSFPhotometry(model, (15, 15))(pixels.astype(float), error=error, init_params=init)
    got, got_err = forced_flux(
        pixels,
        np.full(pixels.shape, SKY, np.float32),
        places[:, 0],
        places[:, 1],
        psf_sigma=SIGMA,
        unusable=np.zeros(pixels.shape, bool),
    )

    # Their square is placed by another rounding: a few pixels of 1e-4 of the light.
    np.testing.assert_allclose(got, np.asarray(oracle["flux_fit"]), rtol=2e-3)
    np.testing.assert_allclose(got_err, np.asarray(oracle["flux_err"]), rtol=2e-2)
