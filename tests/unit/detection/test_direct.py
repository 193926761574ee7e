"""Sources of a direct image are measured at the noise's limit, with the PSF of its stars."""

import numpy as np
import pytest

from broker.detection.direct import SOURCES, detect_sources
from broker.detection.flags import SourceFlag
from broker.detection.psf.width import fit_psf
from broker.errors import AlertError
from broker.imaging.image import Calibration, Image
from broker.imaging.mask import MaskPlane, empty_mask
from broker.imaging.psf import GaussianPsf
from broker.imaging.wcs import Wcs
from broker.simulation.kernels import add_gaussians

SIDE, SKY, READ = 700, 400.0, 6.0
WCS_HERE = Wcs.from_scale(10.0, -30.0, scale_arcsec=0.25, crpix=(350.0, 350.0))


def width_at(x, y):
    """Twelve percent from side to side."""
    return 1.9 * (1.0 + 0.06 * ((2 * x + 1) / SIDE - 1.0) - 0.03 * ((2 * y + 1) / SIDE - 1.0))


def field(seed, *, n=300, guess=2.5, galaxies=0, known=False):
    rng = np.random.default_rng(seed)
    side = int(np.ceil(np.sqrt(n)))
    grid = (np.arange(side) + 0.5) * SIDE / side
    x, y = (g.ravel()[:n] + rng.uniform(-6, 6, n) for g in np.meshgrid(grid, grid))
    electrons = 10 ** rng.uniform(3.3, 5.2, n)
    width = width_at(x, y)
    size = np.where(np.arange(n) < galaxies, np.hypot(width, 2.0), width)
    light = np.full((SIDE, SIDE), SKY, np.float32)
    add_gaussians(light, x, y, electrons, size, size, 0.01)
    pixels = (rng.poisson(light) + rng.normal(0.0, READ, light.shape)).astype(np.float32)
    calibration = Calibration(1, 0, "r", 60000.0, 30.0, 27.0, 1.0, READ, 1e9)
    variance = np.full(pixels.shape, SKY + READ**2, np.float32)
    image = Image(pixels, variance, empty_mask((SIDE, SIDE)), WCS_HERE, GaussianPsf(guess),
                  calibration, {"psfKnown": known})  # fmt: skip
    return image, x, y, electrons, size


@pytest.fixture(scope="module")
def measured():
    image, x, y, electrons, _ = field(1)
    return detect_sources(image), x, y, electrons


def test_the_psf_and_its_variation_are_measured():
    image, *_ = field(2, galaxies=90)
    clean = image.with_arrays(pixels=image.pixels - np.float32(SKY))

    model = fit_psf(clean)

    x, y = np.meshgrid(np.linspace(40, SIDE - 40, 7), np.linspace(40, SIDE - 40, 7))
    error = model.sigma_at(x.ravel(), y.ravel()) / width_at(x, y).ravel() - 1.0
    assert np.abs(error).max() < 0.01
    assert model.n_stars >= 80
    assert model.elongation < 1.05


def test_bright_point_sources_are_good_to_a_hundredth_of_a_magnitude(measured):
    result, x, y, electrons = measured
    found_x, found_y = result.sources["x"].to_numpy(), result.sources["y"].to_numpy()
    gap = np.hypot(found_x[:, None] - x, found_y[:, None] - y)
    nearest = gap.argmin(axis=0)
    close = gap.min(axis=0) < 1.0
    counts = result.sources["counts"].to_numpy()[nearest]
    error = result.sources["countsErr"].to_numpy()[nearest]
    bright = close & (electrons / error > 150.0)

    offset = -2.5 * np.log10(counts[bright] / electrons[bright])
    assert close.mean() > 0.97
    assert bright.sum() > 50
    assert np.sqrt(np.mean(offset**2)) < 0.010
    place = np.hypot(found_x[nearest] - x, found_y[nearest] - y)[bright]
    assert np.sqrt(np.mean(place**2) / 2.0) < 0.02


def test_errors_are_honest_for_faint_sources(measured):
    result, x, y, electrons = measured
    sources = result.sources
    gap = np.hypot(sources["x"].to_numpy()[:, None] - x, sources["y"].to_numpy()[:, None] - y)
    k, close = gap.argmin(axis=0), gap.min(axis=0) < 1.0
    faint = close & (electrons < 10**4.3) & (electrons > 10**3.5)
    pull = (sources["counts"].to_numpy()[k] - electrons) / sources["countsErr"].to_numpy()[k]
    n = faint.sum()

    # Rms of n pulls: 1 within four of its own sigma.
    assert np.std(pull[faint]) == pytest.approx(1.0, abs=4.0 / np.sqrt(2 * n))


def test_stars_and_galaxies_differ_in_size():
    image, x, y, electrons, size = field(3, galaxies=150)
    sources = detect_sources(image, deblended=False).sources
    gap = np.hypot(sources["x"].to_numpy()[:, None] - x, sources["y"].to_numpy()[:, None] - y)
    k, close = gap.argmin(axis=0), gap.min(axis=0) < 1.0
    ratio = sources["sizeRatio"].to_numpy()[k]
    bright = close & (electrons > 10**4.3)
    is_galaxy = size > width_at(x, y) + 1e-6

    assert np.mean((ratio[bright] > 1.15) == is_galaxy[bright]) > 0.98


def test_an_image_without_stars_needs_a_known_psf():
    empty, *_ = field(4, n=1)
    pixels = np.random.default_rng(1).normal(SKY, 20.0, empty.shape).astype(np.float32)
    known = Image(pixels, empty.variance, empty.mask, empty.wcs, empty.psf, empty.calibration)

    assert detect_sources(known).sources.schema == SOURCES
    with pytest.raises(AlertError, match="isolated stars"):
        detect_sources(Image(pixels, empty.variance, empty.mask, empty.wcs, empty.psf,
                             empty.calibration, {"psfKnown": False}))  # fmt: skip


def test_an_image_that_is_all_masked_is_refused():
    image, *_ = field(5, n=9)
    mask = image.mask | np.uint16(MaskPlane.BAD)

    with pytest.raises(AlertError, match="masked"):
        detect_sources(image.with_arrays(mask=mask))


@pytest.mark.slow
def test_close_pairs_come_apart_in_an_image_unless_it_is_not_wanted():
    rng = np.random.default_rng(6)
    grid = np.arange(40.0, SIDE - 30.0, 70.0)
    x, y = (g.ravel() + rng.uniform(-3, 3, g.size) for g in np.meshgrid(grid, grid))
    x, y = np.append(x, x[::3] + 5.0), np.append(y, y[::3])
    light = np.full((SIDE, SIDE), SKY, np.float32)
    width = np.full(x.size, 1.9)
    add_gaussians(light, x, y, np.full(x.size, 3e4), width, width, 0.01)
    image = field(7, n=1)[0].with_arrays(pixels=rng.poisson(light).astype(np.float32))

    together = detect_sources(image, deblended=False).sources
    apart = detect_sources(image).sources

    assert len(apart) == x.size
    assert len(together) < x.size
    gap = np.hypot(apart["x"].to_numpy()[:, None] - x, apart["y"].to_numpy()[:, None] - y)
    counts = apart["counts"].to_numpy()[gap.argmin(axis=0)]
    assert np.abs(counts / 3e4 - 1.0).max() < 0.05
    added = apart["flags"].to_numpy() & int(SourceFlag.DEBLENDED)
    assert 0 < np.count_nonzero(added) <= len(x[::3])


def test_a_galaxy_among_stars_stays_one_source():
    image, x, y, *_ = field(8, n=100, galaxies=40)

    result = detect_sources(image)

    gap = np.hypot(result.sources["x"].to_numpy()[:, None] - x,
                   result.sources["y"].to_numpy()[:, None] - y)  # fmt: skip
    owners = np.bincount(gap.argmin(axis=1), minlength=x.size)
    assert owners[:40].mean() < 1.1
    assert owners[40:].max() == 1


def test_saturated_stars_only_leave_the_header_s_psf_and_say_so():
    image, x, y, *_ = field(9, n=16, guess=1.9, known=True)
    mask = image.mask.copy()
    for i, j in zip(np.rint(x).astype(int), np.rint(y).astype(int), strict=True):
        mask[j - 1 : j + 2, i - 1 : i + 2] |= np.uint16(MaskPlane.SATURATED)

    result = detect_sources(image.with_arrays(mask=mask))

    assert result.psf is None
    flags = result.sources["flags"].to_numpy()
    assert len(flags) > 8
    assert (flags & int(SourceFlag.PSF_FROM_HEADER)).all()
    near = np.hypot(result.sources["x"].to_numpy()[:, None] - x,
                    result.sources["y"].to_numpy()[:, None] - y).min(axis=1) < 2.0  # fmt: skip
    assert (flags[near] & int(SourceFlag.SATURATED)).all()


def test_where_a_coadd_is_shallow_its_noise_is_no_source():
    side, deep, shallow = 400, 5.0, 15.0
    rng = np.random.default_rng(11)
    sigma = np.where(np.arange(side) < 330, deep, shallow)[None, :].repeat(side, axis=0)
    # Each pixel's noise is white, as the variance plane says.
    pixels = rng.normal(0.0, sigma).astype(np.float32)
    x, y = np.array([100.0, 365.0]), np.array([200.0, 200.0])
    width = np.full(2, 2.0)
    add_gaussians(pixels, x, y, np.array([4000.0, 4000.0]), width, width, 0.01)
    calibration = Calibration(0, 0, "r", 60000.0, 300.0, 27.0, 1e6, 0.0, 1e9)
    image = Image(pixels, np.square(sigma).astype(np.float32), empty_mask((side, side)), WCS_HERE,
                  GaussianPsf(2.0), calibration, {"psfKnown": True, "nVisits": 9})  # fmt: skip

    found = detect_sources(image).sources.to_pandas()

    assert len(found) == 2  # by chance 0.1 more in such an image
    expected = 4000.0 / (np.sqrt(4.0 * np.pi) * 2.0 * np.array([deep, shallow]))
    np.testing.assert_allclose(found.sort_values("x").snr, expected, rtol=0.1)
