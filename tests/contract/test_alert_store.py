"""What the store of alerts must do, on memory and on HBase."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from broker.alerts.columns import CANONICAL, SCALARS
from broker.catalog.coverage import coverage_of_cells
from broker.catalog.healpix import pixels_of
from broker.catalog.regions import box, covered, polygon
from broker.errors import ConfigError
from broker.store.alerts import AlertStore
from broker.store.match_list import match_alerts
from broker.types import Coordinate

MJD = 61_000.25
PROVENANCE = {"code": "0.1.0", "schema": "1.0"}


@dataclasses.dataclass
class Alert:
    """The few values of an alert that the tests care about."""

    dia_source_id: str
    dia_object_id: str | None = "obj"
    ss_object_id: str | None = None
    mjd: float = MJD
    ra: float = 10.0
    dec: float = -5.0
    flux: float = 100.0
    offset: int = 0
    reliability: float | None = 0.9
    topic: str = "alerts.x"


def batch(survey, alerts, extra=None):
    """A canonical batch of some alerts; what they do not say is null or a fixed value."""
    given = {
        "survey": [survey] * len(alerts),
        "diaSourceId": [a.dia_source_id for a in alerts],
        "diaObjectId": [a.dia_object_id for a in alerts],
        "ssObjectId": [a.ss_object_id for a in alerts],
        "midpointMjdTai": [a.mjd for a in alerts],
        "ra": [a.ra for a in alerts],
        "dec": [a.dec for a in alerts],
        "psfFlux": [a.flux for a in alerts],
        "reliability": [a.reliability for a in alerts],
        "history": [[] for _ in alerts],
        "origin": [
            {"topic": a.topic, "partition": 0, "offset": a.offset, "schemaId": 1002} for a in alerts
        ],
    }
    fixed = {"bool": True, "float32": 1.5, "float64": 2.5, "int32": 3, "int64": 2**62 + 1}
    arrays = {}
    for field in CANONICAL:
        values = given.get(field.name)
        if values is None:
            kind = next((c.dtype for c in SCALARS if c.name == field.name), None)
            values = [None if field.nullable else fixed[kind]] * len(alerts)
        arrays[field.name] = pa.array(values, field.type)
    return pa.table({**arrays, **(extra or {})})


def nothing(alerts):
    """Outputs of no module."""
    return pa.table({"none@1:x": pa.nulls(len(alerts), pa.float32())})


@pytest.fixture
def put(tables, store_run, survey):
    """Write alerts of this test's survey."""

    def put(alerts, outputs=None, topics=None, provenance=PROVENANCE, extra=None):
        AlertStore(tables, store_run).put(
            batch(survey, alerts, extra),
            outputs=nothing(alerts) if outputs is None else outputs,
            topics=[[] for _ in alerts] if topics is None else topics,
            provenance=provenance,
        )

    return put


@pytest.fixture
def store(tables, store_run):
    """A store that has seen nothing yet, as a reader's."""
    return AlertStore(tables, store_run)


def test_an_alert_comes_back_with_all_that_was_put(store, put, survey):
    outputs = pa.table(
        {
            "rise@1.0.0:rate": pa.array([0.1], pa.float32()),
            "rise@1.0.0:label": pa.array(["up"]),
            "look@2.1:score": pa.array([None], pa.float64()),
            "look@2.1:n": pa.array([2**63 - 1]),
        }
    )
    extra = {"gaiaMatch": pa.array([1], pa.int32()), "gaiaId": pa.array(["4711"])}

    put([Alert("42", offset=7)], outputs, [["fast", "young"]], extra=extra)
    got = store.alert(survey, "42")

    assert got["survey"] == survey
    assert got["diaSourceId"] == "42"
    assert got["diaObjectId"] == "obj"
    assert got["ssObjectId"] is None
    assert got["flags"] == 2**62 + 1
    assert got["psfFlux"] == 100.0
    assert got["reliability"] == float(np.float32(0.9))
    assert got["isNegative"] is True
    assert (got["gaiaMatch"], got["gaiaId"]) == (1, "4711")
    assert got["outputs"] == {
        "rise@1.0.0": {"rate": float(np.float32(0.1)), "label": "up"},
        "look@2.1": {"score": None, "n": 2**63 - 1},
    }
    assert got["topics"] == ["fast", "young"]
    assert got["provenance"] == PROVENANCE
    assert got["origins"] == [{"topic": "alerts.x", "partition": 0, "offset": 7, "schemaId": 1002}]
    assert not {"history", "cutoutScience", "origin"} & set(got)
    assert {c.name for c in SCALARS} <= set(got)


def test_an_unknown_alert_or_object_is_none_or_empty(store, survey):
    assert store.alert(survey, "1") is None
    assert store.object(survey, "1") == []


def test_an_id_of_another_survey_is_another_alert(store, put, survey):
    put([Alert("1")])

    assert store.alert(survey + "x", "1") is None


def test_a_history_has_all_alerts_of_its_object_oldest_first(store, put, survey):
    times = [MJD + 3, MJD, MJD + 1e-9, MJD - 300.5, MJD + 2]
    put([Alert(str(i), "a", mjd=t) for i, t in enumerate(times)] + [Alert("9", "ab")])

    got = store.object(survey, "a")

    assert [a["midpointMjdTai"] for a in got] == sorted(times)
    assert [a["diaSourceId"] for a in store.object(survey, "ab")] == ["9"]


def test_a_brief_history_has_the_same_columns_and_topics_and_nothing_else(store, put, survey):
    outputs = pa.table({"rise@1.0.0:rate": pa.array([0.1], pa.float32())})
    put([Alert("1", "a")], outputs, [["fast"]])

    (brief,), (whole,) = store.object(survey, "a", brief=True), store.object(survey, "a")

    assert whole["outputs"]
    assert brief == whole | {"outputs": {}, "provenance": {}, "origins": []}


def test_ids_of_63_bits_stay_exact(store, put, survey):
    ids = [str(2**63 - 1), str(2**63 - 2), str(2**53 + 1)]

    put([Alert(i, i) for i in ids])

    for i in ids:
        assert store.alert(survey, i)["diaSourceId"] == i
        assert [a["diaObjectId"] for a in store.object(survey, i)] == [i]


def test_a_solar_system_alert_has_no_object_and_is_found_by_its_own(store, put, survey):
    put([Alert("1", None, "2001 AB|1"), Alert("2", None, None)])

    assert [a["diaSourceId"] for a in store.object(survey, "ss:2001 AB|1")] == ["1"]
    assert store.alert(survey, "1")["diaObjectId"] is None
    assert store.alert(survey, "2")["ssObjectId"] is None


def everything(store, survey):
    """All that can be read of a survey."""
    return (
        [store.alert(survey, i) for i in "123"],
        store.object(survey, "a"),
        [r for r in store.cone(10.0, -5.0, 3.0) if r["survey"] == survey],
        [o for o in store.origins() if o[0] == survey],
    )


def test_writing_a_batch_again_changes_nothing(store, put, survey):
    alerts = [Alert("1", "a", offset=1), Alert("2", "a", mjd=MJD + 1, offset=2)]
    outputs = pa.table({"m@1:x": pa.array([1.0, None])})
    put(alerts, outputs, [["t"], []])
    once = everything(store, survey)

    put(alerts, outputs, [["t"], []])

    assert everything(store, survey) == once
    assert len(once[1]) == 2


def test_a_second_packet_of_an_alert_is_a_further_origin(store, put, survey):
    put([Alert("1", offset=5)])
    put([Alert("1", offset=9), Alert("1", offset=6)])

    assert len(store.object(survey, "obj")) == 1
    assert [o["offset"] for o in store.alert(survey, "1")["origins"]] == [5, 6, 9]


def test_outputs_of_an_earlier_version_are_kept_beside_the_new(store, put, survey):
    put([Alert("1")], pa.table({"m@1:x": [1.0]}))
    put([Alert("1")], pa.table({"m@2:x": [2.0], "m@2:y": ["new"]}))
    put([Alert("1")], pa.table({"m@1:x": [1.5]}))  # a late repeat by the old version

    assert store.alert(survey, "1")["outputs"] == {
        "m@1": {"x": 1.5},
        "m@2": {"x": 2.0, "y": "new"},
    }


def test_a_module_that_failed_does_not_erase_what_it_gave_before(store, put, survey):
    put([Alert("1"), Alert("2")], pa.table({"m@1:x": [1.0, 2.0], "m@1:y": ["a", "b"]}))
    failed = {"m@1:x": pa.array([None, 3.0]), "m@1:y": pa.array([None, None], pa.string())}
    put([Alert("1"), Alert("2")], pa.table(failed))

    assert store.alert(survey, "1")["outputs"] == {"m@1": {"x": 1.0, "y": "a"}}
    assert store.alert(survey, "2")["outputs"] == {"m@1": {"x": 3.0, "y": None}}


def test_nan_is_not_null(store, put, survey):
    put([Alert("1", flux=float("nan"), reliability=None)])

    got = store.alert(survey, "1")
    assert np.isnan(got["psfFlux"])
    assert got["reliability"] is None


def test_rows_written_before_a_column_came_stay_readable(store, put, survey):
    put([Alert("1")])
    put([Alert("2")], extra={"newColumn": pa.array(["here"])})

    assert "newColumn" not in store.alert(survey, "1")
    assert store.alert(survey, "2")["newColumn"] == "here"


def test_each_row_says_what_made_it(store, put, survey):
    put([Alert("1")], provenance={"code": "1"})
    put([Alert("2")], provenance={"code": "2", "gaia": "dr3"})

    assert store.alert(survey, "1")["provenance"] == {"code": "1"}
    assert store.alert(survey, "2")["provenance"] == {"code": "2", "gaia": "dr3"}


def test_parts_of_different_lengths_are_refused(store, survey):
    with pytest.raises(ConfigError, match="same number"):
        store.put(
            batch(survey, [Alert("1")]),
            outputs=nothing([1, 2]),
            topics=[[]],
            provenance=PROVENANCE,
        )


def test_an_output_without_a_version_is_refused(put):
    with pytest.raises(ConfigError, match="module@version:column"):
        put([Alert("1")], pa.table({"rate": [1.0]}))


def test_an_empty_batch_is_no_error(put):
    put([])


def test_alerts_without_modules_are_stored(store, put, survey):
    alerts = [Alert("1"), Alert("2")]

    put(alerts, batch(survey, alerts).select([]))

    assert store.alert(survey, "2")["outputs"] == {}


def offset_by(ra, dec, arcsec, bearing):
    """The place some arcseconds away in a direction, on the sphere."""
    d, b = np.radians(arcsec / 3600.0), np.radians(bearing)
    dec0, ra0 = np.radians(dec), np.radians(ra)
    sin_dec = np.sin(dec0) * np.cos(d) + np.cos(dec0) * np.sin(d) * np.cos(b)
    east = np.sin(b) * np.sin(d) * np.cos(dec0)
    d_ra = np.arctan2(east, np.cos(d) - np.sin(dec0) * sin_dec)
    return float(np.degrees(ra0 + d_ra) % 360.0), float(np.degrees(np.arcsin(sin_dec)))


@pytest.mark.parametrize(
    ("ra", "dec"),
    [(150.1, 2.2), (0.0, 0.0), (359.99999, 30.0), (45.0, 90.0), (10.0, -90.0), (200.0, 89.9999)],
)
@pytest.mark.parametrize("radius", [2.0, 40.0, 1800.0])
def test_a_cone_has_exactly_the_objects_inside_nearest_first(store, put, survey, ra, dec, radius):
    rng = np.random.default_rng(int(radius))
    inside = radius * np.sqrt(rng.uniform(0.0, 0.998, 30))
    outside = radius * (1.001 + rng.uniform(0.0, 2.0, 30))
    alerts = [
        Alert(str(i), f"o{i}", ra=place[0], dec=place[1])
        for i, place in enumerate(
            offset_by(ra, dec, distance, bearing)
            for distance, bearing in zip(
                [*inside, *outside], rng.uniform(0.0, 360.0, 60), strict=True
            )
        )
    ]
    put(alerts)

    got = [row for row in store.cone(ra, dec, radius) if row["survey"] == survey]

    assert [row["diaObjectId"] for row in got] == [f"o{i}" for i in np.argsort(inside)]
    assert [row["separation"] for row in got] == pytest.approx(sorted(inside), abs=1e-4)


def test_a_cone_shows_the_newest_alert_of_an_object_once(store, put, survey):
    put([Alert("2", "a", mjd=MJD + 2, flux=2.0, ra=20.0)])
    put([Alert("1", "a", mjd=MJD + 1, flux=1.0, ra=20.0), Alert("0", "a", mjd=MJD, ra=20.00001)])

    (got,) = [r for r in store.cone(20.0, -5.0, 2.0) if r["survey"] == survey]

    assert (got["diaSourceId"], got["psfFlux"]) == ("2", 2.0)


def test_an_object_on_the_border_of_two_pixels_is_one(store, put, survey):
    """Of 400 places some 0.1 arcsec apart at least two lie in different pixels of 26 arcsec."""
    put([Alert(str(i), "a", mjd=MJD + i, ra=30.0 + i * 3e-5) for i in range(400)])

    got = [r for r in store.cone(30.006, -5.0, 60.0) if r["survey"] == survey]

    assert [r["diaSourceId"] for r in got] == ["399"]


def test_a_list_of_positions_gets_the_nearest_object_and_how_many(store, put, survey):
    put(
        [
            Alert("1", "near", ra=0.0, dec=41.81, mjd=MJD),
            Alert("2", "near", ra=0.0, dec=41.81, mjd=MJD + 1),
            Alert("3", "far", ra=0.0, dec=41.81 + 1.5 / 3600),
        ]
    )
    ra, dec = [360.0, 0.0, 180.0, np.nan, 0.0], [41.81, 41.81 + 1.4 / 3600, -41.0, 0.0, 95.0]

    rows = match_alerts(store, ra, dec, radius_arcsec=2.0).to_pylist()

    assert [row["alertsMatch"] for row in rows] == [1, 1, 0, -1, -1]
    assert [row["alertsObjects"] for row in rows] == [2, 2, 0, None, None]
    first, second = rows[:2]
    assert (first["alertsDiaObjectId"], first["alertsDiaSourceId"]) == ("near", "2")
    assert (second["alertsDiaObjectId"], second["alertsSurvey"]) == ("far", survey)
    assert first["alertsMidpointMjdTai"] == MJD + 1
    np.testing.assert_allclose([first["alertsSeparation"], second["alertsSeparation"]], [0, 0.1],
                               atol=1e-6)  # fmt: skip


def test_a_region_has_the_newest_alert_of_each_object_inside(store, put, survey):
    rng = np.random.default_rng(7)
    ra = np.append(rng.uniform(140.0, 142.0, 40), 141.0)
    dec = np.append(rng.uniform(60.0, 61.0, 40), 61.5)
    put([Alert(f"r{k}", f"r{k}", ra=ra[k], dec=dec[k]) for k in range(41)])
    put([Alert("r0-new", "r0", ra=ra[0], dec=dec[0], mjd=MJD + 1.0)])
    areas = (
        (box((140.5, 141.5), (60.2, 60.8)), (ra - 140.5) * (141.5 - ra)),
        (polygon([140.0, 142.0, 141.0], [60.0, 60.0, 61.0]), None),
        (covered(coverage_of_cells(pixels_of(ra[:1], dec[:1], 8), 8)), None),
    )
    for region, between in areas:
        inside = region.contains(ra, dec)
        if between is not None:
            np.testing.assert_array_equal(inside, (between >= 0) & (dec >= 60.2) & (dec <= 60.8))
        got, total = store.region(region, limit=1000)
        mine = [row for row in got if row["survey"] == survey]
        expected = sorted(f"r{k}" for k in np.flatnonzero(inside))
        assert [row["diaObjectId"] for row in mine] == expected
        assert total == len(got) >= len(expected) >= 1
        newest = {row["diaObjectId"]: row["diaSourceId"] for row in mine}
        assert newest.get("r0", "r0-new") == "r0-new"
        assert len(store.region(region, limit=1)[0]) == 1


def test_surveys_do_not_meet_in_a_cone(store, tables, store_run, put, survey):
    put([Alert("1", "a", ra=40.0)])
    AlertStore(tables, store_run).put(
        batch(survey + "b", [Alert("1", "a", ra=40.0)]),
        outputs=nothing([1]),
        topics=[[]],
        provenance=PROVENANCE,
    )

    got = [r["survey"] for r in store.cone(40.0, -5.0, 1.0)]

    assert sorted(got) == [survey, survey + "b"]


def test_origins_of_every_alert_can_be_listed(store, put, survey):
    put([Alert(str(i), f"o{i % 7}", offset=i) for i in range(50)])
    put([Alert("3", "o3", offset=99)])

    got = {i: at for s, i, at in store.origins() if s == survey}

    assert len(got) == 50
    assert sorted(got["3"]) == [Coordinate("alerts.x", 0, 3), Coordinate("alerts.x", 0, 99)]
    assert got["4"] == [Coordinate("alerts.x", 0, 4)]
