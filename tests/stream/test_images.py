"""A few images through query 1 on real servers: alerts, dead letters, repeats, the ledger."""

import dataclasses
import shutil
from collections import Counter

import numpy as np
import pytest
from pyspark.errors import StreamingQueryException

from broker.alerts.packet import decode_sim
from broker.imaging.message import decode_raw, encode_image
from broker.imaging.templates import TemplateStore
from broker.simulation.observatory import make_templates, simulate_night, template_version
from broker.simulation.settings import TEST
from broker.store.audit import audit
from broker.store.forced import ForcedStore
from broker.store.ledger import Ledger
from broker.store.memory import MemoryTables
from broker.store.objects import AssociationStore, DetectorStore
from broker.store.tables import create_tables
from broker.streaming import images
from broker.streaming.image_alerts import alert_messages, associate_images
from broker.streaming.image_differences import DifferenceFiles
from broker.streaming.image_forced import ForcedPhotometry
from broker.streaming.image_steps import ImageMessage, process_image
from broker.streaming.night_versions import NightVersions
from broker.streaming.query import checkpoint_path
from broker.topics.publish import read_all, read_dead_letters
from broker.topics.topic import Message, TopicSettings

SEED = 5
SURVEY = dataclasses.replace(TEST, bands=("r", "g"), visits_per_band=2, transient_density=200_000.0)


@pytest.fixture(scope="module")
def sky():
    """The night's messages by band, and the templates."""
    night = simulate_night(seed=SEED, settings=SURVEY)
    messages = {"r": [], "g": []}
    for exposure in night.exposures():
        messages[exposure.visit.band].append(exposure.message)
    return messages, list(make_templates(SEED, SURVEY))


def all_masked(message):
    raw = decode_raw(message.value)
    calibration = dataclasses.replace(raw.calibration, visit=raw.calibration.visit + 500)
    return Message(
        encode_image(
            dataclasses.replace(raw, pixels=np.zeros_like(raw.pixels), calibration=calibration)
        )
    )


def run_to_the_end(spark, config):
    query = images.start(spark, config)
    try:
        query.processAllAvailable()
    finally:
        query.stop()


def audited(config, topics, tables):
    run = config.the_run
    return audit(
        "images",
        Ledger(tables, run).consumed("images"),
        detectors=DetectorStore(tables, run).all(),
        dead_letters=[letter.origin for letter in read_dead_letters(topics, run)],
    )


def test_images_become_alerts_once_and_each_message_is_accounted_for(
    spark, stack, run, kafka_topics, hbase_tables, sky
):
    config = dataclasses.replace(stack, run=run.name)
    messages, templates = sky
    version = template_version(SEED, SURVEY)
    store = TemplateStore(config.run_path("templates"))
    store.put(version, [image for image in templates if image.band == "r"])
    (first, second), (without_template, _) = messages["r"], messages["g"]
    topic = run.internal_topic("ccd-images")
    kafka_topics.create(topic, TopicSettings(partitions=2))
    kafka_topics.send(topic, [first, without_template], partition=0)
    kafka_topics.send(
        topic,
        [
            Message(first.value[:-1000]),
            all_masked(first),
            Message(None, key=b"tombstone"),
            second,
            Message(first.value),
        ],
        partition=1,
    )

    run_to_the_end(spark, config)

    # Every message stands in exactly one place.
    result = audited(config, kafka_topics, hbase_tables)
    (row,) = result.rows
    assert result.problems == ()
    assert (row.consumed, row.stored, row.duplicates) == (7, 2, 1)
    assert (row.dead_letters, row.no_template, row.missing) == (3, 1, 0)
    reasons = {x.origin.offset: x.reason for x in read_dead_letters(kafka_topics, run)}
    assert "truncated or damaged" in reasons[0]
    assert "masked" in reasons[1]
    assert "empty" in reasons[2]

    # The packets are of our schema and say what the images say.
    alerts = list(read_all(kafka_topics, run.alerts_topic("sim")))
    records = [decode_sim(alert.value) for alert in alerts]
    n_alerts = {d.visit: d.n_alerts for d in DetectorStore(hbase_tables, run).all()}
    assert Counter(r["diaSource"]["visit"] for r in records) == {
        v: n for v, n in n_alerts.items() if n
    }
    assert len(n_alerts) == 4
    assert len({r["diaSourceId"] for r in records}) == len(records) > 5
    assert {r["diaSource"]["templateVersion"] for r in records} == {version}
    assert all(
        r["cutoutScience"] and r["cutoutTemplate"] and r["cutoutDifference"] for r in records
    )
    seen_again = [r for r in records if r["prvDiaSources"]]
    assert seen_again
    for r in seen_again:
        (before,) = r["prvDiaSources"]
        assert before["diaObjectId"] == r["diaSource"]["diaObjectId"] == before["diaSourceId"]
        assert before["midpointMjdTai"] < r["diaSource"]["midpointMjdTai"]
        assert r["diaObject"]["nDiaSources"] == 2
        (forced,) = r["prvDiaForcedSources"]
        assert forced["diaObjectId"] == before["diaObjectId"]
        assert forced["visit"] == before["visit"]
        # The same pixels at the same place: the fit's flux and the forced one are one number.
        assert forced["psfFlux"] == pytest.approx(before["psfFlux"], rel=0.02)
    assert {a.header("image") for a in alerts} <= {
        b"%s/0/0" % topic.encode(),
        b"%s/1/3" % topic.encode(),
    }

    # The same messages once more, as after a crash before Spark's commit: the same bytes.
    shutil.rmtree(checkpoint_path(config, "images"))
    run_to_the_end(spark, config)

    again = Counter(m.value for m in read_all(kafka_topics, run.alerts_topic("sim")))
    assert again == Counter({alert.value: 2 for alert in alerts})
    assert audited(config, kafka_topics, hbase_tables) == result

    # Once there is a template, the image without one is processed, and only that one.
    store.put(f"{version}-2", templates)
    run_to_the_end(spark, config)

    new = [
        decode_sim(m.value)
        for m in read_all(kafka_topics, run.alerts_topic("sim"))
        if m.value not in again
    ]
    assert {r["diaSource"]["band"] for r in new} == {"g"}
    assert {r["diaSource"]["templateVersion"] for r in new} == {f"{version}-2"}
    (row,) = audited(config, kafka_topics, hbase_tables).rows
    assert (row.stored, row.duplicates, row.no_template, row.missing) == (3, 1, 0, 0)


def objects_of(stored):
    """Object and pixel of stored diaSources, each once."""
    pairs = zip(stored["diaObjectId"].to_pylist(), stored["objectPixel"].to_pylist(), strict=True)
    return sorted(set(pairs))


def crash_once_after(monkeypatch, owner, name, *, does_it=True):
    """Let a step raise when it is next done, or instead of being done; return when it has."""
    original = getattr(owner, name)
    crashed = []

    def step(*arguments, **options):
        if does_it or crashed:
            original(*arguments, **options)
        if not crashed:
            crashed.append(name)
            raise RuntimeError(f"crash after {name}")

    monkeypatch.setattr(owner, name, step)
    return crashed


def test_a_crash_between_any_two_steps_of_a_batch_changes_nothing(
    spark, stack, run, kafka_topics, hbase_tables, sky, monkeypatch, tmp_path
):
    config = dataclasses.replace(stack, run=run.name)
    messages, templates = sky
    version = template_version(SEED, SURVEY)
    store = TemplateStore(config.run_path("templates"))
    store.put(version, templates)
    topic = run.internal_topic("ccd-images")
    kafka_topics.create(topic, TopicSettings(partitions=2))
    coordinates = kafka_topics.send(topic, [*messages["r"], *messages["g"]])

    steps = [
        (images.AssociationStore, "put", {}),
        (images.ForcedStore, "record", {}),
        (images, "write_messages", {"does_it": False}),
        (images, "write_messages", {}),
        (images.DetectorStore, "put", {}),
        (images.Ledger, "record", {}),
    ]
    for owner, name, options in steps:
        with monkeypatch.context() as patch:
            crashed = crash_once_after(patch, owner, name, **options)
            with pytest.raises(StreamingQueryException):
                run_to_the_end(spark, config)
            assert crashed == [name]
    run_to_the_end(spark, config)

    # What the same steps make of the same images without Spark and without a crash.
    memory = MemoryTables()
    create_tables(memory, run)
    differences = DifferenceFiles(tmp_path)
    forced = ForcedPhotometry(ForcedStore(memory, run), differences)
    outcomes = [
        process_image(
            ImageMessage(at, message.value, 0),
            templates=store,
            versions=NightVersions(store),
            detectors=DetectorStore(memory, run),
            differences=differences,
        )
        for at, message in zip(coordinates, [*messages["r"], *messages["g"]], strict=True)
    ]
    cutouts = {outcome.coordinate: outcome.cutouts for outcome in outcomes}
    expected = {
        m.value
        for one in associate_images(outcomes, store=AssociationStore(memory, run), forced=forced)
        for m in alert_messages(one, cutouts[one.coordinate])
    }
    published = Counter(m.value for m in read_all(kafka_topics, run.alerts_topic("sim")))
    assert set(published) == expected
    # Three attempts came to publish, and the last one of all.
    assert set(published.values()) == {4}
    place = outcomes[0].footprint
    stored = AssociationStore(hbase_tables, run).around(place.ra, place.dec, 0.1)
    assert stored.num_rows == len(set(stored["diaSourceId"].to_pylist())) == len(expected)
    objects = objects_of(stored)
    fluxes = ForcedStore(hbase_tables, run).of_objects(objects)
    assert fluxes.equals(ForcedStore(memory, run).of_objects(objects))
    # Every visit of a place but perhaps those before the object began.
    assert fluxes.num_rows > stored.num_rows
    assert any(decode_sim(packet)["prvDiaForcedSources"] for packet in published)
    left = config.run_path("differences").glob("*")
    # What is written over by the next ones is no difference of an image any more.
    assert [file.name for file in left if not file.name.startswith(".spare-")] == []
    result = audited(config, kafka_topics, hbase_tables)
    assert result.problems == ()
    assert result.rows[0].stored == result.rows[0].consumed == 4
