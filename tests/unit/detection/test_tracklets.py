"""Tracklets of injected movers among others, their motions, and how often chance makes one."""

import numpy as np
import pytest
from astropy.coordinates import SkyCoord

from broker.detection.tracklets import Detections, Limits, find_tracklets

NIGHT = 61_000.0
ERR = 0.1
SIDE = 0.5
"""Of the field. [deg]"""


def night(rng, *, movers, others, times, rate=(0.05, 0.9)):
    """Return detections of bodies on great circles among others, whose each is, and the motions."""
    start = SkyCoord(
        rng.uniform(150.0, 150.0 + SIDE, movers), rng.uniform(2.0, 2.0 + SIDE, movers), unit="deg"
    )
    speed = rng.uniform(*rate, movers)
    angle = rng.uniform(0.0, 360.0, movers)
    parts = []
    for visit, days in enumerate(times):
        body = start.directional_offset_by(angle * np.pi / 180.0 * _RAD, speed * days * _DEG)
        ra = np.concatenate([body.ra.deg, rng.uniform(150.0, 150.0 + SIDE, others)])
        dec = np.concatenate([body.dec.deg, rng.uniform(2.0, 2.0 + SIDE, others)])
        owner = np.concatenate([np.arange(movers), np.full(others, -1)])
        ra += rng.normal(0.0, ERR / 3600.0, ra.size) / np.cos(np.radians(dec))
        dec += rng.normal(0.0, ERR / 3600.0, ra.size)
        parts.append((np.full(ra.size, NIGHT + days), ra, dec, owner, np.full(ra.size, visit)))
    mjd, ra, dec, owner, visit = (np.concatenate(values) for values in zip(*parts, strict=True))
    return Detections(mjd, ra, dec, np.full(mjd.size, ERR), visit), owner, speed, angle


_DEG = SkyCoord(0, 0, unit="deg").ra.unit
_RAD = (1.0 * _DEG).to("rad").unit
FOUR = (0.0, 0.02, 0.04, 0.06)


def test_movers_among_others_are_linked_and_nothing_else():
    found, owner, _, _ = night(np.random.default_rng(1), movers=60, others=60, times=FOUR)

    made = find_tracklets(found)

    whose = [set(owner[list(one.rows)].tolist()) for one in made]
    assert sum(len(names) == 1 for names in whose) >= 0.95 * len(made)
    linked = {names.pop() for names in whose if len(names) == 1}
    assert len(linked - {-1}) >= 0.95 * 60
    rows = [row for one in made for row in one.rows]
    assert len(rows) == len(set(rows))


def test_motions_and_places_are_those_put_in_within_their_errors():
    times = (0.0, 0.01, 0.02, 0.05, 0.07)
    found, owner, speed, angle = night(np.random.default_rng(2), movers=120, others=0, times=times)
    limits = Limits(floor_arcsec=1e-3, bend_arcsec_per_d2=1e-3)

    made = [one for one in find_tracklets(found, limits) if len(one.rows) == len(times)]

    assert len(made) > 100
    number = [int(owner[one.rows[0]]) for one in made]
    pull = [(one.rate - speed[k]) / one.rate_err for one, k in zip(made, number, strict=True)]
    assert abs(np.mean(pull)) < 5.0 / np.sqrt(len(made))
    assert np.std(pull) == pytest.approx(1.0, abs=5.0 / np.sqrt(2.0 * len(made)))
    for one, k in zip(made, number, strict=True):
        turn = (one.position_angle - angle[k] + 180.0) % 360.0 - 180.0
        assert abs(np.radians(turn)) * one.rate < 6.0 * one.rate_err + 1e-3
    chi2 = np.mean([one.chi2_per_dof for one in made])  # the acceleration is held at zero: 10 - 4
    assert chi2 == pytest.approx(1.0, abs=0.2)


@pytest.mark.slow
def test_no_more_tracklets_are_made_of_chance_than_is_said():
    rng = np.random.default_rng(3)
    limits = Limits(max_chance=1.0)
    nights = [night(rng, movers=0, others=40, times=FOUR)[0] for _ in range(12)]

    made = [len(find_tracklets(found, limits)) for found in nights]

    assert np.mean(made) < 1.0 + 5.0 / np.sqrt(len(nights))


def test_a_pair_counts_on_an_empty_sky_and_not_in_a_crowd():
    near = (0.0, 0.001)
    lone, _, _, _ = night(np.random.default_rng(4), movers=1, others=0, times=near, rate=(0.5, 0.6))
    crowd, _, _, _ = night(np.random.default_rng(4), movers=1, others=150, times=FOUR)

    assert [one.rows for one in find_tracklets(lone, Limits(max_chance=10.0))] == [(0, 1)]
    assert all(len(one.rows) > 2 for one in find_tracklets(crowd))


def test_what_stands_still_or_is_too_fast_makes_none():
    still, _, _, _ = night(np.random.default_rng(5), movers=20, others=0, times=FOUR, rate=(0, 0))
    fast, _, _, _ = night(np.random.default_rng(5), movers=20, others=0, times=FOUR, rate=(3, 4))

    assert find_tracklets(still) == []
    assert find_tracklets(fast) == []
    assert len(find_tracklets(fast, Limits(max_rate=5.0))) > 15


def test_the_order_of_the_rows_does_not_matter():
    found, _, _, _ = night(np.random.default_rng(6), movers=15, others=40, times=FOUR)
    turned = np.random.default_rng(7).permutation(found.mjd.size)
    again = Detections(*(values[turned] for values in vars(found).values()))

    first = {one.rows for one in find_tracklets(found)}
    second = {tuple(int(turned[row]) for row in one.rows) for one in find_tracklets(again)}

    assert first == second


@pytest.mark.parametrize("n", [0, 1])
def test_a_night_with_nothing_to_link_has_none(n):
    one = np.full(n, 10.0)

    assert find_tracklets(Detections(one, one, one, one, one.astype(np.int64))) == []
