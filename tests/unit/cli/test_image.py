"""A person's own FITS files go in, images and tables that others read come out."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import Table
from click.testing import CliRunner

from broker.cli.main import cli
from broker.errors import AlertError
from broker.imaging.fits import read_image
from broker.imaging.image import Calibration
from broker.imaging.mask import MaskPlane
from broker.imaging.psf import GaussianPsf
from broker.imaging.wcs import Wcs
from broker.simulation.kernels import add_gaussians

SIDE, GAIN, READ, SKY = 200, 1.6, 7.0, 300.0
WCS_HERE = Wcs.from_scale(150.1, 2.2, scale_arcsec=0.25, crpix=(99.5, 99.5))
STARS = np.random.default_rng(4)
X, Y = STARS.uniform(12, SIDE - 13, (2, 25))
ELECTRONS = 10 ** STARS.uniform(3.8, 5.0, 25)


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    """Records of products are kept under the home."""
    monkeypatch.setenv("BROKER_HOME", str(tmp_path / "home"))


def run(*arguments):
    return CliRunner().invoke(cli, ["image", *(str(a) for a in arguments)])


def rows(done):
    return json.loads(done.stdout)


def expose(path, *, seed, sigma=1.9, sources=True, extra=(), hit=None, flat=1.0, **keys):
    """A raw file with a bias of 1000, stars, and whatever else is asked for."""
    rng = np.random.default_rng(seed)
    light = np.full((SIDE, SIDE), SKY, np.float32)
    if sources:
        width = np.full(25, sigma)
        add_gaussians(light, X, Y, ELECTRONS, width, width, 0.01)
    for x, y, flux in extra:
        one = np.array([sigma])
        add_gaussians(light, np.array([x]), np.array([y]), np.array([flux]), one, one, 0.01)
    electrons = rng.poisson(light * flat) + rng.normal(0.0, READ, light.shape)
    if hit is not None:
        electrons[hit] += 3000.0
    header = fits.Header(
        WCS_HERE.header()
        | {"GAIN": GAIN, "RDNOISE": READ, "BIASLVL": 1000.0, "SATURATE": 60_000.0}
        | {"EXPTIME": 30.0, "FILTER": "r", "MAGZP": 27.0, "MJD-OBS": 60990.0}
        | keys
    )
    counts = np.rint(electrons / GAIN + 1000.0).astype(np.uint16)
    fits.PrimaryHDU(counts, header).writeto(path)
    return path


def test_raw_files_become_images_in_electrons_and_a_bad_file_stops_no_other(tmp_path):
    good = [expose(tmp_path / f"r{k}.fits", seed=k) for k in range(2)]
    (tmp_path / "bad.fits").write_bytes(b"not an image")

    done = run("reduce", good[0], tmp_path / "bad.fits", good[1], "--out", tmp_path, "--json")

    assert done.exit_code == 20
    assert [row["status"] for row in rows(done)] == ["ok", "failed", "ok"]
    assert "it is not FITS" in rows(done)[1]["reason"]
    image = read_image(tmp_path / "r1-reduced.fits")
    assert np.median(image.pixels) == pytest.approx(SKY, abs=1.0)
    assert image.zero_point == pytest.approx(27.0 + 2.5 * np.log10(GAIN))
    assert image.gain == 1.0


def test_masters_flatten_what_they_were_made_from(tmp_path):
    shape = 1.0 + 0.1 * np.sin(np.arange(SIDE) / 15.0)[:, None] * np.ones((1, SIDE))
    flats = []
    for k in range(5):
        light = np.random.default_rng(k).poisson(20_000.0 * shape).astype(np.float32) / GAIN
        path = tmp_path / f"f{k}.fits"
        header = fits.Header({"GAIN": GAIN, "BIASLVL": 1000.0})
        fits.PrimaryHDU(np.rint(light + 1000.0).astype(np.uint16), header).writeto(path)
        flats.append(path)
    raw = expose(tmp_path / "r.fits", seed=9, sources=False, flat=shape)

    assert run("master", "flat", *flats, "--out", tmp_path / "flat.fits").exit_code == 0
    done = run("reduce", raw, "--flat", tmp_path / "flat.fits", "--out", tmp_path)

    assert done.exit_code == 0
    rows_mean = read_image(tmp_path / "r-reduced.fits").pixels.mean(axis=1)
    # 200 pixels a row: 19 electrons of noise each, and half a percent of the flat's.
    assert np.std(rows_mean - rows_mean.mean()) < 1.5 * 19.0 / np.sqrt(SIDE)


@pytest.mark.parametrize("ending", ["csv", "vot"])
def test_sources_are_found_and_their_table_opens_elsewhere(tmp_path, ending):
    raw = expose(tmp_path / "r.fits", seed=1)
    run("reduce", raw, "--out", tmp_path)

    done = run("detect", tmp_path / "r-reduced.fits", "--out", tmp_path, "--format", ending)

    assert done.exit_code == 0
    form = {"csv": "ascii.csv", "vot": "votable"}[ending]
    table = Table.read(tmp_path / f"r-reduced-sources.{ending}", format=form)
    gap = np.hypot(np.asarray(table["x"])[:, None] - X, np.asarray(table["y"])[:, None] - Y)
    assert np.mean(gap.min(axis=0) < 1.0) > 0.9
    assert (gap.min(axis=1) < 3.0).mean() > 0.95


def test_fluxes_are_measured_where_a_table_says(tmp_path):
    raw = expose(tmp_path / "r.fits", seed=1)
    run("reduce", raw, "--out", tmp_path)
    ra, dec = WCS_HERE.pixel_to_sky(X, Y)
    outside = WCS_HERE.pixel_to_sky(-50.0, 20.0)
    places = Table({"ra": [float(outside[0]), *ra], "dec": [float(outside[1]), *dec]})
    places.write(tmp_path / "places.csv", format="ascii.csv")

    done = run("measure", tmp_path / "r-reduced.fits", "--at", tmp_path / "places.csv",
               "--out", tmp_path, "--json")  # fmt: skip

    assert rows(done)[0]["places"] == 25
    table = pq.read_table(tmp_path / "r-reduced-measured.parquet")
    assert table["place"].to_pylist() == list(range(1, 26))
    gap = np.hypot(X[:, None] - X, Y[:, None] - Y) + 1e3 * np.eye(25)
    alone = gap.min(axis=0) > 25.0
    for name in ("psf", "kron", "petro"):
        counts = table[f"{name}Counts"].to_numpy()[alone]
        error = np.hypot(table[f"{name}CountsErr"].to_numpy()[alone], 0.01 * ELECTRONS[alone])
        assert np.nanmax(np.abs(counts - ELECTRONS[alone]) / error) < 4.5


def test_a_catalogue_mends_zero_point_and_wcs(tmp_path):
    raw = expose(tmp_path / "r.fits", seed=1, MAGZP=20.0, CRPIX1=103.0)
    run("reduce", raw, "--out", tmp_path)
    ra, dec = WCS_HERE.pixel_to_sky(X, Y)
    mag = 27.0 - 2.5 * np.log10(ELECTRONS / GAIN)
    table = Table({"ra": ra, "dec": dec, "r": mag})
    table.write(tmp_path / "stars.csv", format="ascii.csv")

    done = run("calibrate", tmp_path / "r-reduced.fits", "--catalog", tmp_path / "stars.csv",
               "--mag", "r", "--out", tmp_path, "--json")  # fmt: skip

    (row,) = rows(done)
    # One count of the reduced image is an electron.
    assert row["zeroPoint"] == pytest.approx(27.0 + 2.5 * np.log10(GAIN), abs=0.01)
    image = read_image(tmp_path / "r-reduced-calibrated.fits")
    x, y = image.wcs.sky_to_pixel(*WCS_HERE.pixel_to_sky(100.0, 100.0))
    assert np.hypot(x - 100.0, y - 100.0) < 0.05


def test_what_is_new_is_found_on_the_difference(tmp_path):
    for k in range(4):
        expose(tmp_path / f"t{k}.fits", seed=k, sigma=1.7)
        run("reduce", tmp_path / f"t{k}.fits", "--out", tmp_path)
    expose(tmp_path / "new.fits", seed=50, extra=[(60.3, 120.7, 6000.0)])
    run("reduce", tmp_path / "new.fits", "--out", tmp_path)
    parts = [tmp_path / f"t{k}-reduced.fits" for k in range(4)]

    stacked = run("coadd", *parts, "--out", tmp_path / "deep.fits", "--json")
    done = run("difference", tmp_path / "new-reduced.fits", tmp_path / "deep.fits",
               "--out", tmp_path, "--json")  # fmt: skip

    assert rows(stacked)[0]["images"] == 4
    assert rows(done)[0]["status"] == "ok"
    found = pq.read_table(tmp_path / "new-reduced-diasources.parquet")
    ra, dec = WCS_HERE.pixel_to_sky(60.3, 120.7)
    near = np.hypot(found["ra"].to_numpy() - ra, found["dec"].to_numpy() - dec) * 3600.0 < 0.25
    assert near.sum() == 1
    expected = 6000.0 / GAIN * 10 ** ((31.4 - 27.0) / 2.5)
    flux, error = (float(found[c].to_numpy()[near][0]) for c in ("psfFlux", "psfFluxErr"))
    assert flux == pytest.approx(expected, abs=4.0 * error)
    assert (tmp_path / "new-reduced-difference.fits").is_file()


def test_a_coadd_is_of_the_sharpest_and_without_a_visit(tmp_path):
    for k in range(3):
        expose(tmp_path / f"t{k}.fits", seed=40 + k)
        run("reduce", tmp_path / f"t{k}.fits", "--out", tmp_path)
    parts = [tmp_path / f"t{k}-reduced.fits" for k in range(3)]
    for k, sigma in enumerate((2.2, 1.8, 2.0)):
        with fits.open(parts[k], mode="update") as units:
            units[0].header["VISIT"] = 101 + k
            units[0].header["PSFSIGMA"] = sigma

    done = run("coadd", *parts, "--best", "1", "--without-visit", "102",
               "--out", tmp_path / "deep.fits", "--json")  # fmt: skip

    assert done.exit_code == 0, done.output
    assert read_image(tmp_path / "deep.fits").meta["visits"] == "103"


def test_a_pair_of_snaps_is_added_without_its_cosmic_ray(tmp_path):
    one = expose(tmp_path / "a.fits", seed=1, hit=(slice(50, 51), slice(30, 60)))
    two = expose(tmp_path / "b.fits", seed=2)

    done = run("reduce", one, two, "--snaps", "--out", tmp_path, "--json")

    assert done.exit_code == 0
    image = read_image(tmp_path / "a-reduced.fits")
    assert rows(done)[0]["cosmicRayPixels"] == pytest.approx(30, abs=2)
    assert image.is_masked(MaskPlane.INTERPOLATED)[50, 30:60].all()
    assert image.exposure_s == 60.0
    assert np.median(image.pixels) == pytest.approx(2 * SKY, abs=2.0)


def test_an_image_without_a_zero_point_asks_for_one(tmp_path):
    raw = expose(tmp_path / "r.fits", seed=1)
    with fits.open(raw, mode="update") as units:
        del units[0].header["MAGZP"]

    done = run("difference", raw, raw, "--out", tmp_path, "--json")

    assert done.exit_code == 20
    assert "--zero-point" in rows(done)[0]["reason"]


def test_nothing_to_stack_is_an_error(tmp_path):
    (tmp_path / "bad.fits").write_bytes(b"")

    done = run("coadd", tmp_path / "bad.fits", "--out", tmp_path / "c.fits")

    assert isinstance(done.exception, AlertError)


def test_a_night_can_be_written_as_files_without_a_server(tmp_path):
    done = CliRunner().invoke(
        cli, ["simulate", "night", "--preset", "test", "--out", str(tmp_path), "--json"]
    )

    assert done.exit_code == 0, done.output
    assert len(list((tmp_path / "raw").glob("*.fits"))) == 2
    template = read_image(next((tmp_path / "templates").glob("*.fits")))
    assert template.meta["nVisits"] == 3
    assert isinstance(template.calibration, Calibration)
    assert isinstance(template.psf, GaussianPsf)


def test_a_coadd_leaves_out_strangers_and_says_which(tmp_path):
    for k in range(2):
        expose(tmp_path / f"s{k}.fits", seed=70 + k, PSFSIGMA=1.9)
    expose(tmp_path / "band.fits", seed=72, PSFSIGMA=1.9, FILTER="g")
    expose(tmp_path / "place.fits", seed=73, PSFSIGMA=1.9, CRVAL1=170.0)
    expose(tmp_path / "scale.fits", seed=74, PSFSIGMA=1.9, CD1_1=-0.01, CD2_2=0.01)
    header = fits.getheader(tmp_path / "s0.fits")
    fits.PrimaryHDU(np.full((SIDE, SIDE), 7.0), header).writeto(tmp_path / "even.fits")
    fits.PrimaryHDU(np.eye(8), header).writeto(tmp_path / "small.fits")
    names = ["s0", "s1", "band", "place", "scale", "even", "small"]

    done = run("coadd", *(tmp_path / f"{n}.fits" for n in names), "--out", tmp_path / "c.fits",
               "--json")  # fmt: skip

    assert done.exit_code == 20
    assert (rows(done)[0]["images"], rows(done)[0]["left out"]) == (2, 5)
    said = dict(line.split(": ", 1) for line in done.stderr.splitlines() if ".fits: " in line)
    reasons = {name: said[str(tmp_path / f"{name}.fits")] for name in names[2:]}
    assert "band g" in reasons["band"]
    assert "does not lie" in reasons["place"]
    assert "144 times" in reasons["scale"]
    assert "one value" in reasons["even"]
    assert "too small" in reasons["small"]


def test_a_raw_file_without_a_pixel_fails_and_one_with_a_mask_keeps_it(tmp_path):
    expose(tmp_path / "r.fits", seed=75)
    with fits.open(tmp_path / "r.fits") as units:
        data, header = units[0].data, units[0].header
    empty = np.full((SIDE, SIDE), np.nan, np.float32)
    fits.PrimaryHDU(empty, header).writeto(tmp_path / "nan.fits")
    bad = np.zeros((SIDE, SIDE), np.int16)
    bad[50:60, 70:90] = 1
    units = [fits.PrimaryHDU(data, header), fits.ImageHDU(bad, name="MASK")]
    fits.HDUList(units).writeto(tmp_path / "m.fits")

    done = run("reduce", tmp_path / "nan.fits", tmp_path / "m.fits", "--out", tmp_path, "--json")

    first, second = rows(done)
    assert first["status"] == "failed"
    assert "no pixel" in first["reason"]
    assert second["badPixels"] == bad.sum()
    image = read_image(tmp_path / "m-reduced.fits")
    assert np.array_equal(image.is_masked(MaskPlane.BAD), bad != 0)


def test_calibrations_need_no_wcs_and_one_size(tmp_path):
    for k in range(4):
        expose(tmp_path / f"b{k}.fits", seed=80 + k, sources=False, CRVAL2=123.0)
    header = fits.getheader(tmp_path / "b0.fits")
    fits.PrimaryHDU(np.full((9, 9), 1000.0), header).writeto(tmp_path / "small.fits")

    files = [tmp_path / f"b{k}.fits" for k in range(4)]
    done = run("master", "bias", *files, tmp_path / "small.fits", "--out", tmp_path / "bias.fits",
               "--json")  # fmt: skip

    assert done.exit_code == 20
    assert [row["status"] for row in rows(done)] == ["ok"] * 4 + ["failed"]
    assert "9 × 9" in rows(done)[-1]["reason"]
    assert "master bias of 4 exposures" in done.stderr
