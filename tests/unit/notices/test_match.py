"""Alerts and notices, by place and time, against a loop over all pairs."""

import numpy as np

from broker.alerts.columns import FOUND, NOT_FOUND, NOT_SEARCHED, NOTICE_COLUMNS
from broker.notices import Ellipse, Known, Notice, Window, best_matches, members, not_searched
from broker.units import separation_arcsec

WINDOW = Window(credible_level=0.9, days_before=1.0, days_after=10.0)


def notice(name="a", ra=10.0, dec=-5.0, radius=2.0, trigger=61000.0, **more):
    place = Ellipse(ra, dec, radius, radius)
    values = {"kind": "initial", "is_test": False, "reporter": "us", **more}
    return Notice(name, f"event-{name}", created_mjd_tai=trigger, trigger_mjd_tai=trigger,
                  place=place, **values)  # fmt: skip


def test_members_are_those_of_a_loop_over_all():
    rng = np.random.default_rng(5)
    ra, dec, mjd = rng.uniform([0, -15, 60995], [20, 5, 61015], (500, 3)).T

    found = members(notice(), ra, dec, mjd, WINDOW)

    expected = [
        i
        for i in range(500)
        if separation_arcsec(10.0, -5.0, ra[i], dec[i]) <= 7200.0 and 60999 <= mjd[i] <= 61010
    ]
    assert 5 < len(expected) == found.rows.size
    assert found.rows.tolist() == expected
    assert np.allclose(found.delays, mjd[expected] - 61000.0)
    distances = separation_arcsec(10.0, -5.0, ra[expected], dec[expected])
    assert np.allclose(found.separations, distances)


def test_the_three_readings_are_told_apart():
    table = best_matches(
        [Known(notice())],
        [10.0, 50.0, 10.0, 10.0, np.nan],
        [-5.5, -5.0, -5.0, -5.0, -5.0],
        [61001.0, 61001.0, 60998.0, 61011.0, 61001.0],
        WINDOW,
    )

    assert table.column("noticesMatch").to_pylist() == [
        FOUND, NOT_FOUND, NOT_SEARCHED, NOT_SEARCHED, NOT_SEARCHED,
    ]  # fmt: skip
    assert table.column("noticesId").to_pylist() == ["a", None, None, None, None]
    row = table.slice(0, 1).to_pylist()[0]
    assert row["noticesSeparation"] == 1800.0
    # A quarter of the radius that holds 0.9.
    assert abs(row["noticesCredibleLevel"] - (1.0 - 0.1 ** (1.0 / 16.0))) < 1e-6
    assert row["noticesDelay"] == 1.0


def test_without_notices_nothing_was_searched():
    table = best_matches([], [1.0], [2.0], [61000.0], WINDOW)

    assert table.equals(not_searched(1))
    assert [(f.name, f.type, f.nullable) for f in table.schema] == [
        (c.name, c.arrow_type, c.nullable) for c in NOTICE_COLUMNS
    ]


def test_the_notice_that_fits_best_wins_in_any_order_and_any_split():
    rng = np.random.default_rng(6)
    known = [
        Known(notice(f"n{i}", ra=10 + x, dec=-5 + y, radius=size, trigger=61000 + late))
        for i, (x, y, size, late) in enumerate(rng.uniform([-2, -2, 1, 0], [2, 2, 4, 3], (12, 4)))
    ]
    ra, dec, mjd = rng.uniform([5, -10, 60998], [15, 0, 61012], (200, 3)).T

    whole = best_matches(known, ra, dec, mjd, WINDOW)
    parts = [
        best_matches(known[::-1], ra[i : i + 1], dec[i : i + 1], mjd[i : i + 1], WINDOW)
        for i in range(200)
    ]

    assert [p.to_pylist()[0] for p in parts] == whole.to_pylist()
    for i, row in enumerate(whole.to_pylist()):
        levels = {
            k.notice.notice_id: float(k.notice.place.level(ra[i], dec[i]))
            for k in known
            if -1.0 <= mjd[i] - k.notice.trigger_mjd_tai <= 10.0
        }
        best = min(levels, key=levels.get, default=None)
        is_found = best is not None and levels[best] <= 0.9
        assert row["noticesId"] == (best if is_found else None)


def test_tests_and_notices_out_of_force_match_nothing():
    at = ([10.0], [-5.0], [61001.0], WINDOW)
    for known in (
        Known(notice(is_test=True)),
        Known(notice(), is_in_force=False),
        Known(notice(), is_in_force=False, is_retracted=True),
    ):
        assert best_matches([known], *at).column("noticesMatch").to_pylist() == [NOT_SEARCHED]
