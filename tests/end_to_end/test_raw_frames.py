"""Raw frames of a simulated camera, through the commands, become the light that made them."""

import json

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner

from broker.cli.main import cli
from broker.imaging.fits import read_image
from broker.imaging.mask import UNUSABLE
from broker.imaging.raw_fits import write_snaps
from broker.simulation.detector import amplifier_boxes
from broker.simulation.frames import raw_settings
from broker.simulation.observatory import simulate_night
from broker.simulation.settings import TEST
from broker.simulation.signature import signature_of

SEED = 1
SETTINGS = raw_settings(TEST)


def run(*arguments):
    result = CliRunner().invoke(cli, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("frames")
    said = json.loads(
        run("simulate", "frames", "--seed", SEED, "--exposures", 2, "--out", out, "--json")
    )
    (row,) = said
    assert (row["bias"], row["dark"], row["flat"]) == (31, 11, 15)
    known = []
    for kind in ("bias", "dark", "flat"):
        made = out / "masters" / f"{kind}.fits"
        files = sorted((out / kind).glob("*.fits"))
        run("image", "master", kind, *files, *known, "--out", made)
        known += [f"--{kind}", made]
    snaps = sorted((out / "science").glob("*.fits"))
    assert len(snaps) == 4
    run("image", "reduce", *snaps, "--snaps", *known, "--out", out / "reduced")
    return out


@pytest.fixture(scope="module")
def pulls(folder):
    """Reduced minus expected over the noise, NaN where a pixel is unusable, a plane an exposure."""
    flat = signature_of(SEED, SETTINGS, 0).flat
    planes = []
    for light in sorted((folder / "light").glob("*.fits")):
        wanted = read_image(light)
        image = read_image(folder / "reduced" / f"{light.stem}-snap0-reduced.fits")
        read = wanted.variance - wanted.pixels
        variance = wanted.pixels / flat + read / flat**2
        pull = (image.pixels - wanted.pixels) / np.sqrt(variance)
        pull[image.is_masked(UNUSABLE)] = np.nan
        planes.append(pull)
    return planes


def test_reduced_pixels_are_the_light_within_its_noise(pulls):
    for pull in pulls:
        good = pull[np.isfinite(pull)]
        assert good.size > 0.99 * pull.size
        # Masters of 31 biases and levels of 64 columns add two to three percent of variance.
        error = np.sqrt(2.0 / good.size)
        assert 1.0 - 4.0 * error < np.mean(good**2) < 1.05 + 4.0 * error
        assert abs(good.mean()) < 0.05
        assert np.abs(good).max() < 6.5


def test_the_amplifiers_seams_are_gone(pulls, folder):
    raw = fits.getdata(sorted((folder / "science").glob("*.fits"))[0], 1)
    assert raw.shape == (128, 64 + 64)
    for pull in pulls:
        for box in amplifier_boxes(SETTINGS):
            part = box.of(pull)
            # Each amplifier by itself is without offset: a level is known to 1/sqrt(128 × 64).
            assert abs(np.nanmean(part)) < 4.5 / np.sqrt(part.size) + 0.05
            assert np.nanvar(part) == pytest.approx(1.03, abs=0.03 + 4 * np.sqrt(2 / part.size))


def test_the_wcs_and_zero_point_are_those_of_the_detector(folder):
    drawn = simulate_night(seed=SEED, settings=SETTINGS)
    drawn = drawn.draw(drawn.visits[0], 0)
    image = read_image(sorted((folder / "reduced").glob("*.fits"))[0])

    for place in ((10.0, 20.0), (200.0, 30.0), (30.0, 220.0), (250.0, 250.0)):
        there = drawn.raw.wcs.sky_to_pixel(*image.wcs.pixel_to_sky(*place))
        np.testing.assert_allclose(there, place, atol=1e-6)
    assert image.zero_point == pytest.approx(drawn.visit.electron_zero_point, abs=1e-6)
    assert image.exposure_s == pytest.approx(30.0)
    assert image.midpoint_mjd_tai == pytest.approx(drawn.visit.midpoint_mjd_tai, abs=1e-9)


def test_the_snaps_are_read_by_astropy_with_sections_that_fit(folder, tmp_path):
    night = simulate_night(seed=SEED, settings=SETTINGS)
    drawn = night.draw(night.visits[0], 0)

    files = write_snaps(tmp_path, "again", drawn.raw)

    original = sorted((folder / "science").glob("*.fits"))[:2]
    assert [f.read_bytes() for f in files] == [f.read_bytes() for f in original]
    with fits.open(files[0]) as units:
        assert len(units) == 9
        assert units[2].header["DETSEC"] == "[128:65,1:128]"
        assert units[2].header["DATASEC"] == "[1:64,1:128]"
        assert units[2].header["BIASSEC"] == "[65:128,1:128]"
        blocks = [np.asarray(u.data) for u in units[1:]]
    plane = np.vstack([np.hstack(blocks[:4]), np.hstack(blocks[4:])])
    np.testing.assert_array_equal(plane, drawn.raw.pixels)
