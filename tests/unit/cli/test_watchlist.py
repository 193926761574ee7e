"""`broker watchlist`: added, shown, changed and removed from the command line."""

import json

import pytest
from click.testing import CliRunner

from broker.cli import watchlist
from broker.cli.main import cli
from broker.errors import ConfigError
from broker.topics.memory import MemoryTopics
from broker.watchlists import WatchBook


@pytest.fixture
def called(tmp_path, monkeypatch):
    topics = MemoryTopics()
    monkeypatch.setattr(watchlist, "make_topics", lambda config: topics)
    monkeypatch.setenv("BROKER_HOME", str(tmp_path / "home"))
    (tmp_path / "stars.csv").write_text("id,ra,dec\na,10,20\nb,30,40\n")
    (tmp_path / "field.json").write_text('{"5": [1, 2, 3]}')

    def call(*words):
        names = [str(tmp_path / w) if w.endswith((".csv", ".json")) else w for w in words]
        done = CliRunner().invoke(cli, ["--run", "try", "watchlist", *names])
        if isinstance(done.exception, ConfigError):
            raise done.exception
        assert done.exit_code == 0, (done.output, done.exception)
        return done.output

    call.topics = topics
    call.book = WatchBook(tmp_path / "home" / "watchlists" / "try")
    return call


def listed(called, *words):
    return {row["name"]: row for row in json.loads(called("list", "--json", *words))}


def test_a_list_and_a_region_are_added_shown_changed_and_removed(called):
    called("add", "stars", "stars.csv", "--owner", "me", "--radius", "1.5", "--doc", "Mine.")
    called("add", "field", "--moc", "field.json", "--owner", "you", "--private")

    assert called.topics.names() == [
        f"run.try.{name}.{variant}"
        for name in ("private.you.watchlist-field", "watchlist-stars")
        for variant in ("full", "slim")
    ]
    found = listed(called)
    assert (found["stars"]["entries"], found["stars"]["kind"]) == (2, "positions")
    assert (found["field"]["entries"], found["field"]["private"]) == (1, True)
    assert set(listed(called, "--owner", "me")) == {"stars"}
    assert "1.5" in called("show", "stars")
    assert json.loads(called("show", "field", "--json"))["topic"] == "private.you.watchlist-field"

    called("update", "stars", "--where", "snr > 20")
    changed = listed(called)["stars"]
    assert (changed["where"], changed["entries"], changed["doc"]) == ("snr > 20", 2, "Mine.")
    called("update", "stars", "--moc", "field.json", "--where", "")
    assert (called.book.find("stars").kind, called.book.find("stars").where) == ("region", "")
    called("remove", "stars")
    assert set(listed(called)) == {"field"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["add", "stars", "stars.csv", "--owner", "me", "--where", "snrr > 2"], "no column snrr"),
        (["add", "stars", "stars.csv", "--owner", "me", "--radius", "9999"], "not allowed"),
        (["add", "Stars", "stars.csv", "--owner", "me"], "no name"),
        (["add", "stars", "stars.csv", "--owner", "me", "--in", "nothing"], "nothing"),
        (["remove", "stars"], "there is no watchlist"),
        (["update", "stars", "--doc", "x"], "there is no watchlist"),
        (["owner", "me", "--remove"], "there is no owner me"),
    ],
)
def test_what_is_not_allowed_is_said_and_changes_nothing(called, words, said):
    with pytest.raises(ConfigError) as caught:
        called(*words)

    assert said in caught.value.message
    assert called.book.all() == []
    assert called.topics.names() == []


def test_an_owner_gets_a_token_once(called):
    token = called("owner", "me").strip()

    assert token.startswith("me.")
    with pytest.raises(ConfigError, match="there is a token of me already"):
        called("owner", "me")
