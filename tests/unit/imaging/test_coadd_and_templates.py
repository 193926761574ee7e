"""Templates: the mean they are, what does not get into them, and how they are kept."""

import numpy as np
import pytest

from broker.errors import AlertError, ConfigError
from broker.imaging.coadd import coadd
from broker.imaging.image import Calibration, Image
from broker.imaging.mask import MaskPlane
from broker.imaging.psf import GaussianPsf
from broker.imaging.templates import Template, TemplateStore, best_seeing
from broker.imaging.wcs import Wcs

SIDE = 256
SKY = 400.0
WCS = Wcs.from_scale(150.0, 2.0, scale_arcsec=0.25, crpix=(128.0, 128.0))


def exposure(seed, wcs, *, zero_point=27.0, sigma=1.8, stars=((150.0, 2.0, 30_000.0),), band="r"):
    """Stars of a flux at zero point 27, in an exposure of another zero point."""
    rng = np.random.default_rng(seed)
    pixels = np.full((SIDE, SIDE), SKY)
    for ra, dec, flux in stars:
        x, y = (float(v) for v in wcs.sky_to_pixel(ra, dec))
        i, j = round(x), round(y)
        scale = 10 ** (0.4 * (zero_point - 27.0))
        pixels[j - 12 : j + 13, i - 12 : i + 13] += (
            flux * scale * GaussianPsf(sigma).stamp(x - i, y - j, 25)
        )
    pixels = rng.normal(pixels, np.sqrt(SKY)).astype(np.float32)
    return Image(
        pixels,
        np.full(pixels.shape, SKY, np.float32),
        np.zeros(pixels.shape, np.uint16),
        wcs,
        GaussianPsf(sigma),
        Calibration(seed, 0, band, 61000.0 + seed, 30.0, zero_point, 1.0, 1.0, 60_000.0),
    )


def dithered(seed):
    rng = np.random.default_rng(seed + 50)
    return WCS.shifted(*rng.uniform(-8, 8, 2))


def test_eight_visits_are_deeper_by_the_root_of_eight_at_the_scale_of_a_psf():
    images = [exposure(k, dithered(k), zero_point=27.0 + 0.1 * (k % 3 - 1)) for k in range(8)]

    got = coadd(images, WCS, (SIDE, SIDE))

    psf = GaussianPsf(1.8).stamp(size=13)
    rng = np.random.default_rng(1)
    sums = []
    for x, y in rng.integers(20, SIDE - 20, (1500, 2)):
        if abs(x - 128) > 20 or abs(y - 128) > 20:
            sums.append(float(np.sum(psf * got.pixels[y - 6 : y + 7, x - 6 : x + 7])))
    stated = np.sqrt(float(got.variance[100, 100]) * np.sum(psf**2))
    # The sums overlap: some 300 are independent, the standard deviation is known to 5 %.
    assert np.std(sums) == pytest.approx(stated, rel=0.15)
    assert stated < 1.06 * np.sqrt(SKY * np.sum(psf**2) / 8)


def test_the_flux_of_a_star_is_kept_whatever_the_zero_points():
    images = [exposure(k, dithered(k), zero_point=27.0 + 0.2 * k) for k in range(6)]

    got = coadd(images, WCS, (SIDE, SIDE))

    aperture = got.pixels[118:139, 118:139].sum(dtype=float)
    # Noise of 441 pixels of six visits: about 170.
    assert aperture == pytest.approx(30_000.0, abs=4 * 170)
    assert got.zero_point == 27.0
    assert got.visit == 0
    assert got.exposure_s == 180.0


def test_no_light_of_stars_is_lost_where_seeing_differs():
    places = [(150.0 + 0.0028 * i, 2.0 + 0.0028 * j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    stars = [(ra, dec, 60_000.0) for ra, dec in places]
    widths = (1.5, 1.6, 1.7, 1.75, 1.9, 2.0, 2.1, 2.3)
    images = [exposure(k, dithered(k), sigma=s, stars=stars) for k, s in enumerate(widths)]

    got = coadd(images, WCS, (SIDE, SIDE))

    lights = []
    for ra, dec in places:
        x, y = (round(float(v)) for v in WCS.sky_to_pixel(ra, dec))
        lights.append(got.pixels[y - 12 : y + 13, x - 12 : x + 13].sum(dtype=float))
    # Noise of 625 pixels of eight visits, and what the level of the sky adds: 180.
    assert np.mean(lights) == pytest.approx(60_000.0, abs=3 * 180 / 9**0.5)


def test_what_only_one_visit_saw_does_not_get_in():
    images = [exposure(k, dithered(k)) for k in range(5)]
    x, y = (round(float(v)) for v in images[2].wcs.sky_to_pixel(150.003, 2.003))
    images[2].pixels[y - 1 : y + 2, x - 1 : x + 2] += 5_000.0

    got = coadd(images, WCS, (SIDE, SIDE))

    x, y = (round(float(v)) for v in WCS.sky_to_pixel(150.003, 2.003))
    around = got.pixels[y - 2 : y + 3, x - 2 : x + 3]
    assert np.abs(around).max() < 6 * np.sqrt(SKY / 4)


def test_the_edges_of_a_trail_in_one_visit_do_not_get_in_either():
    images = [exposure(k, dithered(k), stars=()) for k in range(8)]
    clean = coadd(images, WCS, (SIDE, SIDE)).pixels
    images[3].pixels[100:105] += 3_000.0

    change = coadd(images, WCS, (SIDE, SIDE)).pixels - clean

    # What is below the clip beside the trail would be 2 to 8 counts a column, if it got in; the
    # noise of the columns' mean is 0.3.
    assert abs(float(np.mean(np.sum(change[80:125, 12:-12], axis=0, dtype=float)))) < 1.0


def test_where_each_of_three_visits_has_an_outlier_beside_it_there_is_still_a_value():
    images = [exposure(k, WCS, stars=()) for k in range(3)]
    for k, image in enumerate(images):
        image.pixels[90, 98 + 2 * k] += 5_000.0

    got = coadd(images, WCS, (SIDE, SIDE))

    assert not got.is_masked(MaskPlane.NO_DATA)[85:96, 90:110].any()
    assert abs(float(got.pixels[90, 100])) < 6 * np.sqrt(SKY)
    assert float(got.variance[90, 100]) == pytest.approx(SKY * 1.571 / 3, rel=0.05)


def test_bad_and_uncovered_pixels_are_marked():
    images = [exposure(k, WCS) for k in range(3)]
    for image in images:
        image.mask[50, 60] = MaskPlane.BAD

    got = coadd(images, WCS.shifted(-20, 0), (SIDE, SIDE))

    assert got.mask[50, 80] & MaskPlane.NO_DATA
    assert got.is_masked(MaskPlane.NO_DATA)[:, :18].all()
    assert not got.is_masked(MaskPlane.NO_DATA)[60:-4, 30:-4].any()


def test_a_template_knows_which_visits_it_contains(tmp_path):
    store = TemplateStore(tmp_path)
    store.put("v1", [coadd([exposure(1, WCS), exposure(12, WCS)], WCS, (SIDE, SIDE))])

    got = store.find(150.0, 2.0, "r", "v1")

    assert got is not None
    assert got.contains(1)
    assert got.contains(12)
    assert not got.contains(2)
    assert not got.contains(0)  # no exposure's number


def test_no_image_and_two_bands_are_refused():
    with pytest.raises(AlertError, match="at least one"):
        coadd([], WCS, (10, 10))
    with pytest.raises(AlertError, match="one band"):
        coadd([exposure(1, WCS), exposure(2, WCS, band="g")], WCS, (10, 10))


def test_a_template_is_of_the_sharpest_visits_and_never_of_the_one_to_be_compared():
    seeing, visits = [1.1, 0.7, 0.9, float("nan"), 0.7, 0.6], [6, 5, 4, 3, 2, 1]

    assert best_seeing(seeing, visits, most=3) == [5, 4, 1]
    assert best_seeing(seeing, visits, most=3, without=(1, 2)) == [1, 2, 0]
    assert best_seeing(seeing, visits) == [5, 4, 1, 2, 0]


def test_a_template_comes_back_as_it_was_put(tmp_path):
    store = TemplateStore(tmp_path / "templates")
    image = coadd([exposure(1, WCS)], WCS, (SIDE, SIDE))

    assert store.versions() == []
    assert store.latest() is None
    store.put("20250101", [image])
    got = store.find(150.0, 2.0, "r", "20250101", corners=WCS.corners((SIDE, SIDE)))

    assert got is not None
    assert got.version == store.latest() == "20250101"
    np.testing.assert_array_equal(got.image.pixels, image.pixels)
    np.testing.assert_array_equal(got.image.variance, image.variance)
    np.testing.assert_array_equal(got.image.mask, image.mask)
    assert got.image.wcs == image.wcs
    assert got.image.calibration == image.calibration
    assert got.image.meta == image.meta
    assert store.find(150.0, 2.0, "r", "20250101") is got  # kept in memory


def test_a_template_of_another_band_place_or_version_is_not_found(tmp_path):
    store = TemplateStore(tmp_path)
    store.put("v1", [coadd([exposure(1, WCS)], WCS, (SIDE, SIDE))])

    assert store.find(150.0, 2.0, "g", "v1") is None
    assert store.find(150.1, 2.0, "r", "v1") is None
    assert store.find(330.0, -2.0, "r", "v1") is None
    assert store.find(150.0, 2.0, "r", "v2") is None


def test_of_two_templates_the_one_that_covers_more_corners_is_taken(tmp_path):
    store = TemplateStore(tmp_path)
    aside = coadd([exposure(1, WCS)], WCS.shifted(100, 0), (SIDE, SIDE))
    whole = coadd([exposure(1, WCS)], WCS.shifted(-10, -10), (SIDE + 20, SIDE + 20))
    store.put("v1", [aside, Template(whole, "v1")])

    got = store.find(150.0, 2.0, "r", "v1", corners=WCS.corners((SIDE, SIDE)))

    assert got is not None
    assert got.image.shape == (SIDE + 20, SIDE + 20)


def test_a_set_is_replaced_whole_and_leaves_no_draft(tmp_path):
    store = TemplateStore(tmp_path)
    image = coadd([exposure(1, WCS)], WCS, (SIDE, SIDE))
    store.put("v1", [image, image])
    store.find(150.0, 2.0, "r", "v1")

    store.put("v1", [image.with_arrays(pixels=image.pixels + np.float32(1.0))])

    got = store.find(150.0, 2.0, "r", "v1")
    assert got is not None
    assert got.image.pixels[0, 0] == image.pixels[0, 0] + np.float32(1.0)
    assert [p.name for p in tmp_path.iterdir()] == ["v1"]


def test_a_failed_write_leaves_nothing_to_read(tmp_path):
    store = TemplateStore(tmp_path)

    def broken():
        yield coadd([exposure(1, WCS)], WCS, (SIDE, SIDE))
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        store.put("v1", broken())

    assert store.versions() == []


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden"])
def test_a_version_is_a_plain_name(tmp_path, name):
    with pytest.raises(ConfigError, match="cannot be the name"):
        TemplateStore(tmp_path).put(name, [])
