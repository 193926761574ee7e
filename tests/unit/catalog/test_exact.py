"""Searches with one radius against other libraries and all pairs, where the sky is awkward."""

import numpy as np
import pyarrow as pa
import pytest
from astropy.coordinates import SkyCoord, match_coordinates_sky
from cdshealpix.nested import healpix_to_lonlat, vertices
from sklearn.cluster import DBSCAN

from broker.batch.clusters import block_clusters, core_rows, join_parts
from broker.catalog.crossmatch import within
from broker.catalog.healpix import centres
from broker.catalog.neighbours import nearest_k, pairs_within
from broker.catalog.partition import Rows, sort_rows
from broker.catalog.windows import cone, on_the_sky, rows_in_window
from broker.units import separation_arcsec


def awkward_places():
    """Poles, RA 0, where the polar caps begin, corners of base pixels, borders of tiles."""
    caps = np.degrees(np.arcsin(2.0 / 3.0))
    corners = [(45.0 * k, d) for k in range(8) for d in (0.0, caps, -caps)]
    spots = [(0.0, 90.0), (123.0, -90.0), (0.0, 0.0), (360.0, 10.0), (359.9999, caps), *corners]
    # centres of tiles of order 8, their corners, and a place on the side between two of these
    tiles = np.arange(0, 12 * 4**8, 80_021, dtype=np.uint64)
    ra, dec = centres(tiles, 8)
    lon, lat = vertices(tiles, 8)
    side_lon, side_lat = healpix_to_lonlat(tiles, 8, dx=0.3, dy=1e-12)
    ra = np.concatenate([ra, lon.deg.ravel(), side_lon.deg])
    dec = np.concatenate([dec, lat.deg.ravel(), side_lat.deg])
    return np.array([*spots, *zip(ra, dec, strict=True)]).T


def rows_at(ra, dec, radius=1.0):
    ids = pa.array([f"s{k:05d}" for k in range(len(ra))], pa.large_string())
    table, layers = sort_rows(pa.table({"id": ids, "ra": ra, "dec": dec}), np.full(len(ra), radius))
    return Rows("test", "1", table, layers)


@pytest.fixture(scope="module")
def rows():
    """A few entries within arcminutes of each awkward place, some of them twice."""
    rng = np.random.default_rng(1)
    ra, dec = (np.repeat(x, 12) for x in awkward_places())
    away, angle = rng.choice([0.0, 0.5, 30.0, 240.0], ra.size) / 3600.0, rng.uniform(0, 7, ra.size)
    dec = dec + away * np.cos(angle)
    over = np.abs(dec) > 90.0
    dec = np.where(over, np.sign(dec) * 180.0 - dec, dec)
    ra = ra + away * np.sin(angle) / np.maximum(np.cos(np.radians(dec)), 1e-3)
    return rows_at(np.where(over, ra + 180.0, ra) % 360.0, dec)


@pytest.mark.parametrize("radius", [0.0, 0.5, 29.0, 600.0, 20_000.0, 400_000.0, 648_000.0])
def test_pairs_are_those_of_all_pairs_at_awkward_places(rows, radius):
    ra, dec = rows.ra[::3], rows.dec[::3]
    separation = separation_arcsec(ra[:, None], dec[:, None], rows.ra, rows.dec)

    position, row, _ = pairs_within(rows, ra, dec, radius)

    got = np.zeros(separation.shape, bool)
    got[position, row] = True
    np.testing.assert_array_equal(got, separation <= radius)
    assert position.size == got.sum()
    assert radius < 648_000.0 or got.all()


@pytest.mark.parametrize("radius", [0.0, 1.0, 3600.0, 324_000.0, 330_000.0, 600_000.0, 648_000.0])
def test_a_cone_holds_what_is_in_it_at_awkward_places(rows, radius):
    for ra, dec in awkward_places().T[::5]:
        expected = np.flatnonzero(separation_arcsec(ra, dec, rows.ra, rows.dec) <= radius)
        found = rows_in_window(rows, [on_the_sky(cone(ra, dec, radius))])
        np.testing.assert_array_equal(found, expected)
    assert radius < 648_000.0 or found.size == len(rows)


def test_the_nearest_is_that_of_astropy(rows):
    rng = np.random.default_rng(2)
    ra, dec = rng.uniform(0, 360, 300), np.degrees(np.arcsin(rng.uniform(-1, 1, 300)))
    ra, dec = np.append(ra, awkward_places()[0]), np.append(dec, awkward_places()[1])

    _, row, separation = nearest_k(rows, ra, dec, 1)
    at, _, _ = within(rows, ra, dec, k=1)

    index, theirs, _ = match_coordinates_sky(
        SkyCoord(ra, dec, unit="deg"), SkyCoord(rows.ra, rows.dec, unit="deg")
    )
    np.testing.assert_allclose(separation, theirs.arcsec, atol=1e-6)
    np.testing.assert_array_equal(at, np.flatnonzero(theirs.arcsec <= 1.0))
    other = separation_arcsec(rows.ra[row], rows.dec[row], rows.ra[index], rows.dec[index])
    assert ((row == index) | (other < 1e-6) | (np.abs(separation - theirs.arcsec) < 1e-6)).all()


@pytest.mark.parametrize(("radius", "min_points"), [(40.0, 3), (200.0, 5), (2000.0, 12)])
def test_clusters_on_the_sky_are_those_of_scikit_learn(rows, radius, min_points):
    n, cut = len(rows), len(rows) // 3
    blocks = [(0, cut), (cut, 2 * cut), (2 * cut, n)]

    core = np.concatenate(
        [core_rows(rows, *b, radius=radius, min_points=min_points) for b in blocks]
    )
    found = [block_clusters(rows, *b, core, radius=radius) for b in blocks]
    cluster = join_parts(
        np.concatenate([f.part for f in found]), np.concatenate([f.links for f in found])
    )

    a, d = np.radians(rows.ra), np.radians(rows.dec)
    unit = np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], axis=1)
    chord = 2.0 * np.sin(np.radians(radius / 3600.0) / 2.0)
    theirs = DBSCAN(eps=chord, min_samples=min_points).fit(unit)
    is_core = np.zeros(n, bool)
    is_core[theirs.core_sample_indices_] = True
    np.testing.assert_array_equal(core, is_core)
    np.testing.assert_array_equal(cluster < 0, theirs.labels_ < 0)
    np.testing.assert_array_equal(cluster[core], theirs.labels_[core])
    assert cluster.max() > 5
