"""LSDB opens what is exported and finds what the broker finds."""

from warnings import catch_warnings, simplefilter

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from broker.catalog import Catalogs, install_catalog
from broker.catalog.crossmatch import nearest
from broker.catalog.definition import definition_of
from broker.catalog.hats import export_hats, margins, read_hats, tiles
from broker.catalog.healpix import centres, pixels_of
from broker.errors import ConfigError
from broker.units import separation_arcsec

N, MARGIN = 4000, 900.0


def field(rng, n):
    """Places around where base pixels of HEALPix meet, and RA passes 0."""
    return rng.uniform(-15, 15, n) % 360, rng.uniform(-15, 15, n)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    path = tmp_path_factory.mktemp("c")
    ra, dec = field(np.random.default_rng(1), N)
    table = pa.table({"id": [f"s{k}" for k in range(N)], "ra": ra, "dec": dec})
    install_catalog(path, "gaia", table, "v1")
    return path, Catalogs(path).rows("gaia")


def test_the_margin_of_a_tile_holds_all_rows_that_are_near_and_none_of_its_own(installed):
    _, rows = installed
    order = np.argsort(rows.pixels)
    pixels, ra, dec = rows.pixels[order], rows.ra[order], rows.dec[order]
    divided = tiles(pixels, 100)
    near = margins(pixels, divided, MARGIN)
    rng = np.random.default_rng(2)
    for (norder, npix, first, end), rows_near in list(zip(divided, near, strict=True))[::7]:
        assert np.unique(rows_near).size == rows_near.size
        assert not ((rows_near >= first) & (rows_near < end)).any()
        # Places in the tile, drawn around its middle; whatever is near one of them is near it.
        mid_ra, mid_dec = (float(c[0]) for c in centres(np.array([npix], np.uint64), norder))
        side = 58.6 / 2**norder
        there_ra = (mid_ra + side * rng.uniform(-1, 1, 200) / np.cos(np.radians(mid_dec))) % 360
        there_dec = np.clip(mid_dec + side * rng.uniform(-1, 1, 200), -90, 90)
        inside = pixels_of(there_ra, there_dec, norder) == npix
        for a, d in zip(there_ra[inside], there_dec[inside], strict=True):
            close = np.flatnonzero(separation_arcsec(a, d, ra, dec) <= MARGIN)
            missing = set(close) - set(rows_near) - set(range(first, end))
            assert not missing


@pytest.mark.slow
def test_lsdb_joins_the_exported_collection_as_the_broker_does(installed, tmp_path):
    import lsdb

    _, rows = installed
    export_hats(
        rows, definition_of("gaia"), tmp_path / "hats", rows_per_file=1000, margin_arcsec=MARGIN
    )
    rng = np.random.default_rng(3)
    ra, dec = field(rng, 1500)
    with catch_warnings():
        simplefilter("ignore")  # of the libraries below LSDB
        places = lsdb.from_dataframe(
            pd.DataFrame({"k": np.arange(1500), "ra": ra, "dec": dec}),
            ra_column="ra",
            dec_column="dec",
            lowest_order=0,
            highest_order=0,
            margin_threshold=None,
        )
        theirs = places.crossmatch(
            lsdb.open_catalog(tmp_path / "hats"), radius_arcsec=MARGIN, suffixes=("", "_gaia")
        ).compute()
    found = dict(zip(theirs["k"], theirs["id_gaia"], strict=True))

    separation = np.array(
        [separation_arcsec(a, d, rows.ra, rows.dec) for a, d in zip(ra, dec, strict=True)]
    )
    closest = separation.argmin(axis=1)
    ids = rows.table.column("id").to_pylist()
    near = separation[np.arange(1500), closest] <= MARGIN
    assert found == {int(k): ids[closest[k]] for k in np.flatnonzero(near)}
    assert len(found) > 100
    assert (nearest(rows, ra, dec)[0] >= 0).sum() <= len(found)  # its own radius is smaller


def test_a_collection_comes_back_as_the_same_rows(installed, tmp_path):
    _, rows = installed
    export_hats(rows, definition_of("gaia"), tmp_path / "hats", margin_arcsec=10.0)
    back = read_hats(tmp_path / "hats")
    assert sorted(back.column("id").to_pylist()) == sorted(rows.table.column("id").to_pylist())
    with pytest.raises(ConfigError, match="wider than any tile"):
        export_hats(rows, definition_of("gaia"), tmp_path / "wide", margin_arcsec=648_000.0)
