"""Signing in with an OpenID provider: who it vouches for comes in, as whom the operator said."""

import copy
import json
import re
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
import requests
from fastapi.testclient import TestClient
from joserfc.jwk import RSAKey
from openid_provider import CLIENT, SECRET, openid_provider

from broker.api import make_app
from broker.api.app import PREFIX
from broker.api.watchlists import add_watchlists
from broker.errors import ConfigError
from broker.ops.tokens import Tokens
from broker.ops.watchlists import Keeper
from broker.portal import add_portal
from broker.portal.account import WAIT_S
from broker.portal.openid import Provider, Registration, read_registration
from broker.watchlists import WatchBook


@pytest.fixture
def scene(broker, tmp_path):
    sources = copy.copy(broker.sources)
    now, tokens = [0.0], Tokens(tmp_path / "tokens")
    app = make_app(sources, requests_per_s=1e6, burst=1_000_000)
    keeper = Keeper(WatchBook(tmp_path / "lists"), sources.topics, sources.run,
                    sources.contributions)  # fmt: skip
    add_watchlists(app, keeper, tokens, prefix=PREFIX)
    with openid_provider() as fake:
        ours = Registration(fake.url, CLIENT, SECRET, "The Institute <b>")
        add_portal(app, Provider(ours, fake.back, clock=lambda: now[0]))
        with TestClient(app) as client:
            yield SimpleNamespace(fake=fake, tokens=tokens, client=client, now=now)


def sent_back(scene):
    """Return what of our address the provider sends the browser to."""
    leaving = scene.client.get("/account/openid", follow_redirects=False)
    assert leaving.status_code == 303
    assert leaving.headers["location"].startswith(f"{scene.fake.url}/authorize?")
    at = requests.get(leaving.headers["location"], allow_redirects=False, timeout=10)
    parts = urlsplit(at.headers["location"])
    return f"{parts.path}?{parts.query}"


def sign_in(scene):
    return scene.client.get(sent_back(scene))


def signed_in_as(scene):
    page = scene.client.get("/account").text
    return re.search("<h1>(.*?)</h1>", page)[1] if "Sign out" in page else None


@pytest.mark.parametrize("openid", ["ann@example.org", "ANN@example.org", "sub:248289761001"])
def test_who_the_operator_has_named_is_signed_in_as_that_holder(scene, openid):
    scene.tokens.add("ann", ("watch",), openid=openid)
    scene.tokens.add("bo", ("watch",), openid="bo@example.org")

    answer = sign_in(scene)

    assert answer.status_code == 200
    assert answer.headers["refresh"] == "0; url=/account"
    assert signed_in_as(scene) == "ann"
    cookie = next(c for c in answer.headers.get_list("set-cookie") if c.startswith("session="))
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie


def test_who_is_none_of_ours_is_told_as_whom_they_are_known(scene):
    scene.tokens.add("bo", ("watch",), openid="bo@example.org")
    scene.tokens.add("cy", ("annotate",), openid="ann@example.org")  # may not read

    answer = sign_in(scene)

    assert answer.status_code == 403
    assert "ann@example.org" in answer.text
    assert "sub:248289761001" in answer.text
    assert "The Institute &lt;b&gt;" in answer.text
    assert signed_in_as(scene) is None


@pytest.mark.parametrize("verified", [False, "true", 1, None])
def test_an_address_that_the_provider_does_not_vouch_for_lets_nobody_in(scene, verified):
    scene.tokens.add("ann", ("watch",), openid="ann@example.org")
    scene.fake.claims["email_verified"] = verified
    assert sign_in(scene).status_code == 403


def test_an_address_that_only_the_user_info_says_counts_if_it_is_of_the_same_person(scene):
    scene.tokens.add("ann", ("watch",), openid="ann@example.org")
    scene.fake.in_token = ("sub",)
    assert sign_in(scene).status_code == 200

    scene.fake.info_of = "someone else"
    assert sign_in(scene).status_code == 403


LIES = {
    "of another provider": {"iss": "https://elsewhere.example"},
    "for another client": {"aud": "another"},
    "for two, and not said to which": {"aud": [CLIENT, "another"]},
    "given to another client": {"azp": "another"},
    "that has ended": {"exp": 1},
    "from the future": {"iat": 2**40},
    "of another sign-in": {"nonce": "another"},
    "without nonce": {"nonce": None},
    "without subject": {"sub": None},
    "without end": {"exp": None},
}


@pytest.mark.parametrize("what", LIES)
def test_a_word_lets_nobody_in(scene, what):
    scene.tokens.add("ann", ("watch",), openid="ann@example.org")
    scene.fake.spoil = lambda claims: {
        k: v for k, v in (claims | LIES[what]).items() if v is not None
    }
    assert sign_in(scene).status_code == 401
    assert signed_in_as(scene) is None


def test_a_word_that_is_not_signed_by_the_provider_lets_nobody_in(scene):
    scene.tokens.add("ann", ("watch",), openid="ann@example.org")
    own = scene.fake.own_key
    scene.fake.key = RSAKey.generate_key(2048, {"kid": own.kid}, private=True)
    assert sign_in(scene).status_code == 401
    scene.fake.sign_with_the_secret()
    assert sign_in(scene).status_code == 401


def test_keys_may_change_between_two_sign_ins(scene):
    scene.tokens.add("ann", ("watch",), openid="ann@example.org")
    assert sign_in(scene).status_code == 200
    scene.fake.new_key()
    assert sign_in(scene).status_code == 200


def test_a_way_back_serves_once_in_the_browser_that_began_it_and_for_a_while(scene):
    scene.tokens.add("ann", ("watch",), openid="ann@example.org")
    back = sent_back(scene)
    with TestClient(scene.client.app) as other:
        assert other.get(back).status_code == 400
    assert scene.client.get(back).status_code == 200
    assert scene.client.get(back).status_code == 400

    back = sent_back(scene)
    scene.now[0] += WAIT_S + 1.0
    assert scene.client.get(back).status_code == 400
    assert scene.client.get("/account/openid/back").status_code == 400


def test_who_does_not_agree_is_a_guest(scene):
    back = re.sub("code=[^&]*", "error=access_denied", sent_back(scene))
    answer = scene.client.get(back)
    assert answer.status_code == 401
    assert "access_denied" in answer.text


def test_a_session_ends_when_the_operator_takes_the_name_back(scene):
    scene.tokens.add("ann", ("watch",), openid="ann@example.org")
    sign_in(scene)
    scene.tokens.rotate("ann", openid="sub:another")
    assert signed_in_as(scene) is None

    scene.tokens.rotate("ann", openid="ann@example.org")
    assert signed_in_as(scene) == "ann"
    scene.tokens.remove("ann")
    assert signed_in_as(scene) is None


def test_a_provider_that_does_not_answer_well_is_named(scene, broker):
    scene.fake.discovered["issuer"] = "https://elsewhere.example"
    answer = scene.client.get("/account/openid", follow_redirects=False)
    assert answer.status_code == 503
    assert "The Institute" in answer.text

    scene.fake.discovered["issuer"] = scene.fake.url
    scene.fake.discovered["token_endpoint"] = "http://elsewhere.example/token"
    assert sign_in(scene).status_code == 503


def test_without_a_provider_there_is_no_such_way(broker, tmp_path):
    sources = copy.copy(broker.sources)
    app = make_app(sources)
    add_watchlists(app, Keeper(WatchBook(tmp_path), sources.topics, sources.run,
                               sources.contributions), Tokens(tmp_path), prefix=PREFIX)  # fmt: skip
    add_portal(app)
    with TestClient(app) as client:
        assert client.get("/account/openid", follow_redirects=False).status_code == 404
        assert "openid" not in client.get("/account").text


GOOD = {"issuer": "https://login.example", "client_id": "a", "client_secret": "b"}


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ("{", "not JSON"),
        ("[]", "must say"),
        (json.dumps(GOOD | {"tenant": "x"}), "nothing else"),
        (json.dumps({**GOOD, "client_secret": ""}), "must be text"),
        (json.dumps(GOOD | {"issuer": "http://login.example"}), "https"),
    ],
)
def test_a_registration_that_cannot_work_is_refused(tmp_path, said, problem):
    path = tmp_path / "openid.json"
    path.write_text(said)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match=problem):
        read_registration(path)


def test_a_registration_is_a_secret(tmp_path):
    path = tmp_path / "openid.json"
    path.write_text(json.dumps(GOOD))
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="others can read it"):
        read_registration(path)
    path.chmod(0o600)
    assert read_registration(path).name == "login.example"
