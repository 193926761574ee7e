"""Images that nothing can be made of are refused with a reason; never a silent number."""

from dataclasses import replace

import numpy as np
import pytest

from broker.detection.dia import difference_and_detect
from broker.detection.direct import detect_sources
from broker.errors import AlertError
from broker.imaging.image import Calibration, Image
from broker.imaging.mask import MaskPlane, empty_mask
from broker.imaging.psf import GaussianPsf
from broker.imaging.templates import Template
from broker.imaging.wcs import Wcs
from broker.simulation.kernels import add_gaussians

SKY, READ = 400.0, 6.0


def draw(shape=(160, 160), *, seed=1, ra=10.0):
    rng, sky = np.random.default_rng(seed), np.random.default_rng(5)
    ny, nx = shape
    n = max(ny * nx // 1500, 1)
    x, y, width = sky.uniform(0, nx, n), sky.uniform(0, ny, n), np.full(n, 2.0)
    light = np.full(shape, SKY, np.float32)
    add_gaussians(light, x, y, 10 ** sky.uniform(3.5, 4.8, n), width, width, 0.01)
    pixels = (rng.poisson(light) + rng.normal(0.0, READ, shape)).astype(np.float32)
    wcs = Wcs.from_scale(ra, -30.0, scale_arcsec=0.25, crpix=(nx / 2, ny / 2))
    calibration = Calibration(seed, 0, "r", 60_000.0, 30.0, 27.0, 1.0, READ, 1e9)
    variance = np.full(shape, SKY + READ**2, np.float32)
    return Image(pixels, variance, empty_mask(shape), wcs, GaussianPsf(2.0), calibration)


def template(shape=(160, 160), **more):
    image = draw(shape, seed=2, **more)
    calibration = replace(image.calibration, visit=0)
    pixels = image.pixels - np.float32(SKY)
    return Template(replace(image, pixels=pixels, calibration=calibration), "v")


def spoiled(value, where):
    image = draw()
    pixels = image.pixels.copy()
    pixels[where] = value
    return replace(image, pixels=pixels)


BAD = {
    "2 × 3": (draw((3, 2)), r"2 × 3 pixels is too small"),
    "20 × 20": (draw((20, 20)), "too small"),
    "one row": (draw((1, 160)), "too small"),
    "NaN": (spoiled(np.nan, (slice(20, 30), slice(20, 40))), "not finite"),
    "infinite": (spoiled(np.inf, (5, 5)), "not finite"),
    "only NaN": (spoiled(np.nan, ...), "not finite"),
    "one value": (spoiled(7.0, ...), "no noise"),
    "masked": (
        draw().with_arrays(mask=np.full((160, 160), MaskPlane.BAD, np.uint16)),
        "100% of the image is masked",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_image_is_refused_by_detection_and_by_subtraction(name):
    image, words = BAD[name]
    with pytest.raises(AlertError, match=words):
        detect_sources(image)
    with pytest.raises(AlertError, match=words):
        difference_and_detect(image, template(image.shape))


def test_pixels_that_are_not_finite_but_masked_do_no_harm():
    image = spoiled(np.nan, (slice(20, 30), slice(20, 40)))
    image.mask[20:30, 20:40] |= np.uint16(MaskPlane.BAD)
    got = detect_sources(image)
    plain = detect_sources(draw())
    assert 0 < got.sources.num_rows <= plain.sources.num_rows
    assert np.isfinite(got.sources["counts"].to_numpy()).all()


@pytest.mark.parametrize("value", [0.0, np.nan, -1.0])
def test_noise_comes_from_the_sky_and_not_from_a_variance_plane_that_is_wrong(value):
    image = draw()
    wrong = image.with_arrays(variance=np.full(image.shape, value, np.float32))
    assert detect_sources(wrong).sources.equals(detect_sources(image).sources)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ((np.nan, -30.0, 80.0, 80.0, ((1e-4, 0.0), (0.0, 1e-4))), "not finite"),
        ((10.0, -30.0, 80.0, 80.0, ((0.0, 0.0), (0.0, 0.0))), "singular"),
    ],
)
def test_a_wcs_that_is_none_cannot_be_made(values, words):
    with pytest.raises(AlertError, match=words):
        Wcs(*values)


@pytest.mark.parametrize("ra", [11.0, 190.0])
def test_a_place_off_the_template_or_off_the_sky_s_half_is_refused(ra):
    with pytest.raises(AlertError, match="does not lie on the exposure"):
        difference_and_detect(draw(), template(ra=ra))
