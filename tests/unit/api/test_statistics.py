"""Counts and maps are those of a look at every alert."""

import io
from collections import Counter

import numpy as np
import pytest
from astropy.io import fits

from broker.api.questions import EXAMPLE_TOPIC
from broker.catalog.healpix import pixels_of
from broker.types import night_of

V1 = "/api/v1/statistics"


@pytest.fixture
def public(broker):
    return [alert for alert in broker.store.every() if alert["isPublic"]]


def values_of(alert, kind):
    if kind == "alerts":
        return ["all"] + ["solar-system"] * (alert["ssObjectId"] is not None)
    if kind == "topic":
        return alert["topics"]
    if kind == "catalog":
        return [n.removesuffix("Match") for n, v in alert.items() if n.endswith("Match") and v == 1]
    return [alert[kind]] if alert[kind] else []


@pytest.mark.parametrize("kind", ["alerts", "survey", "band", "topic", "catalog"])
def test_counts_of_a_night_are_those_of_its_public_alerts(client, public, kind):
    truth = Counter(
        (night_of(alert["midpointMjdTai"]), value)
        for alert in public
        for value in values_of(alert, kind)
    )

    rows = client.get(f"{V1}/nights?by={kind}").json()["data"]

    got = {(row["night"], row["value"]): row["alerts"] for row in rows}
    assert {name: n for name, n in got.items() if n} == dict(truth)


def test_a_map_has_every_public_alert_in_its_pixel(client, public):
    truth = Counter(int(pixels_of(np.array([a["ra"]]), np.array([a["dec"]]), 4)[0]) for a in public)

    found = client.get(f"{V1}/map?format=json&order=4").json()["data"]
    of_topic = client.get(f"{V1}/map?format=json&order=4&topic={EXAMPLE_TOPIC}").json()["data"]

    assert {row["pixel"]: row["alerts"] for row in found} == dict(truth)
    assert sum(row["alerts"] for row in of_topic) == sum(
        EXAMPLE_TOPIC in a["topics"] for a in public
    )


def test_a_map_as_a_file_is_a_healpix_map_with_the_same_counts(client):
    found = client.get(f"{V1}/map?format=json&order=3").json()["data"]
    with fits.open(io.BytesIO(client.get(f"{V1}/map?format=fits&order=3").content)) as file:
        header, data = file[1].header, file[1].data
        assert (header["ORDERING"], header["NSIDE"], len(data)) == ("NESTED", 8, 768)
        counts = {row["pixel"]: row["alerts"] for row in found}
        assert {p: n for p, n in enumerate(data["COUNT"].tolist()) if n} == counts
        deep = {row["pixel"]: row["depth"] for row in found if row["depth"] is not None}
        for pixel, depth in deep.items():
            assert data["LIMITINGMAG"][pixel] == pytest.approx(depth)


@pytest.mark.parametrize("kind", ["counts", "depth"])
def test_a_map_as_a_picture_shows_something(client, kind):
    from PIL import Image

    answer = client.get(f"{V1}/map?kind={kind}&class=$x_{{")

    assert answer.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(answer.content)).size[0] > 800


def test_what_cannot_be_counted_by_is_said(client):
    assert "survey" in client.get(f"{V1}/nights?by=colour").json()["allowed"]
    assert client.get(f"{V1}/map?format=gif").json()["allowed"] == ["png", "fits", "json"]
    assert client.get(f"{V1}/nights?firstNight=x").status_code == 400
