"""The benchmark of catalogues compares the same work."""

from broker.catalog.benchmark import bench_catalog


def test_astropy_finds_what_the_broker_finds():
    found = bench_catalog(20_000, n_alerts=5001)

    assert found["agrees"] == 1.0
    assert min(found.values()) > 0.0
