"""Merged histories, against a naive merge of one alert's entries at a time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.alerts.columns import DETECTION, FORCED, HISTORY, UPPER_LIMIT
from broker.alerts.history import MAX_ALERTS, build_histories, entries

OWN_MJD = 60000.0
SECOND = 1 / 86_400

entry = st.tuples(
    st.integers(0, 3),  # alert
    st.sampled_from([-2.0, -1.0, -1.0 + 0.03 * SECOND, -0.5, -SECOND, 0.0, 1.0, np.nan]),
    st.integers(-1, 5),  # band
    st.sampled_from([DETECTION, UPPER_LIMIT, FORCED]),
    st.sampled_from([1.0, np.nan]),
    st.sampled_from([1.0, 0.0, np.nan]),
)


def made(rows, own=False):
    columns = [np.array(column) for column in zip(*rows, strict=True)] if rows else [[]] * 6
    alert, days, band, kind, flux, flux_err = columns
    return entries(
        np.asarray(alert, np.int64),
        OWN_MJD + np.asarray(days, np.float64),
        band=np.asarray(band, np.int8),
        flux=np.asarray(flux, np.float64),
        flux_err=np.asarray(flux_err, np.float64),
        is_public=True,
        kind=np.asarray(kind, np.int8),
        own=own,
    )


def own_rows(n):
    return [(alert, 0.0, 1, DETECTION, 7.0, 2.0) for alert in range(n)]


def naive(rows, alert):
    """(day, band, kind) of one alert's history: best entries first, each against those kept."""
    rank = {DETECTION: 1, FORCED: 2, UPPER_LIMIT: 3}
    kept = [(0.0, 1, DETECTION)]
    for _, day, band, kind, flux, flux_err in sorted(
        (row for row in rows if row[0] == alert), key=lambda row: rank[row[3]]
    ):
        usable = flux_err > 0 and not np.isnan(day) and (kind == UPPER_LIMIT or flux == flux)
        near = any(abs(day - k[0]) < 0.1 * SECOND and band == k[1] for k in kept)
        if usable and day <= 0.0 and not near:
            kept.append((day, band, kind))
    return sorted(kept, key=lambda k: (k[0], k == kept[0]))


@given(rows=st.lists(entry, max_size=40))
def test_a_history_holds_each_epoch_once_in_order_and_the_alert_last(rows):
    n = 4

    history = build_histories([made(rows), made(own_rows(n), own=True)], n)

    assert history.column.type == HISTORY
    for alert in range(n):
        got = history.column[alert].as_py()
        expected = naive(rows, alert)
        days = [e["midpointMjdTai"] - OWN_MJD for e in got]
        assert days == sorted(days)
        bands = [-1 if e["band"] is None else "ugrizy".index(e["band"]) for e in got]
        near = pytest.approx([day for day, _, _ in expected], abs=0.1 * SECOND)
        assert sorted(days) == near
        assert sorted(zip(bands, [e["kind"] for e in got], strict=True)) == sorted(
            (band, kind) for _, band, kind in expected
        )
        assert got[-1]["psfFlux"] == 7.0  # its own
        detections = [day for day, _, kind in expected if kind == DETECTION]
        assert history.n_detections[alert] == len(detections)
        assert history.first_mjd[alert] - OWN_MJD == pytest.approx(
            min(detections), abs=0.1 * SECOND
        )


@given(rows=st.lists(entry, max_size=30), seed=st.integers(0, 99))
def test_neighbours_in_a_batch_change_nothing(rows, seed):
    together = build_histories([made(rows), made(own_rows(4), own=True)], 4).column

    for alert in range(4):
        mine = [(0, *row[1:]) for row in rows if row[0] == alert]
        alone = build_histories([made(mine), made(own_rows(1), own=True)], 1).column
        assert alone[0].as_py() == together[alert].as_py()


def test_an_epoch_keeps_the_alert_before_detection_before_forced_before_limit():
    same = -1.0
    rows = [
        (0, same, 2, UPPER_LIMIT, np.nan, 1.0),
        (0, same + 0.05 * SECOND, 2, FORCED, 2.0, 1.0),
        (0, same - 0.05 * SECOND, 2, DETECTION, 3.0, 1.0),
        (0, 0.0, 1, FORCED, 4.0, 1.0),
    ]

    (history,) = build_histories([made(rows), made(own_rows(1), own=True)], 1).column.to_pylist()

    assert [(e["psfFlux"], e["kind"]) for e in history] == [(3.0, DETECTION), (7.0, DETECTION)]


def test_an_upper_limit_has_no_flux_and_its_error():
    rows = [(0, -1.0, 2, UPPER_LIMIT, np.nan, 5.0)]

    (history,) = build_histories([made(rows), made(own_rows(1), own=True)], 1).column.to_pylist()

    assert history[0]["psfFlux"] is None
    assert history[0]["psfFluxErr"] == 5.0


def test_nothing_gives_nothing():
    assert build_histories([made([])], 0).column.to_pylist() == []
    assert build_histories([made([])], 2).column.to_pylist() == [[], []]


def test_the_largest_batch_keeps_its_alerts_apart():
    n = MAX_ALERTS
    rows = [(alert, -1.0, 5, DETECTION, 1.0, 1.0) for alert in range(n)]

    history = build_histories([made(rows), made(own_rows(n), own=True)], n)

    assert np.all(np.diff(history.column.offsets.to_numpy()) == 2)
    with pytest.raises(ValueError, match="at most"):
        build_histories([made(own_rows(n + 1), own=True)], n + 1)
