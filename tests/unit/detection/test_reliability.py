"""The reliability: trees, calibration, what lies around a source, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest

from broker.detection.reliability.evidence import MOST, Surroundings, _around, _static_light
from broker.detection.reliability.model import (
    default_model,
    model_json,
    parse_model,
    read_model,
)
from broker.detection.reliability.report import (
    Judged,
    by_snr,
    by_threshold,
    calibration_error,
    diagram,
)
from broker.detection.reliability.score import DIRECTIONS, FEATURES, Evidence, features, score
from broker.detection.reliability.training import TrainingSet, calibrate, fit_trees, train, trees_of
from broker.errors import ConfigError
from broker.imaging.mask import MaskPlane
from broker.imaging.psf import GaussianPsf


def examples(seed, n=1500):
    """Sources whose truth is drawn with a known probability of their features."""
    rng = np.random.default_rng(seed)
    values = rng.normal(0.0, 1.0, (n, len(FEATURES)))
    logit = 2.0 * values[:, 12] - 1.5 * values[:, 1] - values[:, 5] * (values[:, 3] > 0.0) + 1.0
    probability = 1.0 / (1.0 + np.exp(-logit))
    real = rng.random(n) < probability
    return TrainingSet(values, real, np.ones(n)), probability


@pytest.fixture(scope="module")
def trained():
    return train(examples(1)[0], examples(2)[0], seed=3, provenance={"seed": 3})


def judged(model, data):
    scores = model.score(data.features)
    n = scores.size
    return Judged(scores, np.full(n, 9.0), data.is_real, data.weight, np.empty(0), np.empty(0))


def test_the_trees_give_what_scikit_learn_gives():
    data = examples(4)[0]
    fitted = fit_trees(data, seed=5)
    other = examples(6)[0].features

    own = 1.0 / (1.0 + np.exp(-trees_of(fitted, {}).log_odds(other)))

    # Leaves are rounded to 7 digits, and there are 80 trees.
    np.testing.assert_allclose(own, fitted.predict_proba(other)[:, 1], rtol=0.0, atol=4e-6)


def test_a_score_is_the_share_of_real_sources_of_other_examples(trained):
    other, probability = examples(7, n=20_000)

    bins = [b for b in diagram(judged(trained, other)) if b.sources >= 100]

    # The calibration is of 1500 sources, some 150 a bin: its own error comes on top.
    assert len(bins) >= 8
    assert all(abs(b.real - b.score) < 4.0 * np.hypot(b.error, b.error * 13**0.5) for b in bins)
    assert calibration_error(judged(trained, other)) < 0.05
    assert np.corrcoef(trained.score(other.features), probability)[0, 1] > 0.9


def test_the_calibration_mends_scores_that_are_too_sure():
    rng = np.random.default_rng(8)
    true = rng.uniform(0.0, 1.0, 20_000)
    real = rng.random(true.size) < true
    too_sure = 3.0 * np.log(true / (1.0 - true))

    knots, probability = calibrate(too_sure, real, np.ones(true.size))

    mended = np.interp(too_sure, knots, probability)
    assert np.all(np.diff(knots) > 0.0)
    assert np.all(np.diff(probability) >= 0.0)
    assert np.abs(mended - true).mean() < 0.02
    assert probability[0] > 0.0
    assert probability[-1] < 1.0


def test_sources_that_stand_for_others_count_as_many():
    log_odds = np.array([-1.0, -1.0, 1.0, 1.0])
    real = np.array([True, False, True, False])

    _, probability = calibrate(log_odds, real, np.array([99.0, 1.0, 99.0, 1.0]))

    np.testing.assert_allclose(probability, 0.99, atol=0.001)


def test_a_score_never_rises_for_a_worse_fit(trained):
    values = np.repeat(examples(9)[0].features[:200, None, :], 9, axis=1)
    for column, direction in enumerate(DIRECTIONS):
        changed = values.copy()
        changed[:, :, column] = np.linspace(-3.0, 3.0, 9)
        scores = trained.score(changed.reshape(-1, len(FEATURES))).reshape(200, 9)
        if direction:
            assert np.all(direction * np.diff(scores, axis=1) >= 0.0), FEATURES[column]


def test_the_same_examples_give_the_same_bytes(trained):
    again = train(examples(1)[0], examples(2)[0], seed=3, provenance={"seed": 3})

    assert model_json(again) == model_json(trained)


def test_a_model_comes_back_from_its_file(trained, tmp_path):
    path = tmp_path / "weights.json"
    path.write_text(model_json(trained), encoding="utf-8")

    back = read_model(path, FEATURES)

    values = examples(10)[0].features
    assert back.score(values).tobytes() == trained.score(values).tobytes()
    assert back.provenance == {"seed": 3}


def test_weights_of_other_features_are_refused_by_name(trained):
    renamed = (*FEATURES[:-1], "colour")

    with pytest.raises(ConfigError, match=r"other features \(colour, fitFailed\): train it again"):
        parse_model(model_json(trained), renamed, name="weights.json")
    with pytest.raises(ConfigError, match="their order"):
        parse_model(model_json(trained), FEATURES[::-1], name="weights.json")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda m: m["trees"]["left"].__setitem__(0, 0), "do not fit together"),
        (lambda m: m["trees"]["value"].pop(), "do not fit together"),
        (lambda m: m["calibration"]["probability"].reverse(), "do not fit together"),
        (lambda m: m.pop("trees"), "has no reliability's weights"),
        (lambda m: m.update(format=99), "format 99"),
    ],
    ids=["endless walk", "short list", "falling score", "no trees", "format"],
)
def test_a_file_that_is_no_model_is_refused(trained, spoil, words):
    read = json.loads(model_json(trained))
    spoil(read)

    with pytest.raises(ConfigError, match=words):
        parse_model(json.dumps(read), FEATURES, name="weights.json")


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        read_model(tmp_path / "none.json", FEATURES)


def test_too_few_artefacts_are_refused():
    data = examples(11)[0]
    all_real = replace(data, is_real=np.ones(data.is_real.size, bool))

    with pytest.raises(ConfigError, match="1500 real sources and 0 artefacts"):
        train(data, all_real, seed=1, provenance={})


def test_the_package_s_weights_say_where_they_come_from():
    model = default_model()

    assert model.features == FEATURES
    assert {"command", "seed", "sizes", "classes", "seeing_arcsec"} <= set(model.provenance)
    assert model.provenance["training_artefacts"] >= 1000
    assert model.provenance["calibration_artefacts"] >= 200
    assert model.provenance["sizes"]["training"] >= 16


def evidence(n, **given):
    around = {"opposite_share": 0.1, "struck_share": 0.0, "offset": 0.2, "shift": MOST,
              "width_change": MOST, "neighbours": 0.0}  # fmt: skip
    rest = {"snr": 20.0, "chi2": 1.0, "peak_excess": 0.0, "opposite_snr": 1.0, "usable": 1.0,
            "star_share": 0.0, "template_ratio": 0.1, "width_ratio": 1.0, "elongation": 1.05,
            "failed": 0.0}  # fmt: skip
    filled = {k: np.full(n, v) for k, v in (around | rest).items()} | given
    surround = Surroundings(**{k: filled.pop(k) for k in around})
    return Evidence(**filled, around=surround)


def test_a_clean_point_is_believed_and_what_artefacts_look_like_is_not():
    clean = score(evidence(1))[0]
    hit = score(
        evidence(
            1,
            chi2=np.array([6.0]),
            peak_excess=np.array([15.0]),
            width_ratio=np.array([0.4]),
            elongation=np.array([2.5]),
            struck_share=np.array([0.3]),
        )
    )[0]

    assert clean > 0.95
    assert hit < 0.3


def test_scores_are_finite_whatever_was_not_measured():
    odd = np.array([np.nan, np.inf, 0.0, 1e9])
    names = ("snr", "chi2", "peak_excess", "opposite_snr", "template_ratio", "width_ratio",
             "elongation", "shift", "width_change", "offset")  # fmt: skip
    strange = evidence(4, **dict.fromkeys(names, odd))

    values = features(strange)

    assert values.shape == (4, len(FEATURES))
    assert np.isfinite(values).all()
    assert ((score(strange) >= 0.0) & (score(strange) <= 1.0)).all()
    assert features(evidence(0)).shape == (0, len(FEATURES))
    assert score(evidence(0)).shape == (0,)


@pytest.mark.parametrize("move", [0.05, 0.2])
def test_a_peak_that_a_shift_left_tells_the_shift(move):
    psf, flux = GaussianPsf(2.0), 1e5
    star = flux * psf.stamp(0.0, 0.0, 61)
    left = flux * psf.stamp(move, 0.0, 61) - star
    y, x = np.unravel_index(np.argmax(left), left.shape)

    slope, _ = _static_light(star.astype(np.float32), np.array([x]), np.array([y]), 3)

    assert left.max() / slope[0] == pytest.approx(move, rel=0.1)


@pytest.mark.parametrize("change", [0.02, 0.06])
def test_a_peak_that_a_wrong_width_left_tells_the_width(change):
    flux, sigma = 1e5, 2.0
    star = flux * GaussianPsf(sigma).stamp(0.0, 0.0, 61)
    left = flux * GaussianPsf(sigma * (1.0 - change)).stamp(0.0, 0.0, 61) - star

    _, bend = _static_light(star.astype(np.float32), np.array([30]), np.array([30]), 3)

    # The pixel widens the star a little, and the second order is 1.5 times the change.
    assert left.max() / (sigma**2 * bend[0]) == pytest.approx(change, rel=0.2)


def test_what_lies_around_a_source_is_summed_as_by_hand():
    rng = np.random.default_rng(12)
    pixels = rng.normal(0.0, 1.0, (40, 50)).astype(np.float32)
    variance = rng.uniform(0.5, 2.0, pixels.shape).astype(np.float32)
    unusable, struck = rng.random((2, *pixels.shape)) < 0.1
    x, y, sign, sigma = np.array([25, 2, 49]), np.array([20, 39, 0]), np.array([1.0, -1, 1]), 2.0

    bit = np.uint16(MaskPlane.COSMIC_RAY)
    mask = np.where(struck, bit | np.uint16(MaskPlane.BAD), np.uint16(MaskPlane.BAD))

    own = _around(pixels, variance, unusable, mask, bit, x, y, sign, sigma)

    line_y, line_x = np.mgrid[:40, :50]
    for k in range(3):
        near = (abs(line_x - x[k]) <= 6) & (abs(line_y - y[k]) <= 6)
        weight = np.exp(-((line_x - x[k]) ** 2 + (line_y - y[k]) ** 2) / (8.0 * sigma**2)) * near
        power = weight * pixels**2 / variance * ~unusable
        against = power[sign[k] * pixels < 0.0].sum() / power.sum()
        np.testing.assert_allclose(
            own[k], [against, weight[struck].sum() / weight.sum()], rtol=1e-5
        )


def test_the_report_counts_as_a_person_would():
    found = Judged(
        score=np.array([0.95, 0.92, 0.05, 0.6]),
        snr=np.array([5.5, 30.0, 7.0, 7.0]),
        is_real=np.array([True, True, False, False]),
        weight=np.ones(4),
        true_snr=np.array([6.5, 31.0, 6.2]),
        true_score=np.array([0.95, 0.92, -1.0]),
    )

    half = next(row for row in by_threshold(found) if row["score >="] == 0.5)
    seven = next(row for row in by_snr(found) if row["S/N"] == "7-8")

    assert (half["real kept"], half["real lost"]) == (2, 0)
    assert (half["false kept"], half["false lost"]) == (1, 1)
    assert half["purity"] == pytest.approx(2 / 3)
    assert half["purity S/N>6"] == 0.5
    assert half["complete S/N>6"] == pytest.approx(2 / 3)
    assert (seven["sources"], seven["false"], seven["purity before"]) == (2, 2, 0.0)
    top = diagram(found)[-1]
    assert (top.sources, top.score, top.real) == (2, pytest.approx(0.935), 1.0)
    assert calibration_error(found) == pytest.approx((0.05 + 0.6 + 0.13) / 4)
