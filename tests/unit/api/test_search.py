"""A search finds what a look at every alert finds, and its pages make the whole."""

import io
import json

import numpy as np
import pytest
from astropy.io import fits
from fastapi.testclient import TestClient

from broker.api import make_app
from broker.api.errors import ApiError
from broker.api.wanted import parse_moc
from broker.catalog.healpix import pixels_of
from broker.science.samples import sample_alerts
from broker.types import night_of
from broker.units import separation_arcsec

V1 = "/api/v1"


def all_pages(client, url, limit=7):
    found, cursor = [], ""
    while cursor is not None:
        page = client.get(f"{url}&limit={limit}&cursor={cursor}").json()
        found += [row["diaSourceId"] for row in page["data"]]
        assert len(page["data"]) == limit or page["next"] is None
        cursor = page["next"]
    assert page["total"] == len(found) == len(set(found))
    return found


def apart(alert, ra, dec):
    return float(separation_arcsec(ra, dec, alert["ra"], alert["dec"]))


NIGHT = night_of(61_101.9)
CELL = int(pixels_of(np.array([1.0]), np.array([1.0]), 5)[0])


@pytest.mark.parametrize(
    ("query", "holds"),
    [
        (f"night={NIGHT}", lambda a: night_of(a["midpointMjdTai"]) == NIGHT),
        (f"firstNight={NIGHT}&band=g,r", lambda a: is_later(a) and a["band"] in ("g", "r")),
        ("firstMjdTai=61101.9&lastMjdTai=61102.9", lambda a: 61101.9 <= mjd(a) <= 61102.9),
        ("class=hosted", lambda a: a["outputs"].get("context@1.0.0", {}) == HOSTED),
        ("class=contextClass=hosted,x", lambda a: a["outputs"].get("context@1.0.0") == HOSTED),
        ("topic=fast-transient&maxMag=22.5", lambda a: is_fast(a) and a["psfFlux"] > 3630.78),
        ("minSnr=10&maxSnr=20&survey=ztf", lambda a: is_ztf(a) and 10.0 <= a["snr"] <= 20.0),
        ("minReliability=0.6", lambda a: (a["reliability"] or 0.0) >= 0.6),
        ("maxDetections=4", lambda a: 0 < (a["nDiaSources"] or 0) <= 4),
        ("catalog=gaia", lambda a: a["gaiaMatch"] == 1),
        ("notCatalog=gaia", lambda a: a["gaiaMatch"] != 1),
        ("ra=0&dec=0&radiusArcsec=3600", lambda a: apart(a, 0.0, 0.0) <= 3600.0),
        (
            f"ra=0&dec=0&radiusArcsec=3600&night={NIGHT}",
            lambda a: apart(a, 0, 0) <= 3600 and night_of(mjd(a)) == NIGHT,
        ),
        ("box=359,1,-1,1.5", lambda a: (a["ra"] >= 359 or a["ra"] <= 1) and -1 <= a["dec"] <= 1.5),
        ("box=350,10,-3,0", lambda a: (a["ra"] >= 350 or a["ra"] <= 10) and -3 <= a["dec"] <= 0),
        ("polygon=359,-1,1,-1,0,1.5", lambda a: in_triangle(a)),
        (f"moc=5/{CELL}", lambda a: in_cell(a)),
    ],
)
def test_a_search_finds_what_a_look_at_every_alert_finds(asked, many, query, holds):
    truth = {a["diaSourceId"]: a for a in many.store.every() if a["isPublic"] and holds(a)}

    found = all_pages(asked, f"{V1}/alerts?{query}")

    assert sorted(found) == sorted(truth)
    assert found
    times = [mjd(truth[name]) for name in found]
    assert times == sorted(times, reverse=True)


HOSTED = {"contextClass": "hosted"}


def mjd(alert):
    return alert["midpointMjdTai"]


def is_later(alert):
    return night_of(mjd(alert)) >= NIGHT


def is_fast(alert):
    return "fast-transient" in alert["topics"]


def is_ztf(alert):
    return alert["survey"] == "ztf"


def in_cell(alert):
    return int(pixels_of(np.array([alert["ra"]]), np.array([alert["dec"]]), 5)[0]) == CELL


def in_triangle(alert):
    """By the signs of scalar triple products with its sides."""

    def vector(ra, dec):
        a, d = np.radians([ra, dec])
        return np.array([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)])

    corners = [vector(359.0, -1.0), vector(1.0, -1.0), vector(0.0, 1.5)]
    sides = zip(corners, corners[1:] + corners[:1], strict=True)
    place = vector(alert["ra"], alert["dec"])
    return all(np.cross(a, b) @ place >= 0.0 for a, b in sides)


def test_objects_come_once_by_the_newest_alert_that_is_as_it_is_wanted(asked, many):
    newest = {}
    for alert in many.store.every():
        name = (alert["survey"], alert["diaObjectId"])
        if is_fast(alert) and alert["isPublic"] and alert["band"] == "g":
            newest[name] = max(newest.get(name, (0.0, "")), (mjd(alert), alert["diaSourceId"]))

    body = asked.get(f"{V1}/objects?topic=fast-transient&band=g&limit=1000").json()

    rows = {(row["survey"], row["objectId"]): row for row in body["data"]}
    assert len(rows) == len(body["data"]) == body["total"] == len(newest)
    for name, (when, _) in newest.items():
        assert rows[name]["midpointMjdTai"] == when


def test_alerts_that_come_while_pages_are_turned_neither_repeat_nor_hide_others(words, tmp_path):
    broker = words.made_broker(tmp_path)
    app = make_app(broker.sources, requests_per_s=1e6, burst=1_000_000)
    batch = sample_alerts(1, seed=9, cutouts=False)
    with TestClient(app) as client:
        before = [row["diaSourceId"] for row in client.get(f"{V1}/alerts").json()["data"]]
        found, cursor, n = [], "", 0
        while cursor is not None:
            page = client.get(f"{V1}/alerts?limit=2&cursor={cursor}").json()
            found, cursor = found + [row["diaSourceId"] for row in page["data"]], page["next"]
            late = words.with_values(
                batch, diaSourceId=[f"new{n}"], midpointMjdTai=[61002.0 + n], isPublic=[True]
            )
            words.put(broker.store, late)
            broker.sources.shelf.clear()
            n += 1

    assert found == before


def test_a_coverage_may_be_sent_as_a_file(asked):
    truth = asked.get(f"{V1}/alerts?moc=5/{CELL}").json()
    unique = 4 * 4**5 + CELL
    table = fits.BinTableHDU.from_columns([fits.Column("UNIQ", "K", array=[unique])])
    table.header.update({"ORDERING": "NUNIQ", "COORDSYS": "C"})
    file = io.BytesIO()
    table.writeto(file)

    for body in (json.dumps({"5": [CELL]}).encode(), file.getvalue()):
        assert asked.post(f"{V1}/alerts/search", content=body).json() == truth
    assert asked.post(f"{V1}/alerts/search", content=b"{no").status_code == 400


@pytest.mark.parametrize(
    ("query", "status", "said"),
    [
        ("band=q", 400, "there is no band 'q'"),
        ("catalog=nope", 400, "there is no catalogue"),
        ("survey=nope", 404, "there is no survey"),
        ("topic=nope", 404, "there is no topic"),
        ("night=yesterday", 400, "is no night"),
        ("ra=1&dec=2", 400, "a cone needs all three"),
        ("box=1,2,3", 400, "4 numbers"),
        ("box=1,2,30,20", 400, "no box has"),
        ("box=1,2,3,4&moc=1/1", 400, "only one of them"),
        ("moc=1/400", 400, "no pixel 400"),
        ("cursor=WzFd", 400, "belongs to another question"),
        ("colour=red", 400, "there is no parameter 'colour'"),
    ],
)
def test_a_search_that_cannot_be_done_says_what_can(asked, query, status, said):
    answer = asked.get(f"{V1}/alerts?{query}")

    assert answer.status_code == status
    assert said in answer.json()["error"]


def test_a_coverage_as_text_is_the_same_as_mocpy_reads():
    from mocpy import MOC

    text = "3/5 4/100-103 200 8/7000"

    ours, theirs = parse_moc(text), MOC.from_string(text, "ascii")

    ranges = np.asarray(theirs.to_depth29_ranges, np.uint64)
    np.testing.assert_array_equal(np.stack([ours.first, ours.end], axis=1), ranges)
    assert parse_moc("4/100-103,200").fraction == 5 / (12 * 4**4)
    for wrong in ("", "5", "99/1", "4/1-9999999", "[1]", '{"a": 1}'):
        with pytest.raises(ApiError):
            parse_moc(wrong)


def test_what_is_not_public_is_in_no_search(asked, words):
    for url in (
        f"{V1}/alerts?limit=1000",
        f"{V1}/objects?limit=1000",
        f"{V1}/alerts?box=359,1,-1,1",
    ):
        text = asked.get(url).text
        assert "secret" not in text
        assert '"77"' not in text


def test_a_run_older_than_the_index_shows_its_objects_and_says_how_to_search(words, tmp_path):
    broker = words.made_broker(tmp_path)
    broker.tables.drop(broker.sources.run.table("index"))
    client = TestClient(make_app(broker.sources, requests_per_s=1e6, burst=1_000_000))

    refused = client.get(f"{V1}/alerts?band=g")

    assert refused.status_code == 404
    assert f"broker --run {words.RUN.name} upgrade" in refused.json()["error"]
    assert client.get(f"{V1}/objects/sim/{words.BIG}").json()["nAlerts"] == 2
    assert client.get(f"{V1}/nights").status_code == 200
