"""The age of an injected fireball is found, with honest errors, and nothing else scores."""

import numpy as np
import pytest

from broker.alerts.columns import DETECTION, UPPER_LIMIT
from broker.science.samples import ascending_times as times
from broker.science.samples import light_curves as curves
from science_modules.early_supernova.module import early_supernova

G, R = 1, 2
ERROR = 30.0


def fireballs(n, seed):
    """Return light curves, seen above 5 sigma, with upper limits elsewhere, and their ages."""
    rng = np.random.default_rng(seed)
    mjd, band = times(rng, n, 20, 30.0), rng.integers(G, R + 1, (n, 20))
    age = rng.uniform(3.0, 20.0, n)
    now = rng.uniform(500.0, 3000.0, (n, 1)) * np.where(band == G, 1.0, 0.8)
    flux = now * (np.maximum(mjd - 61000.0 + age[:, None], 0.0) / age[:, None]) ** 2
    seen = flux + rng.normal(0.0, ERROR, flux.shape)
    kind = np.where(seen < 5.0 * ERROR, UPPER_LIMIT, DETECTION)
    return curves(mjd, np.where(kind == DETECTION, seen, np.nan), ERROR, band, kind), age


def test_the_age_is_found_with_honest_errors():
    history, age = fireballs(1500, seed=1)
    got = early_supernova(history)
    pull = ((got["fireballAge"] - age) / got["fireballAgeErr"]).dropna()

    assert len(pull) > 1000
    assert abs(pull.mean()) < 0.3  # detections near the limit are those that noise has lifted
    assert pull.std() == pytest.approx(1.0, abs=0.12)
    assert got["fireballAgeErr"].median() < 0.5
    assert got["fireballChi2PerDof"].median() == pytest.approx(1.0, abs=0.1)


def test_fireballs_score_and_others_do_not():
    rng = np.random.default_rng(2)
    history, _ = fireballs(400, seed=3)
    score = early_supernova(history)["earlySupernovaScore"].dropna()
    assert (score > 0.5).mean() > 0.8  # with three detections a line does as well

    mjd, band = times(rng, 400, 20, 30.0), rng.integers(G, R + 1, (400, 20))
    day = mjd - 61000.0
    period = rng.uniform(0.3, 20.0, (400, 1))
    others = {
        "constant": 1000.0 + 0.0 * day,
        "fading": 2000.0 * np.exp(-day / 15.0 - 1.0),
        "straight": 1000.0 + 50.0 * (day + 15.0),
        "periodic": 1000.0 + 500.0 * np.sin(2.0 * np.pi * mjd / period),
    }
    for name, flux in others.items():
        seen = flux + rng.normal(0.0, ERROR, flux.shape)
        score = early_supernova(curves(mjd, seen, ERROR, band))["earlySupernovaScore"]
        assert (score > 0.5).mean() < 0.01, name


def test_limits_before_the_first_detection_make_the_age_surer():
    day = np.array([[-9.0, -6.0, -3.0, -2.0, -1.0, 0.0]])
    flux = 1000.0 * ((day + 4.0).clip(0.0) / 4.0) ** 2
    kind = np.where(day < -4.0, UPPER_LIMIT, DETECTION)
    seen = np.where(kind == DETECTION, flux, np.nan)
    both = curves(61000.0 + day, seen, ERROR, G, kind)
    without = both.detections()

    sure, unsure = (early_supernova(one).iloc[0] for one in (both, without))

    assert sure["fireballAge"] == pytest.approx(4.0, abs=3.0 * float(sure["fireballAgeErr"]))
    assert sure["fireballAgeErr"] <= unsure["fireballAgeErr"]


def test_two_detections_make_no_supernova():
    day = np.array([[-3.0, -2.0, -1.0, 0.0]])
    kind = np.array([[UPPER_LIMIT, UPPER_LIMIT, DETECTION, DETECTION]])
    got = early_supernova(curves(61000.0 + day, day + 4.0, 1.0, G, kind))

    assert got.isna().all(axis=None)


def test_a_fading_negative_source_is_none():
    day = np.array([[-4.0, -3.0, -2.0, -1.0, 0.0]])
    got = early_supernova(curves(61000.0 + day, -100.0 * (day + 5.0) ** 2, 5.0, G))

    assert got.isna().all(axis=None)
