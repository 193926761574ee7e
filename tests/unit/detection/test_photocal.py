"""A reference catalogue gives the zero point and the WCS that an image really has."""

import numpy as np
import pyarrow as pa
import pytest

from broker.detection.photocal import calibrate
from broker.errors import AlertError
from broker.imaging.wcs import Wcs

SIDE, ZERO = 1000, 26.4
TRUE = Wcs(359.99, 60.0, 480.0, 520.0, ((-7e-5, 1e-6), (1.2e-6, 7e-5)))


def scene(seed, *, n=120, wrong=0.1, unknown=20):
    """Sources with errors, a catalogue with outliers and stars that were not seen."""
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(20, SIDE - 20, (2, n))
    ra, dec = TRUE.pixel_to_sky(x, y)
    mag = rng.uniform(16.0, 21.0, n)
    counts = 10 ** (0.4 * (ZERO - mag))
    error = np.sqrt(counts + 900.0)
    place = 2.0 * error / counts
    sources = pa.table(
        {
            "x": x + rng.normal(0, place),
            "y": y + rng.normal(0, place),
            "counts": counts + rng.normal(0, error),
            "countsErr": error,
            "flags": np.zeros(n, np.int64),
            "sizeRatio": np.ones(n),
        }
    )
    odd = rng.random(n) < wrong
    mag = np.where(odd, mag + rng.uniform(-1.0, 1.0, n), mag)
    far = TRUE.pixel_to_sky(*rng.uniform(0, SIDE, (2, unknown)))
    catalog = {
        "ra": np.append(ra, far[0]),
        "dec": np.append(dec, far[1]),
        "mag": np.append(mag, rng.uniform(16.0, 21.0, unknown)),
    }
    return sources, catalog


def off(dx, dy, turn=0.0, stretch=1.0):
    cos, sin = stretch * np.cos(turn), stretch * np.sin(turn)
    cd = np.array([[cos, -sin], [sin, cos]]) @ np.array(TRUE.cd)
    (a, b), (c, d) = cd.tolist()
    crpix = (TRUE.crpix_x + dx, TRUE.crpix_y + dy)
    return Wcs(TRUE.crval_ra, TRUE.crval_dec, *crpix, ((a, b), (c, d)))


@pytest.mark.parametrize(("dx", "dy", "turn"), [(0.0, 0.0, 0.0), (6.0, -7.0, 0.0), (2, 3, 1.5e-3)])
def test_the_wcs_is_found_again_across_the_border_of_right_ascension(dx, dy, turn):
    sources, catalog = scene(1)

    got = calibrate(sources, off(dx, dy, turn, 1.0 + turn), (SIDE, SIDE), **catalog)

    x, y = np.meshgrid([50.0, 500.0, 950.0], [50.0, 500.0, 950.0])
    back = TRUE.sky_to_pixel(*got.wcs.pixel_to_sky(x, y))
    assert np.hypot(back[0] - x, back[1] - y).max() < 0.02
    assert got.n_pairs > 100


def test_the_zero_point_is_within_its_error_although_some_magnitudes_are_wrong():
    pulls = []
    for seed in range(12):
        sources, catalog = scene(seed)
        got = calibrate(sources, TRUE, (SIDE, SIDE), **catalog)
        pulls.append((got.zero_point - ZERO) / got.zero_point_err)
        assert got.zero_point_err < 0.003

    # Twelve pulls with a little more than unit scatter, for the clipped outliers.
    assert np.sqrt(np.mean(np.square(pulls))) < 1.8


def test_few_stars_only_shift_the_wcs():
    sources, catalog = scene(3, n=9, wrong=0.0, unknown=2)

    got = calibrate(sources, off(2.0, 1.0), (SIDE, SIDE), **catalog)

    assert got.wcs.cd == off(2.0, 1.0).cd
    assert got.shift_px == pytest.approx(np.hypot(2.0, 1.0), abs=0.1)


def test_a_catalogue_of_another_place_is_refused():
    sources, catalog = scene(4)
    catalog["dec"] = catalog["dec"] - 3.0

    with pytest.raises(AlertError, match="catalogued objects"):
        calibrate(sources, TRUE, (SIDE, SIDE), **catalog)


def test_too_few_stars_with_a_magnitude_are_refused():
    sources, catalog = scene(5, n=12, wrong=0.0, unknown=0)
    catalog["mag"] = np.where(np.arange(12) < 9, np.nan, catalog["mag"])

    with pytest.raises(AlertError, match="stars have a magnitude"):
        calibrate(sources, TRUE, (SIDE, SIDE), **catalog)


def test_too_few_sources_for_a_wcs_are_refused():
    sources, catalog = scene(6, n=4, wrong=0.0, unknown=20)

    with pytest.raises(AlertError, match="4 sources"):
        calibrate(sources, TRUE, (SIDE, SIDE), **catalog)
