"""Watchlists while the stream runs: they begin, change and end without a restart."""

import dataclasses
import json
import os
import pickle
import signal
import subprocess
import sys
import time

import mocpy
import pytest

from broker.alerts.packet import encode_sim
from broker.catalog.coverage import read_coverage
from broker.config import StreamConfig
from broker.ops.accounts import accounts_of
from broker.ops.watchlists import keeper_of
from broker.science.installed import installed
from broker.store.alerts import AlertStore
from broker.topics.publish import read_all
from broker.topics.topic import Message, TopicSettings
from broker.watchlists import Watchlist, read_entries

WITHIN_S = 60.0
CODE = (
    "import pickle, sys; from broker.streaming.query import run_queries;"
    "run_queries(pickle.load(open(sys.argv[1], 'rb')), ['alerts'], until_idle=False)"
)


class Stream:
    """A stream that runs in a process of its own, fed with alerts one by one."""

    def __init__(self, config, topics, folder):
        self.config, self.topics, self.run, self.sent = config, topics, config.the_run, 0
        self.topic = self.run.alerts_topic("sim")
        topics.create(self.topic, TopicSettings(partitions=2))
        recipe = folder / "config.pickle"
        recipe.write_bytes(pickle.dumps(config))
        self.errors = folder / "stream.err"
        self.process = subprocess.Popen(
            [sys.executable, "-c", CODE, str(recipe)],
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=self.errors.open("ab"),
        )

    def send(self, dec):
        """Send an alert of no filter's topic at a declination [deg]; return its key."""
        self.sent += 1
        source = {
            "diaSourceId": self.sent, "visit": 7, "detector": 1, "diaObjectId": 500 + self.sent,
            "midpointMjdTai": 61_000.25 + 0.001 * self.sent, "ra": 150.0, "dec": dec,
            "psfFlux": 1000.0, "psfFluxErr": 50.0, "snr": 20.0, "band": "r", "reliability": 0.1,
        }  # fmt: skip
        packet = encode_sim({"diaSourceId": self.sent, "diaSource": source})
        self.topics.send(self.topic, [Message(packet)])
        return f"sim|{self.sent}".encode()

    def on(self, watchlist):
        """Return the packets of a list's topic, by key."""
        name = self.run.public_topic(f"watchlist-{watchlist}", "slim")
        return {message.key: message for message in read_all(self.topics, name)}

    def first_on(self, watchlist, dec):
        """Send alerts at a place until one is on the list; return it and how long it took [s]."""
        began = time.monotonic()
        keys = set()
        while time.monotonic() - began < WITHIN_S:
            assert self.process.poll() is None, self.errors.read_text()[-3000:]
            keys.add(self.send(dec))
            time.sleep(1.0)
            for key in keys & self.on(watchlist).keys():
                return self.on(watchlist)[key], time.monotonic() - began
        raise AssertionError(f"nothing came to {watchlist} within {WITHIN_S:g} s")

    def until_off(self, store, dec):
        """Send alerts at a place until one is stored that is on no list."""
        began = time.monotonic()
        while time.monotonic() - began < WITHIN_S:
            key = self.send(dec)
            self.wait_stored(store, key)
            if not store.alert("sim", key.decode().partition("|")[2])["topics"]:
                return
        raise AssertionError(f"alerts are still on a list after {WITHIN_S:g} s")

    def wait_stored(self, store, key, limit_s=240.0):
        """Wait until the stream has stored an alert."""
        began = time.monotonic()
        while store.alert("sim", key.decode().partition("|")[2]) is None:
            assert self.process.poll() is None, self.errors.read_text()[-3000:]
            assert time.monotonic() - began < limit_s, "the stream stored nothing"
            time.sleep(0.5)

    def end(self):
        """End it politely, as a service manager does."""
        self.process.terminate()
        return self.process.wait(120)


@pytest.mark.timeout(600)
def test_a_list_begins_changes_and_ends_while_the_stream_runs(
    stack, kafka_topics, hbase_tables, tmp_path, run
):
    config = dataclasses.replace(
        stack, home=tmp_path, run=run.name, stream=StreamConfig(idle_s=0.0)
    )
    keeper = keeper_of(config, kafka_topics, installed(config))
    store = AlertStore(hbase_tables, run)
    stream = Stream(config, kafka_topics, tmp_path)
    try:
        before = stream.send(2.0)
        # The tables are made by the stream itself, one after the other.
        while not {run.table("alert"), run.table("alert_id")} <= set(hbase_tables.names()):
            assert stream.process.poll() is None, stream.errors.read_text()[-3000:]
            time.sleep(0.5)
        stream.wait_stored(store, before)

        keeper.put(Watchlist("stars", "me", ""), read_entries("id,ra,dec\nmine,150,2.0002\n"))
        message, took_s = stream.first_on("stars", 2.0)
        assert took_s < WITHIN_S
        said = json.loads(message.header("watchlist"))
        assert said["entry"] == "mine"
        assert said["separation"] == pytest.approx(0.72, abs=1e-3)
        name = message.key.decode().partition("|")[2]
        assert store.alert("sim", name)["topics"] == ["watchlist-stars"]
        assert store.alert("sim", "1")["topics"] == []

        region = mocpy.MOC.from_string("8/" + _cell(150.0, 40.0), format="ascii")
        region.save(tmp_path / "field.fits", format="fits")
        keeper.put(Watchlist("field", "me", ""), read_coverage(tmp_path / "field.fits"))
        message, _ = stream.first_on("field", 40.0)
        assert json.loads(message.header("watchlist")) == {"list": "field"}

        keeper.put(Watchlist("stars", "me", ""), read_entries("id,ra,dec\nother,150,-30\n"),
                   replaces=True)  # fmt: skip
        message, _ = stream.first_on("stars", -30.0)
        assert json.loads(message.header("watchlist"))["entry"] == "other"

        keeper.book.remove("stars")
        stream.until_off(store, -30.0)  # after a batch in work, and the one-second look
        held = len(stream.on("stars"))
        stream.wait_stored(store, stream.send(-30.0))
        stream.wait_stored(store, stream.send(-30.0))
        assert len(stream.on("stars")) == held
        assert stream.end() == 0, stream.errors.read_text()[-3000:]
    finally:
        if stream.process.poll() is None:
            os.killpg(stream.process.pid, signal.SIGKILL)

    accounts = accounts_of(kafka_topics, hbase_tables, run)
    (row,) = [row for row in accounts.rows if row.query == "alerts"]
    assert (row.consumed, row.stored, row.missing) == (stream.sent, stream.sent, 0)
    assert accounts.is_closed
    assert accounts.unread == 0


def _cell(ra, dec):
    from broker.catalog.healpix import pixels_of

    return str(int(pixels_of([ra], [dec], 8)[0]))
