"""Periods are those that were put in; small light curves show all epochs, bright above faint."""

import numpy as np
import pytest

from broker.api.errors import ApiError
from broker.portal.brightness import small_curve
from broker.portal.periods import periodogram


def epochs_of(times, flux, err, bands):
    return [
        {"midpointMjdTai": t, "psfFlux": f, "psfFluxErr": e, "band": b}
        for t, f, e, b in zip(times, flux, err, bands, strict=True)
    ]


def periodic(period, *, seed=3, n=90, amplitude=800.0):
    """A sine in two bands of unlike mean and amplitude, at random times of a hundred days."""
    rng = np.random.default_rng(seed)
    times = 61000.0 + np.sort(rng.uniform(0.0, 100.0, n))
    is_red = rng.random(n) < 0.5
    flux = np.where(is_red, 5000.0, 900.0)
    flux += np.where(is_red, 1.0, 0.4) * amplitude * np.sin(2.0 * np.pi * times / period)
    flux += rng.normal(0.0, 100.0, n)
    return epochs_of(times, flux, np.full(n, 100.0), np.where(is_red, "r", "g"))


@pytest.mark.parametrize("period", [0.3117, 2.5, 17.0])
def test_the_period_that_was_put_in_is_the_highest_peak(period):
    found = periodogram(periodic(period))

    best = found["peaks"][0]
    # The error of a frequency that noise gives (Montgomery & O'Donoghue 1999), five times;
    # the bands are normalised, so the noise of the fainter one is that much greater: 100 / 320.
    error = np.sqrt(6.0 / 90) / np.pi / 100.0 * (100.0 / 320.0)
    assert abs(1.0 / best["period"] - 1.0 / period) < 5.0 * error
    assert best["falseAlarm"] < 1e-10
    assert found["epochs"] == 90


def test_noise_has_no_period_that_is_sure():
    alarms = [
        periodogram(periodic(1.0, seed=seed, amplitude=0.0))["peaks"][0]["falseAlarm"]
        for seed in range(8)
    ]

    assert min(alarms) > 0.05 / 8 / 5  # of eight, one in 625 would be lower by chance alone


def test_the_curve_has_the_highest_peak_in_it():
    found = periodogram(periodic(2.5))

    assert len(found["frequency"]) == len(found["power"]) <= 800
    at = found["frequency"][int(np.argmax(found["power"]))]
    assert at == pytest.approx(0.4, abs=0.05)


def test_too_few_epochs_are_said_to_be_too_few():
    with pytest.raises(ApiError, match="8 epochs"):
        periodogram(periodic(2.5)[:5])
    with pytest.raises(ApiError, match="8 epochs"):
        periodogram([])


def test_epochs_that_say_nothing_are_left_out():
    rows = periodic(2.5)
    empty = epochs_of([61000.5, 61001.0, 61002.0], [None, 1.0, np.nan], [1.0, 0.0, 1.0], "rrr")

    assert periodogram([*rows, *empty])["epochs"] == len(rows)
    assert small_curve(empty) is None


def test_a_small_light_curve_stands_inside_its_frame_and_bright_is_up():
    rows = epochs_of([1.0, 2.0, 3.0], [10.0, 30.0, -5.0], [1.0, 2.0, 3.0], "grr")

    drawn = small_curve(rows)

    points = sorted(drawn["points"], key=lambda point: point["x"])
    assert points[1]["y"] < points[0]["y"] < drawn["zero"] < points[2]["y"]
    for point in points:
        assert 0.0 < point["x"] < drawn["width"]
        assert 0.0 < point["top"] <= point["y"] <= point["bottom"] < drawn["height"]
    assert drawn["words"] == "3 epochs in 2 days, g, r"


def test_a_single_epoch_and_a_flux_of_zero_are_drawn():
    drawn = small_curve(epochs_of([1.0], [0.0], [1.0], ["i"]))

    assert [point["band"] for point in drawn["points"]] == ["i"]
    assert drawn["points"][0]["x"] == drawn["width"] / 2
