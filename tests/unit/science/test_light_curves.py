"""Light curves in flat arrays say the same as each history taken alone."""

import pickle

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.alerts.columns import HISTORY, UPPER_LIMIT
from broker.errors import ConfigError
from broker.science import LightCurves
from broker.units import BANDS

entries = st.fixed_dictionaries(
    {
        "midpointMjdTai": st.floats(60000.0, 61000.0),
        "band": st.sampled_from([*BANDS, None, "x"]),
        "psfFlux": st.none() | st.floats(-1e5, 1e5, width=32),
        "psfFluxErr": st.none() | st.floats(0.0, 1e4, width=32),
        "isPublic": st.just(True),
        "kind": st.integers(0, 2),
    }
)
batches = st.lists(st.lists(entries, max_size=6), max_size=6)


def taken(histories):
    return LightCurves.from_arrow(pa.array(histories, HISTORY))


def is_measured(entry):
    return entry["psfFlux"] is not None and (entry["psfFluxErr"] or 0.0) > 0.0


@settings(max_examples=60)
@given(histories=batches)
def test_every_reduction_equals_that_of_each_history(histories):
    curves = taken(histories)
    mjd = curves.mjd

    assert curves.n_alerts == len(histories)
    assert curves.count.tolist() == [len(h) for h in histories]
    for index, history in enumerate(histories):
        times = [entry["midpointMjdTai"] for entry in history]
        assert curves.sum(mjd)[index] == pytest.approx(sum(times), rel=1e-12)
        for values, expected in (
            (curves.max(mjd), max(times, default=np.nan)),
            (curves.min(mjd), min(times, default=np.nan)),
            (curves.first(mjd), times[0] if times else np.nan),
            (curves.last(mjd), times[-1] if times else np.nan),
        ):
            np.testing.assert_equal(values[index], expected)


@settings(max_examples=60)
@given(histories=batches)
def test_every_choice_equals_that_of_each_history(histories):
    curves = taken(histories)

    def counts(keep):
        return [sum(map(keep, history)) for history in histories]

    detected = curves.detections()
    assert detected.count.tolist() == counts(lambda e: e["kind"] == 0 and is_measured(e))
    assert curves.forced().count.tolist() == counts(lambda e: e["kind"] == 2 and is_measured(e))
    assert curves.upper_limits().count.tolist() == counts(lambda e: e["kind"] == 1)
    for band in BANDS:
        assert curves.in_band(band).count.tolist() == counts(lambda e, b=band: e["band"] == b)
    recent = curves.within(100.0)
    for index, history in enumerate(histories):
        times = [e["midpointMjdTai"] for e in history]
        assert recent.count[index] == sum(t >= max(times) - 100.0 for t in times)
        bands = [e["band"] if e["band"] in BANDS else None for e in history]
        richest = max((bands.count(b) for b in bands), default=0)
        assert curves.in_richest_band().count[index] == richest


@settings(max_examples=40)
@given(histories=batches)
def test_time_order_and_running_sums_stay_within_an_alert(histories):
    ordered = taken(histories).in_time_order()

    running = ordered.cumulative_sum(np.ones(len(ordered)))

    position = 0
    for history in histories:
        times = ordered.mjd[position : position + len(history)]
        assert list(times) == sorted(e["midpointMjdTai"] for e in history)
        expected = list(range(1, len(history) + 1))
        assert running[position : position + len(history)].tolist() == expected
        assert (ordered.rank()[position : position + len(history)] + 1).tolist() == expected
        position += len(history)


def test_a_slice_of_a_batch_is_read_as_it_is():
    one = {"midpointMjdTai": 1.0, "band": "g", "isPublic": True, "kind": 0}
    histories = [[one | {"psfFlux": float(k), "psfFluxErr": 1.0}] * k for k in range(5)]
    column = pa.array(histories, HISTORY)

    curves = LightCurves.from_arrow(column.slice(2, 2))

    assert curves.count.tolist() == [2, 3]
    assert curves.flux.tolist() == [2.0, 2.0, 3.0, 3.0, 3.0]


def test_fluxes_without_nulls_are_not_copied_and_cannot_be_written():
    one = {"midpointMjdTai": 1.0, "band": "g", "isPublic": True, "kind": 0}
    column = pa.array([[one | {"psfFlux": 5.0, "psfFluxErr": 1.0}]], HISTORY)
    address = column.flatten().field("psfFlux").buffers()[1].address

    curves = LightCurves.from_arrow(column)

    assert curves.flux.__array_interface__["data"][0] == address
    for array in (curves.alert, curves.mjd, curves.flux, curves.flux_err, curves.band):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_a_history_can_be_had_alert_by_alert():
    one = {"midpointMjdTai": 1.0, "isPublic": True, "kind": 1, "psfFlux": None, "psfFluxErr": 2.0}
    series = taken([[one | {"band": "r"}, one | {"band": None}], []]).to_series()

    assert series[0]["band"].tolist() == ["r", ""]
    assert np.isnan(series[0]["flux"]).all()
    assert series[0]["kind"].tolist() == [1, 1]
    assert len(series[1]) == 0


def test_an_unknown_band_is_refused():
    with pytest.raises(ConfigError, match="no band 'w'; use one of u g r i z y"):
        taken([]).in_band("w")


@settings(max_examples=40)
@given(histories=batches)
def test_medians_and_bands_are_those_of_each_history(histories):
    curves = taken(histories).measured()
    by_band = curves.by_band()
    median, count = curves.median(curves.mjd), by_band.count.reshape(-1, len(BANDS))
    total = by_band.sum(by_band.flux).reshape(-1, len(BANDS))

    for index, history in enumerate(histories):
        measured = [e for e in history if is_measured(e) and e["kind"] != UPPER_LIMIT]
        times = [entry["midpointMjdTai"] for entry in measured]
        expected = np.median(times) if times else np.nan
        assert median[index] == pytest.approx(expected, nan_ok=True)
        for number, band in enumerate(BANDS):
            flux = [entry["psfFlux"] for entry in measured if entry["band"] == band]
            assert count[index, number] == len(flux)
            assert total[index, number] == pytest.approx(sum(flux), rel=1e-9, abs=1e-3)


def test_what_was_worked_out_is_not_sent_along():
    curves = taken([[]])
    before = pickle.dumps(curves)
    assert curves.count.tolist() == [0]

    assert pickle.dumps(curves) == before
    assert pickle.loads(before).starts.tolist() == [0, 0]
