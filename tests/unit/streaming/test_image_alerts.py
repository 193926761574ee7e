"""diaSources get objects and histories as of their time; a repeated batch makes equal packets."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.alerts.columns import CUTOUTS
from broker.alerts.packet import decode_sim
from broker.detection.columns import DIA_SOURCES, dia_source_ids
from broker.detection.flags import SourceFlag
from broker.simulation.observatory import make_templates, simulate_night, template_version
from broker.simulation.settings import TEST
from broker.store.audit import audit
from broker.store.memory import MemoryTables
from broker.store.objects import (
    DONE,
    FAILED,
    NO_TEMPLATE,
    AssociationStore,
    DetectorStore,
)
from broker.store.tables import create_tables
from broker.streaming.image_alerts import (
    alert_messages,
    associate_images,
    detector_rows,
    drop_repeats,
    image_dead_letter,
    mean_position,
)
from broker.streaming.image_retry import ImageWork, retry_no_template
from broker.streaming.image_steps import DUPLICATE, Footprint, ImageOutcome
from broker.topics.memory import MemoryTopics
from broker.topics.publish import read_dead_letter
from broker.types import Coordinate, OffsetRange, Run

RUN = Run("test")
ARCSEC = 1.0 / 3600.0


def outcome(visit, time, places, *, offset=None, detector=0, status=DONE):
    """An image with diaSources at offsets (east, north) in arcsec from (10, -5)."""
    n = len(places)
    east, north = np.array(places, float).reshape(n, 2).T
    values = {
        "diaSourceId": dia_source_ids(visit, detector, np.arange(n)),
        "visit": [visit] * n,
        "detector": [detector] * n,
        "band": ["r"] * n,
        "midpointMjdTai": [time] * n,
        "ra": 10.0 + east * ARCSEC / np.cos(np.radians(-5.0)),
        "dec": -5.0 + north * ARCSEC,
        "raErr": [0.1 * ARCSEC] * n,
        "decErr": [0.1 * ARCSEC] * n,
        "templateVersion": ["v1"] * n,
    }
    blank = {"bool": False, "float": 1.0, "double": 1.0, "string": ""}
    columns = [
        pa.array(values.get(f.name, [blank.get(str(f.type), 0)] * n), f.type) for f in DIA_SOURCES
    ]
    has_sources = status == DONE
    return ImageOutcome(
        Coordinate("ccd-images", 0, visit if offset is None else offset),
        1_000_000 + visit,
        status,
        "" if has_sources else "why",
        Footprint(visit, detector, "r", time, 10.0, -5.0, 0.01),
        "v1" if has_sources else "",
        pa.Table.from_arrays(columns, schema=DIA_SOURCES) if has_sources else None,
        pa.table({name: [f"{name} {visit} {k}".encode() for k in range(n)] for name in CUTOUTS})
        if has_sources
        else None,
    )


@pytest.fixture
def tables():
    tables = MemoryTables()
    create_tables(tables, RUN)
    return tables


def packets(outcomes, tables):
    """What a batch publishes, in order."""
    by_coordinate = {o.coordinate: o for o in outcomes}
    associated = associate_images(outcomes, store=AssociationStore(tables, RUN))
    return [
        message
        for one in associated
        for message in alert_messages(one, by_coordinate[one.coordinate].cutouts)
    ]


def records(messages):
    return [decode_sim(message.value) for message in messages]


def test_the_first_source_names_the_object_and_later_ones_join_it(tables):
    first, second, third = records(
        packets(
            [
                outcome(3, 61002.0, [(0.2, 0.1)]),
                outcome(1, 61000.0, [(0.0, 0.0)]),
                outcome(2, 61001.0, [(5.0, 0.0)]),
            ],
            tables,
        )
    )

    assert first["diaSource"]["diaObjectId"] == first["diaSourceId"]
    assert second["diaSource"]["diaObjectId"] == second["diaSourceId"]
    assert third["diaSource"]["diaObjectId"] == first["diaSourceId"]
    assert [r["diaSourceId"] for r in third["prvDiaSources"]] == [first["diaSourceId"]]
    assert third["diaObject"]["nDiaSources"] == 2
    assert third["diaObject"]["firstDiaSourceMjdTai"] == 61000.0
    assert third["diaObject"]["lastDiaSourceMjdTai"] == 61002.0
    # the mean of two positions with equal errors
    assert third["diaObject"]["dec"] == pytest.approx(-5.0 + 0.05 * ARCSEC, abs=1e-9)


def test_a_history_goes_back_a_year_and_the_object_to_its_beginning(tables):
    visits = [outcome(k, time, [(0, 0)]) for k, time in enumerate((60000.0, 60636.0, 61000.0), 1)]

    last = records(packets(visits, tables))[-1]

    assert [r["midpointMjdTai"] for r in last["prvDiaSources"]] == [60636.0]
    assert last["diaObject"]["historyStartMjdTai"] == 61000.0 - 365.0
    assert last["diaObject"]["firstDiaSourceMjdTai"] == 60000.0
    assert last["diaObject"]["nDiaSources"] == 3


def test_a_packet_has_its_own_cutouts_key_and_headers(tables):
    (message,) = packets([outcome(8, 61000.0, [(0, 0)], detector=3)], tables)

    record = decode_sim(message.value)
    assert record["cutoutTemplate"] == b"cutoutTemplate 8 0"
    assert message.key == str(record["diaSource"]["diaObjectId"]).encode()
    assert dict(message.headers) == {
        "image": b"ccd-images/0/8",
        "imageTimestampMs": b"1000008",
        "visit": b"8",
        "detector": b"3",
        "diaSourceId": str(record["diaSourceId"]).encode(),
    }


def test_an_image_without_sources_makes_no_packet(tables):
    assert packets([outcome(1, 61000.0, [])], tables) == []


def test_a_late_image_joins_the_object_and_says_that_it_is_late(tables):
    (later,) = records(packets([outcome(2, 61001.0, [(0, 0)])], tables))

    (late,) = records(packets([outcome(1, 61000.0, [(0.1, 0)])], tables))

    assert late["isLate"]
    assert late["diaSource"]["flags"] & SourceFlag.LATE_VISIT
    assert late["diaSource"]["diaObjectId"] == later["diaSource"]["diaObjectId"]
    assert late["prvDiaSources"] == []
    assert not later["isLate"]


def test_images_of_one_batch_are_never_late_for_each_other(tables):
    got = records(
        packets([outcome(k, 61000.0 + k, [(0, 0)], offset=9 - k) for k in (3, 1, 2)], tables)
    )

    assert [r["isLate"] for r in got] == [False, False, False]
    assert [len(r["prvDiaSources"]) for r in got] == [0, 1, 2]


places = st.lists(
    st.tuples(st.floats(-2, 2), st.floats(-2, 2)).map(lambda p: (round(p[0], 2), round(p[1], 2))),
    max_size=4,
)


@settings(max_examples=40)
@given(
    nights=st.lists(st.tuples(st.integers(0, 5), places), min_size=1, max_size=6),
    cut=st.integers(0, 6),
    stored=st.integers(0, 6),
)
def test_a_batch_that_is_repeated_publishes_the_same_bytes(nights, cut, stored):
    """However late its images come, and however many of them a first attempt had stored."""
    images = [outcome(k, 61000.0 + t, spots) for k, (t, spots) in enumerate(nights, 1)]
    before, batch = images[:cut], images[cut:]
    tables, other = MemoryTables(), MemoryTables()
    for each in (tables, other):
        create_tables(each, RUN)
        packets(before, each)
    in_time = sorted(batch, key=lambda o: (o.footprint.midpoint_mjd_tai, o.footprint.visit))

    expected = [m.value for m in packets(batch, tables)]
    again = [m.value for m in packets(batch, tables)]
    packets(in_time[:stored], other)  # killed in the middle of the batch
    after_a_kill = [m.value for m in packets(batch, other)]

    assert again == expected
    assert after_a_kill == expected


@pytest.mark.slow
@settings(max_examples=40)
@given(nights=st.lists(places, min_size=1, max_size=5), cut=st.integers(0, 5))
def test_how_a_night_is_cut_into_batches_changes_nothing(nights, cut):
    images = [outcome(k, 61000.0 + k, spots) for k, spots in enumerate(nights, 1)]
    whole, parts = MemoryTables(), MemoryTables()
    create_tables(whole, RUN)
    create_tables(parts, RUN)

    expected = [m.value for m in packets(images, whole)]

    got = packets(images[:cut], parts) + packets(images[cut:], parts)
    assert [m.value for m in got] == expected


def test_of_two_messages_with_one_image_the_smaller_coordinate_counts():
    twice = [outcome(1, 61000.0, [(0, 0)], offset=k) for k in (9, 4)]

    kept, repeat = drop_repeats(twice)

    assert (kept.coordinate.offset, kept.status) == (4, DONE)
    assert (repeat.coordinate.offset, repeat.status) == (9, DUPLICATE)
    assert repeat.sources is None


def test_a_copy_that_failed_does_not_make_a_good_one_a_duplicate():
    bad = outcome(1, 61000.0, [], offset=1, status=FAILED)
    good = outcome(1, 61000.0, [(0, 0)], offset=2)

    assert [o.status for o in drop_repeats([good, bad])] == [FAILED, DONE]


def test_what_is_kept_of_a_batch_accounts_for_every_message(tables):
    detectors = DetectorStore(tables, RUN)
    first = [outcome(1, 61000.0, [(0, 0)], offset=0)]
    detectors.put(detector_rows(drop_repeats(first), detectors))
    batch = [
        ImageOutcome(Coordinate("ccd-images", 0, 1), 0, DUPLICATE, "", first[0].footprint),
        outcome(2, 61001.0, [(0, 0)], offset=3),
        outcome(2, 61001.0, [(0, 0)], offset=2),
        outcome(3, 61002.0, [], offset=4, status=NO_TEMPLATE),
        outcome(4, 61003.0, [], offset=5, status=FAILED),
        outcome(4, 61003.0, [(0, 0)], offset=6),
        ImageOutcome(Coordinate("ccd-images", 0, 7), 0, FAILED, "unreadable"),
    ]

    for _ in range(2):  # a repeat changes nothing
        detectors.put(detector_rows(drop_repeats(batch), detectors))

    kept = {row.visit: row for row in detectors.all()}
    assert {v: row.status for v, row in kept.items()} == {1: DONE, 2: DONE, 3: NO_TEMPLATE, 4: DONE}
    assert kept[1].first.offset == 0
    assert kept[2].first.offset == 2
    assert (kept[2].n_alerts, kept[2].template_version) == (1, "v1")
    result = audit(
        "images",
        [OffsetRange("ccd-images", 0, 0, 8)],
        detectors=kept.values(),
        dead_letters=[Coordinate("ccd-images", 0, offset) for offset in (5, 7)],
    )
    (row,) = result.rows
    assert result.problems == ()
    assert (row.stored, row.duplicates, row.dead_letters, row.no_template) == (3, 2, 2, 1)


def test_a_dead_letter_carries_the_body_unless_it_is_too_large():
    failed = outcome(1, 61000.0, [], status=FAILED)

    small = read_dead_letter(image_dead_letter(failed, b"body"))
    large = read_dead_letter(image_dead_letter(failed, bytes(25 << 20)))

    assert (small.stage, small.reason, small.value) == ("images", "why", b"body")
    assert large.origin == failed.coordinate
    assert large.value is None


def test_a_mean_position_is_the_same_across_ra_0_and_at_a_pole():
    def source(ra, dec, err):
        return {"ra": ra, "dec": dec, "raErr": err, "decErr": err}

    assert mean_position([source(359.9999, 1.0, 1.0), source(0.0001, 1.0, 1.0)]) == pytest.approx(
        (0.0, 1.0), abs=1e-9
    )
    ra, dec = mean_position([source(10.0, 0.0, 1.0), source(10.0003, 0.0003, 0.5)])
    # weights 1 and 4
    assert (ra, dec) == pytest.approx((10.00024, 0.00024), abs=1e-9)
    assert np.isfinite(mean_position([source(10.0, 90.0, 1.0), source(190.0, 90.0, 1.0)])).all()
    _, dec = mean_position([source(ra, 90.0 - ARCSEC, 1.0) for ra in (0.0, 90.0, 180.0, 270.0)])
    assert dec == pytest.approx(90.0, abs=1e-10)


def test_images_without_template_are_processed_once_there_is_one(tables, tmp_path):
    topics, detectors = MemoryTopics(), DetectorStore(tables, RUN)
    topics.create("ccd-images")
    topics.create(RUN.alerts_topic("sim"))
    (exposure, _) = simulate_night(seed=5, settings=TEST).exposures()
    (at,) = topics.send("ccd-images", [exposure.message], partition=0)
    waiting = outcome(exposure.visit.visit, 61000.0, [], status=NO_TEMPLATE)
    gone = outcome(9, 61000.0, [], offset=99, status=NO_TEMPLATE)
    detectors.put(detector_rows([dataclasses.replace(waiting, coordinate=at), gone], detectors))
    work = ImageWork.of(RUN, topics=topics, tables=tables, home=tmp_path.joinpath)
    assert retry_no_template(work) == {}

    work.templates.put(template_version(5, TEST), make_templates(5, TEST))
    first, second = retry_no_template(work), retry_no_template(work)

    assert first == {"done": 1, "gone": 1}
    assert second == {}  # no new templates since
    row = detectors.get(exposure.visit.visit, 0)
    sent = sum(part.end - part.first for part in topics.ranges(RUN.alerts_topic("sim")))
    assert (row.status, row.n_alerts, row.origins) == (DONE, sent, ((at, DONE),))
    assert sent > 0
