"""What the images query remembers, on memory and on HBase."""

import numpy as np
import pyarrow as pa
import pytest

from broker.errors import ConfigError
from broker.store.forced import FORCED_SOURCES, ForcedStore, dia_forced_source_ids
from broker.store.objects import (
    DONE,
    FAILED,
    NO_TEMPLATE,
    AssociationStore,
    DetectorRow,
    DetectorStore,
)
from broker.store.retractions import Retraction, RetractionStore
from broker.types import Coordinate


def sources(*rows):
    """A table of (diaSourceId, diaObjectId, mjd, ra, dec, flux)."""
    names = ("diaSourceId", "diaObjectId", "midpointMjdTai", "ra", "dec", "psfFlux")
    return pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))


def ids(table):
    return [] if table.num_rows == 0 else table["diaSourceId"].to_pylist()


@pytest.fixture
def place():
    """A place of its own for each test."""
    rng = np.random.default_rng()
    return float(rng.uniform(0, 360)), float(rng.uniform(-80, 80))


def test_nothing_is_found_where_nothing_is(tables, store_run, place):
    assert AssociationStore(tables, store_run).around(*place, 0.01).num_rows == 0


def test_objects_come_with_all_their_sources_in_the_order_of_time(tables, store_run, place):
    ra, dec = place
    store = AssociationStore(tables, store_run)
    store.put(sources((11, 11, 100.0, ra, dec, 1.5), (12, 12, 100.0, ra, dec + 0.5, 2.5)))
    known = store.around(ra, dec, 0.01)
    pixel = known["objectPixel"][0].as_py()
    later = sources((5, 11, 99.0, ra, dec, 3.5), (21, 11, 101.0, ra, dec + 2e-4, 4.5))
    store.put(later.append_column("objectPixel", pa.array([pixel, pixel])))

    got = AssociationStore(tables, store_run).around(ra, dec, 0.01)

    assert ids(known) == [11]
    assert ids(got) == [5, 11, 21]
    assert got["psfFlux"].to_pylist() == [3.5, 1.5, 4.5]
    assert got["midpointMjdTai"].type == pa.float64()
    assert got["diaSourceId"].type == pa.int64()


def test_an_object_is_found_when_only_a_later_source_is_in_the_cone(tables, store_run, place):
    ra, dec = place
    store = AssociationStore(tables, store_run)
    near, far = dec + 0.9 / 3600, dec + 1.5 / 3600
    store.put(sources((1, 1, 100.0, ra, far, 1.0), (2, 1, 101.0, ra, near, 1.0)))

    assert ids(store.around(ra, dec, 1.0 / 3600)) == [1, 2]
    assert ids(store.around(ra, dec, 0.5 / 3600)) == []


def test_writing_sources_again_changes_nothing(tables, store_run, place):
    store = AssociationStore(tables, store_run)
    rows = sources((1, 1, 100.0, *place, 1.0), (2, 2, 100.0, *place, 2.0))
    store.put(rows)
    once = store.around(*place, 0.01)

    store.put(rows)

    assert store.around(*place, 0.01).equals(once)


def test_a_source_of_an_object_that_no_one_knows_is_refused(tables, store_run, place):
    with pytest.raises(ConfigError, match="objectPixel"):
        AssociationStore(tables, store_run).put(sources((2, 1, 100.0, *place, 1.0)))


def test_sources_with_other_columns_are_read_together(tables, store_run, place):
    store = AssociationStore(tables, store_run)
    store.put(sources((1, 1, 100.0, *place, 1.0)))
    more = sources((2, 2, 100.0, *place, 2.0)).append_column("band", pa.array(["g"]))
    store.put(more)

    got = store.around(*place, 0.01)

    assert got["band"].to_pylist() == [None, "g"]


def test_a_cone_across_ra_zero_and_over_the_pole_is_whole(tables, store_run):
    store = AssociationStore(tables, store_run)
    store.put(sources((7, 7, 1.0, 359.999, 61.0, 1.0), (8, 8, 1.0, 0.001, 61.0, 1.0)))
    store.put(sources((9, 9, 1.0, 0.0, 89.999, 1.0), (10, 10, 1.0, 180.0, 89.999, 1.0)))

    assert ids(store.around(0.0, 61.0, 0.01)) == [7, 8]
    assert ids(store.around(90.0, 90.0, 0.01)) == [9, 10] or ids(
        store.around(90.0, 90.0, 0.01)
    ) == [10, 9]


def retraction(source, *, time=61_000.0, is_retracted=True, thing=1):
    return Retraction(thing, source, time, "not found", "v2", "1.0", is_retracted)


def test_a_withdrawn_source_is_left_out_but_not_deleted_and_comes_back(tables, store_run, place):
    store = AssociationStore(tables, store_run)
    store.put(sources((1, 1, 100.0, *place, 1.0), (2, 2, 100.0, *place, 2.0)))
    rows = store.around(*place, 0.01)

    store.mark(rows.slice(0, 1), [retraction(1)])
    store.put(rows)  # a repeat of the image does not lift it

    assert ids(store.around(*place, 0.01)) == [2]
    whole = store.around(*place, 0.01, with_retracted=True)
    assert whole["isRetracted"].to_pylist() == [True, False]

    store.mark(rows.slice(0, 1), [retraction(1, time=61_001.0, is_retracted=False)])
    store.mark(rows.slice(0, 1), [retraction(1)])  # an older one, once more
    assert ids(store.around(*place, 0.01)) == [1, 2]


def test_of_two_marks_on_one_thing_the_later_counts(tables, store_run, visit):
    store = RetractionStore(tables, store_run)
    marks = [retraction(source, thing=visit) for source in (None, 7, 5)]
    store.put(marks)
    store.put([retraction(7, thing=visit, time=61_001.0, is_retracted=False)])
    store.put(marks)

    got = store.of_object(visit)

    assert [(m.dia_source_id, m.is_retracted) for m in got] == [(None, True), (5, True), (7, False)]
    assert store.of_object(visit + 1) == []


def fluxes(thing, *rows):
    """A table of (visit, detector, mjd, flux) at one object."""
    visits, detectors, times, flux = map(list, zip(*rows, strict=True))
    named = [
        dia_forced_source_ids([thing], v, d)[0] for v, d in zip(visits, detectors, strict=True)
    ]
    n = len(rows)
    columns = [named, [thing] * n, visits, detectors, times, [1.0] * n, [2.0] * n]
    columns += [flux, [0.5] * n, ["r"] * n]
    return pa.table(dict(zip(FORCED_SOURCES.names, columns, strict=True)), schema=FORCED_SOURCES)


def test_forced_fluxes_come_by_object_in_the_order_of_time(tables, store_run, visit):
    store, pixel = ForcedStore(tables, store_run), np.full(3, 77)
    first = fluxes(visit, (3, 0, 61_440.5, 3.0), (1, 0, 60_900.0, 1.0), (2, 1, 60_926.5, 2.0))
    assert store.record(first, pixel) == 3
    store.record(fluxes(visit + 1, (1, 0, 60_900.0, 9.0)), pixel[:1])

    got = store.of_objects([(visit, 77), (visit + 2, 77)])

    assert got.schema == FORCED_SOURCES
    assert got["psfFlux"].to_pylist() == [1.0, 2.0, 3.0]
    window = store.of_objects([(visit, 77)], start=60_900.5, end=61_440.5)
    assert window["visit"].to_pylist() == [2]
    assert store.of_objects([(visit, 78)]).num_rows == 0
    assert store.of_objects([(visit, 78)], start=60_000.0, end=61_000.0).num_rows == 0


def test_a_forced_flux_is_recorded_once(tables, store_run, visit):
    store, pixel = ForcedStore(tables, store_run), np.full(2, 77)
    store.record(fluxes(visit, (1, 0, 61_000.0, 1.0)), pixel[:1])

    n_new = store.record(fluxes(visit, (1, 0, 61_000.0, 5.0), (1, 2, 61_000.0, 6.0)), pixel)

    assert n_new == 1
    assert store.of_objects([(visit, 77)])["psfFlux"].to_pylist() == [1.0, 6.0]


def at(offset):
    return Coordinate("ccd-images", 0, offset)


@pytest.fixture
def visit():
    return int(np.random.default_rng().integers(1 << 60))


def test_a_detector_comes_back_as_it_was_put(tables, store_run, visit):
    store = DetectorStore(tables, store_run)
    row = DetectorRow(visit, 188, DONE, n_alerts=31, origins=((at(4), DONE),))

    store.put([row])

    assert store.get(visit, 188) == row
    assert store.get(visit, 187) is None
    assert row in list(store.all())


def test_a_detector_that_is_done_stays_done(tables, store_run, visit):
    store = DetectorStore(tables, store_run)
    waiting = DetectorRow(visit, 1, NO_TEMPLATE, reason="none", origins=((at(1), NO_TEMPLATE),))
    done = DetectorRow(visit, 1, DONE, n_alerts=2, origins=((at(8), DONE),))
    failed = DetectorRow(visit, 1, FAILED, reason="corrupt", origins=((at(9), FAILED),))

    store.put([waiting])
    store.put([done, failed])
    store.put([waiting])

    got = store.get(visit, 1)
    assert (got.status, got.n_alerts) == (DONE, 2)
    assert got.origins == ((at(1), NO_TEMPLATE), (at(8), DONE), (at(9), FAILED))


def test_a_coordinate_that_waited_and_then_was_done_is_done(tables, store_run, visit):
    store = DetectorStore(tables, store_run)
    store.put([DetectorRow(visit, 1, NO_TEMPLATE, origins=((at(1), NO_TEMPLATE),))])
    store.put([DetectorRow(visit, 1, DONE, 3, origins=((at(1), DONE),))])

    assert store.get(visit, 1).origins == ((at(1), DONE),)


def test_an_unknown_status_is_refused(tables, store_run, visit):
    with pytest.raises(ConfigError, match="perhaps"):
        DetectorStore(tables, store_run).put([DetectorRow(visit, 1, "perhaps")])
