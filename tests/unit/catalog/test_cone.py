"""A cone holds all entries within its radius and no other."""

import numpy as np
import pyarrow as pa
import pytest

from broker.catalog import cone_search
from broker.catalog.partition import Rows, sort_rows
from broker.errors import AlertError
from broker.units import separation_arcsec


@pytest.fixture(scope="module")
def sky():
    rng = np.random.default_rng(3)
    n = 40_000
    ra, dec = rng.uniform(0, 360, n), np.degrees(np.arcsin(rng.uniform(-1, 1, n)))
    radius = rng.choice([0.5, 30.0, 400_000.0], n)
    table = pa.table(
        {"id": pa.array(np.arange(n).astype(str), pa.large_string()), "ra": ra, "dec": dec}
    )
    table, layers = sort_rows(table, radius)
    return Rows("test", "1", table, layers)


@pytest.mark.parametrize("radius", [0.0, 1.0, 3000.0, 40_000.0, 300_000.0, 648_000.0])
@pytest.mark.parametrize(
    ("ra", "dec"), [(0.0, 0.0), (360.0, 0.3), (77.0, 90.0), (1.0, -89.9), (45.0, 41.81)]
)
def test_a_cone_is_what_a_comparison_of_all_entries_gives(sky, ra, dec, radius):
    separation = separation_arcsec(ra, dec, sky.ra, sky.dec)
    inside = np.flatnonzero(separation <= radius)
    expected = inside[np.lexsort((sky.rank[inside], separation[inside]))]

    found = cone_search(sky, ra, dec, radius)

    ids = sky.table.column("id").to_pylist()
    assert found.column("id").to_pylist() == [ids[k] for k in expected]
    np.testing.assert_array_equal(found.column("separation"), separation[expected])


def test_a_cone_shows_the_entry_s_columns_and_none_of_the_index(sky):
    found = cone_search(sky, 10.0, 10.0, 5000.0)

    assert found.column_names == ["id", "ra", "dec", "separation"]


@pytest.mark.parametrize(
    ("ra", "dec", "radius"), [(np.nan, 0.0, 1.0), (0.0, 91.0, 1.0), (0.0, 0.0, -1.0)]
)
def test_a_cone_that_cannot_be_is_refused(sky, ra, dec, radius):
    with pytest.raises(AlertError, match=r"no place on the sky|the radius is"):
        cone_search(sky, ra, dec, radius)
