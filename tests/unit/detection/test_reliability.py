"""The reliability tells sources from artefacts it was not trained on, and can be made again."""

import numpy as np
import pytest

from broker.detection.reliability import BIAS, FEATURES, WEIGHTS, Evidence, features, score
from broker.detection.training import N_IMAGES, SEED, draw_training_set, fit_weights


def test_the_weights_are_those_that_training_gives():
    data = draw_training_set(np.random.default_rng(SEED), n_images=N_IMAGES)

    weights, bias = fit_weights(data)

    # Rounded to 0.001; the rest is the last digits of another processor's arithmetic.
    np.testing.assert_allclose(weights, WEIGHTS, atol=0.02)
    assert bias == pytest.approx(BIAS, abs=0.02)


def test_sources_and_artefacts_of_another_seed_are_told_apart():
    data = draw_training_set(np.random.default_rng(99), n_images=3)

    probability = 1.0 / (1.0 + np.exp(-(data.features @ WEIGHTS + BIAS)))

    assert (probability[data.is_real] >= 0.5).mean() >= 0.98
    assert (probability[~data.is_real] >= 0.5).mean() <= 0.05


def test_scores_are_finite_whatever_was_not_measured():
    n = 4
    odd = np.array([np.nan, np.inf, 0.0, 1e9])
    evidence = Evidence(
        np.array([5.0, 1e6, 0.0, 8.0]),
        np.array([1.0, 1e9, 0.0, 1.0]),
        np.zeros(n),
        np.zeros(n),
        np.ones(n),
        np.zeros(n),
        odd,
        odd,
        odd,
        np.zeros(n),
    )

    assert features(evidence).shape == (n, len(FEATURES))
    assert np.isfinite(features(evidence)).all()
    assert ((score(evidence) >= 0.0) & (score(evidence) <= 1.0)).all()
