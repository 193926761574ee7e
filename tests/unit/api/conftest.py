"""An application over a broker in memory."""

import numpy as np
import pyarrow as pa
import pytest
import serving
from fastapi.testclient import TestClient

from broker.api import make_app
from broker.science.samples import sample_alerts

MANY = 200


@pytest.fixture(scope="session")
def broker(tmp_path_factory):
    return serving.made_broker(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="session")
def app(broker):
    return make_app(broker.sources, requests_per_s=1e6, burst=1_000_000)


@pytest.fixture
def client(app):
    with TestClient(app, raise_server_exceptions=True) as made:
        yield made


@pytest.fixture(scope="session")
def words():
    """The constants of the broker in memory."""
    return serving


@pytest.fixture(scope="session")
def many(words, tmp_path_factory):
    """A broker with many alerts around RA 0."""
    broker = words.made_broker(tmp_path_factory.mktemp("many"))
    rng = np.random.default_rng(2)
    batch = words.with_values(
        sample_alerts(MANY, seed=8, cutouts=False),
        diaSourceId=[str(9_000_000 + i) for i in range(MANY)],
        diaObjectId=[f"o{i // 3}" for i in range(MANY)],
        ssObjectId=[None] * MANY,
        midpointMjdTai=61_100.5 + rng.integers(0, 4, MANY) + 0.4,
        ra=rng.uniform(-3.0, 3.0, MANY) % 360.0,
        dec=rng.uniform(-3.0, 3.0, MANY),
        psfFlux=rng.normal(3000.0, 3000.0, MANY),
        snr=rng.uniform(4.0, 40.0, MANY),
    )
    classes = pa.array([("hosted", "hostless", None)[i % 3] for i in range(MANY)])
    words.put(
        broker.store,
        batch,
        topics=["fast-transient"],
        outputs={"context@1.0.0:contextClass": classes},
    )
    return broker


@pytest.fixture(scope="session")
def asked(many):
    with TestClient(make_app(many.sources, requests_per_s=1e6, burst=1_000_000)) as client:
        yield client
