"""Watchlists over HTTP: written with a token, shown to whom they are for, with their alerts."""

import contextlib
import copy
import itertools
import json

import mocpy
import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable

from broker.api import make_app
from broker.api.app import PREFIX
from broker.api.questions import EXAMPLE_ALERT, EXAMPLE_OBJECT, EXAMPLE_SCHEMA
from broker.api.watchlists import add_watchlists
from broker.avro import encode, frame
from broker.ops.tokens import WATCH, Grant, Tokens
from broker.ops.watchlists import Keeper
from broker.portal import add_portal
from broker.portal.account import LIFETIME_S, Sessions
from broker.topics.topic import Message
from broker.watchlists import WatchBook

LIST = f"{PREFIX}/watchlists"
STARS = "id,ra,dec\na,10,20\nb,30,40\n"


@pytest.fixture
def scene(broker, tmp_path):
    sources = copy.copy(broker.sources)
    owners = Tokens(tmp_path / "owners", scopes=(WATCH,))
    keeper = Keeper(
        WatchBook(tmp_path / "watchlists"), sources.topics, sources.run, sources.contributions
    )
    app = make_app(sources, requests_per_s=1e6, burst=1_000_000)
    add_watchlists(app, keeper, owners, prefix=PREFIX)
    add_portal(app)
    tokens = {name: owners.add(name) for name in ("ann", "bob")}
    with TestClient(app) as client:
        yield client, tokens, app, sources
    for name in sources.topics.names():
        if ".watchlist-" in name:
            sources.topics.delete(name)


def bearer(tokens, name):
    return {"Authorization": f"Bearer {tokens[name]}"}


def put(scene, name, body=STARS, owner="ann", **query):
    client, tokens = scene[:2]
    return client.put(f"{LIST}/{name}", content=body, params=query, headers=bearer(tokens, owner))


def publish(scene, words, topic, entry):
    sources = scene[3]
    alert = sources.object("ztf", EXAMPLE_OBJECT)[0]
    body = frame(EXAMPLE_SCHEMA, encode(words.SLIM, alert))
    said = json.dumps({"list": "x", "entry": entry, "entries": 1, "separation": 0.5}).encode()
    name = sources.run.public_topic(topic, "slim")
    sources.topics.send(name, [Message(body, key=b"k", headers=[("watchlist", said)])])
    sources._forget("topics")


def test_a_list_is_added_read_replaced_and_removed(scene):
    client, tokens, _, sources = scene
    made = put(scene, "stars", radiusArcsec=3, where="snr > 20", doc="Mine.")

    assert made.status_code == 201
    row = made.json()
    assert row.pop("changedUtc").endswith("Z")
    assert row == {
        "name": "stars",
        "topic": "watchlist-stars",
        "owner": "ann",
        "kind": "positions",
        "entries": 2,
        "skyFraction": None,
        "radiusArcsec": 3.0,
        "where": "snr > 20",
        "isPrivate": False,
        "doc": "Mine.",
    }
    assert {"run.served.watchlist-stars.slim", "run.served.watchlist-stars.full"} <= set(
        sources.topics.names()
    )
    assert client.get(f"{LIST}/stars").json() == made.json()
    entries = client.get(f"{LIST}/stars/entries", params={"first": 1}).json()
    assert entries == {
        "total": 2,
        "data": [{"id": "b", "ra": 30.0, "dec": 40.0, "radiusArcsec": 3.0}],
    }
    assert put(scene, "stars", "name1\n").status_code == 200
    assert client.get(f"{LIST}/stars").json()["kind"] == "names"
    gone = client.delete(f"{LIST}/stars", headers=bearer(tokens, "ann"))
    assert gone.json() == {"removed": "stars"}
    assert client.get(f"{LIST}/stars").status_code == 404


def test_a_region_comes_as_json_or_as_fits(scene, tmp_path):
    moc = mocpy.MOC.from_string("5/10-14 8/3", format="ascii")
    moc.save(tmp_path / "m.fits", format="fits")

    by_json = put(scene, "one", json.dumps(moc.serialize("json"))).json()
    by_fits = put(scene, "two", (tmp_path / "m.fits").read_bytes()).json()

    for row in (by_json, by_fits):
        assert row["kind"] == "region"
        assert row["skyFraction"] == pytest.approx(moc.sky_fraction, rel=1e-12)


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ("id,ra,dec\na,400,20\n", 422, "line 2: ra 400 is off the sky"),
        ("", 422, "has no entries"),
        ("{}", 422, "cannot be read as a MOC"),
        ('{"40": [1]}', 422, "MOC"),
        ('{"5": [[1, 2], [3, 4]]}', 422, "MOC"),
        ("{" * 5000, 422, "MOC"),
        (b"SIMPLE  =" + b"\x00" * 3000, 422, "MOC"),
        (b"\xff\xfe\x00a", 422, "no text"),
    ],
)
def test_what_cannot_be_a_list_is_refused_in_one_sentence(scene, body, status, said):
    answer = put(scene, "bad", body)

    assert answer.status_code == status
    assert said in answer.json()["error"]
    assert scene[0].get(f"{LIST}/bad").status_code == 404


def test_an_expression_and_a_name_are_checked_before(scene):
    assert "no column brigth" in put(scene, "x", where="brigth > 1").json()["error"]
    assert "no name" in put(scene, "Upper").json()["error"]


def test_too_much_is_refused_without_being_read(scene, monkeypatch):
    monkeypatch.setattr("broker.api.watchlists.MOST_BYTES", 10)

    assert put(scene, "x").status_code == 413


def test_only_owners_write_and_only_what_is_theirs(scene):
    client, tokens = scene[:2]
    put(scene, "stars")

    assert client.put(f"{LIST}/x", content=STARS).status_code == 401
    wrong = {"Authorization": "Bearer ann.nonsense"}
    assert client.put(f"{LIST}/x", content=STARS, headers=wrong).status_code == 401
    assert client.get(LIST, headers=wrong).status_code == 401
    assert put(scene, "stars", owner="bob").status_code == 403
    assert client.delete(f"{LIST}/stars").status_code == 401
    assert client.delete(f"{LIST}/stars", headers=bearer(tokens, "bob")).status_code == 403
    assert client.get(f"{LIST}/stars").status_code == 200


def test_a_private_list_is_there_for_its_owner_alone(scene, words):
    client, tokens = scene[:2]
    put(scene, "secret-stars", private=True)
    publish(scene, words, "private.ann.watchlist-secret-stars", "a")
    ann, bob = bearer(tokens, "ann"), bearer(tokens, "bob")

    for path in ("", "/entries", "/alerts"):
        url = f"{LIST}/secret-stars{path}"
        assert client.get(url, headers=ann).status_code == 200
        assert client.get(url, headers=bob).status_code == 404
        assert client.get(url).status_code == 404
    for headers, names in ((ann, ["secret-stars"]), (bob, []), ({}, [])):
        assert [r["name"] for r in client.get(LIST, headers=headers).json()["data"]] == names
    for name in ("watchlist-secret-stars", "private.ann.watchlist-secret-stars"):
        assert client.get(f"{PREFIX}/topics/{name}/alerts", headers=ann).status_code == 404
    assert client.get("/watchlists/secret-stars").status_code == 404
    assert client.get("/topics/watchlist-secret-stars").status_code == 404
    assert "secret-stars" not in client.get("/watchlists").text


def test_the_alerts_of_a_list_name_the_entry(scene, words):
    client = scene[0]
    put(scene, "stars")
    publish(scene, words, "watchlist-stars", "a")

    for url in (f"{LIST}/stars/alerts", f"{PREFIX}/topics/watchlist-stars/alerts"):
        (row,) = client.get(url).json()["data"]
        assert row["diaSourceId"] == EXAMPLE_ALERT
        assert (row["watchEntry"], row["watchSeparation"]) == ("a", 0.5)


def sign_in(scene, name):
    client, tokens = scene[:2]
    client.cookies.clear()
    answer = client.post("/account", data={"do": "sign-in", "token": tokens[name]})
    assert f"<h1>{name}</h1>" in answer.text
    return answer


def test_pages_show_lists_and_take_new_ones_from_who_is_signed_in(scene, words):
    client = scene[0]
    form = {"name": "stars", "radius": "3", "entries": STARS}
    assert client.post("/watchlists", data={**form, "do": "add"}).status_code == 401
    assert "Add or replace" not in client.get("/watchlists").text
    sign_in(scene, "ann")

    added = client.post("/watchlists", data={**form, "do": "add", "private": "1"})
    assert added.status_code == 200
    assert "begins within seconds" in added.text
    publish(scene, words, "private.ann.watchlist-stars", "my-entry")
    mine = client.get("/watchlists").text
    assert EXAMPLE_OBJECT in mine
    assert "my-entry, 0.50″" in mine
    assert client.get("/watchlists/stars").status_code == 200  # a private one, to its owner
    wrong = client.post("/watchlists", data={**form, "do": "add", "entries": "ra,dec\n1,99<b>\n"})
    assert wrong.status_code == 422
    assert "dec &#39;99&lt;b&gt;&#39; is no number" in wrong.text
    client.post("/watchlists", data={**form, "do": "add"})
    publish(scene, words, "watchlist-stars", "my-entry")
    page = client.get("/topics/watchlist-stars")
    assert page.url.path == "/watchlists/stars"
    assert EXAMPLE_OBJECT in page.text
    assert 'href="/watchlists"' in client.get("/topics").text
    sign_in(scene, "bob")
    assert client.post("/watchlists", data={"name": "stars", "do": "remove"}).status_code == 422
    sign_in(scene, "ann")
    removed = client.post("/watchlists", data={**form, "do": "remove"})
    assert "stars is removed" in removed.text
    assert client.get("/watchlists/stars").status_code == 404


def test_a_session_is_a_cookie_that_no_script_reads_and_ends_with_its_token(scene):
    client, tokens, app, _ = scene
    put(scene, "mine", private=True)

    said = sign_in(scene, "ann")
    cookie = said.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
    assert "Secure" not in cookie  # the test's address is http
    assert said.headers["cache-control"] == "no-store"
    assert tokens["ann"] not in cookie + said.text
    assert "mine" in client.get("/watchlists").text
    kept = client.cookies["session"]
    client.post("/account", data={"do": "sign-out"})
    client.cookies.set("session", kept)
    assert "mine" not in client.get("/watchlists").text
    sign_in(scene, "ann")
    app.state.watch_owners.remove("ann")
    assert "mine" not in client.get("/watchlists").text


def test_a_form_of_another_site_is_refused(scene):
    client, tokens = scene[:2]
    sign_in(scene, "ann")
    elsewhere, here = {"Origin": "http://elsewhere.example"}, {"Origin": "http://testserver"}

    for url, data in (
        ("/account", {"token": tokens["ann"]}),
        ("/watchlists", {"name": "x", "entries": STARS, "do": "add"}),
    ):
        assert client.post(url, data=data, headers=elsewhere).status_code == 403
        assert client.post(url, data=data, headers=here).status_code == 200


def test_tokens_are_not_tried_out_for_long(scene):
    client = scene[0]

    answers = [client.post("/account", data={"token": f"ann.{k}"}) for k in range(12)]

    assert [one.status_code for one in answers] == [401] * 10 + [429] * 2
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 10
    assert client.get("/watchlists").status_code == 200


def test_a_session_ends_in_time():
    now = [0.0]
    ann = Grant("ann", (WATCH,))
    sessions = Sessions(lambda: now[0])

    name = sessions.begin(lambda: ann)

    assert sessions.begin(lambda: None) is None
    assert sessions.begin(lambda: Grant("bo", ("annotate",))) is None
    assert sessions.grant(name) == ann
    assert sessions.grant("another") is sessions.grant("") is None
    now[0] = LIFETIME_S + 1.0
    assert sessions.grant(name) is None


@pytest.mark.slow
def test_no_question_about_watchlists_makes_the_server_fail(scene):
    tokens, app = scene[1:3]
    schema = schemathesis.openapi.from_asgi(f"{PREFIX}/openapi.json", app)
    operations = [one.ok() for one in schema.include(path_regex="/watchlists").get_all_operations()]
    asked = []

    for operation, mode in itertools.product(operations, schemathesis.GenerationMode):

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(
            max_examples=4,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        def ask(case):
            answer = case.call(headers=bearer(tokens, "ann"))
            asked.append(answer.status_code)
            assert answer.status_code < 500, case.as_curl_command()

        with contextlib.suppress(Unsatisfiable):
            ask()

    assert len(operations) == 6
    assert {404, 422} <= set(asked)


def test_every_call_and_parameter_is_described(scene):
    found = 0
    for path, operations in scene[2].openapi()["paths"].items():
        if "/watchlists" in path:
            for operation in operations.values():
                found += 1
                assert operation["description"].strip()
                for parameter in operation.get("parameters", []):
                    assert parameter["schema"].get("description") or parameter.get("description")
    assert found == 6
