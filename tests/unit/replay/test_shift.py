"""Packets moved to another time: every moment by the same, and nothing else."""

import numpy as np
import pytest

from broker.alerts.adapters import find_adapters
from broker.replay.player import Rate, replay
from broker.replay.shift import is_time, observed_mjd, shift_packet, shift_packets
from broker.simulation.packets import simulate_packets
from broker.topics.memory import MemoryTopics
from broker.types import Coordinate

DAYS = 512.0  # exact in a double, beside an MJD
MOVED = {"midpointMjdTai", "firstMjdTai"}


def canonical(adapter, packet):
    return adapter.decode_one(packet, Coordinate("t", 0, 0)).to_pylist()[0]


@pytest.mark.parametrize("survey", ["ztf", "lsst"])
def test_all_moments_move_and_nothing_else(survey):
    adapter = find_adapters()[survey]
    for packet in simulate_packets(survey, 5, 3):
        assert shift_packet(adapter, packet, 0.0) == packet

        before, after = (
            canonical(adapter, p) for p in (packet, shift_packet(adapter, packet, DAYS))
        )

        assert after["midpointMjdTai"] - before["midpointMjdTai"] == pytest.approx(DAYS, abs=1e-7)
        times = [[e["midpointMjdTai"] for e in row["history"]] for row in (before, after)]
        np.testing.assert_allclose(np.subtract(*times[::-1]), DAYS, atol=1e-7)
        for name, value in before.items():
            if name not in MOVED and name not in ("history", "ageDays"):
                assert after[name] == value, name
        if before["ageDays"] is not None:
            assert after["ageDays"] == pytest.approx(before["ageDays"], abs=1e-5)
        for old, new in zip(before["history"], after["history"], strict=True):
            assert {k: v for k, v in old.items() if not is_time(k)} == {
                k: v for k, v in new.items() if not is_time(k)
            }


def test_the_first_one_is_observed_when_it_was_asked_for_and_gaps_stay():
    adapter = find_adapters()["lsst"]
    packets = list(simulate_packets("lsst", 6, 3))
    asked = [(packet, None, None) for packet in [packets[0], b"bad", *packets[1:]]]

    moved = [packet for packet, _, _ in shift_packets(asked, adapter, to_mjd=70_000.0)]

    assert moved[1] == b"bad"
    times = [observed_mjd(adapter, p) for p in [moved[0], *moved[2:]]]
    was = [observed_mjd(adapter, p) for p in packets]
    assert times[0] == pytest.approx(70_000.0, abs=1e-7)
    np.testing.assert_allclose(np.diff(times), np.diff(was), atol=1e-7)


def test_another_round_keeps_its_pace():
    topics = MemoryTopics()
    topics.create("t")
    waits, now = [], [0.0]

    def sleep(seconds):
        waits.append(seconds)
        now[0] += seconds

    a_round = [(b"x", 1_000 * i, None) for i in (10, 12, 20)]
    replay(
        topics, [*a_round, *a_round], to="t", rate=Rate(speed_up=2.0),
        clock=lambda: now[0], sleep=sleep,
    )  # fmt: skip

    assert waits == pytest.approx([1.0, 4.0, 1.0, 4.0])
