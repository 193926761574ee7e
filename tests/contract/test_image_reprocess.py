"""What a reprocessing no longer finds is withdrawn, told and kept: on memory and real servers."""

import uuid
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from broker.alerts.packet import decode_sim
from broker.alerts.retraction import decode_retraction
from broker.imaging.psf import GaussianPsf
from broker.simulation.observatory import make_templates, simulate_night
from broker.simulation.settings import TEST
from broker.store.objects import DONE, NO_TEMPLATE, DetectorRow
from broker.store.tables import create_tables, drop_tables
from broker.streaming.image_alerts import detector_row
from broker.streaming.image_reprocess import judge, reprocess_images, retractions_topic
from broker.streaming.image_retry import ImageWork
from broker.topics.publish import read_all, read_schemas, schemas_topic
from broker.topics.topic import TopicSettings
from broker.types import Run

NOW = 61_200.5


@pytest.fixture(scope="module")
def sky():
    """Two exposures of one place, and its templates."""
    (first, second) = simulate_night(seed=5, settings=TEST).exposures()
    return [first.message, second.message], list(make_templates(5, TEST))


@pytest.fixture
def work(tables, topics, tmp_path):
    """A run of its own, gone afterwards."""
    run = Run(f"r{uuid.uuid4().hex[:12]}")
    create_tables(tables, run)
    for name in (run.internal_topic("ccd-images"), run.alerts_topic("sim")):
        topics.create(name, TopicSettings(partitions=1))
    yield ImageWork.of(run, topics=topics, tables=tables, home=tmp_path.joinpath)
    drop_tables(tables, run)
    for name in topics.names():
        if name.startswith(f"run.{run.name}."):
            topics.delete(name)


def process_first(work, message):
    """Take an image as the query does; return what it has found."""
    (at,) = work.topics.send(work.run.internal_topic("ccd-images"), [message], partition=0)
    outcome = work.process(DetectorRow(0, 0, NO_TEMPLATE, first=at))
    assert outcome.status == DONE
    work.publish(outcome)
    work.detectors.put([detector_row(outcome, outcome.footprint, None)])
    return outcome


def all_known(work, outcome):
    place = outcome.footprint
    return work.store.around(place.ra, place.dec, place.radius_deg, with_retracted=True)


def with_star(image, ra, dec, flux):
    """A template on which something is always there that was thought to be new."""
    x, y = (float(v) for v in image.wcs.sky_to_pixel(ra, dec))
    i, j = round(x), round(y)
    ny, nx = image.shape
    if not (12 <= i < nx - 12 and 12 <= j < ny - 12):
        return image
    pixels = image.pixels.copy()
    stamp = GaussianPsf(image.psf.sigma).stamp(x - i, y - j, 21)
    pixels[j - 10 : j + 11, i - 10 : i + 11] += (stamp * flux / image.flux_per_count).astype(
        np.float32
    )
    return replace(image, pixels=pixels)


def sent(work):
    return [decode_retraction(m.value) for m in read_all(work.topics, retractions_topic(work.run))]


def packets(work):
    return [decode_sim(m.value) for m in read_all(work.topics, work.run.alerts_topic("sim"))]


@pytest.fixture
def gone(work, sky):
    """A night's first image, and templates in which one of its sources always was."""
    messages, templates = sky
    work.templates.put("v1", templates)
    outcome = process_first(work, messages[0])
    rows = outcome.sources.filter(pc.invert(outcome.sources["isNegative"])).to_pylist()
    # Not so bright that its wings, which the added star has not quite, are found instead.
    source = min(rows, key=lambda row: abs(row["snr"] - 9.0))
    place = source["ra"], source["dec"], source["psfFlux"]
    work.templates.put("v2", [with_star(image, *place) for image in templates])
    return outcome, source


def test_what_newer_templates_explain_is_withdrawn_told_and_kept(work, sky, gone):
    outcome, source = gone
    name = source["diaSourceId"]
    alerts = packets(work)

    counts = reprocess_images(work, now_mjd_tai=NOW)

    assert (counts["done"], counts["retracted"]) == (1, 1)
    told = sent(work)
    assert [(t["diaObjectId"], t["diaSourceId"], t["isRetracted"]) for t in told] == [
        (name, name, True),
        (name, None, True),
    ]
    assert {t["timeWithdrawnMjdTai"] for t in told} == {NOW}
    assert told[0]["reason"] == "not found with templates v2"
    assert told[0]["templateVersion"] == "v2"
    assert [m.dia_source_id for m in work.retractions.of_object(name)] == [None, name]
    # Nothing is deleted, and no alert but those of what was missed before is new.
    known = all_known(work, outcome)
    assert known.filter(known["isRetracted"])["diaSourceId"].to_pylist() == [name]
    assert packets(work)[: len(alerts)] == alerts
    assert len(packets(work)) == len(alerts) + counts.get("new", 0)
    row = work.detectors.get(*outcome.footprint.place)
    assert (row.status, row.template_version, row.n_alerts) == (DONE, "v2", len(packets(work)))
    assert len(read_schemas(work.topics, schemas_topic(work.run))) == 1

    assert reprocess_images(work, now_mjd_tai=NOW + 1.0) == {}  # nothing is older than v2
    assert len(sent(work)) == 2


def test_later_alerts_are_without_what_was_withdrawn(work, sky, gone):
    _, source = gone
    reprocess_images(work, now_mjd_tai=NOW)

    process_first(work, sky[0][1])

    later = [r for r in packets(work) if r["diaSource"]["visit"] != source["visit"]]
    assert later
    assert any(r["prvDiaSources"] for r in later)
    told = {s["diaSourceId"] for r in later for s in r["prvDiaSources"]}
    assert source["diaSourceId"] not in told
    objects = {f["diaObjectId"] for r in later for f in r["prvDiaForcedSources"]}
    assert source["diaSourceId"] not in objects


def test_a_retraction_is_lifted_when_the_source_is_found_again(work, sky, gone):
    outcome, source = gone
    reprocess_images(work, now_mjd_tai=NOW)
    work.templates.put("v3", sky[1])

    counts = reprocess_images(work, now_mjd_tai=NOW + 1.0)

    assert (counts["lifted"], counts.get("retracted", 0)) == (1, 0)
    name = source["diaSourceId"]
    assert [m.is_retracted for m in work.retractions.of_object(name)] == [False, False]
    assert [t["isRetracted"] for t in sent(work)] == [True, True, False, False]
    assert not any(all_known(work, outcome)["isRetracted"].to_pylist())


class CrashError(RuntimeError):
    """The process ends here."""


class FailsOn:
    """A store or a topic whose one method ends the process."""

    def __init__(self, inner, name, topic):
        self.inner, self.name, self.topic = inner, name, topic

    def __getattr__(self, name):
        return self.fail if name == self.name else getattr(self.inner, name)

    def fail(self, *arguments):
        if self.name != "send" or arguments[0] == self.topic:
            raise CrashError
        return self.inner.send(*arguments)


@pytest.mark.parametrize(
    ("owner", "name"),
    [("topics", "send"), ("retractions", "put"), ("store", "mark"), ("detectors", "put")],
)
def test_after_a_crash_at_any_step_the_next_attempt_says_the_same(work, gone, owner, name):
    _, source = gone
    before = len(packets(work))

    failing = FailsOn(getattr(work, owner), name, retractions_topic(work.run))
    with pytest.raises(CrashError):
        reprocess_images(replace(work, **{owner: failing}), now_mjd_tai=NOW)
    counts = reprocess_images(work, now_mjd_tai=NOW)

    told = {(t["diaSourceId"], t["isRetracted"]) for t in sent(work)}
    assert told == {(source["diaSourceId"], True), (None, True)}
    assert [m.is_retracted for m in work.retractions.of_object(source["diaSourceId"])] == [True] * 2
    assert len({r["diaSourceId"] for r in packets(work)}) == before + counts.get("new", 0)
    assert work.detectors.get(source["visit"], source["detector"]).template_version == "v2"


def test_a_source_is_found_within_an_arcsec_or_by_its_name():
    def table(rows, **more):
        ids, dec = zip(*rows, strict=True)
        columns = {"diaSourceId": list(ids), "ra": [10.0] * len(ids), "dec": list(dec)}
        return pa.table(columns | more)

    second = 1.0 / 3600.0
    own = table(
        [(1, 0.0), (2, 9 * second), (3, 20 * second), (4, 30 * second)],
        isRetracted=[False, False, False, True],
    )
    found = table([(8, 0.999 * second), (2, 12 * second), (9, 21.001 * second), (4, 30 * second)])

    verdict = judge(found, own)

    assert verdict.lost["diaSourceId"].to_pylist() == [3]
    assert verdict.again["diaSourceId"].to_pylist() == [4]
    assert verdict.new.tolist() == [False, False, True, False]
    assert judge(None, own).lost["diaSourceId"].to_pylist() == [1, 2, 3]
