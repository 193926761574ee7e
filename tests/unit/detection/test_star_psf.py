"""The PSF of an image's stars: any profile, any shape, changing over the image."""

import galsim
import numpy as np
import pytest

from broker.detection.measure import Noise, fit_sources
from broker.detection.psf.aperture_correction import measure_correction
from broker.detection.psf.forced import forced_psf_flux
from broker.detection.psf.photometry import fit_together, new_sources
from broker.detection.psf.stars import measure_psf
from broker.detection.psf.tables import gaussian_tables
from broker.detection.psf.width import fit_psf
from broker.errors import AlertError
from broker.imaging.image import Calibration, Image
from broker.imaging.mask import empty_mask
from broker.imaging.psf import GaussianPsf
from broker.imaging.wcs import Wcs

SIDE, SKY = 560, 200.0
PROFILES = {
    "moffat": lambda u, v: galsim.Moffat(beta=3.0, fwhm=4.7 * (1.0 + 0.05 * u)),
    "sheared gaussian": lambda u, v: galsim.Gaussian(sigma=2.0).shear(g1=0.1, g2=0.04 * v),
    "kolmogorov": lambda u, v: galsim.Kolmogorov(fwhm=4.5).shear(g1=0.05 * u, g2=-0.03),
}


def as_image(light, seed):
    pixels = np.random.default_rng(seed).poisson(light).astype(np.float32) - np.float32(SKY)
    return Image(
        pixels,
        np.full(pixels.shape, SKY, np.float32),
        empty_mask(pixels.shape),
        Wcs.from_scale(10.0, -30.0, scale_arcsec=0.25, crpix=(SIDE / 2, SIDE / 2)),
        GaussianPsf(2.0),
        Calibration(1, 0, "r", 6e4, 30.0, 27.0, 1.0, 0.0, 1e9),
    )


def starry(profile, seed, rows=14):
    rng = np.random.default_rng(seed)
    pitch = SIDE / rows
    grid = (np.arange(rows) + 0.5) * pitch
    x, y = (g.ravel() + rng.uniform(-5, 5, g.size) for g in np.meshgrid(grid, grid))
    flux = 10 ** rng.uniform(4.2, 5.2, x.size)
    drawn = galsim.ImageF(SIDE, SIDE)
    for a, b, total in zip(x, y, flux, strict=True):
        i, j = round(a), round(b)
        shape = profile((2 * a + 1) / SIDE - 1, (2 * b + 1) / SIDE - 1).withFlux(total)
        stamp = shape.drawImage(nx=63, ny=63, scale=1.0, offset=(a - i, b - j))
        stamp.setCenter(i + 1, j + 1)
        inside = stamp.bounds & drawn.bounds
        drawn[inside] += stamp[inside]
    return as_image(drawn.array + SKY, seed), x, y, flux


def fitted(image, x, y, psf):
    sources = new_sources(np.rint(x), np.rint(y), np.zeros(x.size))
    return fit_together(
        image.pixels, image.variance, sources, psf=psf, noise=Noise(1.0, SKY),
        unusable=np.zeros(image.shape, bool),
    )  # fmt: skip


@pytest.mark.parametrize("name", PROFILES)
def test_fluxes_by_the_measured_psf_are_unbiased_and_at_the_limit_of_the_noise(name):
    image, x, y, flux = starry(PROFILES[name], 3)

    psf = measure_psf(image, fit_psf(image, guess=2.0))
    fits, _ = fitted(image, x, y, psf.tables())

    offset = -2.5 * np.log10(fits.flux / flux)
    pull = (fits.flux / np.median(fits.flux / flux) - flux) / fits.flux_err
    n = x.size
    # Light beyond the window of the fit, wings of Kolmogorov's profile, is extrapolated.
    assert abs(np.median(offset)) < 0.010
    # Rms of n pulls: 1 within four of its own sigma.
    assert np.std(pull) == pytest.approx(1.0, abs=4.0 / np.sqrt(2 * n))
    place = np.concatenate([(fits.x - x) / fits.x_err, (fits.y - y) / fits.y_err])
    assert np.sqrt(np.mean(place**2)) == pytest.approx(1.0, abs=4.0 / np.sqrt(4 * n))
    assert psf.chi2 == pytest.approx(1.0, abs=0.05)


def test_the_round_gaussian_of_the_tables_gives_the_fit_of_the_closed_form():
    image, x, y, _ = starry(lambda u, v: galsim.Gaussian(sigma=2.0), 5, rows=8)
    i, j = np.rint(x).astype(int), np.rint(y).astype(int)
    no = np.zeros(image.shape, bool)

    got, _ = fitted(image, x, y, gaussian_tables(2.0, image.shape))

    want = fit_sources(image.pixels, image.variance, i, j, psf_sigma=2.0, noise=Noise(1.0, SKY),
                       unusable=no)  # fmt: skip
    assert np.abs((got.flux - want.flux) / want.flux_err).max() < 0.02
    assert np.abs((got.x - want.x) / want.x_err).max() < 0.02
    np.testing.assert_allclose(got.flux_err, want.flux_err, rtol=1e-3)


@pytest.mark.parametrize("sigma", [0.8, 1.3, 3.0])
def test_a_table_holds_the_pixel_s_integral_at_any_place(sigma):
    tables = gaussian_tables(sigma, (50, 50))

    for dx, dy in [(0.0, 0.0), (0.21, -0.37), (0.5, 0.49)]:
        want = GaussianPsf(sigma).stamp(dx, dy, 2 * tables.half + 1)
        got = tables.stamp(20 + dx - 1e-9, 20 + dy)
        assert np.abs(got - want).max() < 2e-4 * want.max()


def test_light_within_a_circle_is_that_of_the_table():
    image, *_ = starry(PROFILES["moffat"], 7, rows=10)
    psf = measure_psf(image, fit_psf(image, guess=2.0))
    tables = psf.tables()
    stamp = tables.stamp(280.0, 280.0)
    offset = np.arange(stamp.shape[0]) - tables.half

    inside = np.hypot(offset, offset[:, None]) < 9.0

    # Pixels at the rim of the circle count whole or not.
    assert psf.light_within(9.0, 280.0, 280.0) == pytest.approx(stamp[inside].sum(), abs=4e-3)


def test_the_aperture_correction_finds_what_a_wrong_psf_misses():
    image, x, y, flux = starry(lambda u, v: galsim.Gaussian(sigma=2.0), 9)
    narrow = gaussian_tables(1.9, image.shape)
    fits, residual = fitted(image, x, y, narrow)

    got = measure_correction(
        residual, image.variance, fits.x, fits.y, fits.flux, fits.flux_err,
        stars=np.ones(x.size, bool), psf_sigma=2.0, gain=1.0, unusable=np.zeros(image.shape, bool),
    )  # fmt: skip

    assert got.n_stars > 150
    true = np.average(flux / fits.flux, weights=flux)
    assert true > 1.02
    assert got.factor == pytest.approx(true, abs=4.0 * got.error + 2e-3)


def test_forced_flux_is_that_of_the_place_and_nothing_where_there_are_no_pixels():
    image, x, y, flux = starry(PROFILES["sheared gaussian"], 11, rows=10)
    psf = measure_psf(image, fit_psf(image, guess=2.0)).tables()
    places = np.append(x, [-40.0, np.nan]), np.append(y, [10.0, 5.0])

    got, error = forced_psf_flux(
        image.pixels, image.variance, *places, psf=psf, unusable=np.zeros(image.shape, bool)
    )

    assert np.isnan(got[-2:]).all()
    own = np.hypot(error[:-2], np.sqrt(flux))
    assert np.abs((got[:-2] - flux) / np.hypot(own, 0.005 * flux)).max() < 4.5


def test_too_few_whole_stars_are_refused():
    image, *_ = starry(lambda u, v: galsim.Gaussian(sigma=2.0), 13, rows=8)
    model = fit_psf(image, guess=2.0)
    mask = image.mask.copy()
    mask[:, 30:] = 1

    with pytest.raises(AlertError, match="stars"):
        measure_psf(image.with_arrays(mask=mask), model)
