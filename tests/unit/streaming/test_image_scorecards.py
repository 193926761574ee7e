"""How good an image is goes with it from the worker to the store, whatever became of it."""

from dataclasses import replace

import pytest

from broker.detection.quality.image_flags import names
from broker.imaging.message import encode_image
from broker.imaging.templates import TemplateStore
from broker.ops.image_bench.quality import SETTINGS
from broker.ops.image_quality import cards_of_rows
from broker.simulation.exposure import draw_exposure
from broker.simulation.faults import NO_FAULTS, Faults
from broker.simulation.observatory import make_templates, simulate_night, template_version
from broker.store.alerts import create_tables
from broker.store.memory import MemoryTables
from broker.store.objects import DONE, FAILED, NO_TEMPLATE, DetectorStore
from broker.streaming.image_alerts import detector_rows
from broker.streaming.image_steps import (
    PIXELS,
    ImageMessage,
    outcome_from_row,
    outcome_to_row,
    process_image,
)
from broker.streaming.night_versions import NightVersions
from broker.types import Coordinate, Run

SURVEY = replace(SETTINGS, visits_per_band=4)
SEED = 12


@pytest.fixture(scope="module")
def templates(tmp_path_factory):
    store = TemplateStore(tmp_path_factory.mktemp("templates"))
    store.put(template_version(SEED, SURVEY), make_templates(SEED, SURVEY))
    return store


def outcome_of(number, templates, detectors, faults=NO_FAULTS):
    night = simulate_night(seed=SEED, settings=SURVEY)
    raw = draw_exposure(SEED, SURVEY, night.visits[number], 0, faults=faults).raw
    message = ImageMessage(Coordinate("ccd-images", 0, number), encode_image(raw), 5)
    outcome = process_image(
        message, templates=templates, versions=NightVersions(templates), detectors=detectors
    )
    row = outcome_to_row(outcome)
    at = PIXELS.get_field_index("outcome")
    light = row.column(at)[0].as_py(), row.column("sources")[0].as_py()
    return outcome_from_row(message.coordinate, 5, *light)


def test_scorecards_and_flags_of_a_night_come_back_from_the_store(templates, tmp_path):
    run = Run("t")
    tables = MemoryTables()
    create_tables(tables, run, 1)
    detectors = DetectorStore(tables, run)
    outcomes = [
        outcome_of(0, templates, detectors),
        outcome_of(1, templates, detectors, Faults(guiding_px=6.0)),
        # Too dim to be matched: it fails, and its scorecard says so.
        outcome_of(2, templates, detectors, Faults(clouds_mag=2.0, cloud_slope=0.0)),
        outcome_of(3, TemplateStore(tmp_path), detectors),
    ]
    detectors.put(detector_rows(outcomes, detectors))
    assert [o.status for o in outcomes] == [DONE, DONE, FAILED, NO_TEMPLATE]

    night = simulate_night(seed=SEED, settings=SURVEY).night
    cards = cards_of_rows(detectors.all(), night)
    flags = [names(card["flags"]) for card in cards]
    assert flags[0] == []
    assert "LOST_GUIDING" in flags[1]
    assert {"FAILED", "CLOUDS"} <= set(flags[2])
    assert flags[3] == []
    assert "flux scale" in cards[2]["failure"]
    assert cards[0]["seeing"] == pytest.approx(
        simulate_night(seed=SEED, settings=SURVEY).visits[0].seeing_arcsec, rel=0.05
    )
    assert cards[0]["nSources"] == outcomes[0].sources.num_rows
    assert cards_of_rows(detectors.all(), "19990101") == []
