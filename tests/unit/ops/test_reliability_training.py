"""The training of the reliability draws nights that share nothing, and tells how good it is."""

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from broker.cli.main import cli
from broker.detection.reliability.model import default_model, read_model
from broker.detection.reliability.score import FEATURES
from broker.ops import reliability_nights, reliability_training
from broker.ops.reliability_nights import (
    ARTEFACT,
    Role,
    classes_of,
    draw_sources,
    is_seeing_of,
    join,
    strips_of,
)
from broker.ops.reliability_training import Sizes
from broker.simulation.moving import NAME as MOVING
from broker.simulation.observatory import simulate_night
from broker.simulation.transients import find_classes

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def few():
    return draw_sources(5, Role.TEST, nights=1, images_per_night=2, side=512)


@pytest.fixture(scope="module")
def called(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    words = ["image", "train-reliability", "--quick", "--seed", "3", "--out", str(folder)]
    with pytest.MonkeyPatch.context() as patch:
        # A night so rough that four small images have artefacts enough.
        hard = replace(reliability_nights.HARD[3], hits_per_mpix=150.0)
        patch.setattr(reliability_nights, "ROUGH", hard)
        patch.setattr(reliability_nights, "HARD", (hard,))
        patch.setattr(reliability_training, "QUICK", Sizes(1, 1, 1, images_per_night=4, side=512))
        return folder, CliRunner().invoke(cli, words, catch_exceptions=False)


def test_training_and_test_share_no_class_no_seeing_and_no_sky(monkeypatch):
    drawn = {}

    def remember(*, seed, settings):
        night = simulate_night(seed=seed, settings=settings)
        drawn.setdefault(role, set()).add(seed)
        return night

    def no_work(night, visit, template, conditions):
        seeings.setdefault(role, []).append(visit.seeing_arcsec)
        raise StopIteration

    seeings = {}
    monkeypatch.setattr(reliability_nights, "simulate_night", remember)
    monkeypatch.setattr(reliability_nights, "make_template", lambda *_: None)
    monkeypatch.setattr(reliability_nights, "template_version", lambda *_: "")
    monkeypatch.setattr(reliability_nights, "image_coefficients", lambda _: None)
    monkeypatch.setattr(reliability_nights, "Template", lambda *_: None)
    monkeypatch.setattr(reliability_nights, "_one_image", no_work)
    for role in Role:
        for number in range(20):
            with pytest.raises((StopIteration, RuntimeError)):
                reliability_nights._one_night(1, role, number, 8, 64)

    trained, tested = set(classes_of(Role.TRAINING)), set(classes_of(Role.TEST))
    assert trained | tested == {kind.name for kind in find_classes()} | {MOVING}
    assert not trained & tested
    assert classes_of(Role.CALIBRATION) == classes_of(Role.TRAINING)
    assert all(len(seeds) == 20 for seeds in drawn.values())
    assert not set.intersection(*drawn.values())
    assert not drawn[Role.TRAINING] & drawn[Role.CALIBRATION]
    for role, values in seeings.items():
        assert all(is_seeing_of(role, value) for value in values)
        inside = [any(low <= v < high for low, high in strips_of(role)) for v in values]
        assert all(inside)
    assert not is_seeing_of(Role.TEST, seeings[Role.TRAINING][0])


def test_sources_are_the_same_again_and_have_their_truth(few):
    again = draw_sources(5, Role.TEST, nights=1, images_per_night=2, side=512)

    assert again.features.tobytes() == few.features.tobytes()
    assert few.images == 2
    assert few.features.shape == (few.snr.size, len(FEATURES))
    found = few.true_row >= 0
    assert np.array_equal(few.kind[few.true_row[found]], few.true_kind[found])
    # What is bright is found: most of the visible transients above S/N 10.
    assert found[few.true_snr > 10.0].mean() > 0.9


def test_the_package_s_weights_tell_unseen_sources_from_artefacts(few):
    judged = few.judged(default_model())

    assert judged.score[judged.is_real].mean() > 0.9
    assert judged.score[judged.is_real].mean() > judged.score[~judged.is_real].mean() + 0.3


def test_joined_nights_keep_each_transient_s_source(few):
    both = join([few, few])

    n = few.snr.size
    found = few.true_row >= 0
    np.testing.assert_array_equal(both.true_row[: found.size], few.true_row)
    np.testing.assert_array_equal(both.true_row[found.size :][found], few.true_row[found] + n)
    assert np.all(both.true_row[found.size :][~found] == -1)
    assert (both.images, both.failed) == (4, 0)


def test_sources_of_known_classes_stand_for_all(few):
    kinds = classes_of(Role.TEST)

    data = few.training_set(kinds, clear_only=False)

    real = few.kind != ARTEFACT
    assert data.is_real.sum() == np.isin(few.kind, kinds).sum()
    assert data.weight[data.is_real].sum() == pytest.approx(real.sum())
    assert data.weight[~data.is_real].sum() == (~real).sum()


def test_the_command_writes_weights_report_and_diagram(called):
    folder, done = called

    assert done.exit_code == 0
    assert "expected calibration error" in done.output
    model = read_model(folder / "reliability.json", FEATURES)
    report = json.loads((folder / "reliability-report.json").read_text(encoding="utf-8"))
    assert model.provenance == report["provenance"]
    assert model.provenance["seed"] == 3
    assert (folder / "reliability-diagram.png").read_bytes().startswith(b"\x89PNG")
    for part in ("unseen classes", "all classes"):
        rows = report[part]["thresholds"]
        for row in rows:
            assert row["real kept"] + row["real lost"] == report[part]["real"]
        assert [row["real kept"] for row in rows] == sorted(
            (row["real kept"] for row in rows), reverse=True
        )
        assert sum(row["sources"] for row in report[part]["diagram"]) == report[part]["sources"]
