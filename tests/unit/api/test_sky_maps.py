"""Alerts inside a credible region are found with their level; bodies are where orbits say."""

import gzip
import io

import numpy as np
import pyarrow as pa
import pytest
from astropy.io import fits
from fastapi.testclient import TestClient

from broker.api import make_app
from broker.catalog.healpix import centres, pixels_of
from broker.catalog.registry import install_catalog
from broker.science.samples import sample_alerts
from broker.units import separation_arcsec

V1 = "/api/v1"
ORDER = 5


def likelihood(order):
    pixels = np.arange(12 << (2 * order), dtype=np.uint64)
    away = separation_arcsec(0.5, 0.5, *centres(pixels, order)) / 3600.0
    return np.exp(-0.5 * (away / 2.0) ** 2)


def fits_bytes(column, header):
    table = fits.BinTableHDU.from_columns(column)
    table.header.update({"PIXTYPE": "HEALPIX", "COORDSYS": "C", **header})
    file = io.BytesIO()
    table.writeto(file)
    return file.getvalue()


def one_order():
    values = likelihood(ORDER)
    column = [fits.Column("PROB", "D", array=values / values.sum())]
    return fits_bytes(column, {"ORDERING": "NESTED", "NSIDE": 2**ORDER})


def two_orders():
    """The same map; the pixels of one base cell far away as one of order 0."""
    values = likelihood(ORDER)
    fine = np.arange(values.size)
    kept = fine >> (2 * ORDER) != 11
    unique = np.append(4 * 4**ORDER + fine[kept], 4 + 11)
    area = 4.0 * np.pi / values.size
    density = np.append(values[kept], 0.0) / (values.sum() * area)
    columns = [
        fits.Column("UNIQ", "K", array=unique),
        fits.Column("PROBDENSITY", "D", unit="sr-1", array=density),
    ]
    return fits_bytes(columns, {"ORDERING": "NUNIQ"})


def true_levels(alerts):
    values = likelihood(ORDER)
    order = np.argsort(-values, kind="stable")
    level = np.empty(values.size)
    level[order] = np.cumsum(values[order]) / values.sum()
    pixels = pixels_of(
        np.array([a["ra"] for a in alerts]), np.array([a["dec"] for a in alerts]), ORDER
    )
    return dict(zip([a["diaSourceId"] for a in alerts], level[pixels].tolist(), strict=True))


@pytest.mark.parametrize("packed", [bytes, gzip.compress])
@pytest.mark.parametrize("made", [one_order, two_orders])
def test_candidates_are_the_alerts_inside_the_level_in_the_window(asked, many, made, packed):
    window = (61_101.0, 61_103.0)
    alerts = [
        a
        for a in many.store.every()
        if a["isPublic"] and window[0] <= a["midpointMjdTai"] <= window[1]
    ]
    truth = {name: at for name, at in true_levels(alerts).items() if at <= 0.8}

    sent = asked.post(f"{V1}/sky-maps", content=packed(made())).json()
    url = f"{V1}/sky-maps/{sent['mapId']}/candidates?level=0.8"
    url += f"&firstMjdTai={window[0]}&lastMjdTai={window[1]}&limit=10"
    rows, cursor = [], ""
    while cursor is not None:
        page = asked.get(f"{url}&cursor={cursor}").json()
        rows, cursor = rows + page["data"], page["next"]

    got = {row["diaSourceId"]: row["credibleLevel"] for row in rows}
    assert len(got) == len(rows) == page["total"] > 10
    assert got == {name: pytest.approx(at, abs=1e-5) for name, at in truth.items()}
    levels = [row["credibleLevel"] for row in rows]
    assert levels == sorted(levels)


def test_a_map_tells_where_it_is_likeliest_and_how_large(asked):
    sent = asked.post(f"{V1}/sky-maps", content=one_order()).json()

    assert separation_arcsec(0.5, 0.5, sent["ra"], sent["dec"]) / 3600.0 < 1.5
    # A Gaussian of 2 deg has 90 % within 2.146 of them: 58 deg², in pixels of 3.4 deg².
    assert sent["areaDeg2"]["0.9"] == pytest.approx(np.pi * (2.146 * 2.0) ** 2, rel=0.1)


@pytest.mark.parametrize("body", [b"", b"SIMPLE", b"\x1f\x8bxx", one_order()[:-2880], b"x" * 5760])
def test_what_is_no_map_is_refused(asked, body):
    answer = asked.post(f"{V1}/sky-maps", content=body)

    assert answer.status_code == 400
    assert "map" in answer.json()["error"]


def test_a_map_that_is_not_there_is_said(asked):
    assert asked.get(f"{V1}/sky-maps/0123/candidates").status_code == 404
    assert asked.get(f"{V1}/sky-maps/example/candidates?box=1,2,3,4").status_code == 400


ORBITS = """
kind = "orbits"
doc = "Asteroids."
radius_arcsec = 2.0
version = "1"
"""


@pytest.fixture(scope="module")
def with_orbits(words, tmp_path_factory):
    """A broker with a catalogue of orbits, and an alert that is one of its bodies."""
    from broker.catalog.registry import Catalogs

    folder = tmp_path_factory.mktemp("orbits")
    broker = words.made_broker(folder)
    definition = folder / "asteroids.toml"
    definition.write_text(ORBITS)
    rng, n = np.random.default_rng(1), 400
    install_catalog(
        folder / "catalogs",
        "asteroids",
        pa.table(
            {
                "id": [f"b{k}" for k in range(n)],
                "a": rng.uniform(2.0, 3.3, n),
                "e": rng.uniform(0.0, 0.3, n),
                "i": rng.rayleigh(8.0, n),
                "om": rng.uniform(0.0, 360.0, n),
                "w": rng.uniform(0.0, 360.0, n),
                "ma": rng.uniform(0.0, 360.0, n),
                "epoch": np.full(n, 61_000.0),
                "H": rng.uniform(15.0, 20.0, n),
            }
        ),
        "1",
        definition=definition,
    )
    broker.sources.catalogs = Catalogs(folder / "catalogs")
    batch = words.with_values(
        sample_alerts(3, seed=4, cutouts=False),
        diaSourceId=["m1", "m2", "m3"],
        ssObjectId=[None, None, "b7"],
        diaObjectId=["x", "y", None],
        midpointMjdTai=[61_010.0, 61_009.0, 61_008.0],
        isPublic=[True, True, True],
    )
    for name, values in {
        "asteroidsMatch": pa.array([1, 1, 0], pa.int32()),
        "asteroidsId": pa.array(["b7", "b70", None]),
        "asteroidsPredictedMag": pa.array([20.0, 20.0, None], pa.float32()),
    }.items():
        batch = batch.append_column(name, values)
    words.put(broker.store, batch)
    return broker


def test_the_bodies_of_a_cone_are_those_that_an_ephemeris_of_all_puts_there(with_orbits):
    from broker.catalog.orbits import ephemeris

    moving = with_orbits.sources.catalogs.moving("asteroids")
    seen = ephemeris(moving.elements, 61_020.3, site=moving.site)
    ids = moving.rows.entries["id"].to_pylist()
    ra, dec = float(seen.ra[5]), float(seen.dec[5])
    away = separation_arcsec(ra, dec, seen.ra, seen.dec)
    truth = {ids[k] for k in np.flatnonzero(away <= 36_000.0)}

    with TestClient(make_app(with_orbits.sources)) as client:
        url = f"{V1}/solar-system/around?ra={ra}&dec={dec}&mjdTai=61020.3&radiusArcsec=36000"
        body = client.get(url).json()

    assert {row["bodyId"] for row in body["data"]} == truth
    assert body["data"][0]["bodyId"] == ids[5]
    assert len(truth) > 1


def test_the_alerts_of_a_body_are_those_of_the_catalogue_and_of_its_survey(with_orbits):
    with TestClient(make_app(with_orbits.sources)) as client:
        both = client.get(f"{V1}/solar-system/alerts?body=b7").json()["data"]
        one = client.get(f"{V1}/solar-system/alerts?body=b7&catalog=asteroids").json()["data"]
        none = client.get(f"{V1}/solar-system/alerts?body=b7&catalog=gaia")

    assert [row["diaSourceId"] for row in both] == ["m3", "m1"]
    assert [row["diaSourceId"] for row in one] == ["m1"]
    assert none.status_code == 404
    assert none.json()["allowed"] == ["asteroids"]


def test_skyportal_gets_alerts_in_its_shape(asked, many):
    listed = asked.get(f"{V1}/skyportal/alerts?topic=fast-transient&limit=3").json()["data"]
    newest = asked.get(f"{V1}/skyportal/alerts/{listed[0]['candid']}").json()["data"]

    alert = many.store.alert(listed[0]["survey"], listed[0]["candid"])
    assert len(listed) == 3
    assert newest["objectId"] == alert["diaObjectId"]
    assert newest["candidate"]["ra"] == alert["ra"]
    # JD is UTC, 37 s behind TAI.
    jd = alert["midpointMjdTai"] + 2_400_000.5 - 37.0 / 86_400.0
    assert newest["candidate"]["jd"] == pytest.approx(jd, abs=1e-8)
    assert all(epoch["jd"] < newest["candidate"]["jd"] for epoch in newest["prv_candidates"])
    assert asked.get(f"{V1}/skyportal/alerts/nothing").status_code == 404
