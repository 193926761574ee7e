"""Galaxies of GalSim are measured with all of their light."""

import galsim
import numpy as np
import pytest
from scipy.special import gammainc, gammaincinv

from broker.detection.galaxies.apertures import MEASURED, measure_places
from broker.detection.galaxies.model import fit_galaxies, sersic_gaussians
from broker.detection.galaxies.photometry import adaptive_shapes
from broker.detection.measure import Noise
from broker.detection.psf.stars import StarPsf
from broker.imaging.image import Calibration, Image
from broker.imaging.mask import empty_mask
from broker.imaging.psf import GaussianPsf
from broker.imaging.wcs import Wcs

SKY, PITCH, ROWS = 200.0, 100, 6
SIDE = PITCH * ROWS
PSF = galsim.Gaussian(sigma=2.0).shear(g1=0.05, g2=0.0)
KINDS = {1.0: galsim.Exponential, 4.0: galsim.DeVaucouleurs}


def star_psf():
    """The same PSF as a sum of one Gaussian."""
    squeeze = (1.0 + 0.05) / (1.0 - 0.05)
    return StarPsf(
        (1.0,), (1.0,), np.array([[4.0 * squeeze, 0.0, 4.0 / squeeze]]), (SIDE, SIDE), 2.0, 9, 1.0
    )


def draw(index, flux, seed):
    rng = np.random.default_rng(seed)
    grid = (np.arange(ROWS) + 0.5) * PITCH
    x, y = (g.ravel() + rng.uniform(-4, 4, g.size) for g in np.meshgrid(grid, grid))
    radius, shear = rng.uniform(2.5, 5.5, x.size), rng.uniform(0.0, 0.25, x.size)
    turn = rng.uniform(0.0, np.pi, x.size)
    canvas = galsim.ImageF(SIDE, SIDE)
    for k in range(x.size):
        shape = PSF.withFlux(flux)
        if index:
            galaxy = KINDS[index](half_light_radius=radius[k], flux=flux)
            galaxy = galaxy.shear(g=shear[k], beta=turn[k] * galsim.radians)
            shape = galsim.Convolve(galaxy, PSF)
        i, j = round(x[k]), round(y[k])
        stamp = shape.drawImage(nx=99, ny=99, scale=1.0, offset=(x[k] - i, y[k] - j))
        stamp.setCenter(i + 1, j + 1)
        inside = stamp.bounds & canvas.bounds
        canvas[inside] += stamp[inside]
    light = np.maximum(canvas.array, 0.0) + SKY
    pixels = rng.poisson(light).astype(np.float32) - np.float32(SKY)
    image = Image(
        pixels, np.full(pixels.shape, SKY, np.float32), empty_mask(pixels.shape),
        Wcs.from_scale(10.0, -30.0, scale_arcsec=0.25, crpix=(300.0, 300.0)), GaussianPsf(2.0),
        Calibration(1, 0, "r", 6e4, 30.0, 27.0, 1.0, 0.0, 1e9),
    )  # fmt: skip
    return image, x, y, radius, shear


def fitted(image, x, y):
    unusable = np.zeros(image.shape, bool)
    shapes = adaptive_shapes(image.pixels, x, y, psf_sigma=2.0, unusable=unusable)
    return fit_galaxies(
        image.pixels, image.variance, x, y, shapes, psf=star_psf(), noise=Noise(1.0, SKY),
        unusable=unusable,
    )  # fmt: skip


@pytest.mark.parametrize("index", [1.0, 4.0])
def test_the_sums_of_gaussians_hold_the_light_of_the_profile(index):
    share, variance = sersic_gaussians(index).T
    radius = np.geomspace(0.2, 8.0, 30)
    b = gammaincinv(2.0 * index, 0.5)

    got = np.sum(share * (1.0 - np.exp(-0.5 * radius[:, None] ** 2 / variance)), axis=1)

    want = gammainc(2.0 * index, b * radius ** (1.0 / index))
    assert share.sum() == pytest.approx(1.0)
    assert np.abs(got - want).max() < 4e-3


@pytest.mark.parametrize(("index", "bias"), [(1.0, 0.02), (4.0, 0.05)])
def test_galaxies_are_measured_without_bias_and_with_their_size_and_shape(index, bias):
    image, x, y, radius, shear = draw(index, 60_000.0, 1)

    got = fitted(image, x, y)

    best = got.best
    offset = -2.5 * np.log10(best.flux / 60_000.0)
    assert abs(np.mean(offset)) < bias
    assert np.sqrt(np.mean(offset**2)) < 0.05
    pull = (best.flux - np.mean(best.flux)) / best.flux_err
    assert np.std(pull) == pytest.approx(1.0, abs=4.0 / np.sqrt(2 * x.size))
    assert np.median(best.radius / radius) == pytest.approx(1.0, abs=0.05)
    axis_ratio = (1.0 - shear) / (1.0 + shear)
    assert np.median(np.abs(best.axis_ratio - axis_ratio)) < 0.05
    assert np.mean(np.round(got.bulge_share) == (index == 4.0)) > 0.95
    assert np.median(best.chi2 / best.n_pixels) == pytest.approx(1.0, abs=0.03)


def test_a_star_has_the_flux_of_the_psf_and_no_size():
    image, x, y, *_ = draw(0.0, 30_000.0, 2)

    table = measure_places(image, x, y, psf=star_psf())

    assert table.schema == MEASURED
    offset = -2.5 * np.log10(table["modelCounts"].to_numpy() / 30_000.0)
    assert abs(np.mean(offset)) < 0.01
    assert np.median(table["modelRadius"].to_numpy()) < 0.6
    assert np.abs(table["extendedness"].to_numpy()).max() < 0.05


def test_galaxies_are_told_from_stars_by_the_ratio_of_their_fluxes():
    stars, x, y, *_ = draw(0.0, 10_000.0, 3)
    discs, u, v, *_ = draw(1.0, 10_000.0, 4)

    star = measure_places(stars, x, y, psf=star_psf())["extendedness"].to_numpy()
    disc = measure_places(discs, u, v, psf=star_psf())["extendedness"].to_numpy()

    assert np.nanmax(star) < np.nanmin(disc)


def test_where_nothing_can_be_fitted_there_is_no_number():
    image, *_ = draw(1.0, 60_000.0, 5)
    mask = image.mask.copy()
    mask[:, :220] = 1
    image = image.with_arrays(mask=mask)
    places = np.array([100.0, np.nan, -50.0]), np.array([100.0, 10.0, 30.0])

    table = measure_places(image, *places, psf=star_psf())

    assert table["modelCounts"].null_count == 3
    assert table["psfCounts"].null_count == 3
    assert table["extendedness"].null_count == 3


def test_models_can_be_left_out():
    image, x, y, *_ = draw(1.0, 60_000.0, 6)

    table = measure_places(image, x, y, psf=star_psf(), models=False)

    assert table["modelCounts"].null_count == x.size
    assert table["petroCounts"].null_count == 0
