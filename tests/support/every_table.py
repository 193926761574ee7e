"""A row or more of every table of a run, written by the stores and read back by them."""

import datetime
from contextlib import contextmanager
from dataclasses import asdict
from unittest import mock

import numpy as np
import pyarrow as pa

from broker.alerts.columns import CANONICAL, SCALARS
from broker.notices import Ellipse, Notice
from broker.store import keys
from broker.store.alerts import AlertStore
from broker.store.annotations import Annotation, AnnotationStore
from broker.store.forced import FORCED_SOURCES, ForcedStore
from broker.store.ledger import Ledger
from broker.store.moving import alerts_of_body
from broker.store.notices import NoticeStore
from broker.store.objects import DONE, NO_TEMPLATE, AssociationStore, DetectorRow, DetectorStore
from broker.store.quarantine import Quarantine
from broker.store.retractions import Retraction, RetractionStore
from broker.types import Coordinate, OffsetRange

MJD = 61_000.25
PLACE = (359.9, -45.0)
_FIXED = {"bool": True, "float32": 1.5, "float64": 2.5, "int32": 3, "int64": 2**62 + 1}


def fill(tables, run):
    """Write to every table of a run that has its tables; the same at every call."""
    with _stopped_clock():
        _fill_alerts(AlertStore(tables, run))
        _fill_images(tables, run)
        place = Ellipse(10.0, -5.0, 1.0, 1.0, 0.0)
        notice = Notice("n1", "e1", "initial", False, "Test", MJD, MJD - 0.5, place, "", "d")
        notices = NoticeStore(tables, run)
        notices.put(notice, Coordinate("notices", 0, 3))
        notices.announce("one")
        said = Annotation("ztf", "42", "obj", "svc", "match", "m1", 0.5, {"z": 0.1}, {"t": "x"})
        AnnotationStore(tables, run).put([said])
        ranges = [OffsetRange("alerts.ztf", 0, 0, 10), OffsetRange("alerts.ztf", 1, 5, 7)]
        Ledger(tables, run).record("alerts", 4, ranges, {"stored": 12}, {"seconds": {"store": 1.5}})
        Quarantine(tables, run).record_failure("rise", "1.0.0", "ValueError: bad")


def read(tables, run):
    """Return what the stores say of it all, as JSON has it."""
    store = AlertStore(tables, run)
    index = store._index
    (ledger,) = Ledger(tables, run).batches("alerts")
    (failed,) = Quarantine(tables, run).status()
    objects = AssociationStore(tables, run).around(*PLACE, 0.01)
    pixel = objects["objectPixel"][0].as_py()
    return {
        "alert": store.alert("ztf", "42"),
        "object": [a["diaSourceId"] for a in store.object("ztf", "obj")],
        "cone": [(a["diaSourceId"], a["separation"]) for a in store.cone(10.0, -5.0, 5.0)],
        "moving": [key.decode() for key in alerts_of_body(tables, run, "orbits", "433")],
        "nights": {night: sorted(index.entries(night).labels) for night in index.nights()},
        "counted": [int(n) for n in index.counted(index.nights()[0]).numbers["number"]],
        "topics": {t: index.nights(topic=t) for t in ("fast", "young")},
        "objects": objects.to_pylist(),
        "forced": ForcedStore(tables, run).of_objects([(11, pixel)]).to_pylist(),
        "retractions": [asdict(r) for r in RetractionStore(tables, run).of_object(12)],
        "detectors": list(map(asdict, DetectorStore(tables, run).all())),
        "notices": [n.notice.notice_id for n in NoticeStore(tables, run).between(MJD - 1, MJD)],
        "origins": [str(c) for c in NoticeStore(tables, run).filed("n1").origins],
        "generation": NoticeStore(tables, run).generation(),
        "annotations": [asdict(a) for a in AnnotationStore(tables, run).of_alert("ztf", "42")],
        "ledger": [ledger.batch_id, ledger.counts, ledger.stats, list(map(asdict, ledger.ranges))],
        "consumed": [asdict(r) for r in Ledger(tables, run).consumed("alerts")],
        "quarantine": [failed.name, failed.version, failed.failures, failed.reason],
    }


def _fill_alerts(store):
    given = {
        "survey": ["ztf", "ztf", "lsst"],
        "diaSourceId": ["42", "43", "44"],
        "diaObjectId": ["obj", "obj", None],
        "ssObjectId": [None, None, "433"],
        "midpointMjdTai": [MJD, MJD + 1.0, MJD],
        "ra": [10.0, 10.0001, 20.0],
        "dec": [-5.0, -5.0, 5.0],
        "reliability": [0.9, None, float("nan")],
        "history": [[], [], []],
        "origin": [
            {"topic": "alerts.ztf", "partition": 0, "offset": i, "schemaId": 0} for i in range(3)
        ],
    }
    arrays = {}
    for field in CANONICAL:
        kind = next((c.dtype for c in SCALARS if c.name == field.name), None)
        fixed = [None if field.nullable else _FIXED.get(kind)] * 3
        arrays[field.name] = pa.array(given.get(field.name, fixed), field.type)
    matches = {
        "gaiaMatch": pa.array([1, 0, -1], pa.int32()),
        "gaiaId": pa.array(["4711", None, None]),
        "orbitsMatch": pa.array([0, 0, 1], pa.int32()),
        "orbitsId": pa.array([None, None, "433"]),
        "orbitsPredictedMag": pa.array([None, None, 17.5], pa.float32()),
    }
    outputs = {
        "rise@1.0.0:rate": pa.array([0.1, None, 0.3], pa.float32()),
        "rise@1.0.0:kindClass": pa.array(["up", None, "down"]),
    }
    store.put(
        pa.table({**arrays, **matches}),
        outputs=pa.table(outputs),
        topics=[["fast", "young"], ["fast"], []],
        provenance={"code": "0.1.0", "schema": "1.0"},
    )


def _fill_images(tables, run):
    store, (ra, dec) = AssociationStore(tables, run), PLACE
    names = ("diaSourceId", "diaObjectId", "midpointMjdTai", "ra", "dec", "psfFlux")
    rows = ((11, 11, MJD, ra, dec, 1.5), (12, 12, MJD, ra, dec + 1e-3, 2.5))
    pixels = keys.pixels(np.array([ra, ra]), np.array([dec, dec + 1e-3]), keys.OBJECT_ORDER)
    table = pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))
    store.put(table)
    known = table.append_column("objectPixel", pa.array(pixels))
    withdrawn = Retraction(12, 12, MJD, "not found", "v2", "1.0")
    store.mark(known.slice(1, 1), [withdrawn])
    RetractionStore(tables, run).put([withdrawn])
    forced = {
        "diaForcedSourceId": [5], "diaObjectId": [11], "visit": [7], "detector": [3],
        "midpointMjdTai": [MJD], "ra": [ra], "dec": [dec], "psfFlux": [9.5], "psfFluxErr": [1.0],
        "band": ["r"],
    }  # fmt: skip
    pixel = known["objectPixel"][0].as_py()
    ForcedStore(tables, run).record(pa.table(forced, FORCED_SOURCES), np.array([pixel]))
    DetectorStore(tables, run).put(_detectors())


def _detectors():
    first, second = Coordinate("ccd-images", 0, 1), Coordinate("ccd-images", 0, 2)
    done = DetectorRow(7, 3, DONE, n_alerts=2, origins=((first, DONE),), first=first)
    missed = DetectorRow(7, 4, NO_TEMPLATE, reason="none", origins=((second, NO_TEMPLATE),))
    return [done, missed]


@contextmanager
def _stopped_clock():
    at = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC).timestamp()
    with (
        mock.patch("time.time", return_value=at),
        mock.patch("time.time_ns", return_value=int(at) * 10**9),
        mock.patch("os.getpid", return_value=1),
    ):
        yield
