"""An image of the stream is made again from its message, with what it was done with."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from broker.errors import AlertError
from broker.imaging.fits import read_image
from broker.imaging.templates import TemplateStore
from broker.ops.image_stream import StreamImages, recreate_image
from broker.simulation.observatory import make_templates, simulate_night
from broker.simulation.settings import TEST
from broker.store.alerts import create_tables
from broker.store.memory import MemoryTables
from broker.store.objects import DetectorStore
from broker.streaming.image_alerts import detector_row
from broker.streaming.image_steps import ImageMessage, process_image
from broker.streaming.night_versions import NightVersions
from broker.topics.memory import MemoryTopics
from broker.topics.topic import TopicSettings
from broker.types import Run

TOPIC = "ccd-images"


class Kept:
    """The last difference."""

    def put(self, _at, difference):
        self.difference = difference


@pytest.fixture(scope="module")
def taken(tmp_path_factory):
    """An image as the stream leaves it; templates that came later; what the stream has found."""
    home = tmp_path_factory.mktemp("home")
    templates = TemplateStore(home / "templates" / "t")
    made = list(make_templates(5, TEST))
    templates.put("v1", made)
    (exposure, _) = simulate_night(seed=5, settings=TEST).exposures()
    topics, tables, run = MemoryTopics(), MemoryTables(), Run("t")
    topics.create(TOPIC, TopicSettings(partitions=1))
    create_tables(tables, run)
    detectors = DetectorStore(tables, run)
    (at,) = topics.send(TOPIC, [exposure.message])
    kept = Kept()
    outcome = process_image(
        ImageMessage(at, exposure.message.value, 0),
        templates=templates,
        versions=NightVersions(templates),
        detectors=detectors,
        differences=kept,
    )
    detectors.put([detector_row(outcome, outcome.footprint, None)])
    templates.put("v2", [replace(t, pixels=t.pixels + np.float32(50.0)) for t in made])
    where = StreamImages(topics, detectors, templates.path, home)
    return where, outcome, kept.difference


def test_it_is_what_the_stream_has_made_and_the_same_bytes_each_time(taken, tmp_path):
    where, outcome, difference = taken
    place = outcome.footprint.place

    first = recreate_image(where, *place, tmp_path / "one")
    again = recreate_image(where, *place, tmp_path / "two")

    assert len(first) == 3
    assert {row["identical"] for row in first} == {None}
    assert {row["identical"] for row in again} == {True}
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    stem = "-".join(map(str, place))
    pixels = read_image(tmp_path / "one" / f"{stem}-difference.fits").pixels
    np.testing.assert_array_equal(pixels, difference.pixels)
    said = read_image(tmp_path / "one" / f"{stem}-calibrated.fits").meta["provenance"]
    assert said["settings"]["templateVersion"] == "v1"
    assert said["inputs"][0]["name"] == f"{TOPIC}/0/0"


def test_other_bytes_than_the_time_before_are_told(taken, tmp_path):
    where, outcome, _ = taken
    where = replace(where, home=tmp_path)
    recreate_image(where, *outcome.footprint.place, tmp_path / "one")
    (record,) = (tmp_path / "provenance").glob("*.json")
    digest = recreate_image(where, *outcome.footprint.place, tmp_path / "two")[0]["sha256"]
    record.write_text(record.read_text().replace(digest, "f" * 64))

    rows = recreate_image(where, *outcome.footprint.place, tmp_path / "two")

    assert [row["identical"] for row in rows] == [False, True, True]


def test_what_is_gone_is_named(taken, tmp_path):
    where, outcome, _ = taken
    visit, detector = outcome.footprint.place
    with pytest.raises(AlertError, match="no image that the stream has taken"):
        recreate_image(where, visit + 9, detector, tmp_path)
    elsewhere = replace(where, templates=tmp_path / "templates" / "t")
    with pytest.raises(AlertError, match=r"the templates v1 .* are gone"):
        recreate_image(elsewhere, visit, detector, tmp_path / "out")
    shutil.copytree(where.templates / "v1", tmp_path / "templates" / "t" / "v1")
    recreate_image(elsewhere, visit, detector, tmp_path / "out")
    row = where.detectors.get(visit, detector)
    empty = MemoryTopics()
    empty.create(TOPIC, TopicSettings(partitions=1))
    with pytest.raises(AlertError, match=f"the message {row.first} .* is gone"):
        recreate_image(replace(where, topics=empty), visit, detector, tmp_path / "out")
