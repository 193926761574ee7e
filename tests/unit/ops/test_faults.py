"""The tools with which faults are made: relay, steps, proofs."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import psutil
import pytest
from scipy.signal import lfilter

from broker.ops.faults import slope_of, steps
from broker.ops.faults.proof import Published, torn
from broker.ops.faults.proxy import Relay
from broker.ops.faults.soak import usage_of
from broker.store.alerts import create_tables
from broker.store.memory import MemoryTables
from broker.topics.memory import MemoryTopics
from broker.topics.topic import Message
from broker.types import Run

RUN = Run("faults")


@pytest.fixture
def echo():
    """A server that gives back what it gets."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    def answer(connection):
        with connection:
            while data := connection.recv(1 << 16):
                connection.sendall(data)

    threading.Thread(target=serve, daemon=True).start()
    yield server.getsockname()[1]
    server.shutdown(socket.SHUT_RDWR)
    server.close()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def test_a_relay_passes_holds_and_passes_again_without_a_byte_lost(echo):
    relay = Relay(free_port(), echo)
    with socket.create_connection(("127.0.0.1", relay.port), timeout=5) as client:
        client.sendall(b"one")
        assert client.recv(3) == b"one"
        relay.cut()
        client.sendall(b"two")
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.recv(3)
        relay.heal()
        client.settimeout(5)
        assert client.recv(3) == b"two"
    relay.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", relay.port), timeout=1)


def test_an_armed_step_kills_the_group_once_and_others_pass(tmp_path):
    code = (
        "import os, sys, pathlib; from broker.ops.faults import steps\n"
        "folder = pathlib.Path(sys.argv[1]); steps.note_group(folder, os.getpgid(0))\n"
        "steps.reach(folder, 'begun'); print('passed', flush=True)\n"
        "steps.reach(folder, 'stored'); print('lived', flush=True)\n"
    )
    steps.arm(tmp_path, "stored")
    command = [sys.executable, "-c", code, str(tmp_path)]

    first = subprocess.run(command, stdout=subprocess.PIPE, start_new_session=True, check=False)
    second = subprocess.run(command, stdout=subprocess.PIPE, start_new_session=True, check=False)

    assert first.returncode == -signal.SIGKILL
    assert first.stdout == b"passed\n"
    assert steps.fired(tmp_path)
    assert second.stdout == b"passed\nlived\n"
    assert os.getpid()  # we are of another group


def test_repeats_are_counted_and_unequal_ones_and_missing_variants_found():
    topics = MemoryTopics()
    for name in ("run.faults.sn.slim", "run.faults.sn.full"):
        topics.create(name)
    published = Published(topics, RUN)
    topics.send("run.faults.sn.slim", [Message(b"a", b"1"), Message(b"b", b"2")], 0)
    topics.send("run.faults.sn.full", [Message(b"A", b"1"), Message(b"B", b"2")], 0)
    assert published.look() == (0, 0)

    topics.send("run.faults.sn.slim", [Message(b"a", b"1")], 0)
    assert published.look() == (1, 0)

    topics.send("run.faults.sn.slim", [Message(b"other", b"2"), Message(b"c", b"3")], 0)
    assert published.look() == (0, 1 + 2)  # a changed body; a key that one variant lacks, twice


def test_an_alert_without_what_leads_to_it_is_torn():
    tables = MemoryTables()
    create_tables(tables, RUN)
    put = lambda name, row: tables.table(RUN.table(name)).put([row])  # noqa: E731
    put("alert", (b"k1", {b"c:v": b"x", b"p:v": b"x", b"o:t/0/1": b"x"}))
    assert torn(tables, RUN) == 1

    put("alert_id", (b"id", {b"k:a": b"k1"}))
    put("sky", (b"pixel", {b"k:1": bytes(16) + b"k1"}))
    assert torn(tables, RUN) == 0

    put("alert", (b"k2", {b"c:v": b"x", b"p:v": b"x"}))
    assert torn(tables, RUN) == 1


@pytest.mark.parametrize(
    ("memory", "white", "most"), [(0.0, 0.0, 1.2), (0.6, 0.0, 1.2), (0.95, 0.5, 1.3)]
)
def test_a_slope_is_found_with_an_error_that_holds_for_values_that_follow_each_other(
    memory, white, most
):
    rng = np.random.default_rng(3)
    times = np.arange(432) * 5.0
    pulls = []
    for _ in range(300):
        slow = lfilter([1.0], [1.0, -memory], rng.normal(size=932))[500:]
        noise = slow * np.sqrt(1.0 - memory**2) + white * rng.normal(size=432)
        found = slope_of("memory", times, 1000.0 + 0.02 * times + noise)
        expected = 0.02 * 3600.0 / found.mean
        pulls.append((found.per_hour - expected) / found.error)
    # 300 pulls: their rms is known to 4 %; the correction is good to a few, and
    # to a fifth for two kinds of noise at once.
    assert 0.85 < np.sqrt(np.mean(np.square(pulls))) < most
    assert abs(np.mean(pulls)) < 4.0 / np.sqrt(300.0)


def test_a_leak_grows_a_flat_line_is_flat_and_a_short_look_is_open():
    rng = np.random.default_rng(4)
    times = np.arange(300) * 5.0
    noise = rng.normal(size=300)

    assert slope_of("memory", times, 1000.0 + noise).verdict == "flat"
    assert slope_of("memory", times, 1000.0 + 0.1 * times + noise).verdict == "grows"
    assert slope_of("memory", times[:10], 1000.0 + 30.0 * noise[:10]).verdict == "open"


def test_a_relay_can_be_slow(echo):
    relay = Relay(free_port(), echo)
    try:
        with socket.create_connection(("127.0.0.1", relay.port), timeout=30) as client:
            relay.slow(0.2)
            began = time.monotonic()
            client.sendall(b"one")
            assert client.recv(3) == b"one"
            assert time.monotonic() - began >= 0.4  # there and back
    finally:
        relay.close()


def test_a_process_that_is_being_started_does_not_count_with_its_parents_memory():
    parent = psutil.Process()
    child = psutil.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    memory, handles = usage_of([parent], least_age_s=0.0)
    assert memory == pytest.approx(parent.memory_info().rss / 1e6, rel=0.2)
    assert handles >= 3
    assert usage_of([child], least_age_s=3600.0) == (0.0, 0.0)
    assert usage_of([child], least_age_s=0.0)[1] >= 3
    child.communicate(b"\n")
    assert usage_of([child], least_age_s=0.0) == (0.0, 0.0)
