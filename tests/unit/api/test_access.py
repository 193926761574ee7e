"""Tokens over HTTP: each write takes its scope, reading private lists too, and each has a limit."""

import copy
import json
import re

import pytest
import whole_app as whole
from click.testing import CliRunner
from fastapi.testclient import TestClient

from broker.api import make_app
from broker.api.annotations import add_annotations
from broker.api.app import PREFIX
from broker.api.transfer import add_transfers
from broker.api.watchlists import add_watchlists
from broker.archive import Archive
from broker.batch.transfer_folder import Transfers
from broker.cli.main import cli
from broker.errors import ConfigError
from broker.ops.annotators import Intake
from broker.ops.tokens import DAY_S, SCOPES, Tokens
from broker.ops.watchlists import Keeper
from broker.portal import add_portal
from broker.watchlists import WatchBook

STARS = "id,ra,dec\na,10,20\n"
QUESTION = {"first": "20230101", "last": "20231231"}
SAID = {"annotations": [{"survey": "ztf", "diaSourceId": "1", "numbers": {"x": 1.0}}]}
LIST = f"{PREFIX}/watchlists"

WRITES = {
    "annotate": ("annotate", "POST", f"{PREFIX}/annotations", {"json": SAID}, 404),
    "start a transfer": ("transfer", "POST", f"{PREFIX}/transfers", {"json": QUESTION}, 400),
    "keep a list": ("watch", "PUT", f"{LIST}/mine", {"content": STARS}, 201),
    "remove a list": ("watch", "DELETE", f"{LIST}/none", {}, 404),
}
"""What writes: the scope it takes, how it is asked, and what it answers to who may."""

WITHOUT_TOKEN = {
    ("POST", f"{PREFIX}/alerts/search"), ("POST", f"{PREFIX}/objects"),
    ("POST", f"{PREFIX}/sky-maps"), ("POST", f"{PREFIX}/transfers/estimate"),
    ("POST", f"{PREFIX}/unsubscribe"), ("POST", "/account"), ("POST", "/watchlists"),
}  # fmt: skip
"""Questions with a body; the link of a message; the pages' forms, which take a session."""


class Scene:
    def __init__(self, broker, folder):
        sources = copy.copy(broker.sources)
        self.now = [1.0e9]
        self.tokens = Tokens(folder / "tokens", clock=lambda: self.now[0])
        self.app = make_app(sources, requests_per_s=1e6, burst=1_000_000)
        self.app.state.tokens = self.tokens
        keeper = Keeper(WatchBook(folder / "lists"), sources.topics, sources.run,
                        sources.contributions)  # fmt: skip
        transfers = Transfers(folder / "transfers", folder / "nights", sources.run.name)
        archive = Archive(folder / "archive", sources.run)
        add_transfers(self.app, transfers, archive, prefix=PREFIX, tokens=self.tokens)
        intake = Intake(sources.tables, sources.topics, sources.run)
        add_annotations(self.app, self.tokens, intake, prefix=PREFIX)
        add_watchlists(self.app, keeper, self.tokens, prefix=PREFIX)
        add_portal(self.app)
        self.client, self.topics = TestClient(self.app), sources.topics

    def ask(self, method, url, token, **more):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return self.client.request(method, url, headers=headers, **more).status_code


@pytest.fixture
def scene(broker, tmp_path):
    made = Scene(broker, tmp_path)
    with made.client:
        yield made
    for name in made.topics.names():
        if "watchlist-" in name:
            made.topics.delete(name)


@pytest.mark.parametrize("what", WRITES)
def test_a_write_takes_a_token_for_just_that(scene, what):
    wanted, method, url, more, answer = WRITES[what]

    assert scene.ask(method, url, None, **more) == 401
    assert scene.ask(method, url, "nobody.wrong", **more) == 401
    for scope in SCOPES:
        token = scene.tokens.add(f"for-{scope}", (scope,))
        assert scene.ask(method, url, token, **more) == (answer if scope == wanted else 403)
    every = scene.tokens.add("for-all", tuple(SCOPES))
    assert scene.ask(method, url, every, **more) in (answer, 403)  # the list is someone else's


def test_every_address_that_writes_is_known_to_these_tests(broker, tmp_path):
    parts = whole.whole_app(copy.copy(broker.sources), tmp_path)
    known = {(method, url) for _, method, url, _, _ in WRITES.values()}
    for method, template in whole.addresses(parts.app):
        if method == "GET" or (method, template) in WITHOUT_TOKEN or template.startswith("/tap"):
            continue
        form = re.compile(re.sub(r"\{[^}]+\}", "[^/]+", template) + "$")
        assert any(m == method and form.match(url) for m, url in known), (method, template)


def test_a_token_ends_when_it_was_said_to_and_the_session_with_it(scene):
    token = scene.tokens.add("ann", ("watch",), days=2.0)
    assert scene.ask("PUT", f"{LIST}/mine?private=true", token, content=STARS) == 201
    assert "Sign out" in scene.client.post("/account", data={"token": token}).text
    assert "mine" in scene.client.get("/watchlists").text

    scene.now[0] += 2.0 * DAY_S

    assert scene.ask("PUT", f"{LIST}/mine", token, content=STARS) == 401
    assert "mine" not in scene.client.get("/watchlists").text
    assert scene.client.post("/account", data={"token": token}).status_code == 401


def test_who_may_only_read_sees_their_lists_and_changes_none(scene):
    token = scene.tokens.add("ann", ("watch",))
    assert scene.ask("PUT", f"{LIST}/mine?private=true", token, content=STARS) == 201
    reader = scene.tokens.rotate("ann", ("read",))

    assert scene.ask("GET", f"{LIST}/mine", token) == 401
    assert scene.ask("GET", f"{LIST}/mine/entries", reader) == 200
    assert scene.ask("DELETE", f"{LIST}/mine", reader) == 403
    assert scene.client.post("/account", data={"token": reader}).status_code == 200
    assert "mine" in scene.client.get("/watchlists").text
    form = {"name": "mine", "do": "remove"}
    assert scene.client.post("/watchlists", data=form).status_code == 401
    other = scene.tokens.rotate("ann", ("annotate",))
    assert scene.ask("GET", f"{LIST}/mine", other) == 404
    assert scene.client.post("/account", data={"token": other}).status_code == 401


def test_guests_start_transfers_where_they_may(broker, tmp_path):
    parts = whole.whole_app(copy.copy(broker.sources), tmp_path)
    with TestClient(parts.app) as client:
        assert client.post(f"{PREFIX}/transfers", json=QUESTION).status_code == 400  # no nights


def test_a_token_is_counted_by_itself_at_its_own_rate(broker, tmp_path):
    app = make_app(copy.copy(broker.sources), requests_per_s=1e-3, burst=3)
    tokens = app.state.tokens = Tokens(tmp_path, scopes=("read",))
    few, many = tokens.add("few"), tokens.add("many", per_s=2e-3)
    url = f"{PREFIX}/openapi.json"
    with TestClient(app) as client:

        def allowed(token):
            headers = {"Authorization": f"Bearer {token}"}
            answers = [client.get(url, headers=headers) for _ in range(8)]
            assert {one.status_code for one in answers} == {200, 429}
            assert int(answers[-1].headers["retry-after"]) > 400
            return sum(one.status_code == 200 for one in answers)

        assert allowed(few) == 3
        assert allowed(many) == 6
        # What is no token is counted by its address, so that nobody tries many out.
        assert allowed("few.wrong") == 3
        assert client.get(url, headers={"Authorization": "Bearer other.wrong"}).status_code == 429


def test_an_operator_gives_out_tokens_on_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setenv("BROKER_HOME", str(tmp_path))

    def call(*words):
        return CliRunner().invoke(cli, ["token", *words])

    first = call("add", "ann", "--scope", "watch", "--scope", "annotate", "--days", "30")
    assert re.fullmatch(r"ann\.[\w-]{43}\n", first.output)
    assert isinstance(call("add", "ann", "--scope", "read").exception, ConfigError)
    assert isinstance(call("add", "bob").exception, ConfigError)  # for nothing
    assert call("add", "bob", "--scope", "all").exit_code == 2
    shown = call("list").output
    assert "annotate, watch" in shown
    assert first.output.strip() not in shown
    again = call("rotate", "ann", "--scope", "transfer", "--rate", "2", "--openid", "sub:A-1")
    assert again.exit_code == 0
    (row,) = json.loads(call("list", "--json").output)
    assert row["scopes"] == ["transfer"]
    assert row["ends"] is not None
    assert (row["perS"], row["openid"]) == (2.0, "sub:A-1")
    assert call("remove", "ann").exit_code == 0
    assert isinstance(call("remove", "ann").exception, ConfigError)
    assert isinstance(call("rotate", "ann").exception, ConfigError)
