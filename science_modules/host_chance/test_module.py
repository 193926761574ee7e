"""Chances are those of galaxies thrown at random; distances are astropy's."""

import numpy as np
import pandas as pd
from astropy.cosmology import FlatLambdaCDM
from scipy import stats

from science_modules.host_chance.module import host_chance


def asked(separation, size, mag, redshift):
    n = max(np.size(v) for v in (separation, size, mag, redshift))
    return host_chance(
        *(pd.Series(np.broadcast_to(v, n).astype("f8")) for v in (separation, size, mag, redshift))
    )


def test_the_chance_of_the_nearest_galaxy_of_a_random_field_is_uniform():
    """Galaxies as many as the counts say, thrown evenly: the chance has every value equally."""
    rng = np.random.default_rng(3)
    mag, radius = 20.0, 300.0
    per_arcsec2 = 10 ** (0.334 * (mag - 22.963) + 4.32) / (0.334 * np.log(10)) / 3600**2
    counts = rng.poisson(per_arcsec2 * np.pi * radius**2, 600)
    nearest = [radius * np.sqrt(rng.random(n)).min() for n in counts if n]

    got = asked(np.array(nearest), 0.0, mag, np.nan)["hostChance"]

    assert len(got) > 590  # a field without any is rare
    assert stats.kstest(got, "uniform").pvalue > 1e-3


def test_distances_are_those_of_astropy():
    redshift = np.array([0.001, 0.01, 0.1, 0.5, 1.5])
    expected = FlatLambdaCDM(H0=70.0, Om0=0.3, Tcmb0=0.0).angular_diameter_distance(redshift)

    got = asked(2.0, 1.0, 18.0, redshift)["hostAbsoluteOffset"]

    np.testing.assert_allclose(got, expected.value * 1e3 * np.radians(2.0 / 3600.0), rtol=1e-5)


def test_bright_and_near_is_less_by_chance_and_unknown_is_null():
    got = asked(np.array([1.0, 10.0, 1.0, np.nan, 1.0]), 0.0, [16, 16, 22, 16, np.nan], 0.0)
    chance = got["hostChance"]

    assert chance[0] < chance[1]
    assert chance[0] < chance[2]
    assert chance[3:].isna().all()
    assert got["hostAbsoluteOffset"].isna().all()
