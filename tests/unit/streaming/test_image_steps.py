"""An image becomes diaSources, or one of four other things, and its outcome survives the way."""

import dataclasses
import threading

import numpy as np
import pytest

from broker.errors import AlertError, ServiceError
from broker.imaging.calibration_store import CalibrationStore
from broker.imaging.message import decode_image
from broker.imaging.templates import TemplateStore
from broker.simulation.calibrations import build_calibrations
from broker.simulation.observatory import make_templates, simulate_night, template_version
from broker.simulation.settings import REAL_CAMERA, TEST
from broker.store.objects import DONE, FAILED, NO_TEMPLATE, DetectorRow
from broker.streaming import image_steps
from broker.streaming.image_steps import (
    DUPLICATE,
    PIXELS,
    ImageMessage,
    footprint_of,
    outcome_from_row,
    outcome_to_row,
    process_image,
)
from broker.streaming.night_versions import NightVersions
from broker.types import Coordinate
from broker.units import separation_arcsec

AT, ELSEWHERE = Coordinate("ccd-images", 0, 7), Coordinate("ccd-images", 1, 3)
VERSION = template_version(5, TEST)


class Kept:
    """What is kept of one image."""

    def __init__(self, **row):
        self.row = row

    def get(self, visit, detector):
        return DetectorRow(visit, detector, **self.row) if self.row else None


@pytest.fixture(scope="module")
def message():
    (exposure, _) = simulate_night(seed=5, settings=TEST).exposures()
    return ImageMessage(AT, exposure.message.value, 1234)


@pytest.fixture(scope="module")
def templates(tmp_path_factory):
    store = TemplateStore(tmp_path_factory.mktemp("templates"))
    store.put(VERSION, make_templates(5, TEST))
    return store


def process(message, templates, kept=None, **options):
    return process_image(
        message,
        templates=templates,
        versions=NightVersions(templates),
        detectors=kept or Kept(),
        **options,
    )


def test_an_image_becomes_dia_sources_with_cutouts_and_its_template_version(message, templates):
    outcome = process(message, templates)

    assert outcome.status == DONE
    assert outcome.template_version == VERSION
    assert outcome.sources.num_rows == outcome.cutouts.num_rows > 0
    assert set(outcome.sources["templateVersion"].to_pylist()) == {VERSION}
    assert "cutoutScience" not in outcome.sources.column_names


def test_all_dia_sources_lie_in_the_footprint(message, templates):
    outcome = process(message, templates)

    place = outcome.footprint
    away = separation_arcsec(
        place.ra, place.dec, outcome.sources["ra"].to_numpy(), outcome.sources["dec"].to_numpy()
    )
    assert away.max() < place.radius_deg * 3600.0
    # half the diagonal of 256 pixels of 0.25 arcsec
    assert place.radius_deg * 3600.0 == pytest.approx(128 * 0.25 * np.sqrt(2.0), rel=1e-4)


@pytest.mark.parametrize(
    ("value", "reason"), [(None, "empty"), (b"", "empty"), (b"\x00" * 100, "schema id 0")]
)
def test_a_message_that_is_no_image_fails_with_its_reason(message, templates, value, reason):
    outcome = process(dataclasses.replace(message, value=value), templates)

    assert outcome.status == FAILED
    assert reason in outcome.reason
    assert outcome.footprint is None


def test_a_place_without_template_is_a_class_of_its_own(message, tmp_path):
    empty = TemplateStore(tmp_path)

    outcome = process(message, empty)

    assert outcome.status == NO_TEMPLATE
    assert outcome.footprint == footprint_of(decode_image(message.value))


@pytest.fixture(scope="module")
def raw_survey():
    return dataclasses.replace(TEST, camera=REAL_CAMERA)


def test_a_raw_image_waits_for_its_calibrations_and_is_done_with_them(raw_survey, tmp_path):
    (exposure, _) = simulate_night(seed=5, settings=raw_survey).exposures()
    message = ImageMessage(AT, exposure.message.value, 1234)
    store = TemplateStore(tmp_path / "templates" / "live")
    store.put(VERSION, make_templates(5, raw_survey))

    waiting = process(message, store)
    again = process(message, store, Kept(status=NO_TEMPLATE, first=ELSEWHERE))
    name = build_calibrations(5, raw_survey, CalibrationStore(tmp_path / "calibrations" / "live"))
    done = process(message, store, Kept(status=NO_TEMPLATE, first=AT))

    assert waiting.status == NO_TEMPLATE
    assert waiting.reason == f"there are no calibrations {name!r} of detector 0"
    assert waiting.footprint.place == (exposure.visit.visit, 0)
    assert again.status == DUPLICATE
    assert (done.status, done.calibration_set) == (DONE, name)
    assert done.footprint == waiting.footprint
    assert done.sources.num_rows > 0


def test_an_image_that_came_before_is_a_duplicate(message, templates):
    for status in (DONE, NO_TEMPLATE):
        outcome = process(message, templates, Kept(status=status, first=ELSEWHERE))
        assert outcome.status == DUPLICATE
        assert "ccd-images/1/3" in outcome.reason


def test_an_image_whose_first_copy_failed_is_not_a_duplicate(message, templates):
    assert process(message, templates, Kept(status=FAILED, first=ELSEWHERE)).status == DONE


def test_a_repeat_of_the_same_message_uses_the_recorded_templates(message, tmp_path):
    store = TemplateStore(tmp_path)
    images = list(make_templates(5, TEST))
    store.put("a-first", images)
    store.put("b-newer", images)

    kept = Kept(status=DONE, first=AT, template_version="a-first")

    assert process(message, store, kept).template_version == "a-first"
    assert process(message, store).template_version == "b-newer"


def test_the_templates_of_a_night_stay_those_of_its_first_image(tmp_path):
    store = TemplateStore(tmp_path)
    store.put("v1", [])
    frozen = NightVersions(store)
    assert frozen.version("20251110") == "v1"

    store.put("v2", [])

    assert frozen.version("20251110") == "v1"
    assert NightVersions(store).version("20251110") == "v1"  # also in another process
    assert NightVersions(store).version("20251111") == "v2"
    assert store.versions() == ["v1", "v2"]


def test_a_night_is_not_frozen_while_there_are_no_templates(tmp_path):
    store = TemplateStore(tmp_path / "none-yet")
    frozen = NightVersions(store)
    assert frozen.version("20251110") is None

    store.put("v1", [])

    assert frozen.version("20251110") == "v1"


def test_workers_that_start_together_freeze_the_same_version(tmp_path):
    store = TemplateStore(tmp_path)
    store.put("v1", [])
    answers = []
    workers = [
        threading.Thread(target=lambda: answers.append(NightVersions(store).version("20251110")))
        for _ in range(8)
    ]

    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    assert answers == ["v1"] * 8


def test_what_goes_wrong_in_one_image_is_its_reason(message, templates, monkeypatch):
    def fails(error):
        def subtract_template(*_):
            raise error

        monkeypatch.setattr(image_steps, "subtract_template", subtract_template)

    fails(AlertError("all pixels are masked"))
    assert process(message, templates).reason == "all pixels are masked"
    fails(np.linalg.LinAlgError("singular"))
    outcome = process(message, templates)
    assert (outcome.status, outcome.reason) == (FAILED, "LinAlgError: singular")
    fails(ServiceError("HBase does not answer"))
    with pytest.raises(ServiceError, match="HBase does not answer"):
        process(message, templates)


def test_an_outcome_survives_the_way_from_worker_to_driver(message, templates):
    for outcome in (
        process(message, templates),
        process(dataclasses.replace(message, value=b"x"), templates),
    ):
        row = outcome_to_row(outcome, b"body").to_pylist()[0]
        assert list(row) == PIXELS.names

        back = outcome_from_row(
            Coordinate(row["topic"], row["partition"], row["offset"]),
            row["timestampMs"],
            row["outcome"],
            row["sources"],
        )

        assert back == dataclasses.replace(outcome, cutouts=None)
