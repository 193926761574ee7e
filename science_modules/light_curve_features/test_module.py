"""Each feature equals an independent computation, light curve by light curve."""

import functools
import os
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from broker.alerts.adapters import find_adapters
from broker.science import LightCurves
from broker.types import Coordinate
from science_modules.light_curve_features import module

FEATURES = module.FEATURES
G, R = 1, 2
PACKETS = os.environ.get("BROKER_SAMPLE_PACKETS", "")

light_curve_features = functools.partial(module.light_curve_features, model=module.load_extractor())


def random_curves(seed, n_alerts=40):
    """Light curves of 0 to 25 entries in g and r, times out of order on purpose."""
    rng = np.random.default_rng(seed)
    alert = np.repeat(np.arange(n_alerts), rng.integers(0, 26, n_alerts))
    n = alert.size
    return LightCurves(
        alert,
        61000.0 + rng.uniform(0.0, 60.0, n),
        rng.normal(500.0, 80.0, n) + rng.exponential(100.0, n),
        rng.uniform(10.0, 60.0, n),
        n_alerts,
        rng.choice([G, R], n).astype(np.int8),
        np.zeros(n, np.int8),
    )


def slow_features(t, y, e):
    """Return the features of one light curve in one band, by plain and other means."""
    n = y.size
    mean = np.average(y, weights=e**-2)
    pull = (y - mean) / e
    coefficients, covariance = np.polyfit(t - t.mean(), y, 1, w=1 / e, cov="unscaled")
    std = np.std(y, ddof=1)
    s = np.cumsum(y - y.mean())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        anderson = stats.anderson(y, "norm").statistic
    delta = np.sqrt(n / (n - 1)) * pull
    median = np.median(y)
    slopes, line = np.diff(y) / np.diff(t), np.polyval(coefficients, t - t.mean())

    def quantile(q):
        return np.quantile(y, q, method="hazen")  # linear between the middles of the steps

    def between(q):
        return quantile(1.0 - q) - quantile(q)

    return {
        "WeightedMean": mean,
        "Std": std,
        "Amplitude": np.ptp(y) / 2,
        "ReducedChi2": np.sum(pull**2) / (n - 1),
        "Stetson": np.mean(np.abs(delta)) / np.sqrt(np.mean(delta**2)),
        "Skew": stats.skew(y, bias=False),
        "Kurtosis": stats.kurtosis(y, bias=False) if n > 3 else np.nan,
        "LinearTrend": coefficients[0],
        "LinearTrendErr": np.sqrt(covariance[0, 0]),
        "MaxSlope": np.max(np.abs(np.diff(y) / np.diff(t))),
        "Beyond1Std": np.mean(np.abs(y - y.mean()) > std),
        "Cusum": np.ptp(s) / (n * std),
        "Eta": np.sum(np.diff(y) ** 2) / ((n - 1) * np.var(y, ddof=1)),
        "AndersonDarling": (1 + 4 / n - 25 / n**2) * anderson,
        "Mean": y.mean(),
        "Median": median,
        "Mad": np.median(np.abs(y - median)),
        "PercentAmplitude": np.max(np.abs(y - median)),
        "PercentileRange10": between(0.1),
        "PercentileRatio4005": between(0.4) / between(0.05),
        "PercentileRatio2010": between(0.2) / between(0.1),
        "PercentDifference5": between(0.05) / median,
        "MedianBuffer10": np.mean(np.abs(y - median) < 0.1 * np.ptp(y) / 2),
        "MeanVariance": std / y.mean(),
        "ExcessVariance": (std**2 - np.mean(e**2)) / y.mean() ** 2,
        "Roms": np.sum(np.abs(y - median) / e) / (n - 1),
        "EtaUneven": ((t[-1] - t[0]) / (n - 1)) ** 2 * np.sum(slopes**2) / ((n - 1) * std**2),
        "LinearFitChi2": np.sum(((y - line) / e) ** 2) / (n - 2),
    }


def compared(history):
    """Compare every feature of every light curve; return how many were."""
    got = light_curve_features(history)
    detections = history.detections()
    n_compared = 0
    for index in range(history.n_alerts):
        for band, code in (("G", G), ("R", R)):
            own = (detections.alert == index) & (detections.band == code)
            order = np.argsort(detections.mjd[own], kind="stable")
            t, y, e = (
                a[own][order].astype("f8")
                for a in (detections.mjd, detections.flux, detections.flux_err)
            )
            assert got[f"lcCount{band}"][index] == y.size
            if y.size < 3:
                assert got.loc[index, [f"lc{name}{band}" for name, _, _ in FEATURES]].isna().all()
                continue
            for name, expected in slow_features(t, y, e).items():
                # Outputs are float32, and skew and kurtosis subtract near equals: 1e-4.
                value = got[f"lc{name}{band}"][index]
                np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5, err_msg=name)
                n_compared += 1
    return n_compared


@pytest.mark.parametrize("seed", [1, 2])
def test_features_equal_a_computation_of_each_light_curve_alone(seed):
    assert compared(random_curves(seed)) > 1000


@pytest.mark.skipif(not PACKETS, reason="BROKER_SAMPLE_PACKETS names no folder of real packets")
def test_features_of_real_light_curves_equal_an_independent_computation():
    decode = find_adapters()["ztf"].decode_one
    packets = [path.read_bytes() for path in sorted(Path(PACKETS).glob("ztf/*/*.avro"))]
    tables = [decode(packet, Coordinate("", 0, 0)) for packet in packets]
    history = LightCurves.from_arrow(pa.concat_tables(tables).column("history"))

    assert compared(history) > 500


def test_white_noise_has_the_expected_chi2_eta_and_stetson():
    rng = np.random.default_rng(3)
    n_alerts, n = 2000, 20
    alert = np.repeat(np.arange(n_alerts), n)
    mjd = 61000.0 + np.tile(np.arange(n), n_alerts)
    noise = rng.normal(0.0, 7.0, alert.size)
    history = LightCurves(
        alert, mjd, noise, np.full(alert.size, 7.0), n_alerts, np.full(alert.size, R, np.int8)
    )

    got = light_curve_features(history)

    # 4 sigma on means of 2000: chi2/dof has variance 2/(n-1), eta has mean 2 and variance
    # 4(n-2)/(n^2-1).
    assert got["lcReducedChi2R"].mean() == pytest.approx(1.0, abs=4 * np.sqrt(2 / 19 / 2000))
    assert got["lcEtaR"].mean() == pytest.approx(2.0, abs=4 * np.sqrt(4 * 18 / 399 / 2000))
    assert got["lcStetsonR"].mean() == pytest.approx(np.sqrt(2 / np.pi), abs=0.02)
    assert (got["lcTimeSpan"] == 19.0).all()


def test_a_constant_light_curve_gives_null_where_it_would_divide_by_zero():
    history = LightCurves(
        np.zeros(4, int), np.arange(4.0), np.full(4, 5.0), np.ones(4), 1, np.full(4, G, np.int8)
    )

    got = light_curve_features(history).iloc[0]

    assert got["lcStdG"] == 0.0
    assert got["lcReducedChi2G"] == 0.0
    assert np.isnan(got["lcSkewG"])
    assert np.isnan(got["lcEtaG"])


def test_upper_limits_and_forced_fluxes_are_left_out():
    history = LightCurves(
        np.zeros(5, int),
        np.arange(5.0),
        np.array([1.0, np.nan, 2.0, 3.0, 100.0]),
        np.ones(5),
        1,
        np.full(5, G, np.int8),
        np.array([0, 1, 0, 0, 2], np.int8),
    )

    got = light_curve_features(history).iloc[0]

    assert got["lcCountG"] == 3
    assert got["lcWeightedMeanG"] == 2.0
