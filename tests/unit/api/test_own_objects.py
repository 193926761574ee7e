"""Objects of our own images: forced fluxes after the newest alert, and whether one is withdrawn."""

import json
from contextlib import nullcontext

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from fastapi.testclient import TestClient

from broker.api import make_app
from broker.cli import object as object_command
from broker.cli.main import cli
from broker.portal import add_portal
from broker.science.samples import sample_alerts
from broker.store.forced import FORCED_SOURCES, ForcedStore, pixels_of_new_objects
from broker.store.objects import DONE, AssociationStore, DetectorRow, DetectorStore
from broker.store.retractions import Retraction, RetractionStore

V1 = "/api/v1"


@pytest.fixture
def own(words, tmp_path):
    """A broker, a client, and the alerts of an object with a number for its name."""
    broker = words.made_broker(tmp_path)
    app = make_app(broker.sources, requests_per_s=1e6, burst=1_000_000)
    return broker, TestClient(app), broker.store.object("sim", words.BIG)


def test_a_history_has_forced_fluxes_where_there_is_no_alert(own, words):
    broker, client, alerts = own
    before = client.get(f"{V1}/objects/sim/{words.BIG}/history").json()["data"]
    first = alerts[0]
    times = [first["midpointMjdTai"], first["midpointMjdTai"] + 30.0]
    columns = [[1, 2], [int(words.BIG)] * 2, [5, 6], [0, 0], times, [1.0] * 2, [2.0] * 2]
    columns += [[50.0, 7.5], [1.0, 1.5], [first["band"]] * 2]
    table = pa.table(dict(zip(FORCED_SOURCES.names, columns, strict=True)), schema=FORCED_SOURCES)
    pixel = pixels_of_new_objects(np.array([first["ra"]]), np.array([first["dec"]]))
    ForcedStore(broker.tables, words.RUN).record(table, np.repeat(pixel, 2))

    after = client.get(f"{V1}/objects/sim/{words.BIG}/history").json()["data"]

    assert len(after) == len(before) + 1  # the other one's epoch has an alert
    last = after[-1]
    assert (last["kind"], last["psfFlux"], last["psfFluxErr"]) == ("forced", 7.5, 1.5)
    assert (last["midpointMjdTai"], last["diaSourceId"]) == (times[1], None)


def test_an_object_that_is_withdrawn_says_so_and_keeps_its_alerts(own, words):
    broker, client, alerts = own
    url = f"{V1}/objects/sim/{words.BIG}"
    assert client.get(url).json()["isRetracted"] is False
    thing, source = int(words.BIG), int(alerts[0]["diaSourceId"])
    marks = [Retraction(thing, n, 61_200.5, "none is found", "v2", "1.0") for n in (None, source)]
    RetractionStore(broker.tables, words.RUN).put(marks)

    body = client.get(url).json()

    assert body["isRetracted"] is True
    assert (body["timeWithdrawnMjdTai"], body["retractionReason"]) == (61_200.5, "none is found")
    assert body["retractedDiaSourceIds"] == [str(source)]
    assert len(body["data"]) == len(alerts)


def test_objects_of_other_surveys_and_with_other_names_are_not_withdrawn(own, words):
    _, client, _ = own

    assert client.get(f"{V1}/objects/sim/across").json()["isRetracted"] is False
    assert client.get(f"{V1}/objects/sim/across/history").status_code == 200


def test_an_object_with_two_names_has_all_its_alerts_under_either(own, words, monkeypatch):
    broker, client, alerts = own
    thing, other = int(words.BIG), int(words.BIG) + 7
    first = alerts[0]
    place = {name: first[name] for name in ("ra", "dec", "visit", "midpointMjdTai")}
    batch = words.with_values(
        sample_alerts(1, seed=4, cutouts=False),
        survey=["sim"],
        diaObjectId=[str(other)],
        ssObjectId=[None],
        diaSourceId=[str(other)],
        isPublic=[True],
        **{name: [value] for name, value in place.items()},
    )
    words.put(broker.store, batch)
    columns = {name: [value] * 2 for name, value in place.items()} | {"visit": [3, 3]}
    own_ids = {"diaSourceId": [thing, other], "diaObjectId": [thing, other], "detector": [0, 1]}
    errors = {"raErr": [1e-5] * 2, "decErr": [1e-5] * 2}
    AssociationStore(broker.tables, words.RUN).put(pa.table(columns | own_ids | errors))

    one, two = (client.get(f"{V1}/objects/sim/{name}").json() for name in (thing, other))

    assert one == two
    assert (one["objectId"], one["aliases"]) == (str(thing), [str(other)])
    told = {row["diaSourceId"] for row in one["data"]}
    assert told == {row["diaSourceId"] for row in alerts} | {str(other)}
    histories = [client.get(f"{V1}/objects/sim/{n}/history").json()["data"] for n in (thing, other)]
    assert histories[0] == histories[1]
    mark = Retraction(thing, other, 61_200.5, "none is found", "v2", "1.0")
    RetractionStore(broker.tables, words.RUN).put([mark])
    shown = [show(monkeypatch, broker, str(name)) for name in (thing, other)]
    assert [[row["diaSourceId"] for row in json.loads(one.stdout)] for one in shown] == [
        [row["diaSourceId"] for row in one["data"]]
    ] * 2
    assert (
        shown[0].stderr
        == shown[1].stderr
        == (
            f"It is known as {thing}; also called {other}.\n"
            f"Its source {other} was withdrawn at MJD 61200.50000: none is found.\n"
        )
    )


def show(monkeypatch, broker, name):
    """Return what `broker object show` says in a terminal."""
    monkeypatch.setattr(object_command, "tables_of", lambda _: nullcontext(broker.tables))
    run = broker.sources.run.name
    return CliRunner().invoke(cli, ["--run", run, "object", "show", name, "--json"])


def test_the_page_of_an_object_says_what_was_withdrawn(own, words):
    broker, client, alerts = own
    add_portal(client.app)
    url = f"/objects/sim/{words.BIG}"
    assert "withdrawn" not in client.get(url).text
    source = int(alerts[0]["diaSourceId"])
    store = RetractionStore(broker.tables, words.RUN)
    store.put([Retraction(int(words.BIG), source, 61_200.5, "not found with v2", "v2", "1.0")])
    assert client.get(url).text.count(">withdrawn<") == 1  # one of its alerts
    store.put([Retraction(int(words.BIG), None, 61_200.5, "none <is> found", "v2", "1.0")])

    page = client.get(url).text

    assert page.count(">withdrawn<") == 2
    assert "none &lt;is&gt; found" in page
    assert "2026-06-" in page


def test_a_night_counts_its_flagged_images_by_flag(own, words):
    broker, client, _ = own
    add_portal(client.app)
    night, url = 61_000.6, f"{V1}/nights/20251121"
    good = {"midpointMjdTai": night, "visit": 1, "detector": 0, "band": "r", "seeing": 0.9}
    cards = [
        good,
        good | {"visit": 2, "ellipticity": 0.2},
        good | {"visit": 3, "ellipticity": 0.2, "zeroPointOff": -0.5},
        good | {"visit": 4, "midpointMjdTai": night + 1.0, "ellipticity": 0.2},
    ]
    rows = [DetectorRow(card["visit"], 0, DONE, scorecard=card) for card in cards]
    DetectorStore(broker.tables, words.RUN).put([*rows, DetectorRow(5, 0, DONE)])

    images = client.get(url).json()["images"]

    assert images == {"images": 3, "flagged": 2, "flags": {"LOST_GUIDING": 2, "CLOUDS": 1}}
    assert "2: LOST_GUIDING 2, CLOUDS 1" in client.get("/nights/20251121").text
