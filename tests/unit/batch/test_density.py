"""A density map counts each entry once, where it is."""

import numpy as np
import pytest
from astropy.io import fits
from matplotlib.image import imread

from broker.batch.density import draw_map, mollweide, pixel_counts, write_map
from broker.catalog.healpix import pixels_of


def counts_of(ra, dec, order):
    counts = np.zeros(12 * 4**order, dtype=np.int64)
    pixels, numbers = pixel_counts(np.sort(pixels_of(ra, dec)), order)
    counts[pixels] = numbers
    return counts


@pytest.fixture(scope="module")
def counts():
    rng = np.random.default_rng(1)
    return counts_of(rng.uniform(0, 360, 5000), np.degrees(np.arcsin(rng.uniform(-1, 1, 5000))), 3)


def test_a_map_is_read_as_it_was_written(counts, tmp_path):
    write_map(tmp_path / "map.fits", counts, 3, name="stars")

    with fits.open(tmp_path / "map.fits") as file:
        header, data = file[1].header, file[1].data
        np.testing.assert_array_equal(data["COUNT"], counts)
        # 12 * 4^3 pixels share 41252.96 square degrees
        np.testing.assert_allclose(data["DENSITY"], counts * 768 / 41252.96, rtol=1e-6)
    assert (header["PIXTYPE"], header["ORDERING"], header["NSIDE"]) == ("HEALPIX", "NESTED", 8)


def test_the_projection_has_places_where_they_belong():
    image = mollweide(counts_of([67.5, 135.0, 292.5], [0.0, 60.0, -45.0], 1), 1, width=400)

    # Snyder's table: at 45 and 60 deg y is 0.5925 and 0.7624 of the half axis, x 0.8056 and 0.6471.
    for ra, x_of_dec, y in ((67.5, 1.0, 0.0), (135.0, 0.6471, 0.7624), (292.5, 0.8056, -0.5925)):
        x = (ra - 180.0) / 180.0 * x_of_dec
        assert image[int((y + 1.0) * 100), int((x + 1.0) * 200)] == 1.0
    # The projection is equal-area: an even sky fills the ellipse evenly.
    assert np.isfinite(image).mean() == pytest.approx(np.pi / 4.0, abs=0.003)


def test_equal_areas_of_the_picture_are_equal_areas_of_the_sky(counts):
    image = mollweide(counts, 3, width=1600)

    assert np.nanmean(image) == pytest.approx(counts.mean(), rel=0.002)


@pytest.mark.parametrize("n", [0, 1, 500])
def test_a_map_is_drawn_however_few_entries_there_are(tmp_path, n):
    rng = np.random.default_rng(2)
    counts = counts_of(rng.uniform(0, 360, n), rng.uniform(-80, 80, n), 2)

    draw_map(tmp_path / "map.png", counts, 2, title="stars")

    picture = imread(tmp_path / "map.png")
    assert picture.shape[0] > 300
    assert picture.std() > 0.0
