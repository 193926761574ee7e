"""Light and noise in pixels."""

import dataclasses
import hashlib
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from scipy.stats import kstest

from broker.imaging.message import decode_raw
from broker.imaging.psf import GaussianPsf
from broker.simulation.detector import cosmic_rays, make_detector
from broker.simulation.exposure import draw_exposure
from broker.simulation.kernels import add_gaussians, add_plane, normal_table, read_out
from broker.simulation.observatory import simulate_night
from broker.simulation.optics import FLOOR_ELECTRONS, Optics
from broker.simulation.scene import _DISC, patches_of, scene_of
from broker.simulation.settings import DEMO, TEST


def one(*values):
    return tuple(np.array([value], dtype=np.float64) for value in values)


def noise(mean, key=1, *, shape=(1_024, 1_024), read_noise=8.0):
    """Electrons that were read, less those expected."""
    expected = np.full(shape, mean, dtype=np.float32)
    counts = read_out(expected, np.uint64(key), normal_table(), 1.0, read_noise, 1_000.0, 65_000.0)
    return counts.astype(np.float64) - 1_000.0 - mean


def test_a_star_is_the_integral_of_its_psf():
    image = np.zeros((41, 41), dtype=np.float32)

    add_gaussians(image, *one(20.3, 19.6, 1e5, 1.8, 1.8), FLOOR_ELECTRONS)

    expected = 1e5 * GaussianPsf(1.8).stamp(0.3, -0.4, 41)
    # Out to FLOOR_ELECTRONS, in float32.
    np.testing.assert_allclose(image, expected, rtol=1e-6, atol=FLOOR_ELECTRONS)


@pytest.mark.parametrize("flux", [10.0, 1e4, 1e7, -500.0])
def test_all_light_of_a_star_is_drawn(flux):
    image = np.zeros((201, 201), dtype=np.float32)

    add_gaussians(image, *one(100.2, 99.9, flux, 2.0, 2.0), FLOOR_ELECTRONS)

    assert image.sum(dtype=np.float64) == pytest.approx(flux, rel=2e-6)


def test_a_frame_is_the_same_as_one_cut_from_a_larger():
    rng = np.random.default_rng(2)
    n = 400
    x, y = rng.uniform(-60.0, 260.0, n), rng.uniform(-60.0, 260.0, n)
    flux, sigma = 10.0 ** rng.uniform(1.0, 7.0, n), rng.uniform(1.2, 9.0, n)
    large = np.zeros((420, 420), dtype=np.float32)
    frame = np.zeros((200, 200), dtype=np.float32)

    add_gaussians(large, x + 110.0, y + 110.0, flux, sigma, sigma, FLOOR_ELECTRONS)
    add_gaussians(frame, x, y, flux, sigma, sigma, FLOOR_ELECTRONS)

    outside = (x < -5.0) | (x > 205.0)
    assert outside.sum() > 50
    # 1e-4 of an object's light in the frame is the criterion; this is float32's own error.
    np.testing.assert_allclose(frame, large[110:310, 110:310], rtol=2e-5, atol=1e-3)


def test_an_exposure_has_the_light_of_stars_beyond_its_border():
    night = simulate_night(seed=3, settings=TEST)
    visit = night.visits[0]
    light = scene_of(3, TEST, 0, 0).static
    drawn = night.draw(visit, 0)
    x, y = drawn.raw.wcs.sky_to_pixel(light.ra, light.dec)
    side = TEST.detector_px

    big = np.zeros((side + 400, side + 400), dtype=np.float32)
    optics = Optics(visit.psf_sigma(TEST.scale_arcsec), side)
    scale2 = TEST.scale_arcsec**2
    flux = light.band_flux(visit.band) / visit.flux_per_electron
    moments = (light.xx / scale2, -light.xy / scale2, light.yy / scale2)
    optics.draw(big, (x + 200.0, y + 200.0), flux, moments)
    for population in scene_of(3, TEST, 0, 0).transients:
        px, py = drawn.raw.wcs.sky_to_pixel(population.ra, population.dec)
        quiet = population.quiescent_flux(visit.band) / visit.flux_per_electron
        optics.draw(big, (px + 200.0, py + 200.0), quiet)
    sky = np.zeros((side, side), dtype=np.float32)
    add_plane(sky, visit.sky_electrons(TEST.scale_arcsec), *visit.sky_slope)

    # Sums of float32 in another order.
    np.testing.assert_allclose(drawn.static, big[200:-200, 200:-200] + sky, rtol=1e-5)


def test_the_sky_has_its_level_and_its_slope():
    image = np.zeros((50, 100), dtype=np.float32)

    add_plane(image, 1_000.0, 0.02, -0.01)

    assert image.mean() == pytest.approx(1_000.0, rel=1e-6)
    assert image[:, -1].mean() - image[:, 0].mean() == pytest.approx(20.0 * 0.99, rel=1e-3)
    assert image[-1].mean() - image[0].mean() == pytest.approx(-10.0 * 0.98, rel=1e-3)


def test_the_disc_is_an_exponential_profile():
    h = 1.0 / 1.678347
    r = np.linspace(0.1, 5.0, 200)
    profile = sum(share * np.exp(-(r**2) / 2 / w**2) / (2 * np.pi * w**2) for w, share in _DISC)
    exact = np.exp(-r / h) / (2 * np.pi * h**2)

    assert np.max(np.abs(profile - exact)) < 0.02 / (2 * np.pi * h**2)
    assert _DISC[:, 1].sum() == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("mean", [150.0, 1_500.0])
def test_noise_has_the_moments_of_counting_and_reading(mean):
    e = noise(mean)
    n = e.size
    variance = mean + 64.0 + 1.0 / 12.0  # of counting, reading and rounding
    z = e / np.sqrt(variance)

    assert abs(z.mean()) < 3.0 / np.sqrt(n)
    assert abs(z.var() - 1.0) < 3.0 * np.sqrt(2.0 / n) + 0.06 * mean / variance**2 * 10
    assert abs((z**3).mean() - mean / variance**1.5) < 3.0 * np.sqrt(15.0 / n)
    assert abs((z**4).mean() - 3.0) < 3.0 * np.sqrt(96.0 / n) + 5.0 / mean
    four_sigma = 6.334e-5 * n
    assert abs((np.abs(z) > 4.0).sum() - four_sigma) < 4.0 * np.sqrt(four_sigma)


def test_noise_of_neighbours_and_of_other_images_is_independent():
    one_image, other = noise(1_000.0, 1), noise(1_000.0, 2)
    n = one_image.size
    limit = 4.0 / np.sqrt(n)

    for a, b in (
        (one_image[:, 1:], one_image[:, :-1]),
        (one_image[1:], one_image[:-1]),
        (one_image[:, 2:], one_image[:, :-2]),
        (one_image, other),
        (one_image[:, 1:], other[:, :-1]),
    ):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < limit


def test_noise_is_normal_where_light_is_plenty():
    e = noise(40_000.0, key=12_345, read_noise=0.0, shape=(128, 128))
    # Spread over the counts: rounding to whole electrons is a two-hundredth of sigma.
    z = (e + np.random.default_rng(1).uniform(-0.5, 0.5, e.shape)) / 200.0

    assert kstest(z.ravel(), "norm").pvalue > 0.01


def test_pixels_fill_to_the_top_and_no_further():
    expected = np.full((4, 5), 3e5, dtype=np.float32)

    counts = read_out(expected, np.uint64(1), normal_table(), 1.5, 7.0, 1_000.0, 63_000.5)

    assert np.all(counts == 63_000)


def digest(place):
    visit, detector = place
    night = simulate_night(seed=4, settings=TEST)
    message = night.exposure(night.visits[visit], detector).message
    return hashlib.sha256(message.value or b"").hexdigest()


@pytest.mark.slow
def test_the_bytes_are_the_same_in_any_order_and_any_process():
    night = simulate_night(seed=4, settings=TEST)
    forward = [hashlib.sha256(e.message.value).hexdigest() for e in night.exposures()]

    backward = [digest((v, 0)) for v in reversed(range(len(night.visits)))]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        elsewhere = list(pool.map(digest, [(1, 0), (0, 0)]))

    assert backward[::-1] == forward
    assert elsewhere[::-1] == forward
    assert len(set(forward)) == len(forward)


def test_another_seed_is_another_night():
    one_night = simulate_night(seed=4, settings=TEST)
    other = simulate_night(seed=5, settings=TEST)

    a, b = (decode_raw(next(night.exposures()).message.value) for night in (one_night, other))

    assert not np.array_equal(a.pixels, b.pixels)
    assert a.calibration.visit == b.calibration.visit


def test_a_quiescent_exposure_shows_no_change():
    night = simulate_night(seed=3, settings=TEST)
    visit = night.visits[0]

    quiet = draw_exposure(3, TEST, visit, 0, quiescent=True)
    loud = night.draw(visit, 0)

    np.testing.assert_array_equal(quiet.static, loud.static)
    # The noise is counted by pixel: away from transients the two are equal.
    assert 0.5 < np.mean(quiet.raw.pixels == loud.raw.pixels) < 1.0


def test_dead_pixels_read_nothing_at_every_visit():
    night = simulate_night(seed=3, settings=TEST)
    dead = make_detector(3, TEST, 0).dead

    for visit in night.visits:
        pixels = night.draw(visit, 0).raw.pixels
        np.testing.assert_array_equal(np.flatnonzero(pixels == 0), dead)


def test_cosmic_rays_are_counted_where_they_struck():
    pixels, charge = cosmic_rays(np.random.default_rng(1), 200, 512)

    assert pixels.min() >= 0
    assert pixels.max() < 512 * 512
    assert np.all(charge > 0.0)
    assert cosmic_rays(np.random.default_rng(1), 0, 512)[0].size == 0


def test_struck_pixels_are_brighter_than_expected():
    night = simulate_night(seed=1, settings=dataclasses.replace(TEST, cosmic_rays_per_mpix=500.0))

    drawn = night.draw(night.visits[0], 0)

    flat = drawn.raw.pixels.reshape(-1)[drawn.struck].astype(float)
    excess = (flat - drawn.raw.bias_level) * drawn.raw.calibration.gain
    excess -= drawn.static.reshape(-1)[drawn.struck]
    assert drawn.struck.size > 100
    assert np.median(excess[flat > 0]) > 500.0


def test_every_patch_that_can_reach_a_detector_is_looked_at():
    from broker.catalog.healpix import pixels_of
    from broker.simulation.cadence import field_wcs
    from broker.simulation.kernels import MAX_REACH_PX
    from broker.simulation.sky import PATCH_ORDER

    reach = MAX_REACH_PX + DEMO.template_margin_px
    points = np.linspace(-reach, DEMO.detector_px + reach, 200)
    x, y = np.meshgrid(points, points)
    for field in range(len(DEMO.fields)):
        ra, dec = field_wcs(DEMO, field, 1).pixel_to_sky(x.ravel(), y.ravel())
        needed = set(pixels_of(ra, dec, PATCH_ORDER).tolist())

        assert needed <= set(patches_of(DEMO, field, 1).tolist())
