"""FITS files as cameras write them are read, ours are read by others, bad ones are named."""

import gzip
import warnings

import numpy as np
import pyarrow as pa
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

from broker.errors import AlertError, ConfigError
from broker.imaging.fits import Defaults, read_frames, read_image, write_image, write_raw
from broker.imaging.image import Calibration, Image, RawExposure
from broker.imaging.mask import MaskPlane
from broker.imaging.psf import GaussianPsf
from broker.imaging.tables import read_table, write_table
from broker.imaging.wcs import Wcs

WCS_HERE = Wcs.from_scale(150.1, 2.2, scale_arcsec=0.25, crpix=(31.0, 20.0))
CALIBRATION = Calibration(7, 3, "r", 60990.123456789, 30.0, 27.5, 1.6, 7.5, 62_000.0)


def image(shape=(48, 64), meta=None):
    rng = np.random.default_rng(1)
    mask = np.zeros(shape, np.uint16)
    mask[3, 4] = MaskPlane.SATURATED
    mask[5, 6] = MaskPlane.NO_DATA | MaskPlane.COSMIC_RAY
    return Image(
        rng.normal(100.0, 10.0, shape).astype(np.float32),
        rng.uniform(90.0, 110.0, shape).astype(np.float32),
        mask,
        WCS_HERE,
        GaussianPsf(1.9),
        CALIBRATION,
        meta or {"nVisits": 3},
    )


def plain_file(path, **keys):
    header = fits.Header(WCS_HERE.header() | keys)
    fits.PrimaryHDU(np.ones((30, 40), np.float32), header).writeto(path)
    return path


@pytest.mark.parametrize("name", ["a.fits", "a.fits.gz", "a.fits.fz"])
def test_an_image_is_read_as_it_was_written(tmp_path, name):
    written = image()
    write_image(tmp_path / name, written)

    got = read_image(tmp_path / name)

    for plane in ("pixels", "variance", "mask"):
        np.testing.assert_array_equal(getattr(got, plane), getattr(written, plane))
    assert got.calibration == CALIBRATION
    assert got.psf == written.psf
    assert got.meta["nVisits"] == 3
    np.testing.assert_allclose(got.wcs.pixel_to_sky(3.0, 40.0), WCS_HERE.pixel_to_sky(3.0, 40.0))


def test_astropy_reads_what_is_written(tmp_path):
    write_image(tmp_path / "a.fits", image())

    with fits.open(tmp_path / "a.fits", checksum=True) as units:
        names = [unit.name for unit in units[1:]]
        theirs = WCS(units[0].header).pixel_to_world_values(10.0, 12.0)
        assert units["MASK"].header["MP_SAT"] == 1

    assert names == ["VARIANCE", "MASK"]
    np.testing.assert_allclose(theirs, WCS_HERE.pixel_to_sky(10.0, 12.0), rtol=0, atol=1e-9)


def test_a_raw_exposure_keeps_its_counts(tmp_path):
    counts = np.arange(64 * 48, dtype=np.uint16).reshape(48, 64) * 21
    write_raw(
        tmp_path / "r.fits", RawExposure(counts, WCS_HERE, GaussianPsf(2.0), CALIBRATION, 1000.0)
    )

    (frame,) = read_frames(tmp_path / "r.fits")

    np.testing.assert_array_equal(frame.pixels, counts)
    assert frame.pixels.dtype == np.uint16
    assert frame.header["BIASLVL"] == 1000.0


def test_images_in_extensions_inherit_the_primary_header(tmp_path):
    units = [fits.PrimaryHDU(header=fits.Header({"GAIN": 2.5, "FILTER": "ZTF_g"}))]
    for name in ("CCD1", "CCD2"):
        header = fits.Header(WCS_HERE.header() | {"EXTNAME": name})
        units.append(fits.ImageHDU(np.ones((8, 9), np.int16), header))
    units.append(fits.BinTableHDU(Table({"a": [1]})))
    fits.HDUList(units).writeto(tmp_path / "m.fits")

    frames = read_frames(tmp_path / "m.fits")

    assert [frame.name for frame in frames] == ["CCD1", "CCD2"]
    assert {frame.header["GAIN"] for frame in frames} == {2.5}


@pytest.mark.parametrize(
    ("text", "band"),
    [("g", "g"), ("SDSS r'", "r"), ("ZTF_i", "i"), ("zg", "g"), ("z", "z"), ("y_10", "y"),
     ("i.MP9703", "i"), ("Clear", ""), ("V", "")],
)  # fmt: skip
def test_a_filter_is_known_by_many_names(tmp_path, text, band):
    assert read_image(plain_file(tmp_path / "a.fits", FILTER=text)).band == band


@pytest.mark.parametrize(
    ("keys", "mjd_tai"),
    [
        ({"MJD-OBS": 60000.0, "EXPTIME": 60.0}, 60000.0 + (37.0 + 30.0) / 86400.0),
        ({"DATE-OBS": "2023-02-25T00:00:00", "EXPTIME": 60.0}, 60000.0 + 67.0 / 86400.0),
        ({"MJD-AVG": 60000.0, "TIMESYS": "TAI"}, 60000.0),
    ],
)
def test_the_middle_of_an_exposure_is_in_tai(tmp_path, keys, mjd_tai):
    got = read_image(plain_file(tmp_path / "a.fits", **keys))

    assert got.midpoint_mjd_tai == pytest.approx(mjd_tai, abs=1e-9)


def test_what_a_header_does_not_say_is_unknown_or_the_default(tmp_path):
    got = read_image(plain_file(tmp_path / "a.fits"), Defaults(gain=3.0))

    assert got.gain == 3.0
    assert np.isnan(got.zero_point)
    assert np.isnan(got.midpoint_mjd_tai)
    assert got.meta["psfKnown"] is False


def test_a_distorted_wcs_is_read_as_the_best_tan_and_says_how_good_it_is(tmp_path):
    header = fits.Header(WCS_HERE.header())
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN-SIP", "DEC--TAN-SIP"
    header.update({"A_ORDER": 2, "B_ORDER": 2, "A_2_0": 2e-5, "B_0_2": -1e-5})
    fits.PrimaryHDU(np.ones((200, 300), np.float32), header).writeto(tmp_path / "s.fits")

    (frame,) = read_frames(tmp_path / "s.fits")

    x, y = np.meshgrid(np.linspace(0, 299, 40), np.linspace(0, 199, 30))
    true = WCS(header).all_pix2world(x.ravel(), y.ravel(), 0)
    got_x, got_y = frame.wcs.sky_to_pixel(*true)
    worst = np.max(np.hypot(got_x - x.ravel(), got_y - y.ravel()))
    assert 0.0 < worst <= 1.02 * frame.wcs_error_px


def test_pixels_that_are_not_finite_are_masked(tmp_path):
    data = np.ones((30, 40), np.float32)
    data[3, 4], data[5, 6] = np.nan, np.inf
    fits.PrimaryHDU(data, fits.Header(WCS_HERE.header())).writeto(tmp_path / "n.fits")

    got = read_image(tmp_path / "n.fits")

    assert np.isfinite(got.pixels).all()
    assert set(zip(*np.nonzero(got.is_masked(MaskPlane.NO_DATA)), strict=True)) == {(3, 4), (5, 6)}


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"CRVAL2": 123.0}, "beyond a pole"),
        ({"CRVAL1": "here"}, "must be a number"),
        ({"CD1_1": 0.0, "CD1_2": 0.0}, "WCS|singular"),
        ({"CD1_1": -0.05, "CD2_2": 0.05}, "pixels of 180″"),
        ({"CD1_1": -1e-9, "CD2_2": 1e-9}, "pixels of 3.6e-06″"),
        ({"CRPIX1": 1e7}, "from its reference point"),
        ({"CTYPE1": "GLON-TAN", "CTYPE2": "GLAT-TAN"}, "RA and DEC"),
        ({"RADESYS": "FK4", "EQUINOX": 1950.0}, "FK4"),
    ],
)
def test_a_wcs_off_the_sky_is_refused(tmp_path, keys, reason):
    plain_file(tmp_path / "w.fits", **keys)

    with pytest.raises(AlertError, match=reason):
        read_frames(tmp_path / "w.fits")


def test_what_is_no_whole_image_is_refused_with_its_name(tmp_path):
    write_image(tmp_path / "a.fits", image())
    whole = (tmp_path / "a.fits").read_bytes()
    packed = gzip.compress(whole)
    flipped = bytearray(whole)
    flipped[9000] ^= 0x40
    bad = {
        "text.fits": b"this is no image\n" * 500,
        "empty.fits": b"",
        "cut.fits": whole[: len(whole) // 2],
        "cut.fits.gz": packed[: len(packed) // 2],
        "flipped.fits": bytes(flipped),
    }
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU(Table({"a": [1]}))]).writeto(
        tmp_path / "table.fits"
    )

    for name in [*bad, "table.fits", "absent.fits"]:
        with pytest.raises(AlertError, match=name):
            read_frames(tmp_path / name)


def test_cubes_and_spectra_do_not_hide_the_images_of_a_file(tmp_path):
    header = fits.Header({"CTYPE1": "LAMBDA", "CTYPE2": "ANGLE"})
    fits.HDUList(
        [
            fits.PrimaryHDU(),
            fits.ImageHDU(np.ones((3, 8, 9), np.float32)),
            fits.ImageHDU(np.ones((8, 9), np.float32), header, name="SPECTRUM"),
            fits.ImageHDU(np.ones((1, 8, 9), np.float32), fits.Header(WCS_HERE.header())),
        ]
    ).writeto(tmp_path / "m.fits")

    frames = read_frames(tmp_path / "m.fits")

    assert [frame.wcs is None for frame in frames] == [True, False]


def test_a_damaged_file_leaves_nothing_open_and_warnings_as_they_were(tmp_path):
    write_image(tmp_path / "a.fits", image())
    content = bytearray((tmp_path / "a.fits").read_bytes())
    content[9000] ^= 0x40
    (tmp_path / "a.fits").write_bytes(bytes(content))
    before = list(warnings.filters)

    with pytest.raises(AlertError, match="CHECKSUM"):
        read_frames(tmp_path / "a.fits")

    assert warnings.filters == before


def test_an_image_without_a_wcs_is_refused(tmp_path):
    fits.PrimaryHDU(np.ones((30, 40), np.float32)).writeto(tmp_path / "a.fits")

    with pytest.raises(AlertError, match="no WCS"):
        read_image(tmp_path / "a.fits")


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.vot", "t.fits"])
def test_a_table_is_read_as_it_was_written(tmp_path, name):
    table = pa.table(
        {
            "id": pa.array([1, 2**62], pa.int64()),
            "ra": [150.123456789012, 0.0],
            "flux": pa.array([1.5, None], pa.float32()),
            "band": ["r", "g"],
        }
    )
    write_table(tmp_path / name, table, units={"ra": "deg"})

    got = read_table(tmp_path / name)

    assert got["id"].to_pylist() == [1, 2**62]
    assert got["ra"].to_pylist() == [150.123456789012, 0.0]
    assert got["band"].to_pylist() == ["r", "g"]
    flux = got["flux"].to_pylist()
    assert flux[0] == 1.5
    assert flux[1] is None or np.isnan(flux[1])


def test_a_table_of_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"\.parquet"):
        write_table(tmp_path / "t.doc", pa.table({"a": [1]}))
