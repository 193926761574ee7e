"""Tokens: kept as hashes, for what they were made, until they end; those of earlier versions."""

import hashlib
import stat

import pytest

from broker.config import Config
from broker.errors import ConfigError
from broker.ops.tokens import DAY_S, Grant, Tokens, tokens_of


@pytest.fixture
def now():
    return [1.0e9]


@pytest.fixture
def tokens(tmp_path, now):
    return Tokens(tmp_path / "tokens", clock=lambda: now[0])


def test_of_a_token_a_private_file_has_the_hash_alone(tokens, tmp_path):
    token = tokens.add("ann", ("watch",))
    (path,) = (tmp_path / "tokens").iterdir()

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = path.read_text()
    assert token.partition(".")[2] not in text
    assert hashlib.sha256(token.encode()).hexdigest() in text
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="others can read it"):
        tokens.find(token)


def test_a_token_is_for_what_it_was_made_and_no_other_name(tokens):
    token, other = tokens.add("ann", ("annotate", "read")), tokens.add("ann-2", ("watch",))

    assert tokens.find(token) == Grant("ann", ("annotate", "read"))
    assert [tokens.name_of(token, s) for s in ("read", "annotate", "watch", "transfer")] == [
        "ann", "ann", None, None,
    ]  # fmt: skip
    assert tokens.name_of(other, "read") == "ann-2"  # who changes lists may see them
    for wrong in ("", "ann", "ann.", token[:-1], token + "x", "ann-2" + token[3:], "../ann.x"):
        assert tokens.find(wrong) is None


def test_another_token_shuts_the_old_one_out_and_keeps_what_is_not_said(tokens, now):
    old = tokens.add("ann", ("watch",), days=10.0, per_s=5.0)
    new = tokens.rotate("ann")

    assert tokens.find(old) is None
    assert tokens.find(new) == Grant("ann", ("watch",), 1.0e9 + 10.0 * DAY_S, 5.0)
    now[0] += 11.0 * DAY_S
    assert tokens.find(new) is None
    assert tokens.all() == [tokens.grant("ann")]  # the operator sees that it has ended
    with pytest.raises(ConfigError, match="has ended"):
        tokens.rotate("ann")
    assert tokens.find(tokens.rotate("ann", days=1.0)).expires_s == now[0] + DAY_S


@pytest.mark.parametrize(
    ("name", "scopes", "more"),
    [
        ("Ann", ("read",), {}),
        ("../ann", ("read",), {}),
        ("a" * 62, ("read",), {}),
        ("ann", (), {}),
        ("ann", ("admin",), {}),
        ("ann", ("read",), {"days": 0.0}),
        ("ann", ("read",), {"days": float("nan")}),
        ("ann", ("read",), {"per_s": -1.0}),
        ("ann", ("read",), {"per_s": 1e9}),
    ],
)
def test_what_is_not_allowed_makes_no_token(tokens, name, scopes, more):
    with pytest.raises(ConfigError):
        tokens.add(name, scopes, **more)
    assert tokens.all() == []


def test_tokens_of_an_earlier_version_are_good_and_can_be_turned_into_new_ones(tmp_path):
    config = Config(home=tmp_path)
    tokens, old = tokens_of(config), {}
    for folder, secret in (("annotators", "ann.one"), ("watchlist-owners", "ann.two")):
        path = config.run_path(folder) / "ann"
        path.parent.mkdir(parents=True)
        path.write_text(hashlib.sha256(secret.encode()).hexdigest())
        path.chmod(0o600)
        old[folder] = secret

    assert tokens.name_of("ann.one", "annotate") == tokens.name_of("ann.two", "watch") == "ann"
    assert tokens.name_of("ann.one", "watch") is tokens.name_of("ann.two", "annotate") is None
    with pytest.raises(ConfigError, match="already"):
        tokens.add("ann", ("watch",))

    new = tokens.rotate("ann")

    assert tokens.find(new).scopes == ("annotate", "watch")
    assert tokens.find("ann.one") is tokens.find("ann.two") is None
    assert tokens.take("ann", "watch")
    assert not tokens.take("ann", "watch")
    assert tokens.find(new).scopes == ("annotate",)
    assert tokens.take("ann", "annotate")
    assert tokens.find(new) is tokens.grant("ann") is None


def test_a_provider_knows_a_holder_by_one_name_and_no_other_holder_by_it(tokens, now):
    tokens.add("ann", ("watch",), openid="Ann@Example.org", days=1.0)
    tokens.add("bo", ("watch",), openid="sub:B-1")

    assert tokens.find_openid({"ann@example.org", "sub:9"}).name == "ann"
    assert tokens.find_openid({"sub:b-1", "b-1"}) is tokens.find_openid(set()) is None
    assert tokens.held_by("bo", "sub:B-1").name == "bo"
    assert tokens.held_by("ann", "sub:B-1") is None
    with pytest.raises(ConfigError, match="ann signs in as"):
        tokens.add("cy", ("watch",), openid="ANN@example.org")
    for wrong in ("ann", "sub:", "sub:a b", "@", "a@b@c", "a@b\n"):
        with pytest.raises(ConfigError, match="neither"):
            tokens.add("cy", ("watch",), openid=wrong)
    now[0] += 2.0 * DAY_S
    assert tokens.find_openid({"ann@example.org"}) is None
    assert tokens.held_by("ann", "ann@example.org") is None


def test_a_name_at_a_provider_stays_until_it_is_taken_away(tokens):
    tokens.add("ann", ("watch",), openid="ann@example.org")
    tokens.rotate("ann", ("read",))
    assert tokens.grant("ann").openid == "ann@example.org"
    tokens.take("ann", "annotate")
    tokens.rotate("ann", openid="")
    assert tokens.grant("ann") == Grant("ann", ("read",))
