"""Watchlists in the one pass: packets with the entry, rows with the topic, nothing else changed."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from broker.catalog.coverage import coverage_of_cells
from broker.catalog.healpix import pixels_of
from broker.spark.throttle import Share
from broker.watchlists import WatchBoard, WatchBook, Watchlist, board, read_entries

_spec = importlib.util.spec_from_file_location(
    "enriching", Path(__file__).with_name("test_enrich.py")
)
enriching = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(enriching)

sim_packet, decoded_batch, of_topic = (
    enriching.sim_packet,
    enriching.decoded_batch,
    enriching.of_topic,
)


@pytest.fixture
def bench(tmp_path, monkeypatch):
    monkeypatch.setattr(board, "_LOOK_EVERY_S", 0.0)
    made = enriching.Bench(tmp_path, (enriching.doubled, enriching.bright))
    made.book = WatchBook(tmp_path / "watchlists")
    found = enriching.order_contributions(
        (enriching.doubled, enriching.bright), enriching.definitions()
    )
    made.enricher.watchlists = WatchBoard(made.book.index, found)
    return made


def batch():
    """Return five alerts, 0.01 deg apart in RA from 10.01 on."""
    return decoded_batch([sim_packet(i) for i in range(1, 6)])


def add(bench, name, text, **values):
    return bench.book.put(Watchlist(name, "me", "", **values), read_entries(text))


def test_a_packet_says_which_entry_it_matched_and_how_far_it_is(bench):
    add(bench, "mine", "id,ra,dec\nmy-star,10.0203,-5\nfar,10.5,-5\n", where="double_snr > 10")

    sent = bench.run(batch())

    for variant in ("slim", "full"):
        (message,) = of_topic(sent, f"run.test.watchlist-mine.{variant}")
        assert message.key == b"sim|2"
        said = json.loads(message.header("watchlist"))
        assert said.pop("separation") == pytest.approx(
            0.0003 * 3600 * np.cos(np.radians(5.0)), abs=2e-4
        )
        assert said == {"list": "mine", "entry": "my-star", "entries": 1}
        assert bench.record(message, variant)["topics"] == ["bright", "watchlist-mine"]
    (of_filter,) = [m for m in of_topic(sent, "run.test.bright.slim") if m.key == b"sim|2"]
    assert of_filter.header("watchlist") is None
    assert bench.store.alert("sim", "2")["topics"] == ["bright", "watchlist-mine"]
    assert bench.store.alert("sim", "1")["topics"] == ["bright"]
    assert bench.stats.counts["topic:watchlist-mine"] == 1


def test_an_alert_on_no_filters_topic_is_published_for_a_list_alone(bench):
    add(bench, "mine", "502\n")

    sent = bench.run(decoded_batch([sim_packet(i, snr=1.0) for i in range(1, 6)]))

    assert [name for name, _ in sent] == [
        "run.test.watchlist-mine.slim",
        "run.test.watchlist-mine.full",
    ]
    assert {m.key for _, m in sent} == {b"sim|2"}
    assert bench.stats.counts["published"] == 1


def test_what_a_private_list_matched_is_on_its_own_topic_and_nowhere_else(bench):
    add(bench, "hidden", "502\n503\n", is_private=True)

    sent = bench.run(batch())

    own = of_topic(sent, "run.test.private.me.watchlist-hidden.slim")
    assert [m.key for m in own] == [b"sim|2", b"sim|3"]
    assert json.loads(own[0].header("watchlist")) == {
        "list": "hidden",
        "entry": "502",
        "entries": 1,
    }
    assert all(b"hidden" not in (m.value or b"") for _, m in sent)
    assert bench.store.alert("sim", "2")["topics"] == ["bright"]
    assert not any("hidden" in name for name in bench.stats.counts)
    assert bench.stats.counts["privateMatches"] == 2


def test_without_lists_the_bytes_are_as_they_were(bench):
    before = bench.run(batch())
    add(bench, "mine", "nobody\n")

    assert bench.run(batch()) == before


def test_a_region_and_a_removed_list(bench):
    cell = pixels_of(np.array([10.03]), np.array([-5.0]), 14)
    bench.book.put(Watchlist("field", "me", ""), coverage_of_cells(cell, 14))

    found = of_topic(bench.run(batch()), "run.test.watchlist-field.slim")
    assert [m.key for m in found] == [b"sim|3"]
    assert json.loads(found[0].header("watchlist")) == {"list": "field"}

    bench.book.remove("field")
    assert not of_topic(bench.run(batch()), "run.test.watchlist-field.slim")


def test_a_list_that_floods_is_held_back_and_its_packets_say_so(bench):
    add(bench, "much", "\n".join(str(500 + i) for i in range(1, 6)))
    flood = Share("watchlist-much", 0.2, alerts=1000, passed=1000, held=0, enough=100)

    rows = bench.enricher.enrich(
        batch(), batch_id="b", stats=bench.stats, floods={"watchlist-much": flood}
    ).to_pylist()

    went = [r for r in rows if r["topic"] == "run.test.watchlist-much.slim"]
    assert len(went) == sum(flood.keeps(f"sim|{i}".encode()) for i in range(1, 6))
    assert bench.stats.counts["throttled:watchlist-much"] == 5 - len(went)
    for row in went:
        assert {"throttled", "watchlist"} <= {h["key"] for h in row["headers"]}


def test_a_board_that_fails_does_not_stop_the_stream_and_is_counted(bench):
    class Broken:
        failures = ()

        def match(self, *parts):
            raise RuntimeError("no luck")

    bench.enricher.watchlists = Broken()

    sent = bench.run(batch())

    assert len(of_topic(sent, "run.test.bright.slim")) == 5
    assert bench.stats.counts["watchlistsFailed"] == 1
    assert bench.stats.counts["stored"] == 5
