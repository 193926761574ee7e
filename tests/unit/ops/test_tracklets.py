"""Which alerts may move, and tracklets against what a simulated night holds."""

import json
from contextlib import contextmanager
from dataclasses import replace
from itertools import product

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from broker.alerts.columns import CANONICAL
from broker.cli import batch_tracklets
from broker.cli.main import cli
from broker.detection.tracklets import find_tracklets
from broker.errors import AlertError
from broker.ops.tracklets import SCHEMA, candidates, score_tracklets, tracklet_table
from broker.simulation.cadence import detector_wcs, night_visits
from broker.simulation.moving import NAME, movers_seen
from broker.simulation.settings import DEMO
from broker.store.alerts import AlertStore, create_tables
from broker.store.memory import MemoryTables
from broker.types import Run, night_of

SETTINGS = replace(DEMO, moving_density=1000.0)
OTHERS = 3
"""Others on each image."""


def alert(number, mjd, ra, dec, **more):
    return {
        "survey": "sim",
        "diaSourceId": str(number),
        "diaObjectId": str(number),
        "ssObjectId": None,
        "isPublic": True,
        "midpointMjdTai": mjd,
        "visit": 1,
        "detector": 0,
        "band": "r",
        "ra": ra,
        "dec": dec,
        "raErr": 0.1 / 3600.0,
        "decErr": 0.1 / 3600.0,
        "psfFlux": 100.0,
        "psfFluxErr": 2.0,
        "snr": 50.0,
        "reliability": 0.9,
        "isNegative": False,
        "isDipole": False,
        "flags": 0,
        "ageDays": 0.0,
        "history": [],
        "origin": {"topic": "alerts.sim", "partition": 0, "offset": number, "schemaId": 7},
    } | more


@pytest.fixture(scope="module")
def linked(simulated):
    among = candidates(simulated[0], "sim")
    return among, find_tracklets(among.detections)


@pytest.fixture(scope="module")
def simulated():
    """A night's alerts and its truth: the simulation's movers, measured, among others."""
    rng = np.random.default_rng(11)
    alerts, truth = [], []
    for visit, detector in product(night_visits(1, SETTINGS, 0), range(SETTINGS.detectors)):
        wcs = detector_wcs(SETTINGS, visit, detector)
        seen = movers_seen(1, SETTINGS, visit, wcs)
        inside = (seen.x > 0) & (seen.x < 1023) & (seen.y > 0) & (seen.y < 1023)
        places = [(seen.ra[i], seen.dec[i], seen.name[i]) for i in np.flatnonzero(inside)]
        truth += [
            {"transientId": f"{NAME}-{name}", "class": NAME, "visit": visit.visit, "ra": ra,
             "dec": dec, "midpointMjdTai": visit.midpoint_mjd_tai}
            for ra, dec, name in places
        ]  # fmt: skip
        ra, dec = wcs.pixel_to_sky(*rng.uniform(0.0, 1023.0, (2, OTHERS)))
        places += [(float(a), float(d), "") for a, d in zip(ra, dec, strict=True)]
        for ra, dec, _ in places:
            if rng.random() < 0.9:
                ra, dec = np.array([ra, dec]) + rng.normal(0.0, 0.1 / 3600.0, 2)
                more = {"visit": visit.visit}
                alerts.append(alert(len(alerts), visit.midpoint_mjd_tai, ra, dec, **more))
    return alerts, pa.Table.from_pylist(truth)


def test_the_movers_of_a_night_are_linked_completely_and_purely(simulated, linked):
    (_, truth), (among, found) = simulated, linked

    scores = score_tracklets(found, among, truth, max_rate=1.0)

    assert scores.movers > 20
    assert scores.completeness >= 0.9
    assert scores.purity >= 0.9
    assert scores.linked_detections >= 0.8 * scores.detections


def test_scores_fall_with_what_is_wrong(simulated, linked):
    (_, truth), (among, found) = simulated, linked

    none = score_tracklets([], among, truth, max_rate=1.0)
    nothing_moves = truth.set_column(1, "class", pa.array(["agn"] * truth.num_rows))
    false = score_tracklets(found, among, nothing_moves, max_rate=1.0)

    assert (none.linked, none.completeness) == (0, 0.0)
    assert np.isnan(none.purity)
    assert (false.pure, false.movers, false.others) == (0, 0, len(among.dia_source_ids))


def test_what_stands_or_is_not_real_is_no_candidate():
    rows = [
        alert(0, 61_000.0, 10.0, 5.0),
        alert(1, 61_000.0, 10.1, 5.0, isNegative=True),
        alert(2, 61_000.0, 10.2, 5.0, isDipole=True),
        alert(3, 61_000.0, 10.3, 5.0, reliability=0.2),
        alert(4, 61_000.0, 10.4, 5.0, ageDays=0.5),
        alert(5, 61_000.0, 10.5, 5.0, diaObjectId="a"),
        alert(6, 61_000.1, 10.5, 5.0, diaObjectId="a"),
        alert(7, 61_000.0, 10.6, 5.0, survey="ztf"),
        alert(8, 61_000.0, 10.7, 5.0, reliability=None, raErr=None, decErr=None),
        alert(9, 61_000.0, 10.8, 5.0, diaObjectId=None, ssObjectId="2015 XY"),
    ]

    among = candidates(rows, "sim")

    assert among.dia_source_ids == ("0", "8", "9")
    assert among.alerts == 9
    assert among.detections.err_arcsec == pytest.approx([0.1, 0.1, 0.1])


def test_the_command_writes_a_file_and_says_how_true_it_is(
    simulated, linked, tmp_path, monkeypatch
):
    alerts, truth = simulated
    tables, run = MemoryTables(), Run()
    create_tables(tables, run)
    batch = pa.Table.from_pylist(alerts, CANONICAL)
    some = pa.table({"m@1.0.0:x": pa.nulls(batch.num_rows, pa.int32())})
    AlertStore(tables, run).put(batch, outputs=some, topics=[[]] * len(alerts), provenance={})

    @contextmanager
    def in_memory(ctx):
        yield tables

    monkeypatch.setattr(batch_tracklets, "tables_of", in_memory)
    monkeypatch.setenv("BROKER_HOME", str(tmp_path))
    night = night_of(alerts[0]["midpointMjdTai"])
    (tmp_path / "truth" / "live").mkdir(parents=True)
    pq.write_table(truth, tmp_path / "truth" / "live" / f"{night}.parquet")
    typed = ["batch", "tracklets", "--night", night, "--json"]

    done = CliRunner().invoke(cli, [*typed, "--truth", "--out", str(tmp_path / "t.parquet")])

    assert done.exception is None, done.output
    said = json.loads(done.stdout)
    assert said["scores"]["completeness"] >= 0.9
    table = pq.read_table(tmp_path / "t.parquet")
    assert table.schema.equals(SCHEMA)
    assert table.num_rows == len(said["tracklets"]) == said["scores"]["tracklets"]
    same = tracklet_table(linked[1], linked[0])
    assert set(map(tuple, table["diaSourceIds"].to_pylist())) == set(
        map(tuple, same["diaSourceIds"].to_pylist())
    )

    other = CliRunner().invoke(cli, [*typed, "--survey", "ztf"])
    assert isinstance(other.exception, AlertError)
