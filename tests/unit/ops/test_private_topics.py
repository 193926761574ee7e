"""Topics of private watchlists: their names, and those that an earlier version made."""

import json

import pytest

from broker.client.subscription import full_name
from broker.config import Config
from broker.errors import ServiceError
from broker.ops.private_topics import move_private_topics
from broker.topics.memory import MemoryTopics
from broker.topics.publish import read_all
from broker.topics.topic import Message, TopicSettings
from broker.types import Run
from broker.watchlists import WatchBook, Watchlist, read_entries
from broker.watchlists.index import open_index

NAMES = ("hidden", "open")


@pytest.fixture
def config(tmp_path):
    config = Config(home=tmp_path)
    book = WatchBook(config.run_path("watchlists"))
    for name in NAMES:
        wanted = Watchlist(name, "ann", "", is_private=name == "hidden")
        book.put(wanted, read_entries("diaObjectId\n501\n"))
    return config


@pytest.fixture
def topics():
    """Topics as an earlier version named them, each with three packets."""
    topics = MemoryTopics()
    for name in NAMES:
        for variant in ("slim", "full"):
            topic = f"public.watchlist-{name}.{variant}"
            topics.create(topic, TopicSettings(partitions=2))
            topics.send(topic, [Message(f"{topic} {i}".encode(), b"k%d" % i, [("h", b"x")], 5 + i)
                                for i in range(3)])  # fmt: skip
    return topics


def said(topics, name):
    return sorted((m.key, m.value, m.headers, m.timestamp_ms) for m in read_all(topics, name))


def test_a_private_list_has_a_topic_that_readers_of_public_ones_may_not_read(config):
    book = WatchBook(config.run_path("watchlists"))
    assert book.find("open").topic == "watchlist-open"
    hidden = book.find("hidden").topic
    assert Run().public_topic(hidden, "slim") == "private.ann.watchlist-hidden.slim"
    assert Run("try").public_topic(hidden, "slim") == "run.try.private.ann.watchlist-hidden.slim"
    assert full_name(config, hidden) == "private.ann.watchlist-hidden.slim"
    assert full_name(config, f"{hidden}.full") == "private.ann.watchlist-hidden.full"
    assert [one.topic for one in open_index(book.index).lists] == [hidden, "watchlist-open"]


def test_an_index_of_an_earlier_version_is_written_anew_before_a_stream_uses_it(config):
    book = WatchBook(config.run_path("watchlists"))
    path = max(book.index.glob("*/lists.json"), key=lambda one: one.stat().st_mtime_ns)
    about = json.loads(path.read_text())
    for one in about["lists"]:
        del one["owner"]
    path.write_text(json.dumps(about))
    assert open_index(book.index).lists[0].owner == ""

    book.refresh()

    assert open_index(book.index).lists[0].topic == "private.ann.watchlist-hidden"


def test_what_is_on_public_topics_of_private_lists_is_moved_with_all_that_it_says(config, topics):
    before = {v: said(topics, f"public.watchlist-hidden.{v}") for v in ("slim", "full")}
    kept = said(topics, "public.watchlist-open.slim")

    moved = move_private_topics(config, topics)

    assert moved == ("public.watchlist-hidden.slim", "public.watchlist-hidden.full")
    assert topics.names() == [
        "private.ann.watchlist-hidden.full",
        "private.ann.watchlist-hidden.slim",
        "public.watchlist-open.full",
        "public.watchlist-open.slim",
    ]
    for variant, messages in before.items():
        assert said(topics, f"private.ann.watchlist-hidden.{variant}") == messages
    assert said(topics, "public.watchlist-open.slim") == kept
    assert move_private_topics(config, topics) == ()


def test_nothing_is_deleted_if_the_move_fails(config, topics, monkeypatch):
    def cut(name, messages, partition=None):
        raise ServiceError("away")

    with monkeypatch.context() as patch:
        patch.setattr(topics, "send", cut)
        with pytest.raises(ServiceError, match="away"):
            move_private_topics(config, topics)
    assert len(said(topics, "public.watchlist-hidden.slim")) == 3
    assert len(move_private_topics(config, topics)) == 2
