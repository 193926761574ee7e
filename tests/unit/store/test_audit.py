"""The audit finds every planted fault, and nothing else."""

import random

import pytest

from broker.store.audit import AuditRow, audit, total
from broker.store.objects import DONE, FAILED, NO_TEMPLATE, DetectorRow
from broker.types import Coordinate, OffsetRange

TOPIC = "alerts.ztf"


def at(offset, partition=0, topic=TOPIC):
    return Coordinate(topic, partition, offset)


def alerts(*groups):
    """Alerts by the offsets of their packets."""
    return [("ztf", str(i), [at(o) for o in offsets]) for i, offsets in enumerate(groups)]


def faults(result):
    return {(p.coordinate.offset, p.what) for p in result.problems}


def test_a_closed_ledger_has_no_problems():
    result = audit(
        "alerts",
        [OffsetRange(TOPIC, 0, 0, 6)],
        origins=alerts([0], [1, 4], [2]),
        dead_letters=[at(3), at(5)],
    )

    assert result.is_closed
    assert result.rows == (
        AuditRow(
            "alerts", TOPIC, 6, stored=3, duplicates=1, dead_letters=2, no_template=0, missing=0
        ),
    )
    assert result.problems == ()


def test_a_missing_coordinate_is_found():
    result = audit("alerts", [OffsetRange(TOPIC, 0, 10, 13)], origins=alerts([10], [12]))

    assert not result.is_closed
    assert result.rows[0].missing == 1
    assert faults(result) == {(11, "missing")}


@pytest.mark.parametrize(
    ("origins", "dead", "what"),
    [
        (alerts([0]), [at(0)], "in several places: stored, dead letter"),
        (alerts([0], [0]), [], "in several places: stored more than once"),
        (alerts([0], [1, 0]), [at(0)], "in several places: stored, dead letter"),
    ],
)
def test_a_coordinate_in_two_places_is_found(origins, dead, what):
    result = audit("alerts", [OffsetRange(TOPIC, 0, 0, 1)], origins=origins, dead_letters=dead)

    assert not result.is_closed
    assert (0, what) in faults(result)


def test_a_coordinate_that_was_not_consumed_is_found():
    result = audit(
        "alerts",
        [OffsetRange(TOPIC, 0, 5, 6)],
        origins=alerts([4], [5]),
        dead_letters=[at(6), at(0, partition=3)],
    )

    assert faults(result) == {
        (4, "stored, but was not consumed"),
        (6, "dead letter, but was not consumed"),
        (0, "dead letter, but was not consumed"),
    }


def test_a_gap_between_two_ranges_is_not_consumed():
    ranges = [OffsetRange(TOPIC, 0, 0, 2), OffsetRange(TOPIC, 0, 4, 5)]

    result = audit("alerts", ranges, origins=alerts([0], [1], [3], [4]))

    assert result.rows[0].consumed == 3
    assert faults(result) == {(3, "stored, but was not consumed")}


def test_a_dead_letter_that_was_written_twice_is_one():
    result = audit("alerts", [OffsetRange(TOPIC, 0, 0, 1)], dead_letters=[at(0), at(0)])

    assert result.is_closed
    assert result.rows[0].dead_letters == 1


def test_dead_letters_of_another_query_are_not_its_own():
    result = audit(
        "alerts",
        [OffsetRange(TOPIC, 0, 0, 1)],
        origins=alerts([0]),
        dead_letters=[at(7, topic="ccd-images")],
    )

    assert result.is_closed


def test_an_alert_on_a_topic_that_was_not_consumed_is_found():
    result = audit(
        "alerts",
        [OffsetRange(TOPIC, 0, 0, 1)],
        origins=[*alerts([0]), ("sim", "9", [at(0, topic="alerts.sim")])],
    )

    assert [p.coordinate.topic for p in result.problems] == ["alerts.sim"]


def test_detectors_close_the_ledger_of_images():
    def image(offset):
        return at(offset, topic="ccd-images")

    detectors = [
        DetectorRow(1, 0, DONE, 5, origins=((image(0), DONE),)),
        DetectorRow(1, 1, NO_TEMPLATE, origins=((image(1), NO_TEMPLATE),)),
        DetectorRow(1, 2, FAILED, origins=((image(2), FAILED),)),
        # repeated by a person: first without a template, then done, then once more
        DetectorRow(
            1,
            3,
            DONE,
            5,
            origins=((image(3), NO_TEMPLATE), (image(4), DONE), (image(5), DONE)),
        ),
    ]

    result = audit(
        "images",
        [OffsetRange("ccd-images", 0, 0, 6)],
        detectors=detectors,
        dead_letters=[image(2)],
    )

    assert result.is_closed
    assert result.rows == (
        AuditRow(
            "images",
            "ccd-images",
            6,
            stored=2,
            duplicates=1,
            dead_letters=1,
            no_template=2,
            missing=0,
        ),
    )


def test_a_failed_detector_without_a_dead_letter_is_missing():
    failed = DetectorRow(1, 2, FAILED, origins=((at(0, topic="ccd-images"), FAILED),))

    result = audit("images", [OffsetRange("ccd-images", 0, 0, 1)], detectors=[failed])

    assert faults(result) == {(0, "missing")}


def test_random_faults_among_many_are_all_counted():
    """Plant faults at random and count them in the plainest way there is."""
    rng = random.Random(7)
    n = 20_000
    ranges, stored, dead = [], [], []
    missing = doubled = 0
    for partition in range(3):
        ranges.append(OffsetRange(TOPIC, partition, 1000, 1000 + n))
        for offset in range(1000, 1000 + n):
            lot = rng.random()
            if lot < 0.001:
                missing += 1
                continue
            if lot < 0.01:
                dead.append(at(offset, partition))
            elif lot < 0.012:
                doubled += 1
                dead.append(at(offset, partition))
                stored.append(("ztf", f"{partition}-{offset}", [at(offset, partition)]))
            else:
                stored.append(("ztf", f"{partition}-{offset}", [at(offset, partition)]))
    rng.shuffle(stored)

    result = audit("alerts", ranges, origins=stored, dead_letters=dead)

    (row,) = result.rows
    assert row.consumed == 3 * n
    assert row.missing == missing > 0
    assert result.n_problems == missing + doubled
    assert row.stored == len(stored)
    assert row.dead_letters == len(dead)


def test_the_list_of_problems_is_bounded_and_the_count_is_not():
    result = audit("alerts", [OffsetRange(TOPIC, 0, 0, 5000)])

    assert result.n_problems == 5000
    assert len(result.problems) == 1000


def test_nothing_consumed_is_closed():
    assert audit("alerts", []).is_closed


def test_rows_add_up_and_have_wire_names():
    one = AuditRow("a", "x", 6, 3, 1, 1, 1, 0)
    other = AuditRow("a", "y", 4, 1, 0, 2, 0, 1)

    assert total([one, other]).as_json() == {
        "query": "total",
        "topic": "total",
        "consumed": 10,
        "stored": 4,
        "duplicates": 1,
        "deadLetters": 3,
        "noTemplate": 1,
        "missing": 1,
    }
