"""What the index of alerts must do, on memory and on HBase: it finds what a look at all finds."""

import zlib

import numpy as np
import pyarrow as pa
import pytest

from broker.catalog.regions import box
from broker.science.samples import sample_alerts
from broker.store.alerts import AlertStore
from broker.store.blocks import entries_of
from broker.store.index import AlertIndex
from broker.store.moving import alerts_of_body
from broker.store.search import Wanted, matching
from broker.types import night_of

N = 120
CLASSES = ("hosted", None, "star")


def with_column(batch, name, values):
    field = batch.schema.field(name)
    return batch.set_column(batch.schema.get_field_index(name), field, pa.array(values, field.type))


class Filled:
    """A store with alerts of three nights, classes, topics and matches; and its index."""

    def __init__(self, tables, run, first_mjd):
        rng = np.random.default_rng(4)
        batch = sample_alerts(N, seed=5, cutouts=False)
        batch = with_column(batch, "diaSourceId", [f"{first_mjd:.0f}{i:03d}" for i in range(N)])
        batch = with_column(batch, "midpointMjdTai", first_mjd + rng.integers(0, 3, N) + 0.9)
        batch = with_column(batch, "ra", rng.uniform(0, 360, N))
        batch = with_column(batch, "psfFlux", rng.normal(3000.0, 3000.0, N))
        batch = with_column(batch, "snr", rng.uniform(4.0, 40.0, N))
        self.batch, self.ids = batch, batch["diaSourceId"].to_pylist()
        self.outputs = pa.table(
            {
                "context@1.0.0:contextClass": pa.array([CLASSES[i % 3] for i in range(N)]),
                "late@1.0.0@next:lateClass": pa.array(["tried"] * N),
            }
        )
        self.topics = [
            ["fast"] if i % 4 == 0 else ["fast-red"] if i % 4 == 1 else [] for i in range(N)
        ]
        self.nights = [night_of(mjd) for mjd in batch["midpointMjdTai"].to_pylist()]
        self.store, self.index = AlertStore(tables, run), AlertIndex(tables, run)
        for low in range(0, N, 40):  # in three batches
            self.put(low, 40)

    def put(self, low, n, outputs=None):
        self.store.put(
            self.batch.slice(low, n),
            outputs=self.outputs.slice(low, n) if outputs is None else outputs,
            topics=self.topics[low : low + n],
            provenance={"code": "0.1.0"},
        )

    def records(self):
        mine = set(self.ids)
        found = [one for one in self.store.every() if one["diaSourceId"] in mine]
        return sorted(found, key=lambda one: one["diaSourceId"])

    def indexed(self, **of):
        """Ids of its nights in the index, sorted."""
        nights = sorted(set(self.nights))
        return sorted(i for night in nights for i in ids(self.index.entries(night, **of)))


@pytest.fixture(scope="module")
def stored(tables, store_run):
    return Filled(tables, store_run, 61_000)


@pytest.fixture
def altered(tables, store_run, request):
    """Nights that a test may write to again."""
    return Filled(tables, store_run, 62_000 + 10 * (zlib.crc32(request.node.name.encode()) % 1000))


def ids(entries):
    return sorted(entries.texts["diaSourceId"].to_pylist())


def test_every_alert_is_in_the_index_of_its_night_once(stored):
    assert set(stored.nights) <= set(stored.index.nights())
    for night in set(stored.nights):
        truth = [i for i, of in zip(stored.ids, stored.nights, strict=True) if of == night]
        assert ids(stored.index.entries(night)) == truth
        assert len(stored.index.counted(night)) == len(truth)


def test_a_topic_has_its_own_alerts_and_none_of_a_topic_whose_name_begins_alike(stored):
    assert stored.indexed(topic="fast") == stored.ids[::4]
    assert stored.indexed(topic="fast-red") == stored.ids[1::4]
    assert set(stored.nights) <= set(stored.index.nights(topic="fast"))
    assert stored.index.nights(topic="fas") == []


def test_the_index_says_of_an_alert_what_its_row_says(stored):
    records = entries_of(stored.records())

    for night in set(stored.nights):
        entries = stored.index.entries(night)
        rows = [stored.ids.index(i) for i in entries.texts["diaSourceId"].to_pylist()]
        same = records.take(np.array(rows))
        for name, values in entries.numbers.items():
            np.testing.assert_array_equal(values, same.numbers[name], err_msg=name)
        assert entries.texts["objectName"].equals(same.texts["objectName"])
        for label in {*entries.labels, *same.labels}:
            np.testing.assert_array_equal(entries.label(label), same.label(label), err_msg=label)
        assert not entries.label("class:lateClass=tried").any()


def test_a_batch_that_is_repeated_or_cut_otherwise_counts_once(altered):
    altered.put(0, 40)
    altered.put(20, 50)

    assert altered.indexed() == altered.ids
    assert sum(len(altered.index.counted(night)) for night in set(altered.nights)) == N


def test_a_class_that_is_given_anew_replaces_the_older_one(altered):
    outputs = pa.table({"context@1.0.0:contextClass": pa.array(["galaxy"] * N)})

    altered.store.put_outputs(altered.batch, outputs=outputs)

    for night in set(altered.nights):
        entries = altered.index.entries(night)
        assert entries.label("class:contextClass=galaxy").all()
        assert not entries.label("class:contextClass=hosted").any()
    assert altered.indexed() == altered.ids
    assert altered.indexed(topic="fast") == altered.ids[::4]


def is_hosted(alert):
    return alert["outputs"].get("context@1.0.0") == {"contextClass": "hosted"}


@pytest.mark.parametrize(
    ("wanted", "holds"),
    [
        (Wanted(), lambda a: True),
        (Wanted(classes=("hosted",)), is_hosted),
        (Wanted(classes=("contextClass=hosted", "none")), is_hosted),
        (Wanted(bands=("g", "r")), lambda a: a["band"] in ("g", "r")),
        (Wanted(topic="fast"), lambda a: "fast" in a["topics"]),
        (Wanted(survey="ztf"), lambda a: a["survey"] == "ztf"),
        (Wanted(ranges={"mag": (None, 22.5)}), lambda a: a["psfFlux"] >= 3630.78),
        (Wanted(ranges={"snr": (7.0, 20.0)}), lambda a: 7.0 <= a["snr"] <= 20.0),
        (Wanted(ranges={"nDiaSources": (None, 3)}), lambda a: 0 < (a["nDiaSources"] or 0) <= 3),
        (Wanted(ranges={"reliability": (0.5, None)}), lambda a: (a["reliability"] or 0) >= 0.5),
        (Wanted(catalogs=("gaia",)), lambda a: a["gaiaMatch"] == 1),
        (Wanted(not_catalogs=("gaia",)), lambda a: a["gaiaMatch"] != 1),
        (Wanted(is_solar_system=True), lambda a: a["ssObjectId"] is not None),
        (Wanted(region=box((300, 60), (-90, 90))), lambda a: a["ra"] >= 300 or a["ra"] <= 60),
    ],
)
def test_a_question_finds_what_a_look_at_every_alert_finds(stored, wanted, holds):
    truth = [a["diaSourceId"] for a in stored.records() if a["isPublic"] and holds(a)]

    found = []
    for night in set(stored.nights):
        entries = stored.index.entries(night)
        found += ids(entries.take(matching(entries, wanted)))

    assert sorted(found) == truth
    assert truth


def test_a_body_of_a_catalogue_of_orbits_has_its_alerts_oldest_first(tables, store_run):
    batch = sample_alerts(6, seed=7, cutouts=False)
    batch = with_column(batch, "diaSourceId", [str(i) for i in range(6)])
    batch = with_column(batch, "midpointMjdTai", [61_005.0 - i for i in range(6)])
    for name, values in {
        "minorPlanetsMatch": pa.array([1, 1, 0, 1, -1, 1], pa.int32()),
        "minorPlanetsId": pa.array(["7", "7", None, "71", None, "7"]),
        "minorPlanetsPredictedMag": pa.array([20.0] * 6, pa.float32()),
    }.items():
        batch = batch.append_column(name, values)
    store = AlertStore(tables, store_run)
    outputs = pa.table({"none@1.0.0:x": pa.nulls(6, pa.float32())})
    store.put(batch, outputs=outputs, topics=[[]] * 6, provenance={"code": "0.1.0"})

    found = store.alerts(alerts_of_body(tables, store_run, "minorPlanets", "7"))

    assert [alert["diaSourceId"] for alert in found] == ["5", "1", "0"]
