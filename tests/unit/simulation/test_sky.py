"""The sky: uniform, reproducible, a patch at a time."""

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from cdshealpix.nested import healpix_to_lonlat
from scipy.stats import kstest

from broker.catalog.healpix import pixels_of
from broker.simulation.dust import dust_factor, reddening
from broker.simulation.settings import DEMO
from broker.simulation.sky import PATCH_ORDER, _magnitudes, _power_law, draw_patch, positions
from broker.simulation.streams import generator, noise_key


def patch_with(ra, dec):
    return int(pixels_of(ra, dec, PATCH_ORDER)[0])


def test_a_patch_is_the_same_whatever_was_drawn_before():
    here, there = patch_with(150.0, 2.0), patch_with(10.0, -60.0)
    first = draw_patch(5, DEMO, here)

    draw_patch.cache_clear()
    draw_patch(5, DEMO, there)
    again = draw_patch(5, DEMO, here)

    np.testing.assert_array_equal(first.stars.ra, again.stars.ra)
    np.testing.assert_array_equal(first.galaxies.mag, again.galaxies.mag)
    for one, other in zip(first.transients, again.transients, strict=True):
        np.testing.assert_array_equal(one.ra, other.ra)
        for name, values in one.params.items():
            np.testing.assert_array_equal(values, other.params[name])


def test_seeds_kinds_and_patches_have_streams_of_their_own():
    draws = {
        float(generator(seed, kind, *key).random())
        for seed in (1, 2)
        for kind in ("stars", "galaxies")
        for key in ((7,), (8,), (7, 0))
    }
    keys = {int(noise_key(1, "noise", visit, detector)) for visit in (1, 2) for detector in (0, 1)}

    assert len(draws) == 12
    assert len(keys) == 4


def test_positions_are_in_their_patch_and_uniform_on_the_sphere():
    patch = patch_with(33.0, 77.0)
    rng = np.random.default_rng(3)

    ra, dec = positions(rng, 20_000, patch)

    assert np.all(pixels_of(ra, dec, PATCH_ORDER) == patch)
    # An independent uniform sample: darts on the sphere's bounding box, kept if in the patch.
    darts_ra = rng.uniform(ra.min(), ra.max(), 200_000)
    low, high = np.sin(np.radians([dec.min(), dec.max()]))
    darts_dec = np.degrees(np.arcsin(rng.uniform(low, high, 200_000)))
    inside = pixels_of(darts_ra, darts_dec, PATCH_ORDER) == patch
    assert kstest(ra, darts_ra[inside]).pvalue > 0.01
    assert kstest(np.sin(np.radians(dec)), np.sin(np.radians(darts_dec[inside]))).pvalue > 0.01


def test_many_patches_together_are_uniform_on_the_sphere():
    rng = np.random.default_rng(4)
    patches = rng.integers(0, 12 * 4**PATCH_ORDER, 2_000)

    places = [positions(rng, 1, int(patch)) for patch in patches]
    ra, dec = np.concatenate(places, axis=1)

    assert kstest(ra / 360.0, "uniform").pvalue > 0.01
    assert kstest((np.sin(np.radians(dec)) + 1.0) / 2.0, "uniform").pvalue > 0.01


def test_densities_are_those_of_the_settings():
    area = 41_252.96 / (12 * 4**PATCH_ORDER)
    patches = [draw_patch(11, DEMO, p) for p in range(1_000, 1_050)]

    for count, density in (
        (sum(p.stars.ra.size for p in patches), DEMO.star_density),
        (sum(p.galaxies.ra.size for p in patches), DEMO.galaxy_density),
    ):
        expected = density * area * len(patches)
        assert abs(count - expected) < 4.0 * np.sqrt(expected)


def test_magnitudes_and_amplitudes_follow_their_laws():
    rng = np.random.default_rng(6)

    mag = _magnitudes(rng, 5_000, (16.0, 24.0))
    flux = _power_law(rng, 5_000, (500.0, 20_000.0))

    low, high = 10.0 ** (0.25 * 16.0), 10.0 ** (0.25 * 24.0)
    assert kstest(mag, lambda m: (10.0 ** (0.25 * m) - low) / (high - low)).pvalue > 0.01
    a, b = 500.0**-0.5, 20_000.0**-0.5
    assert kstest(flux, lambda f: (a - f**-0.5) / (a - b)).pvalue > 0.01


def test_supernovae_are_within_the_catalogued_size_of_a_galaxy():
    patch = draw_patch(2, DEMO, patch_with(150.0, 2.0))
    supernovae = next(p for p in patch.transients if p.kind.name == "supernova-ia")
    galaxies = patch.galaxies

    for ra, dec in zip(supernovae.ra, supernovae.dec, strict=True):
        east = (galaxies.ra - ra) * np.cos(np.radians(dec)) * 3_600.0
        north = (galaxies.dec - dec) * 3_600.0
        assert np.any(np.hypot(east, north) <= 3.001 * galaxies.half_light_arcsec)


@pytest.mark.parametrize("patch", [0, 12 * 4**PATCH_ORDER - 1])
def test_the_first_and_the_last_patch_can_be_drawn(patch):
    stars = draw_patch(1, DEMO, patch).stars
    lon, lat = healpix_to_lonlat(np.array([patch], dtype=np.uint64), PATCH_ORDER)

    assert np.all(np.abs(stars.dec - lat.deg[0]) < 0.3)
    assert np.all(stars.ra >= 0.0)
    assert lon.deg[0] < 360.0


def test_a_galaxy_has_one_transient_at_most():
    patch = draw_patch(2, DEMO, patch_with(150.0, 2.0))
    nuclei = next(p for p in patch.transients if p.kind.name == "agn")
    supernovae = next(p for p in patch.transients if p.kind.name == "supernova-ia")
    sizes = dict(zip(patch.galaxies.ra, patch.galaxies.half_light_arcsec, strict=True))

    assert len(set(nuclei.ra)) == nuclei.ra.size
    inside = 0
    for ra, dec in zip(nuclei.ra, nuclei.dec, strict=True):
        east = (supernovae.ra - ra) * np.cos(np.radians(dec)) * 3_600.0
        distance = np.hypot(east, (supernovae.dec - dec) * 3_600.0)
        inside += int(np.any(distance < 0.5 * sizes[ra]))
    # By chance another galaxy's supernova lies that near to one nucleus in some thousand.
    assert nuclei.ra.size > 10
    assert inside <= 1


def test_dust_reddens_and_follows_the_galaxy():
    rng = np.random.default_rng(7)
    ra, dec = rng.uniform(0.0, 360.0, 4_000), np.degrees(np.arcsin(rng.uniform(-1.0, 1.0, 4_000)))

    ebv = reddening(ra, dec)

    b = np.abs(SkyCoord(ra, dec, unit="deg").galactic.b.deg)
    assert ebv.min() > 0.0
    assert np.median(ebv[b > 60.0]) < 0.03
    assert np.median(ebv[b < 10.0]) > 4.0 * np.median(ebv[b > 60.0])
    factors = [dust_factor(np.array([0.1]), band)[0] for band in "ugrizy"]
    assert factors == sorted(factors)
    assert factors[2] == 1.0
    # 0.1 mag of E(B-V): 3.237 - 2.273 of it between g and r.
    assert factors[1] == pytest.approx(10.0 ** (-0.4 * 0.0964))


def test_galaxies_lie_at_all_angles_and_some_are_spheroids():
    galaxies = [draw_patch(11, DEMO, p).galaxies for p in range(2_000, 2_040)]
    angle = np.concatenate([g.angle for g in galaxies])
    spheroid = np.concatenate([g.is_spheroid for g in galaxies])
    colour = np.concatenate([g.colour for g in galaxies])

    assert kstest(angle / np.pi, "uniform").pvalue > 0.01
    error = np.sqrt(0.3 * 0.7 / spheroid.size)
    assert abs(spheroid.mean() - DEMO.spheroid_share) < 4.0 * error
    assert colour[spheroid].mean() - colour[~spheroid].mean() == pytest.approx(0.25, abs=0.05)
