"""Maps say what astropy-healpix reads from the same file."""

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy_healpix import HEALPix, level_ipix_to_uniq

from broker.catalog import Catalogs, install_catalog
from broker.errors import ConfigError

TOML = """
kind = "map"
doc = "Dust."
radius_arcsec = 1.0
version = "sfd"
[positions]
frame = "{frame}"
[[columns]]
name = "reddening"
dtype = "float32"
unit = "mag"
doc = "E(B-V)."
source = "EBV"
"""
PROBABILITY = """
kind = "map"
doc = "Where it came from."
radius_arcsec = 1.0
version = "1"
probability = "{column}"
"""


def sky(n, seed=1):
    rng = np.random.default_rng(seed)
    return rng.uniform(0, 360, n), np.degrees(np.arcsin(rng.uniform(-1, 1, n)))


def write(path, columns, **keywords):
    hdu = fits.BinTableHDU.from_columns(
        [fits.Column(name, "K" if np.asarray(v).dtype.kind in "iu" else "D", array=v)
         for name, v in columns.items()]
    )  # fmt: skip
    hdu.header.update(keywords)
    hdu.writeto(path)


def install(folder, text, file, name="dust"):
    definition = folder / f"{name}.toml"
    definition.write_text(text)
    install_catalog(folder / "catalogs", name, file, definition=definition)
    return Catalogs(folder / "catalogs")


@pytest.mark.parametrize("order", ["nested", "ring"])
@pytest.mark.parametrize("frame", ["icrs", "galactic"])
def test_a_value_is_that_of_the_pixel(tmp_path, order, frame):
    values = np.random.default_rng(1).uniform(0, 3, 12 * 32 * 32)
    write(tmp_path / "m.fits", {"EBV": values}, ORDERING=order.upper(), NSIDE=32,
          COORDSYS="C" if frame == "icrs" else "G")  # fmt: skip
    catalogs = install(tmp_path, TOML.format(frame=frame), tmp_path / "m.fits")
    ra, dec = sky(2000)
    place = SkyCoord(ra * u.deg, dec * u.deg)
    lon, lat = (place.ra, place.dec) if frame == "icrs" else (place.galactic.l, place.galactic.b)
    pixel = HEALPix(nside=32, order=order).lonlat_to_healpix(lon, lat)
    found = catalogs.match(ra, dec)
    np.testing.assert_allclose(found["dustReddening"].to_numpy(), values[pixel].astype(np.float32))
    assert set(found["dustMatch"].to_pylist()) == {1}
    assert set(found["dustVersion"].to_pylist()) == {"sfd"}


def test_a_part_of_the_sky_and_pixels_without_value_are_not_searched(tmp_path):
    pixel = np.arange(100, 400)
    values = np.linspace(0, 1, 300)
    values[::3] = -1.6375e30
    values[1::3] = np.nan
    write(tmp_path / "m.fits", {"PIXEL": pixel, "EBV": values}, ORDERING="NESTED", NSIDE=16,
          INDXSCHM="EXPLICIT")  # fmt: skip
    catalogs = install(tmp_path, TOML.format(frame="icrs"), tmp_path / "m.fits")
    heal = HEALPix(nside=16, order="nested")
    lon, lat = heal.healpix_to_lonlat(np.arange(500))
    found = catalogs.match(lon.deg, lat.deg)
    is_known = np.isin(np.arange(500), pixel[2::3])
    assert (found["dustMatch"].to_numpy() == np.where(is_known, 1, -1)).all()
    assert found["dustReddening"].null_count == np.count_nonzero(~is_known)


@pytest.mark.parametrize("kind", ["one order", "several orders"])
def test_the_credible_level_is_the_share_of_likelier_pixels(tmp_path, kind):
    heal = HEALPix(nside=32, order="nested")
    lon, lat = heal.healpix_to_lonlat(np.arange(12 * 32**2))
    middle = SkyCoord(80 * u.deg, -20 * u.deg)
    apart = middle.separation(SkyCoord(lon, lat)).deg
    density = np.exp(-0.5 * (apart / 12.0) ** 2)
    if kind == "one order":
        columns, keywords, column = {"PROB": density}, {"ORDERING": "NESTED", "NSIDE": 32}, "PROB"
    else:  # the half far away in pixels of a coarser order
        coarse = density.reshape(-1, 4).mean(axis=1)
        far = apart.reshape(-1, 4).min(axis=1) > 40.0
        density = np.where(np.repeat(far, 4), np.repeat(coarse, 4), density)
        fine = np.flatnonzero(~np.repeat(far, 4))
        unique = np.concatenate(
            [level_ipix_to_uniq(5, fine), level_ipix_to_uniq(4, np.flatnonzero(far))]
        )
        columns = {"UNIQ": unique, "PROBDENSITY": np.concatenate([density[fine], coarse[far]])}
        keywords, column = {"ORDERING": "NUNIQ"}, "PROBDENSITY"
    write(tmp_path / "gw.fits", columns, **keywords)
    catalogs = install(tmp_path, PROBABILITY.format(column=column), tmp_path / "gw.fits", "gw")
    ra, dec = sky(500)
    pixel = heal.lonlat_to_healpix(ra * u.deg, dec * u.deg)
    level = catalogs.match(ra, dec)["gwCredibleLevel"].to_numpy()
    total = density.sum()
    for k in range(500):
        here = density[pixel[k]]
        likelier = density[density > here * (1 + 1e-12)].sum() / total
        as_likely = density[density >= here * (1 - 1e-12)].sum() / total
        assert likelier - 1e-6 <= level[k] <= as_likely + 1e-6


@pytest.mark.parametrize(
    ("keywords", "columns", "says"),
    [
        ({"ORDERING": "NESTED", "NSIDE": 16}, {"EBV": np.ones(100)}, "cut short"),
        ({"ORDERING": "NESTED", "NSIDE": 3}, {"EBV": np.ones(108)}, "power of 2"),
        ({"NSIDE": 1}, {"EBV": np.ones(12)}, "ORDERING"),
        ({"ORDERING": "RING", "NSIDE": 1}, {"OTHER": np.ones(12)}, "no column EBV"),
        ({"ORDERING": "RING", "NSIDE": 1, "COORDSYS": "G"}, {"EBV": np.ones(12)}, "frame galactic"),
        ({"ORDERING": "RING", "NSIDE": 1}, {"EBV": np.full(12, np.nan)}, "no pixel with a value"),
    ],
)
def test_what_is_no_map_of_this_kind_is_refused(tmp_path, keywords, columns, says):
    write(tmp_path / "m.fits", columns, **keywords)
    with pytest.raises(ConfigError, match=says):
        install(tmp_path, TOML.format(frame="icrs"), tmp_path / "m.fits")


def test_an_ordinary_file_is_no_map(tmp_path):
    (tmp_path / "m.fits").write_text("hello")
    with pytest.raises(ConfigError, match="HEALPix"):
        install(tmp_path, TOML.format(frame="icrs"), tmp_path / "m.fits")
